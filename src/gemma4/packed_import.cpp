#include "gemma4/packed_import.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/output_file.h"
#include "gemma4/model_folder.h"
#include "quant/block_codec.h"
#include "quant/grid.h"
#include "quant/packing.h"
#include "quant/row_codec.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

ResolvedPlan plan_of(const PackedFolder& folder) {
  ResolvedPlan plan;
  plan.name = "imported";
  for (const WeightSpec& spec : folder.table().weights()) {
    WeightPlan& rule = plan.weights[spec.name];
    if (!is_matrix(spec.role)) continue;
    rule.scheme = folder.weight(spec.name).values == nullptr ? Scheme::Q4_0 : Scheme::BF16;
    if (rule.scheme == Scheme::Q4_0) rule.scales = ScaleSource::Stored;
  }
  return plan;
}

// One row as BF16.
void decode_row(const PackedWeight& weight, size_t row, std::vector<BFloat16>& master) {
  const size_t columns = master.size();
  const auto codes = weight.codes.subspan(row * columns / 2, columns / 2);
  std::vector<int8_t> unpacked(columns);
  unpack_codes(Scheme::Int4, CodeBytes::Offset, codes, unpacked);
  std::vector<float> scales(columns / grid::kBlock);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = to_float(weight.scales[row * scales.size() + i]);
  decode_groups(unpacked, scales, grid::kBlock, master);
}

void convert_row(const TensorView& tensor, size_t row, std::vector<BFloat16>& master) {
  const size_t bytes = master.size() * static_cast<size_t>(element_bytes(tensor.type));
  const Scheme id = tensor.type == ElementType::BF16  ? Scheme::BF16
                    : tensor.type == ElementType::F16 ? Scheme::F16
                                                      : Scheme::F32;
  std::vector<float> values(master.size());
  decode_blocks(id, tensor.bytes.subspan(row * bytes, bytes), values);
  std::ranges::transform(values, master.begin(), [](float value) { return to_bfloat16(value); });
}

void write_master(const PackedWeight& weight, const WeightSpec& spec,
                  const std::function<void(std::span<const BFloat16>)>& write) {
  std::vector<BFloat16> master(static_cast<size_t>(spec.columns()));
  for (size_t row = 0; row < static_cast<size_t>(spec.rows()); ++row) {
    if (weight.values == nullptr) {
      decode_row(weight, row, master);
    } else {
      convert_row(*weight.values, row, master);
    }
    write(master);
  }
}

bool is_text(const PackedFolder& folder, const TensorView& tensor) {
  return tensor.name.starts_with(folder.prefix()) || tensor.name.find("lm_head.") != std::string::npos;
}

}  // namespace

void import_packed_folder(const PackedFolder& folder, const fs::path& out,
                          const std::function<void(const fs::path& folder)>& write_more) {
  const ResolvedPlan plan = plan_of(folder);
  CheckpointContents contents;
  contents.base_folder = &folder.path();
  contents.prefix = folder.prefix();
  for (const TensorView& tensor : folder.tensors().tensors()) {
    if (!is_text(folder, tensor)) contents.other_tensors.push_back(&tensor);
  }
  contents.table = &folder.table();
  contents.plan = &plan;
  contents.write_master = [&](const WeightSpec& spec, const std::function<void(std::span<const BFloat16>)>& write) {
    write_master(folder.weight(spec.name), spec, write);
  };
  for (const WeightSpec& spec : folder.table().weights()) {
    const PackedWeight& weight = folder.weight(spec.name);
    if (weight.values == nullptr) contents.stored_scales[spec.name] = weight.scales;
  }
  contents.write_more = [&](const fs::path& target) {
    auto config = nlohmann::ordered_json::parse(read_text_file(folder.path() / "config.json"));
    config.erase("quantization_config");
    write_file(target / "config.json", config.dump(2) + "\n");
    write_more(target);
  };
  write_checkpoint(out, contents);
}

}  // namespace qat
