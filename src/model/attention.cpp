#include "model/attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>

#include "core/error.h"

namespace qat {

namespace {

constexpr int64_t kFewestQueriesOfPiece = 16;
constexpr int64_t kMostQueriesOfPiece = 256;

// Consecutive queries of one document and the keys that any of them sees.
struct Piece {
  int64_t first_query;
  int64_t queries;
  int64_t first_key;
  int64_t keys;
  bool causal_only;  // queries and keys are the same positions and only causality limits them
};

std::vector<Piece> pieces_of(const AttentionReach& reach) {
  std::vector<Piece> pieces;
  const int64_t past = reach.past;
  // A quarter of the window wastes little work on masked scores and still fills the kernels.
  const int64_t step = reach.window == 0
                           ? kMostQueriesOfPiece
                           : std::clamp(reach.window / 4, kFewestQueriesOfPiece, kMostQueriesOfPiece);
  for (size_t d = 0; d + 1 < reach.document_starts.size(); ++d) {
    const int64_t begin = reach.document_starts[d];
    const int64_t end = reach.document_starts[d + 1];
    if (past == 0 && (reach.window == 0 || end - begin <= reach.window)) {
      pieces.push_back({begin, end - begin, begin, end - begin, true});
      continue;
    }
    for (int64_t first = begin; first < end; first += step) {
      const int64_t queries = std::min(step, end - first);
      const int64_t oldest = past > 0 ? 0 : begin;
      const int64_t first_key = reach.window == 0 ? oldest : std::max(oldest, past + first - reach.window + 1);
      pieces.push_back({first, queries, first_key, past + first + queries - first_key, false});
    }
  }
  return pieces;
}

// Additive masks of pieces: 0 where visible, -inf elsewhere. Equal pieces, the usual case, share one.
class Masks {
 public:
  explicit Masks(const AttentionReach& reach) : reach_(reach) {}

  std::optional<at::Tensor> of(const Piece& piece, const at::TensorOptions& options) {
    // A single query sees all keys of its piece.
    if (piece.causal_only || piece.queries == 1) return std::nullopt;
    const int64_t shift = reach_.past + piece.first_query - piece.first_key;
    const auto wanted = std::tuple(piece.queries, piece.keys, shift);
    if (!mask_.defined() || wanted != shape_) {
      at::Tensor visible = at::ones({piece.queries, piece.keys}, options.dtype(at::kBool)).tril(shift);
      if (reach_.window > 0) visible = visible.triu(shift - reach_.window + 1);
      mask_ = at::zeros({piece.queries, piece.keys}, options)
                  .masked_fill_(visible.logical_not(), -std::numeric_limits<double>::infinity());
      shape_ = wanted;
    }
    return mask_;
  }

