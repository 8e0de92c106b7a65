// LoRA: the adapters of a model in training. Each stands in a slot of its weight, whose master is frozen: before the
// quantizer (lora_delta.h), or beside the product (lora_branch.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "gemma4/adapter_folder.h"
#include "model/gemma4_model.h"
#include "trainers/adamw.h"
#include "trainers/base_model.h"
#include "trainers/lora_branch.h"
#include "trainers/lora_delta.h"
#include "trainers/train_config.h"

namespace qat {

class LoraAdapters {
 public:
  struct Adapter {
    WeightSpec weight;
    at::Tensor a;  // [rank, in], fp32
    at::Tensor b;  // [out, rank], fp32
    std::shared_ptr<LoraDelta> delta;    // through the quantizer,
    std::shared_ptr<LoraBranch> branch;  // or beside it: the other one is null

    // How much each rank component counts from now on, fp32 [rank] on any device.
    void count_components(const at::Tensor& counts) const;
  };

  // No adapters: full-parameter training.
  LoraAdapters() = default;
  // None yet, for a filled model. `base` and `model` must outlive this. `seed`: of the first A and of dropout.
  LoraAdapters(const BaseModel& base, Gemma4Model& model, const AdapterSettings& settings, uint64_t seed);

  // An adapter that changes nothing yet: B is zero, A uniform within 1 / sqrt(in) as PEFT draws it.
  void add(const WeightSpec& weight);
  // All adapters of a folder. Throws Error if they were trained on another base.
  void add(const AdapterFolder& folder);

  bool empty() const { return adapters_.empty(); }
  const std::vector<Adapter>& adapters() const { return adapters_; }
  // A and B of all, with requires_grad set.
  std::vector<TrainedWeight> trained_weights() const;

  // Whether merged values stay between uses, as at first (LoraDelta).
  void keep_merged(bool wanted);

  // Dropout: leaves out rank components until changed(). Which ones follows from seed, step and weight. Returns whether
  // merged weights changed.
  bool drop_components(int64_t steps_done);
  // To call after A and B changed (an optimizer step): all components count again.
  void changed();

  // A folder in PEFT's format. `base_name`: what the base model is called in it.
  void save(const std::filesystem::path& folder, const std::string& base_name) const;

 private:
  void attach(const WeightSpec& weight, const at::Tensor& a, const at::Tensor& b);
  std::string base_digest() const;

  const BaseModel* base_ = nullptr;
  Gemma4Model* model_ = nullptr;
  AdapterSettings settings_;
  uint64_t seed_ = 0;
  std::vector<Adapter> adapters_;
};

// The adapters that `config.lora` asks for; none for rank 0. `frozen`: weights that must not change. Throws Error
// (usage) for a role that the model does not have or that is frozen, and for a folder of adapters with other settings
// or weights.
LoraAdapters attach_lora(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& frozen,
                         Gemma4Model& model);

}  // namespace qat
