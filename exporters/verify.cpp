#include "exporters/verify.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/sha256.h"
#include "core/terminal.h"
#include "data/tokenizer.h"
#include "exporters/gguf_decoder.h"
#include "exporters/gguf_vocabulary.h"
#include "exporters/master_value.h"
#include "exporters/witness_caches.h"
#include "exporters/witness_logits.h"
#include "gemma4/witness.h"
#include "io/gguf.h"
#include "quant/grid.h"
#include "reference/reference_model.h"

namespace qat {

namespace {

constexpr int64_t kBlocksPerPiece = 1 << 13;

class GgufVerification {
 public:
  GgufVerification(const GgufFile& file, const ModelFolder& checkpoint, const std::optional<Witness>& witness,
                   VerifyReport& report)
      : file_(file), checkpoint_(checkpoint), witness_(witness), report_(report) {}

  void compare_weights() {
    int64_t total = 0;
    for (const GgufTensor& tensor : file_.tensors()) total += static_cast<int64_t>(tensor.bytes.size());
    Progress progress("verify", total, "B");
    std::set<std::string> expected;
    for (const WeightSpec& weight : checkpoint_.table().weights()) {
      expected.insert(weight.gguf_name);
      const GgufTensor* tensor = file_.find(weight.gguf_name);
      if (tensor == nullptr) {
        differ(weight.gguf_name, "is missing in the file");
      } else if (tensor->shape != weight.shape) {
        differ(weight.gguf_name, "has another shape");
      } else {
        compare(weight, *tensor);
        progress.advance(static_cast<int64_t>(tensor->bytes.size()));
      }
    }
    for (const GgufTensor& tensor : file_.tensors()) {
      if (tensor.name == "rope_freqs.weight") {
        compare_rope(tensor);
      } else if (!expected.contains(tensor.name)) {
        differ(tensor.name, "is in the file, but no weight of the model");
      }
    }
  }

  void compare_tokenizer() {
    const auto path = checkpoint_.path() / "tokenizer.json";
    if (!std::filesystem::exists(path)) return;
    const auto difference = first_differing_token(file_.metadata().texts(kGgufTokens), Tokenizer::load(path),
                                                  checkpoint_.config().vocabulary_size);
    if (difference) differ(kGgufTokens, *difference);
  }

  void compare_logits(const VerifyOptions& options) {
    ReferenceOptions reference{ArithmeticKind::Float, std::nullopt, options.threads};
    WitnessCaches caches(*witness_);
    if (checkpoint_.plan()->key_value_cache) {
      reference.cache = CacheType::Q8_0;
      reference.observer = &caches;
    }
    std::optional<GgufAdapter> adapter;
    if (!options.adapter.empty()) reference.adapter = &adapter.emplace(options.adapter);
    const auto model = make_reference_model(file_, reference);
    WitnessLogits logits(*witness_);
    logits.compare(*model, [&](int64_t position) { caches.start_prompt(position); });
    report_.cached_codes = caches.comparison().codes();
    report_.cached_codes_aside = caches.comparison().codes_aside();
    report_.witness_positions = logits.positions();
    report_.largest_logit_difference = logits.largest_difference();
    // Logits behind another cache say nothing more.
    if (const std::string fault = caches.comparison().fault(); !fault.empty()) return differ("key-value cache", fault);
    if (const std::string fault = logits.fault(); !fault.empty()) report_.differences.push_back(fault);
  }

 private:
  void differ(const std::string& what, const std::string& how) { report_.differences.push_back(what + ": " + how); }

  Scheme expected_scheme(const WeightSpec& weight) const {
    if (checkpoint_.plan()) return checkpoint_.plan()->of(weight.name).scheme;
    return is_matrix(weight.role) && weight.role != WeightRole::Router ? Scheme::BF16 : Scheme::F32;
  }

  void compare(const WeightSpec& weight, const GgufTensor& tensor) {
    const QuantScheme& wanted = scheme(expected_scheme(weight));
    if (tensor.scheme != wanted.id) {
      differ(tensor.name, join("is stored as ", scheme(tensor.scheme).name, ", the checkpoint trained ", wanted.name));
    } else if (wanted.is_quantized()) {
      compare_quantized(weight, tensor);
    } else {
      compare_plain(weight, tensor);
    }
    file_.release(tensor.bytes);
  }

  // Decodes a tensor piece by piece.
  template <class Visit>
  static void for_each_piece(const GgufTensor& tensor, const Visit& visit) {
    const auto piece = static_cast<size_t>(kBlocksPerPiece * scheme(tensor.scheme).block_bytes);
    for (size_t offset = 0; offset < tensor.bytes.size(); offset += piece) {
      visit(decode_for_verification(tensor.scheme,
                                    tensor.bytes.subspan(offset, std::min(piece, tensor.bytes.size() - offset))));
    }
  }

