#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/sha256.h"
#include "core/terminal.h"
#include "exporters/master_value.h"
#include "exporters/verify.h"
#include "exporters/witness_edges.h"
#include "exporters/witness_logits.h"
#include "gemma4/witness.h"
#include "io/litertlm.h"
#include "reference/litertlm_model.h"
#include "reference/mobile_folder_model.h"
#include "reference/reference_model.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

constexpr int64_t kRowsPerPiece = 256;

// Code `lane` of packed bytes, by a rule of its own that shares nothing with the writers: lanes from the low bits up.
int8_t code_of(const WeightView& weight, std::span<const std::byte> bytes, size_t index) {
  const auto lanes = static_cast<size_t>(weight.scheme->block_size);
  const auto bits = 8 / lanes;
  const unsigned byte = std::to_integer<unsigned>(bytes[index / lanes]);
  const int stored = static_cast<int>((byte >> (index % lanes * bits)) & ((1U << bits) - 1));
  const int half = 1 << (bits - 1);
  if (bits < 8 && weight.code_bytes == CodeBytes::Offset) return static_cast<int8_t>(stored - half);
  return static_cast<int8_t>(stored >= half ? stored - 2 * half : stored);
}

class MobileVerification {
 public:
  MobileVerification(const ReferenceWeights& artifact, const ModelFolder& checkpoint, const Witness& witness,
                     VerifyReport& report)
      : artifact_(artifact), checkpoint_(checkpoint), witness_(witness), report_(report) {}

  void compare_weights() {
    Progress progress("verify", std::ssize(checkpoint_.table().weights()), "weights");
    for (const WeightSpec& weight : checkpoint_.table().weights()) {
      if (!is_matrix(weight.role)) {
        compare_vector(weight);
      } else {
        compare_matrix(weight);
      }
      progress.advance(1);
    }
    if (checkpoint_.config().tied_head) {
      const WeightSpec& table = *checkpoint_.table().find("embed_tokens.weight");
      if (scheme(checkpoint_.plan()->of(table.name).scheme).has_row_scales()) {
        compare_codes(table, {artifact_.weight("lm_head.weight")}, "lm_head.weight");
      }
    }
    compare_static_scales();
  }

  void compare_logits(const WitnessEdges& edges, const WitnessLogits& logits) {
    report_.edge_codes = edges.comparison().codes();
    report_.edge_codes_aside = edges.comparison().codes_aside();
    report_.witness_positions = logits.positions();
    report_.largest_logit_difference = logits.largest_difference();
    // Logits behind other activations say nothing more.
    if (const std::string fault = edges.comparison().fault(); !fault.empty())
      return differ("static activations", fault);
    if (const std::string fault = logits.fault(); !fault.empty()) report_.differences.push_back(fault);
  }

 private:
  void differ(const std::string& what, const std::string& how) { report_.differences.push_back(what + ": " + how); }

  void compare_matrix(const WeightSpec& weight) {
    const bool is_quantized = scheme(checkpoint_.plan()->of(weight.name).scheme).has_row_scales();
    if (weight.role == WeightRole::PerLayerEmbedding && is_quantized) {
      return compare_codes(weight, artifact_.per_layer_tables(), weight.name);
    }
    const WeightView& stored = artifact_.weight(weight.name);
    if (!is_quantized) return compare_values(weight, stored);
    if (stored.scheme->has_row_scales()) return compare_codes(weight, {stored}, weight.name);
    if (weight.role != WeightRole::PerLayerModelProjection) return differ(weight.name, "is not quantized in the file");
    report_.inexact.push_back(weight.name +
                              ": the format holds it as BF16(code * scale), without its static activations");
  }

