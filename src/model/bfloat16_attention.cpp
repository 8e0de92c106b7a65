#include "model/bfloat16_attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "model/bfloat16_attention_passes.h"
#include "model/bfloat16_tensors.h"
#include "model/cpu_instructions.h"

namespace qat {

namespace {

class Bfloat16Attention : public torch::autograd::Function<Bfloat16Attention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value, const AttentionReach& reach, double scale) {
    const at::Tensor q = query.detach().contiguous();
    const at::Tensor k = key.detach().contiguous();
    const at::Tensor v = value.detach().contiguous();
    const auto [output, log_sums] = attention_tiles::attend(attention_tiles::shape_of(q, k, scale), q, k, v, reach);
    context->saved_data["starts"] = reach.document_starts;
    context->saved_data["window"] = reach.window;
    context->saved_data["scale"] = scale;
    context->save_for_backward({query, key, value, output, log_sums});
    return output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto operand = [&](size_t i) { return saved[i].detach().contiguous(); };
    const attention_tiles::Operands operands{
        operand(0), operand(1), operand(2), {operand(3), operand(4)}, gradients[0].contiguous()};
    const AttentionReach reach{context->saved_data["starts"].toIntVector(), context->saved_data["window"].toInt(), 0};
    const auto shape = attention_tiles::shape_of(operands.query, operands.key, context->saved_data["scale"].toDouble());
    const auto [of_query, of_key, of_value] = attention_tiles::differentiate(shape, operands, reach);
    return {of_query, of_key, of_value, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

bool has_bfloat16_attention(const at::Tensor& query, const AttentionReach& reach) {
  return cpu_multiplies_bfloat16_blocks() && is_bfloat16_on_cpu(query) && reach.past == 0 && query.size(2) % 2 == 0;
}

at::Tensor bfloat16_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                              const AttentionReach& reach, double scale) {
  QAT_CHECK(has_bfloat16_attention(query, reach) && scale > 0);
  return Bfloat16Attention::apply(query, key, value, reach, scale);
}

}  // namespace qat
