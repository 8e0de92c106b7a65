// What a run starts from: a model folder with weights, or a bare config.json with a tokenizer.
#pragma once

#include <filesystem>
#include <optional>

#include "fake_quant/prepare.h"
#include "gemma4/model_folder.h"
#include "gemma4/quant_plan.h"
#include "model/gemma4_model.h"
#include "trainers/train_config.h"

namespace qat {

class BaseModel {
 public:
  // Reads descriptions and maps weights. Throws Error for a folder that is no model, and for a plan that does not fit
  // it.
  explicit BaseModel(const TrainConfig& config);

  const std::filesystem::path& path() const { return path_; }
  const Gemma4Config& config() const { return config_; }
  const WeightTable& table() const { return table_; }
  // Null for random initial weights.
  const ModelFolder* folder() const { return folder_ ? &*folder_ : nullptr; }
  // Null for plain fine-tuning.
  const ResolvedPlan* plan() const { return plan_ ? &*plan_ : nullptr; }

  // Loads or draws the weights.
  void fill(Gemma4Model& model, uint64_t seed) const;
  // Attaches the plan's fake quantizers to a filled model; an empty set without a plan. Scales come from the folder
  // where it has them. Static edges may still need calibration.
  FakeQuantSet attach_fake_quant(Gemma4Model& model) const;
  // The same with the present scales of another set of the same plan.
  FakeQuantSet attach_fake_quant(Gemma4Model& model, const FakeQuantSet& like) const;
  // Scales that the checkpoint brings for a weight whose plan says `stored`.
  std::span<const Float16> stored_scales(const std::string& weight) const;

 private:
  KnownScales scales_of_folder() const;
  FakeQuantSet attach(Gemma4Model& model, const KnownScales& known) const;

  std::filesystem::path path_;
  Gemma4Config config_;
  WeightTable table_;
  std::optional<ModelFolder> folder_;
  std::optional<ResolvedPlan> plan_;
  RowScaleMethod row_method_ = RowScaleMethod::Searched;
  BlockScaleMethod block_method_ = BlockScaleMethod::Rule;
  Keep keep_ = Keep::Values;
};

// Names of the weights that must not change: all but the roles of `parameters`, or, without such, the plan's frozen ones
// (see freeze_tables) and the roles of `freeze`. Throws Error (usage) if nothing is left to train, or if the model has no
// weight of a role in `parameters`.
std::vector<std::string> frozen_weights(const TrainConfig& config, const BaseModel& base);

}  // namespace qat