  // `parts` lie side by side: the slices of a table's rows.
  void compare_codes(const WeightSpec& weight, const std::vector<WeightView>& parts, const std::string& name) {
    const Scheme wanted = checkpoint_.plan()->of(weight.name).scheme;
    int64_t columns = 0;
    for (const WeightView& part : parts) {
      columns += part.columns();
      if (part.scheme->id != wanted) {
        return differ(name, join("is ", part.scheme->name, " in the file, the plan says ", scheme(wanted).name));
      }
      if (part.rows() != weight.rows()) return differ(name, "has another shape");
    }
    if (columns != weight.columns()) return differ(name, "has another shape");
    const auto expected = witness_.digests.find(weight.name);
    if (expected == witness_.digests.end()) return differ(name, "the witness has no digest of it");
    report_.quantized_weights += 1;
    report_.blocks += weight.row_scales();
    const WeightDigest found = digest(weight, parts);
    if (found == expected->second) return;
    differ(name, differing_parts(found, expected->second) + " differ from what training used");
  }

  WeightDigest digest(const WeightSpec& weight, const std::vector<WeightView>& parts) const {
    Sha256 codes_digest;
    Sha256 scales_digest;
    Sha256 values_digest;
    std::vector<int8_t> codes;
    std::vector<float> scales;
    std::vector<float> values;
    for (int64_t first = 0; first < weight.rows(); first += kRowsPerPiece) {
      codes.clear();
      scales.clear();
      values.clear();
      for (int64_t row = first; row < std::min(first + kRowsPerPiece, weight.rows()); ++row) {
        for (const WeightView& part : parts) add_row(part, row, weight.scale_width, codes, scales, values);
      }
      codes_digest.update(std::as_bytes(std::span(codes)));
      scales_digest.update(std::as_bytes(std::span(scales)));
      values_digest.update(std::as_bytes(std::span(values)));
    }
    return {codes_digest.finish(), scales_digest.finish(), values_digest.finish()};
  }

  static void add_row(const WeightView& part, int64_t row, int64_t scale_width, std::vector<int8_t>& codes,
                      std::vector<float>& scales, std::vector<float>& values) {
    const auto bytes = part.row_blocks(row);
    for (int64_t column = 0; column < part.columns(); ++column) {
      const float scale = part.scales[static_cast<size_t>((row * part.columns() + column) / part.scale_width)];
      if (column % scale_width == 0) scales.push_back(scale);
      codes.push_back(code_of(part, bytes, static_cast<size_t>(column)));
      values.push_back(static_cast<float>(codes.back()) * scale);
    }
  }

  void compare_values(const WeightSpec& weight, const WeightView& stored) {
    report_.unquantized_weights += 1;
    const TensorView& master = checkpoint_.masters().of(weight);
    if (stored.scheme->has_row_scales())
      return differ(weight.name, "is quantized in the file, the plan leaves it whole");
    if (stored.columns() != weight.columns() || stored.rows() != weight.rows())
      return differ(weight.name, "has another shape");
    std::vector<float> row(static_cast<size_t>(weight.columns()));
    for (int64_t i = 0; i < weight.rows(); ++i) {
      decode_rows(stored, i, 1, row);
      for (int64_t column = 0; column < weight.columns(); ++column) {
        if (row[static_cast<size_t>(column)] == master_value(master, i * weight.columns() + column)) continue;
        return differ(weight.name, join("row ", i, ", column ", column, " differs from the checkpoint's master"));
      }
    }
  }

