#include "exporters/gguf_import.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/output_file.h"
#include "core/terminal.h"
#include "data/tokenizer.h"
#include "exporters/gguf_masters.h"
#include "exporters/gguf_vocabulary.h"
#include "exporters/row_pieces.h"
#include "gemma4/mobile_import.h"
#include "gemma4/model_folder.h"
#include "quant/block_codec.h"
#include "quant/magnitude.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

constexpr int64_t kPieceValues = int64_t{1} << 18;

ResolvedPlan plan_of(const GgufMasters& masters) {
  ResolvedPlan plan;
  plan.name = "imported";
  for (const WeightSpec& weight : masters.table().weights()) {
    WeightPlan& rule = plan.weights[weight.name];
    rule.scheme = masters.of(weight).scheme;
    if (rule.scheme == Scheme::Q4_0) rule.scales = ScaleSource::Stored;
    rule.frozen = is_table(weight.role) && (rule.scheme == Scheme::Q6_K || rule.scheme == Scheme::Q8_0);
  }
  return plan;
}

// The fp16 that every Q4_0 block begins with.
std::vector<Float16> scales_of(const GgufTensor& tensor) {
  const auto block_bytes = static_cast<size_t>(scheme(Scheme::Q4_0).block_bytes);
  std::vector<Float16> scales(tensor.bytes.size() / block_bytes);
  for (size_t i = 0; i < scales.size(); ++i) {
    std::memcpy(&scales[i], tensor.bytes.data() + i * block_bytes, sizeof(Float16));
  }
  return scales;
}

// Turns one weight into masters piece by piece, and encodes these as export will.
class MasterWriter {
 public:
  MasterWriter(const GgufMasters& masters, const WeightSpec& weight, std::span<const Float16> scales)
      : weight_(weight),
        tensor_(masters.of(weight)),
        row_(scheme(tensor_.scheme)),
        offset_(masters.offset_of(weight)),
        scales_(scales),
        where_(masters.file().where() + ": " + weight.gguf_name) {
    report_ = {weight.name, row_.id, tensor_.elements() / row_.block_size};
  }

  void write_rows(int64_t first, int64_t count, const std::function<void(std::span<const BFloat16>)>& write) {
    const auto from = static_cast<size_t>(first * weight_.columns() / row_.block_size);
    const auto blocks = static_cast<size_t>(count * weight_.columns() / row_.block_size);
    const auto block_bytes = static_cast<size_t>(row_.block_bytes);
    const auto bytes = tensor_.bytes.subspan(from * block_bytes, blocks * block_bytes);
    values_.resize(static_cast<size_t>(count * weight_.columns()));
    decode_blocks(row_.id, bytes, values_);
    master_.resize(values_.size());
    std::ranges::transform(values_, master_.begin(), [&](float value) { return to_bfloat16(value - offset_); });
    check_finite(first);
    encode_again(scales_.empty() ? scales_ : scales_.subspan(from, blocks));
    compare(bytes);
    write(master_);
  }

  ImportedTensor report() const {
    ImportedTensor report = report_;
    report.moved = squares_ > 0 ? std::sqrt(squared_moves_ / squares_) : 0.0;
    return report;
  }

 private:
  void check_finite(int64_t first_row) const {
    if (largest_magnitude(std::span<const BFloat16>(master_)) <= std::numeric_limits<float>::max()) return;
    const auto bad = std::ranges::find_if(master_, [](BFloat16 value) { return !std::isfinite(to_float(value)); });
    const int64_t index = bad - master_.begin();
    fail(where_, ": value at [", first_row + index / weight_.columns(), ", ", index % weight_.columns(), "] is ",
         values_[static_cast<size_t>(index)], ", which is no finite BF16 number");
  }

  void encode_again(std::span<const Float16> scales) {
    again_.resize(values_.size() / static_cast<size_t>(row_.block_size) * static_cast<size_t>(row_.block_bytes));
    if (offset_ == 0.0f) return encode_blocks(row_.id, std::span<const BFloat16>(master_), scales, again_);
    std::vector<float> stored(master_.size());
    std::ranges::transform(master_, stored.begin(), [&](BFloat16 value) { return offset_ + to_float(value); });
    encode_blocks(row_.id, std::span<const float>(stored), scales, again_);
  }

