#include "fake_quant/make_witness.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <iterator>

#include "core/error.h"
#include "fake_quant/tensor_values.h"
#include "model/apply_by_rows.h"
#include "model/chunked_head.h"

namespace qat {

namespace {

constexpr int64_t kLargestRecord = int64_t{32} << 20;  // bytes of codes
constexpr int64_t kFewestPositions = 4;                // per prompt

// Records what every static edge and cache quantizes, for its lifetime.
class Recording {
 public:
  Recording(const FakeQuantSet& fake_quant, Witness& witness) : fake_quant_(fake_quant) {
    for (const StaticEdge& edge : fake_quant_.edges) {
      edge.quantizer->record_into(&witness.edges[edge.quantizer->name()]);
    }
    for (const BlockCache& cache : fake_quant_.block_caches) {
      WitnessCache& target = witness.caches[cache.layer];
      cache.key->record_into(&target.keys);
      cache.value->record_into(&target.values);
    }
  }
  ~Recording() {
    for (const StaticEdge& edge : fake_quant_.edges) edge.quantizer->record_into(nullptr);
    for (const BlockCache& cache : fake_quant_.block_caches) {
      cache.key->record_into(nullptr);
      cache.value->record_into(nullptr);
    }
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  const FakeQuantSet& fake_quant_;
};

int64_t positions_per_prompt(const FakeQuantSet& fake_quant, size_t prompts) {
  int64_t bytes = 0;
  for (const StaticEdge& edge : fake_quant.edges) bytes += edge.width;
  if (bytes == 0) return kWitnessPositions;
  const int64_t fitting = kLargestRecord / (bytes * static_cast<int64_t>(std::max<size_t>(prompts, 1)));
  return std::clamp(fitting, kFewestPositions, kWitnessPositions);
}

// What is recorded of the logits that follow each row of hidden states. The head is made anew for every chunk of rows,
// in pieces: a BF16 run would not have the memory for all of it in fp32.
std::vector<WitnessPosition> witness_positions(const Gemma4Model& model, const std::vector<at::Tensor>& states) {
  if (states.empty()) return {};
  const at::Tensor hidden = at::cat(states);
  const int64_t chunk = std::max<int64_t>(1, kWitnessLogitsBytes / (4 * model.config().vocabulary_size));
  std::vector<WitnessPosition> positions;
  for (int64_t first = 0; first < hidden.size(0); first += chunk) {
    const at::Tensor rows = hidden.narrow(0, first, std::min(chunk, hidden.size(0) - first));
    const at::Tensor logits =
        on_cpu(logits_of_product(product_by_rows(model.head(), rows), model.config().final_logit_softcap)).contiguous();
    const auto values = values_of<const float>(logits);
    const auto width = static_cast<size_t>(logits.size(1));
    for (size_t row = 0; row < static_cast<size_t>(logits.size(0)); ++row) {
      positions.push_back(witness_position(values.subspan(row * width, width)));
    }
  }
  return positions;
}

}  // namespace

Witness make_witness(const Gemma4Model& model, const FakeQuantSet& fake_quant,
                     const std::vector<std::vector<int32_t>>& prompts) {
  const c10::NoGradGuard no_grad;
  QAT_CHECK(model.dtype() == at::kFloat);
  Witness witness;
  const auto most = static_cast<size_t>(positions_per_prompt(fake_quant, prompts.size()));
  std::vector<at::Tensor> hidden;
  const Recording recording(fake_quant, witness);
  for (const auto& prompt : prompts) {
    const auto count = std::min(prompt.size(), most);
    if (count == 0) continue;
    WitnessPrompt entry;
    entry.tokens.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(count));
    const std::vector<int64_t> ids(entry.tokens.begin(), entry.tokens.end());
    hidden.push_back(model.hidden_states(PackedTokens::single(at::tensor(ids, at::kLong).to(model.device()))));
    witness.prompts.push_back(std::move(entry));
  }
  auto positions = witness_positions(model, hidden);
  auto next = std::make_move_iterator(positions.begin());
  for (WitnessPrompt& prompt : witness.prompts) {
    const auto end = next + std::ssize(prompt.tokens);
    prompt.positions.assign(next, end);
    next = end;
  }
  witness.digests = fake_quant.digests();
  return witness;
}

}  // namespace qat