  void compare_vector(const WeightSpec& weight) {
    report_.unquantized_weights += 1;
    const std::vector<float> found = artifact_.vector(weight.name);
    const TensorView& master = checkpoint_.masters().of(weight);
    const float offset = weight.role == WeightRole::Norm ? static_cast<float>(checkpoint_.config().norm_offset) : 0.0f;
    if (std::ssize(found) != weight.elements()) return differ(weight.name, "has another shape");
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i] == offset + master_value(master, static_cast<int64_t>(i))) continue;
      return differ(weight.name, join("element ", i, " differs from the checkpoint's master"));
    }
  }

  void compare_static_scales() {
    for (const auto& [name, wanted] : checkpoint_.static_scales().linears) {
      const WeightView& stored = artifact_.weight(name);
      if (!stored.scheme->has_row_scales() || stored.edges == wanted) continue;
      differ(name, join("static scales are ", stored.edges.input, " and ", stored.edges.output, ", training used ",
                        wanted.input, " and ", wanted.output));
    }
    for (const auto& [layer, wanted] : checkpoint_.static_scales().caches) {
      const CacheScales found = artifact_.cache_scales(layer);
      if (found == wanted) continue;
      differ(join("cache of layer ", layer), join("scales are ", found.key, " and ", found.value, ", training used ",
                                                  wanted.key, " and ", wanted.value));
    }
  }

  const ReferenceWeights& artifact_;
  const ModelFolder& checkpoint_;
  const Witness& witness_;
  VerifyReport& report_;
};

template <class File>
VerifyReport verify_mobile(const File& file, const ReferenceWeights& artifact, const ModelFolder& checkpoint,
                           const VerifyOptions& options) {
  if (!checkpoint.plan()) fail(checkpoint.path().string(), ": is no quantized checkpoint");
  const Witness witness = Witness::load(checkpoint.path() / "witness.safetensors");
  VerifyReport report;
  MobileVerification verification(artifact, checkpoint, witness, report);
  verification.compare_weights();
  if (!options.run_model || !report.equal() || !report.inexact.empty()) return report;
  WitnessEdges edges(witness, artifact);
  ReferenceOptions reference{ArithmeticKind::Float, std::nullopt, options.threads};
  reference.linears = &edges;
  if (checkpoint.plan()->key_value_cache == Scheme::Int8) reference.observer = &edges;
  const auto model = make_reference_model(file, reference);
  WitnessLogits logits(witness);
  logits.compare(*model, [&](int64_t position) { edges.start_prompt(position); });
  verification.compare_logits(edges, logits);
  return report;
}

void compare_text(const std::string& found, const fs::path& wanted, VerifyReport& report) {
  if (!fs::exists(wanted) || found == read_text_file(wanted)) return;
  report.differences.push_back(wanted.filename().string() + ": differs from the checkpoint's");
}

}  // namespace

VerifyReport verify_mobile_folder(const fs::path& artifact, const ModelFolder& checkpoint,
                                  const VerifyOptions& options) {
  const MobileFolder folder(artifact);
  const MobileFolderModel weights(folder);
  VerifyReport report = verify_mobile(folder, weights, checkpoint, options);
  if (fs::exists(artifact / "tokenizer.json")) {
    compare_text(read_text_file(artifact / "tokenizer.json"), checkpoint.path() / "tokenizer.json", report);
  }
  // Other modalities travel through untouched.
  for (const TensorView& tensor : checkpoint.tensors().tensors()) {
    if (checkpoint.masters().weight_of(tensor) != nullptr) continue;
    if (tensor.name.starts_with(checkpoint.masters().prefix()) &&
        checkpoint.table().is_redundant(tensor.name.substr(checkpoint.masters().prefix().size()))) {
      continue;
    }
    const TensorView* found = folder.tensors().find(tensor.name);
    if (found == nullptr || found->type != tensor.type || !std::ranges::equal(found->bytes, tensor.bytes)) {
      report.differences.push_back(tensor.name + ": is missing or differs from the checkpoint's");
    }
  }
  return report;
}

VerifyReport verify_litertlm(const fs::path& artifact, const ModelFolder& checkpoint, const VerifyOptions& options) {
  const LitertlmFile file(artifact);
  const LitertlmModel weights(file);
  VerifyReport report = verify_mobile(file, weights, checkpoint, options);
  if (const auto* section = file.find(LitertlmSectionType::HfTokenizerZlib)) {
    compare_text(decompress_tokenizer(section->bytes, artifact.string()), checkpoint.path() / "tokenizer.json", report);
  }
  return report;
}

}  // namespace qat