  void compare(std::span<const std::byte> bytes) {
    for (const float value : values_) squares_ += static_cast<double>(value) * value;
    const auto block_bytes = static_cast<size_t>(row_.block_bytes);
    std::vector<float> block(static_cast<size_t>(row_.block_size));
    for (size_t i = 0; i * block_bytes < bytes.size(); ++i) {
      const auto again = std::span<const std::byte>(again_).subspan(i * block_bytes, block_bytes);
      if (std::memcmp(bytes.data() + i * block_bytes, again.data(), block_bytes) == 0) continue;
      ++report_.changed;
      decode_blocks(row_.id, again, block);
      for (size_t j = 0; j < block.size(); ++j) {
        const double move = static_cast<double>(block[j]) - values_[i * block.size() + j];
        squared_moves_ += move * move;
      }
    }
  }

  const WeightSpec& weight_;
  const GgufTensor& tensor_;
  const QuantScheme& row_;
  float offset_;
  std::span<const Float16> scales_;  // of the whole weight; empty where the scheme has its rule
  std::string where_;
  ImportedTensor report_;
  double squares_ = 0;  // of the values, and of what export would move them by
  double squared_moves_ = 0;
  std::vector<float> values_;
  std::vector<BFloat16> master_;
  std::vector<std::byte> again_;
};

uint64_t bytes_of(const GgufMasters& masters) {
  uint64_t bytes = 0;
  for (const WeightSpec& weight : masters.table().weights()) bytes += masters.of(weight).bytes.size();
  return bytes;
}

nlohmann::ordered_json config_json(const fs::path& folder) {
  return nlohmann::ordered_json::parse(read_text_file(folder / "config.json"));
}

// How the other folder is quantized says nothing of this checkpoint.
void write_config(const fs::path& target) {
  auto config = config_json(target);
  if (config.erase("quantization_config") + config.erase(kTowerQuantization) == 0) return;
  write_file(target / "config.json", config.dump(2) + "\n");
}

std::optional<std::string> token_difference(const GgufMasters& masters, const fs::path& like) {
  const fs::path path = like / "tokenizer.json";
  if (!fs::exists(path)) return std::nullopt;
  return first_differing_token(masters.file().metadata().texts(kGgufTokens), Tokenizer::load(path),
                               masters.config().vocabulary_size, PieceSpaces::OfEitherKind);
}

}  // namespace

GgufImportReport import_gguf(const fs::path& file, const fs::path& like, const fs::path& out,
                             const std::function<void(const fs::path& folder)>& write_more) {
  const GgufMasters masters(file, like);
  GgufImportReport report;
  report.redundant = masters.redundant();
  report.token_difference = token_difference(masters, like);

  const ResolvedPlan plan = plan_of(masters);
  std::map<std::string, std::vector<Float16>, std::less<>> scales;
  CheckpointContents contents;
  contents.base_folder = &like;
  contents.prefix = config_json(like).contains("text_config") ? "model.language_model." : "model.";
  contents.table = &masters.table();
  contents.plan = &plan;
  for (const WeightSpec& weight : masters.table().weights()) {
    if (plan.of(weight.name).scales != ScaleSource::Stored) continue;
    contents.stored_scales[weight.name] = scales[weight.name] = scales_of(masters.of(weight));
  }
  Progress progress("import", static_cast<int64_t>(bytes_of(masters)), "B");
  contents.write_master = [&](const WeightSpec& weight, const std::function<void(std::span<const BFloat16>)>& write) {
    const auto stored = scales.find(weight.name);
    MasterWriter writer(masters, weight, stored == scales.end() ? std::span<const Float16>() : stored->second);
    for_row_pieces(weight, kPieceValues, [&](int64_t first, int64_t count) { writer.write_rows(first, count, write); });
    report.tensors.push_back(writer.report());
    masters.file().release(masters.of(weight).bytes);
    progress.advance(static_cast<int64_t>(masters.of(weight).bytes.size()));
  };
  contents.write_more = [&](const fs::path& target) {
    write_config(target);
    write_more(target);
  };
  write_checkpoint(out, contents);
  return report;
}

}  // namespace qat
