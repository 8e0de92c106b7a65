// A checkpoint of a mobile plan with random masters and made-up scales, for tests that need no training.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "gemma4/model_folder.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat::testing {

// The scales of a checkpoint, free to be changed before it is written.
struct CheckpointScales {
  std::map<std::string, std::vector<float>> rows;  // by weight
  StaticScales edges;
};

class IntegerCheckpoint {
 public:
  explicit IntegerCheckpoint(const std::string& plan, const std::filesystem::path& tokenizer = {})
      : base_((write_tiny_model(folder_ / "base", tokenizer), folder_ / "base")),
        plan_(QuantPlan::load(plan).resolve(base_.table())) {}

  const std::filesystem::path& folder() const { return folder_.path(); }
  const ModelFolder& base() const { return base_; }
  const ResolvedPlan& plan() const { return plan_; }

  // All different, but for the slices of rows that the plan gives one scale.
  CheckpointScales good_scales() const {
    CheckpointScales scales;
    float next = 0.02F;
    const auto another = [&] { return next *= 1.0001F; };
    for (const WeightSpec& weight : base_.table().weights()) {
      const WeightPlan& rule = plan_.of(weight.name);
      if (!scheme(rule.scheme).has_row_scales()) continue;
      const int64_t shared = rule.one_scale_per_row ? weight.columns() / weight.scale_width : 1;
      for (int64_t i = 0; i < weight.row_scales(); ++i) {
        scales.rows[weight.name].push_back(i % shared == 0 ? another() : scales.rows[weight.name].back());
      }
      if (rule.quantizes_input) scales.edges.linears[weight.name] = {0, another()};
    }
    // Linears that read one activation have one scale for it.
    std::map<std::string, float> inputs;
    for (auto& [name, linear] : scales.edges.linears) {
      float& input = inputs[base_.table().find(name)->input_name()];
      if (input == 0) input = another();
      linear.input = input;
    }
    for (const LayerConfig& layer : base_.config().layers) {
      if (!layer.key_value_donor) scales.edges.caches[layer.index] = {another(), another()};
    }
    return scales;
  }

  // `change` may replace values of a master.
  std::filesystem::path write(const CheckpointScales& scales,
                              const std::function<void(const WeightSpec&, std::vector<BFloat16>&)>& change = {}) const {
    CheckpointContents contents;
    contents.base_folder = &base_.path();
    contents.base_tensors = &base_.tensors();
    contents.table = &base_.table();
    contents.plan = &plan_;
    for (const auto& [name, values] : scales.rows) contents.row_scales.emplace(name, values);
    contents.static_scales = scales.edges;
    contents.write_master = [&](const WeightSpec& weight, const auto& write_values) {
      std::vector<BFloat16> values = master(weight);
      if (change) change(weight, values);
      write_values(values);
    };
    write_checkpoint(folder_ / "checkpoint", contents);
    return folder_ / "checkpoint";
  }

  std::vector<BFloat16> master(const WeightSpec& weight) const {
    const auto* values = reinterpret_cast<const BFloat16*>(base_.masters().of(weight).bytes.data());
    return {values, values + weight.elements()};
  }

 private:
  TemporaryFolder folder_;
  ModelFolder base_;
  ResolvedPlan plan_;
};

}  // namespace qat::testing
