#include "model/experts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/split_with_sizes.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/unbind.h>

#include <vector>

#include "model/gated_gelu.h"
#include "model/weight_product.h"

namespace qat {

namespace {

// Rows sorted by expert, `counts[e]` of them for expert e, each through its expert's matrix.
at::Tensor multiply_by_expert(const at::Tensor& rows, const std::vector<int64_t>& counts,
                              const Projection& projection) {
  const at::Tensor input = projection.input_transform ? projection.input_transform->apply(rows) : rows;
  // unbind's backward writes each expert's gradient once; selecting one by one would allocate the whole stack every
  // time.
  const std::vector<at::Tensor> matrices = at::unbind(projection.effective_weight());
  const std::vector<at::Tensor> groups = at::split_with_sizes(input, counts);
  std::vector<at::Tensor> outputs;
  for (size_t expert = 0; expert < groups.size(); ++expert) {
    if (counts[expert] > 0) outputs.push_back(multiply_by_weight(groups[expert], matrices[expert]));
  }
  const at::Tensor output = at::cat(outputs);
  return projection.output_transform ? projection.output_transform->apply(output) : output;
}

}  // namespace

ExpertChoice choose_experts(const at::Tensor& normed, const Projection& router, const at::Tensor& expert_scale,
                            int64_t experts_per_token) {
  const at::Tensor probabilities = at::softmax(router(normed), -1, at::kFloat);
  const auto [best, experts] = at::topk(probabilities, experts_per_token, -1);
  const at::Tensor shares = best / best.sum(-1, true);
  // A lookup, since the backward pass of indexing is not deterministic on every device.
  const at::Tensor scales = at::embedding(expert_scale.unsqueeze(1), experts).squeeze(-1);
  return {experts, shares * scales};
}

at::Tensor run_experts(const at::Tensor& x, const ExpertChoice& choice, int64_t experts, const Projection& gate_up,
                       const Projection& down) {
  const int64_t tokens = x.size(0);
  const int64_t per_token = choice.experts.size(1);
  const at::Tensor assigned = choice.experts.reshape({-1});
  const at::Tensor order = at::argsort(assigned, /*stable=*/true, 0, false);
  const at::Tensor counted = at::bincount(assigned, {}, experts).to(at::kCPU);
  const std::vector<int64_t> counts(counted.const_data_ptr<int64_t>(), counted.const_data_ptr<int64_t>() + experts);

  // One copy of a token per chosen expert, so that sorting is a permutation and its backward pass never adds.
  const at::Tensor copies =
      x.unsqueeze(1).expand({tokens, per_token, x.size(1)}).reshape({tokens * per_token, x.size(1)});
  const at::Tensor gate_and_up = multiply_by_expert(copies.index_select(0, order), counts, gate_up);
  const int64_t width = gate_and_up.size(1) / 2;
  const at::Tensor inner = gated_gelu(gate_and_up.narrow(1, 0, width), gate_and_up.narrow(1, width, width));
  const at::Tensor sorted = multiply_by_expert(inner, counts, down);

  const at::Tensor restored = sorted.index_select(0, at::argsort(order)).view({tokens, per_token, -1});
  return (restored * choice.weights.unsqueeze(-1)).sum(1).to(x.scalar_type());
}

}  // namespace qat