  void compare_quantized(const WeightSpec& weight, const GgufTensor& tensor) {
    report_.quantized_weights += 1;
    report_.blocks += tensor.elements() / scheme(tensor.scheme).block_size;
    const auto expected = witness_->digests.find(weight.name);
    if (expected == witness_->digests.end()) return differ(tensor.name, "the witness has no digest of it");

    Sha256 codes;
    Sha256 scales;
    Sha256 values;
    std::vector<BFloat16> matrix;
    for_each_piece(tensor, [&](const DecodedBlocks& piece) {
      matrix.resize(piece.values.size());
      std::transform(piece.values.begin(), piece.values.end(), matrix.begin(), to_bfloat16);
      codes.update(std::as_bytes(std::span(piece.codes)));
      scales.update(piece.scales);
      values.update(std::as_bytes(std::span(matrix)));
    });
    const WeightDigest found{codes.finish(), scales.finish(), values.finish()};
    if (found == expected->second) return;
    differ(tensor.name, differing_parts(found, expected->second) + " differ from what training used" + locate(weight, tensor));
  }

  // Where the file first leaves what the scalar rule makes of the checkpoint's master. Q4_0 and Q8_0.
  std::string locate(const WeightSpec& weight, const GgufTensor& tensor) const {
    if (tensor.scheme == Scheme::Q6_K) return "";
    const TensorView& master = checkpoint_.masters().of(weight);
    const auto stored = checkpoint_.stored_scales(weight.name);
    const int64_t blocks = tensor.elements() / grid::kBlock;
    const auto block_bytes = static_cast<size_t>(scheme(tensor.scheme).block_bytes);
    for (int64_t block = 0; block < blocks; ++block) {
      std::array<float, grid::kBlock> values{};
      for (int64_t i = 0; i < grid::kBlock; ++i) {
        values[static_cast<size_t>(i)] = to_float(to_bfloat16(master_value(master, block * grid::kBlock + i)));
      }
      const auto found = decode_for_verification(
          tensor.scheme, tensor.bytes.subspan(static_cast<size_t>(block) * block_bytes, block_bytes));
      if (matches(tensor.scheme, values, stored.empty() ? nullptr : &stored[static_cast<size_t>(block)], found))
        continue;
      const int64_t per_row = tensor.columns() / grid::kBlock;
      return join("; the file first leaves the checkpoint's masters at row ", block / per_row, ", block ",
                  block % per_row);
    }
    return "; the file equals what the rule makes of the checkpoint's masters, so training used another rule or other "
           "masters";
  }

  static bool matches(Scheme scheme_id, const std::array<float, grid::kBlock>& values, const Float16* stored,
                      const DecodedBlocks& found) {
    const float scale = stored != nullptr
                            ? to_float(*stored)
                            : (scheme_id == Scheme::Q4_0 ? grid::q4_0_scale(values) : grid::q8_0_scale(values));
    const Float16 stored_scale = stored != nullptr ? *stored : to_float16(scale);
    if (std::memcmp(found.scales.data(), &stored_scale, 2) != 0) return false;
    const float inverse = grid::inverse_scale(scale);
    for (size_t i = 0; i < values.size(); ++i) {
      const int code =
          scheme_id == Scheme::Q4_0 ? grid::q4_0_code(values[i], inverse) - 8 : grid::q8_0_code(values[i], inverse);
      if (found.codes[i] != code) return false;
    }
    return true;
  }

  void compare_plain(const WeightSpec& weight, const GgufTensor& tensor) {
    report_.unquantized_weights += 1;
    const TensorView& master = checkpoint_.masters().of(weight);
    const float offset = weight.role == WeightRole::Norm ? static_cast<float>(checkpoint_.config().norm_offset) : 0.0f;
    int64_t index = 0;
    std::optional<int64_t> first;
    for_each_piece(tensor, [&](const DecodedBlocks& piece) {
      for (const float value : piece.values) {
        if (!first && value != offset + master_value(master, index)) first = index;
        ++index;
      }
    });
    if (first) differ(tensor.name, join("element ", *first, " differs from the checkpoint's master"));
  }

  // 1 for the pairs that turn, 1e30 (so that the angle vanishes) for the others (gemma4_architecture.md 4.1).
  void compare_rope(const GgufTensor& tensor) {
    const auto full = std::find_if(checkpoint_.config().layers.begin(), checkpoint_.config().layers.end(),
                                   [](const LayerConfig& layer) { return layer.type == LayerType::Full; });
    const DecodedBlocks found = decode_for_verification(tensor.scheme, tensor.bytes);
    for (size_t pair = 0; pair < found.values.size(); ++pair) {
      const bool turns =
          full != checkpoint_.config().layers.end() && static_cast<int64_t>(pair) < full->rope.rotated_pairs;
      if (found.values[pair] != (turns ? 1.0f : 1e30f))
        return differ(tensor.name, join("entry ", pair, " is ", found.values[pair]));
    }
  }

  const GgufFile& file_;
  const ModelFolder& checkpoint_;
  const std::optional<Witness>& witness_;
  VerifyReport& report_;
};

}  // namespace

VerifyReport verify_gguf(const std::filesystem::path& artifact, const ModelFolder& checkpoint,
                         const VerifyOptions& options) {
  const GgufFile file(artifact);
  std::optional<Witness> witness;
  if (checkpoint.plan()) witness = Witness::load(checkpoint.path() / "witness.safetensors");

  VerifyReport report;
  GgufVerification verification(file, checkpoint, witness, report);
  verification.compare_weights();
  verification.compare_tokenizer();
  if (witness && options.run_model && report.equal()) verification.compare_logits(options);
  return report;
}

}  // namespace qat