 private:
  const AttentionReach& reach_;
  at::Tensor mask_;
  std::tuple<int64_t, int64_t, int64_t> shape_;
};

// [n, heads, d] -> [key-value heads, group, n, d]: key-value heads take the place of the batch, so that a group's keys are a
// view with stride 0 and nothing is copied.
at::Tensor by_group(const at::Tensor& x, int64_t first, int64_t count, int64_t key_value_heads) {
  const at::Tensor rows = x.narrow(0, first, count);
  return rows.view({count, key_value_heads, -1, x.size(-1)}).permute({1, 2, 0, 3});
}

at::Tensor shared_by_group(const at::Tensor& x, int64_t first, int64_t count, int64_t group) {
  const at::Tensor rows = x.narrow(0, first, count).permute({1, 0, 2}).unsqueeze(1);
  return rows.expand({-1, group, -1, -1});
}

// Part of the flat buffer of log-sum-exps that belongs to a piece, in the layout of the kernel.
at::Tensor log_sums_of(const at::Tensor& buffer, const Piece& piece, int64_t heads, int64_t key_value_heads) {
  return buffer.narrow(0, piece.first_query * heads, piece.queries * heads)
      .view({key_value_heads, piece.queries, heads / key_value_heads})
      .transpose(1, 2);
}

AttentionReach reach_from(torch::autograd::AutogradContext* context) {
  return {context->saved_data["starts"].toIntVector(), context->saved_data["window"].toInt(),
          context->saved_data["past"].toInt()};
}

// Computes in fp32 whatever the dtype: CPUs without BF16 instructions are ten times faster so.
class PiecewiseAttention : public torch::autograd::Function<PiecewiseAttention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value, const AttentionReach& reach, double scale) {
    const at::Tensor q = query.to(at::kFloat).contiguous();
    const at::Tensor k = key.to(at::kFloat).contiguous();
    const at::Tensor v = value.to(at::kFloat).contiguous();
    const int64_t heads = q.size(1);
    const int64_t key_value_heads = k.size(1);
    at::Tensor output = at::empty(q.sizes(), q.options());
    at::Tensor log_sums = at::empty({q.size(0) * heads}, q.options());
    Masks masks(reach);
    for (const Piece& piece : pieces_of(reach)) {
      const auto [part, part_log_sums] = at::_scaled_dot_product_flash_attention_for_cpu(
          by_group(q, piece.first_query, piece.queries, key_value_heads),
          shared_by_group(k, piece.first_key, piece.keys, heads / key_value_heads),
          shared_by_group(v, piece.first_key, piece.keys, heads / key_value_heads), 0.0, piece.causal_only,
          masks.of(piece, q.options()), scale);
      by_group(output, piece.first_query, piece.queries, key_value_heads).copy_(part);
      log_sums_of(log_sums, piece, heads, key_value_heads).copy_(part_log_sums);
    }
    output = output.to(query.scalar_type());
    context->saved_data["starts"] = reach.document_starts;
    context->saved_data["window"] = reach.window;
    context->saved_data["past"] = reach.past;
    context->saved_data["scale"] = scale;
    context->save_for_backward({query, key, value, output, log_sums});
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto in_float = [](const at::Tensor& x) { return x.detach().to(at::kFloat).contiguous(); };
    const at::Tensor q = in_float(saved[0]);
    const at::Tensor k = in_float(saved[1]);
    const at::Tensor v = in_float(saved[2]);
    const at::Tensor output = in_float(saved[3]);
    const at::Tensor gradient = in_float(gradients[0]);
    const AttentionReach reach = reach_from(context);
    const int64_t heads = q.size(1);
    const int64_t key_value_heads = k.size(1);
    at::Tensor of_query = at::empty(q.sizes(), q.options());
    at::Tensor of_key = at::zeros(k.sizes(), k.options());
    at::Tensor of_value = at::zeros(v.sizes(), v.options());
    Masks masks(reach);
    for (const Piece& piece : pieces_of(reach)) {
      const auto [part_query, part_key, part_value] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          by_group(gradient, piece.first_query, piece.queries, key_value_heads),
          by_group(q, piece.first_query, piece.queries, key_value_heads),
          shared_by_group(k, piece.first_key, piece.keys, heads / key_value_heads),
          shared_by_group(v, piece.first_key, piece.keys, heads / key_value_heads),
          by_group(output, piece.first_query, piece.queries, key_value_heads),
          log_sums_of(saved[4], piece, heads, key_value_heads), 0.0, piece.causal_only, masks.of(piece, q.options()),
          context->saved_data["scale"].toDouble());
      by_group(of_query, piece.first_query, piece.queries, key_value_heads).copy_(part_query);
      of_key.narrow(0, piece.first_key, piece.keys).add_(part_key.sum(1).transpose(0, 1));
      of_value.narrow(0, piece.first_key, piece.keys).add_(part_value.sum(1).transpose(0, 1));
    }
    const auto dtype = saved[0].scalar_type();
    return {of_query.to(dtype), of_key.to(dtype), of_value.to(dtype), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const AttentionReach& reach,
                     double scale) {
  QAT_CHECK(!reach.document_starts.empty() && reach.document_starts.back() == query.size(0));
  QAT_CHECK(key.size(0) == reach.past + query.size(0) && key.sizes() == value.sizes());
  QAT_CHECK(reach.past == 0 || reach.document_starts.size() == 2);
  if (!query.device().is_cpu()) return attention_of_any_device(query, key, value, reach, scale);
  return PiecewiseAttention::apply(query, key, value, reach, scale);
}

at::Tensor attention_of_any_device(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                   const AttentionReach& reach, double scale) {
  const int64_t heads = query.size(1);
  const int64_t key_value_heads = key.size(1);
  std::vector<at::Tensor> outputs;
  Masks masks(reach);
  for (const Piece& piece : pieces_of(reach)) {
    const at::Tensor output = at::scaled_dot_product_attention(
        by_group(query.contiguous(), piece.first_query, piece.queries, key_value_heads),
        shared_by_group(key, piece.first_key, piece.keys, heads / key_value_heads),
        shared_by_group(value, piece.first_key, piece.keys, heads / key_value_heads),
        masks.of(piece, query.options().requires_grad(false)), 0.0, piece.causal_only, scale);
    outputs.push_back(output.permute({2, 0, 1, 3}).reshape({piece.queries, heads, query.size(-1)}));
  }
  return at::cat(outputs);
}

}  // namespace qat
