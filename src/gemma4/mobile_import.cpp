#include "gemma4/mobile_import.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"
#include "core/output_file.h"
#include "gemma4/model_folder.h"
#include "quant/block_codec.h"
#include "quant/packing.h"
#include "quant/row_codec.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

constexpr const char* kTable = "embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

bool head_repeats_table(const MobileFolder& folder) {
  if (folder.config().tied_head) return true;
  const MobileWeight& table = folder.weight(kTable);
  const MobileWeight& head = folder.weight(kHead);
  return table.scheme == head.scheme && std::ranges::equal(table.bytes, head.bytes) &&
         std::ranges::equal(table.scales, head.scales) && head.edges == LinearScales{};
}

Gemma4Config config_of_checkpoint(const MobileFolder& folder) {
  Gemma4Config config = folder.config();
  config.tied_head = head_repeats_table(folder);
  return config;
}

void write_master(const MobileWeight& weight, const WeightSpec& spec,
                  const std::function<void(std::span<const BFloat16>)>& write) {
  const int64_t columns = spec.columns();
  const auto row_bytes = static_cast<size_t>(weight.scheme->row_bytes(columns));
  std::vector<int8_t> codes(static_cast<size_t>(columns));
  std::vector<float> values(codes.size());
  std::vector<BFloat16> master(codes.size());
  const auto per_row = static_cast<size_t>(columns / spec.scale_width);
  for (int64_t row = 0; row < spec.rows(); ++row) {
    const auto bytes = weight.bytes.subspan(static_cast<size_t>(row) * row_bytes, row_bytes);
    if (weight.scheme->has_row_scales()) {
      unpack_codes(weight.scheme->id, CodeBytes::Offset, bytes, codes);
      decode_groups(codes, weight.scales.subspan(static_cast<size_t>(row) * per_row, per_row), spec.scale_width,
                    values);
    } else {
      decode_blocks(weight.scheme->id, bytes, values);
    }
    std::ranges::transform(values, master.begin(), to_bfloat16);
    write(master);
  }
}

bool is_text(const MobileFolder& folder, const TensorView& tensor) {
  return tensor.name.starts_with(folder.prefix()) || tensor.name.find("lm_head.") != std::string::npos;
}

// The base model's config, without the folder's own quantization; what concerns other modalities is set aside.
nlohmann::ordered_json checkpoint_config(const MobileFolder& folder, bool has_other_modalities) {
  auto config = nlohmann::ordered_json::parse(read_text_file(folder.path() / "config.json"));
  if (has_other_modalities) {
    nlohmann::ordered_json towers{{"module_quant_configs", nlohmann::ordered_json::object()},
                                  {"modules_to_not_convert", nlohmann::ordered_json::array()}};
    const auto& quantization = config["quantization_config"];
    if (quantization.contains("module_quant_configs")) {
      for (const auto& item : quantization["module_quant_configs"].items()) {
        if (item.key().find("tower") != std::string::npos) towers["module_quant_configs"][item.key()] = item.value();
      }
    }
    if (quantization.contains("modules_to_not_convert")) {
      towers["modules_to_not_convert"] = quantization["modules_to_not_convert"];
    }
    config[kTowerQuantization] = towers;
  }
  config.erase("quantization_config");
  const bool tied = head_repeats_table(folder);
  config["tie_word_embeddings"] = tied;
  if (config.contains("text_config")) config["text_config"]["tie_word_embeddings"] = tied;
  return config;
}

}  // namespace

ResolvedPlan plan_of_mobile_folder(const MobileFolder& folder, const WeightTable& table) {
  ResolvedPlan plan;
  plan.name = "imported";
  for (const WeightSpec& spec : table.weights()) {
    const MobileWeight& weight = folder.weight(spec.name);
    WeightPlan& rule = plan.weights[spec.name];
    if (!is_matrix(spec.role)) continue;
    rule.scheme = weight.scheme->has_row_scales() ? weight.scheme->id : Scheme::BF16;
    if (!weight.scheme->has_row_scales()) continue;
    rule.scales = ScaleSource::Stored;
    rule.frozen = spec.role == WeightRole::PerLayerEmbedding;
    rule.one_scale_per_row = groups_share_scales(weight.scales, spec.columns() / spec.scale_width);
    rule.quantizes_input = weight.edges.input > 0;
    rule.quantizes_output = weight.edges.output > 0;
  }
  if (!folder.static_scales().caches.empty()) plan.key_value_cache = Scheme::Int8;
  return plan;
}

void import_mobile_folder(const MobileFolder& folder, const fs::path& out,
                          const std::function<void(const fs::path& folder)>& write_more) {
  const WeightTable table(config_of_checkpoint(folder));
  const ResolvedPlan plan = plan_of_mobile_folder(folder, table);
  CheckpointContents contents;
  contents.base_folder = &folder.path();
  contents.prefix = folder.prefix();
  for (const TensorView& tensor : folder.tensors().tensors()) {
    if (!is_text(folder, tensor)) contents.other_tensors.push_back(&tensor);
  }
  contents.table = &table;
  contents.plan = &plan;
  contents.write_master = [&](const WeightSpec& spec, const std::function<void(std::span<const BFloat16>)>& write) {
    write_master(folder.weight(spec.name), spec, write);
  };
  for (const WeightSpec& spec : table.weights()) {
    if (scheme(plan.of(spec.name).scheme).has_row_scales())
      contents.row_scales[spec.name] = folder.weight(spec.name).scales;
  }
  contents.static_scales = folder.static_scales();
  contents.write_more = [&](const fs::path& target) {
    const auto config = checkpoint_config(folder, !contents.other_tensors.empty());
    write_file(target / "config.json", config.dump(2) + "\n");
    write_more(target);
  };
  write_checkpoint(out, contents);
}

}  // namespace qat
