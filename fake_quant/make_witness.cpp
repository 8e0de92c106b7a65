#include "fake_quant/make_witness.h"

#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "core/error.h"

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

// The head with its weight made once: a model that converts its weights at every use would make it for every position.
Projection with_made_weight(Projection head) {
  head.weight = head.effective_weight();
  head.stored_master = nullptr;
  head.weight_delta = nullptr;
  head.weight_transform = nullptr;
  return head;
}

}  // namespace

Witness make_witness(const Gemma4Model& model, const FakeQuantSet& fake_quant,
                     const std::vector<std::vector<int32_t>>& prompts) {
  const c10::NoGradGuard no_grad;
  QAT_CHECK(model.dtype() == at::kFloat);
  Witness witness;
  const auto most = static_cast<size_t>(positions_per_prompt(fake_quant, prompts.size()));
  const Projection head = with_made_weight(model.head());
  const Recording recording(fake_quant, witness);
  for (const auto& prompt : prompts) {
    const auto count = std::min(prompt.size(), most);
    if (count == 0) continue;
    WitnessPrompt entry;
    entry.tokens.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(count));
    const std::vector<int64_t> ids(entry.tokens.begin(), entry.tokens.end());
    const at::Tensor hidden = model.hidden_states(PackedTokens::single(at::tensor(ids, at::kLong)));
    for (size_t i = 0; i < count; ++i) {
      const at::Tensor row = hidden.narrow(0, static_cast<int64_t>(i), 1);
      const at::Tensor logits = head_logits(head, model.config().final_logit_softcap, row).contiguous();
      entry.positions.push_back(
          witness_position({logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel())}));
    }
    witness.prompts.push_back(std::move(entry));
  }
  witness.digests = fake_quant.digests();
  return witness;
}

}  // namespace qat
