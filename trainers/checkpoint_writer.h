// Writes a model in training as a checkpoint folder (gemma4/model_folder.h), with its witness.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "fake_quant/prepare.h"
#include "model/gemma4_model.h"
#include "trainers/base_model.h"

namespace qat {

class CheckpointWriter {
 public:
  // `base` must outlive the writer.
  CheckpointWriter(const BaseModel& base, std::vector<std::vector<int32_t>> witness_prompts)
      : base_(base), witness_prompts_(std::move(witness_prompts)) {}

  // The folder appears when it is complete. training.json in it says the step. For the witness, whose logits have
  // fp32 activations, the weights of a BF16 model are converted one at a time.
  void write(const std::filesystem::path& folder, const Gemma4Model& model, FakeQuantSet& fake_quant,
             int64_t step) const;

 private:
  const BaseModel& base_;
  std::vector<std::vector<int32_t>> witness_prompts_;
};

}  // namespace qat
