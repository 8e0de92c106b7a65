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
#include "model/attention_passes.h"
#include "model/bfloat16_attention.h"

namespace qat {

namespace {

constexpr int64_t kFewestQueriesOfPiece = 16;
constexpr int64_t kMostQueriesOfPiece = 256;
// Bounds the gradients of keys that exist at a time: every piece has its own before they are added.
constexpr int64_t kMostRepeats = 8;

// Consecutive queries of one document and the keys that any of them sees; `repeats` such pieces follow one another,
// each `queries` positions further on, with as many keys.
struct Piece {
  int64_t first_query;
  int64_t queries;
  int64_t first_key;
  int64_t keys;
  bool causal_only;  // queries and keys are the same positions and only causality limits them
  int64_t repeats = 1;
};

void add_piece(std::vector<Piece>& pieces, const Piece& piece) {
  if (!pieces.empty()) {
    Piece& last = pieces.back();
    const int64_t offset = last.repeats * last.queries;
    if (!piece.causal_only && !last.causal_only && last.repeats < kMostRepeats && piece.queries == last.queries &&
        piece.keys == last.keys && piece.first_query == last.first_query + offset &&
        piece.first_key == last.first_key + offset) {
      ++last.repeats;
      return;
    }
  }
  pieces.push_back(piece);
}

std::vector<Piece> pieces_of(const AttentionReach& reach) {
  std::vector<Piece> pieces;
  const int64_t past = reach.past;
  // A quarter of the window wastes little work on masked scores and still fills the kernels.
  const int64_t step = reach.window == 0 ? kMostQueriesOfPiece
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
      add_piece(pieces, {first, queries, first_key, past + first + queries - first_key, false});
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

// The parts of a piece's operands that one kernel call takes, as views: [repeats, key-value heads, group, positions,
// d]. A group's keys have stride 0 and the keys of repeated pieces overlap, so nothing is copied.
at::Tensor queries_of(const at::Tensor& x, const Piece& piece, int64_t key_value_heads) {
  const int64_t heads = x.size(1);
  const int64_t d = x.size(2);
  const int64_t group = heads / key_value_heads;
  return x.as_strided({piece.repeats, key_value_heads, group, piece.queries, d},
                      {piece.queries * heads * d, group * d, d, heads * d, 1},
                      x.storage_offset() + piece.first_query * heads * d);
}

at::Tensor keys_of(const at::Tensor& x, const Piece& piece, int64_t group) {
  const int64_t heads = x.size(1);
  const int64_t d = x.size(2);
  return x.as_strided({piece.repeats, heads, group, piece.keys, d}, {piece.queries * heads * d, d, 0, heads * d, 1},
                      x.storage_offset() + piece.first_key * heads * d);
}

// Log-sum-exps [T, heads] of a piece: [repeats, key-value heads, group, queries].
at::Tensor log_sums_of(const at::Tensor& x, const Piece& piece, int64_t key_value_heads) {
  return queries_of(x.unsqueeze(2), piece, key_value_heads).squeeze(4);
}

// A kernel call has one batch dimension: the key-value heads of a single piece, or the repeats of one key-value head.
struct Batch {
  int64_t dimension;  // of the five that is fixed
  int64_t index;
  at::Tensor operator()(const at::Tensor& x) const { return x.select(dimension, index); }
};

std::vector<Batch> batches_of(const Piece& piece, int64_t key_value_heads) {
  if (piece.repeats == 1) return {{0, 0}};
  std::vector<Batch> batches;
  for (int64_t head = 0; head < key_value_heads; ++head) batches.push_back({1, head});
  return batches;
}

// Adds gradients of the keys of one batch, [batch, positions, d] summed over their groups, where they belong.
void add_to_keys(at::Tensor& total, const at::Tensor& gradient, const Piece& piece, const Batch& batch) {
  for (int64_t i = 0; i < gradient.size(0); ++i) {
    const int64_t repeat = batch.dimension == 0 ? 0 : i;
    const int64_t head = batch.dimension == 0 ? i : batch.index;
    total.narrow(0, piece.first_key + repeat * piece.queries, piece.keys).select(1, head).add_(gradient.select(0, i));
  }
}

// The operands are fp32: CPUs without BF16 instructions are ten times faster so.
Attended attend_in_pieces(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                          const AttentionReach& reach, double scale) {
  const int64_t heads = query.size(1);
  const int64_t key_value_heads = key.size(1);
  Attended result{at::empty(query.sizes(), query.options()), at::empty({query.size(0), heads}, query.options())};
  Masks masks(reach);
  for (const Piece& piece : pieces_of(reach)) {
    const auto mask = masks.of(piece, query.options());
    for (const Batch& batch : batches_of(piece, key_value_heads)) {
      const auto [part, part_log_sums] = at::_scaled_dot_product_flash_attention_for_cpu(
          batch(queries_of(query, piece, key_value_heads)), batch(keys_of(key, piece, heads / key_value_heads)),
          batch(keys_of(value, piece, heads / key_value_heads)), 0.0, piece.causal_only, mask, scale);
      batch(queries_of(result.output, piece, key_value_heads)).copy_(part);
      batch(log_sums_of(result.log_sums, piece, key_value_heads)).copy_(part_log_sums);
    }
  }
  return result;
}

AttentionGradients differentiate_in_pieces(const AttentionOperands& operands, const AttentionReach& reach,
                                           double scale) {
  const auto& [query, key, value, forward, gradient] = operands;
  const int64_t heads = query.size(1);
  const int64_t key_value_heads = key.size(1);
  AttentionGradients result{at::empty(query.sizes(), query.options()), at::zeros(key.sizes(), key.options()),
                            at::zeros(value.sizes(), value.options())};
  Masks masks(reach);
  for (const Piece& piece : pieces_of(reach)) {
    const auto mask = masks.of(piece, query.options());
    for (const Batch& batch : batches_of(piece, key_value_heads)) {
      // The kernel wants the layout it returned: groups innermost.
      const at::Tensor log_sums =
          batch(log_sums_of(forward.log_sums, piece, key_value_heads)).transpose(1, 2).contiguous().transpose(1, 2);
      const auto [part_query, part_key, part_value] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          batch(queries_of(gradient, piece, key_value_heads)), batch(queries_of(query, piece, key_value_heads)),
          batch(keys_of(key, piece, heads / key_value_heads)), batch(keys_of(value, piece, heads / key_value_heads)),
          batch(queries_of(forward.output, piece, key_value_heads)), log_sums, 0.0, piece.causal_only, mask, scale);
      batch(queries_of(result.query, piece, key_value_heads)).copy_(part_query);
      add_to_keys(result.key, part_key.sum(1), piece, batch);
      add_to_keys(result.value, part_value.sum(1), piece, batch);
    }
  }
  return result;
}

// The type in which a pass computes.
at::ScalarType type_of_pass(const at::Tensor& query, const AttentionReach& reach) {
  return has_bfloat16_attention(query, reach) ? at::kBFloat16 : at::kFloat;
}

at::Tensor operand(const at::Tensor& x, at::ScalarType type) { return x.detach().to(type).contiguous(); }

class CpuAttention : public torch::autograd::Function<CpuAttention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value, const AttentionReach& reach, double scale) {
    const at::ScalarType type = type_of_pass(query, reach);
    const auto attend = type == at::kBFloat16 ? attend_in_bfloat16 : attend_in_pieces;
    const auto result = attend(operand(query, type), operand(key, type), operand(value, type), reach, scale);
    const at::Tensor output = result.output.to(query.scalar_type());
    context->saved_data["starts"] = reach.document_starts;
    context->saved_data["window"] = reach.window;
    context->saved_data["past"] = reach.past;
    context->saved_data["scale"] = scale;
    context->save_for_backward({query, key, value, output, result.log_sums});
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const AttentionReach reach{context->saved_data["starts"].toIntVector(), context->saved_data["window"].toInt(),
                               context->saved_data["past"].toInt()};
    const at::ScalarType type = type_of_pass(saved[0], reach);
    const AttentionOperands operands{operand(saved[0], type),
                                     operand(saved[1], type),
                                     operand(saved[2], type),
                                     {operand(saved[3], type), saved[4]},
                                     operand(gradients[0], type)};
    const auto differentiate = type == at::kBFloat16 ? differentiate_in_bfloat16 : differentiate_in_pieces;
    const auto [of_query, of_key, of_value] = differentiate(operands, reach, context->saved_data["scale"].toDouble());
    const auto dtype = saved[0].scalar_type();
    return {of_query.to(dtype), of_key.to(dtype), of_value.to(dtype), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const AttentionReach& reach, double scale) {
  QAT_CHECK(!reach.document_starts.empty() && reach.document_starts.back() == query.size(0));
  QAT_CHECK(key.size(0) == reach.past + query.size(0) && key.sizes() == value.sizes());
  QAT_CHECK(reach.past == 0 || reach.document_starts.size() == 2);
  if (!query.device().is_cpu()) return attention_of_any_device(query, key, value, reach, scale);
  return CpuAttention::apply(query, key, value, reach, scale);
}

at::Tensor attention_of_any_device(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                   const AttentionReach& reach, double scale) {
  const int64_t heads = query.size(1);
  const int64_t key_value_heads = key.size(1);
  // [key-value heads, group, positions, d]
  const auto shaped = [&](const at::Tensor& x, int64_t first, int64_t count) {
    const at::Tensor rows = x.narrow(0, first, count).reshape({count, key_value_heads, -1, x.size(-1)});
    return rows.permute({1, 2, 0, 3}).expand({-1, heads / key_value_heads, -1, -1});
  };
  std::vector<at::Tensor> outputs;
  Masks masks(reach);
  for (const Piece& piece : pieces_of(reach)) {
    for (int64_t repeat = 0; repeat < piece.repeats; ++repeat) {
      const int64_t offset = repeat * piece.queries;
      const at::Tensor output = at::scaled_dot_product_attention(
          shaped(query, piece.first_query + offset, piece.queries), shaped(key, piece.first_key + offset, piece.keys),
          shaped(value, piece.first_key + offset, piece.keys), masks.of(piece, query.options().requires_grad(false)),
          0.0, piece.causal_only, scale);
      outputs.push_back(output.permute({2, 0, 1, 3}).reshape({piece.queries, heads, query.size(-1)}));
    }
  }
  return at::cat(outputs);
}

}  // namespace qat
