#include "trainers/held_out.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <functional>

#include "core/terminal.h"
#include "model/chunked_head.h"

namespace qat {

namespace {

at::Tensor trained_hidden_states(const Gemma4Model& model, const TrainingBatch& batch) {
  return model.hidden_states(batch.input).index_select(0, batch.trained_positions());
}

// Calls visit(index) for the batches of this process until one of the group gives false, and takes part in the passes
// of those that have more. Returns whether none gave false.
bool for_each_batch(const Gemma4Model& model, const std::vector<TrainingBatch>& batches, ProcessGroup& group,
                    const std::function<bool(size_t)>& visit) {
  for (size_t i = 0; group.any(i < batches.size()); ++i) {
    bool goes_on = true;
    if (i < batches.size()) {
      goes_on = visit(i);
    } else {
      model.lend_weights();
    }
    if (group.any(!goes_on)) return false;
  }
  return true;
}

struct Sums {
  double loss = 0;
  double kl = 0;
};

void add_batch(const Gemma4Model& model, const TrainingBatch& batch, const at::Tensor& reference_hidden,
               const Projection& reference_head, Sums& sums) {
  const at::Tensor hidden = trained_hidden_states(model, batch);
  const at::Tensor targets = batch.targets.index_select(0, batch.trained_positions());
  const double softcap = model.config().final_logit_softcap;
  std::optional<ChunkedLogits> reference;
  if (reference_hidden.defined()) reference.emplace(reference_head, softcap, reference_hidden);
  ChunkedLogits(model.head(), softcap, hidden).for_each([&](const at::Tensor& logits, int64_t first) {
    const int64_t rows = logits.size(0);
    const at::Tensor log_p = at::log_softmax(logits, -1);
    sums.loss -= at::gather(log_p, 1, targets.narrow(0, first, rows).unsqueeze(1)).sum().item<double>();
    if (!reference) return;
    const at::Tensor log_q = at::log_softmax(reference->rows(first, rows), -1);
    sums.kl += (log_q.exp() * (log_q - log_p)).sum().item<double>();
  });
}

}  // namespace

ReferenceStates::ReferenceStates(const Gemma4Model& model, const std::vector<TrainingBatch>& batches, bool keeps_head,
                                 ProcessGroup& group) {
  const at::NoGradGuard no_grad;
  for_each_batch(model, batches, group, [&](size_t i) {
    hidden_.push_back(trained_hidden_states(model, batches[i]));
    return true;
  });
  head_ = model.head().weight.detach().to(at::kBFloat16, /*non_blocking=*/false, /*copy=*/!keeps_head);
}

std::optional<HeldOutResult> evaluate_held_out(const Gemma4Model& model, const std::vector<TrainingBatch>& batches,
                                               const ReferenceStates* reference, ProcessGroup& group) {
  const at::NoGradGuard no_grad;
  Sums sums;
  int64_t positions = 0;
  Projection head;
  if (reference != nullptr) head.weight = reference->head().to(model.dtype());
  const bool finished = for_each_batch(model, batches, group, [&](size_t i) {
    add_batch(model, batches[i], reference == nullptr ? at::Tensor() : reference->hidden(i), head, sums);
    positions += batches[i].trained_tokens;
    return !interrupt_requested();
  });
  if (!finished) return std::nullopt;
  const std::vector<double> totals = group.sum({sums.loss, sums.kl, static_cast<double>(positions)});
  HeldOutResult result{totals[0] / totals[2], std::nullopt, static_cast<int64_t>(totals[2])};
  if (reference != nullptr) result.kl = totals[1] / totals[2];
  return result;
}

}  // namespace qat
