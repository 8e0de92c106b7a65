// Loss and KL on data that is not trained on.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "model/gemma4_model.h"
#include "trainers/training_data.h"

namespace qat {

// What KL is measured to: the reference model's final hidden states at the trained positions, and its head as BF16. Its
// logits are recomputed chunk by chunk, so that a second model need not stay in memory.
class ReferenceStates {
 public:
  // Runs `model` as it stands: to be made before fake quantization is attached. `keeps_head`: the model's head neither
  // changes nor ends before this, so that it need not be copied where it is BF16.
  ReferenceStates(const Gemma4Model& model, const std::vector<TrainingBatch>& batches, bool keeps_head,
                  ProcessGroup& group);

  const at::Tensor& hidden(size_t batch) const { return hidden_[batch]; }
  const at::Tensor& head() const { return head_; }

 private:
  std::vector<at::Tensor> hidden_;
  at::Tensor head_;
};

struct HeldOutResult {
  double loss = 0;           // mean -log p(next token) over the trained positions
  std::optional<double> kl;  // mean KL(reference || model) over them, with a reference
  int64_t positions = 0;
};

// Of the batches of all processes, each of which gives its share. Nothing if Ctrl-C came in between.
std::optional<HeldOutResult> evaluate_held_out(const Gemma4Model& model, const std::vector<TrainingBatch>& batches,
                                               const ReferenceStates* reference, ProcessGroup& group);

}  // namespace qat
