// What a run starts from: a model folder with weights, or a bare config.json with a tokenizer.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

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

  // True for matrices of a folder's layers that the plan quantizes: what fill() packs with lora.base = packed.
  bool can_be_packed(const WeightSpec& weight) const;
  bool packs(const WeightSpec& weight) const { return packs_base_ && can_be_packed(weight); }
  // Those of the named weights, which must never change, that a model of this dtype can leave in the folder's files.
  WeightChoice readable_in_file(const std::vector<std::string>& unchanged, at::ScalarType dtype) const;
  // These and the packed ones: what a model to be filled need not allocate.
  WeightChoice without_memory(const std::vector<std::string>& unchanged, at::ScalarType dtype) const;
  // Loads or draws the weights, and packs them one after another; `filled` may then put something else in the place of
  // a parameter that the model did not allocate.
  void fill(Gemma4Model& model, uint64_t seed,
            const std::function<void(const WeightSpec&, Projection&)>& filled = {}) const;
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
  void pack(const WeightSpec& weight, Projection& projection, at::ScalarType dtype) const;

  std::filesystem::path path_;
  Gemma4Config config_;
  WeightTable table_;
  std::optional<ModelFolder> folder_;
  std::optional<ResolvedPlan> plan_;
  RowScaleMethod row_method_ = RowScaleMethod::Searched;
  BlockScaleMethod block_method_ = BlockScaleMethod::Rule;
  Keep keep_ = Keep::Values;
  bool packs_base_ = false;
};

// Names of the weights that must not change: all but the roles of `parameters`, or, without such, the plan's frozen ones
// (see freeze_tables) and the roles of `freeze`. Throws Error (usage) if nothing is left to train, or if the model has no
// weight of a role in `parameters`.
std::vector<std::string> frozen_weights(const TrainConfig& config, const BaseModel& base);

// Of these and what a run trains: the weights that stay as they are, all of them beside adapters.
std::vector<std::string> unchanged_weights(const TrainConfig& config, const BaseModel& base,
                                           const std::vector<std::string>& frozen);

}  // namespace qat
