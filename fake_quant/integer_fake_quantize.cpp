#include "fake_quant/integer_fake_quantize.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "fake_quant/aten_values.h"
#include "fake_quant/tensor_values.h"
#include "quant/row_codec.h"

namespace qat {

namespace {

constexpr int64_t kPiece = int64_t{1} << 15;  // values a thread takes at a time

// Consecutive values of one group.
struct Piece {
  int64_t group;
  size_t first;
  size_t count;
};

// Calls run(piece) for pieces that cover all values; long groups come in several.
template <class Run>
void for_pieces(int64_t groups, int64_t width, const Run& run) {
  const int64_t parts = (width + kPiece - 1) / kPiece;
  const int64_t grain = std::max<int64_t>(1, kPiece / std::min(width, kPiece));
  at::parallel_for(0, groups * parts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t offset = i % parts * kPiece;
      const int64_t count = std::min(kPiece, width - offset);
      run(i, Piece{i / parts, static_cast<size_t>(i / parts * width + offset), static_cast<size_t>(count)});
    }
  });
}

// Calls run(values of `Value`'s type) for the tensor's element type: BFloat16 or float.
template <class Run>
auto with_value_type(const at::Tensor& tensor, const Run& run) {
  if (tensor.scalar_type() == at::kBFloat16) return run(BFloat16{});
  QAT_CHECK(tensor.scalar_type() == at::kFloat);
  return run(float{});
}

struct IntegerFakeQuantize : torch::autograd::Function<IntegerFakeQuantize> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input, const at::Tensor&,
                            const at::Tensor& scales, int64_t scheme_id, int64_t width, const at::Tensor& value) {
    context->save_for_backward({input, scales});
    context->saved_data["scheme"] = scheme_id;
    context->saved_data["width"] = width;
    // A view, so that the node never owns the cached tensor itself.
    return value.alias();
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto id = static_cast<Scheme>(context->saved_data["scheme"].toInt());
    const int64_t width = context->saved_data["width"].toInt();
    const auto features = static_cast<double>(std::min(width, saved[0].size(-1)));
    const double factor = 1.0 / std::sqrt(features * scheme(id).code_max);
    if (!saved[0].device().is_cpu()) {
      const IntegerGradients found = integer_gradients_in_aten(id, saved[0], gradients[0], saved[1], width);
      const at::Tensor of_scales = found.of_scales.mul(factor).mul_(saved[1].to(at::kDouble)).to(at::kFloat);
      return {found.masked, of_scales, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
    }
    const at::Tensor input = saved[0].contiguous();
    const at::Tensor incoming = gradients[0].to(input.scalar_type()).contiguous();
    const auto scales = values_of<const float>(saved[1]);
    at::Tensor masked = at::empty_like(input);
    const auto groups = static_cast<int64_t>(scales.size());
    const int64_t parts = (width + kPiece - 1) / kPiece;
    std::vector<double> sums(static_cast<size_t>(groups * parts));
    with_value_type(input, [&]<class Value>(Value) {
      const auto values = values_of<const Value>(input), gradient = values_of<const Value>(incoming);
      const auto results = values_of<Value>(masked);
      for_pieces(groups, width, [&](int64_t index, const Piece& piece) {
        sums[static_cast<size_t>(index)] =
            scale_gradient(id, values.subspan(piece.first, piece.count), gradient.subspan(piece.first, piece.count),
                           scales[static_cast<size_t>(piece.group)], results.subspan(piece.first, piece.count));
      });
    });
    at::Tensor of_scales;
    if (context->needs_input_grad(1)) {
      of_scales = at::zeros_like(saved[1]);
      auto* target = of_scales.mutable_data_ptr<float>();
      for (int64_t group = 0; group < groups; ++group) {
        double sum = 0;
        for (int64_t part = 0; part < parts; ++part) sum += sums[static_cast<size_t>(group * parts + part)];
        target[group] = static_cast<float>(sum * factor * static_cast<double>(scales[static_cast<size_t>(group)]));
      }
    }
    return {masked.view(saved[0].sizes()), of_scales, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor integer_values(Scheme id, const at::Tensor& input, const at::Tensor& scales, int64_t width) {
  const c10::NoGradGuard no_grad;
  QAT_CHECK(scales.is_contiguous() && scales.numel() * width == input.numel());
  if (!input.device().is_cpu()) return integer_values_in_aten(id, input, scales, width);
  const at::Tensor source = input.detach().contiguous();
  at::Tensor result = at::empty_like(source);
  const auto all_scales = values_of<const float>(scales);
  with_value_type(source, [&]<class Value>(Value) {
    const auto values = values_of<const Value>(source);
    const auto results = values_of<Value>(result);
    for_pieces(scales.numel(), width, [&](int64_t, const Piece& piece) {
      fake_quantize_group(id, values.subspan(piece.first, piece.count), all_scales[static_cast<size_t>(piece.group)],
                          results.subspan(piece.first, piece.count));
    });
  });
  return result;
}

at::Tensor integer_fake_quantize(Scheme id, const at::Tensor& input, const at::Tensor& log_change,
                                 const at::Tensor& scales, int64_t width, const at::Tensor& value) {
  QAT_CHECK(input.sizes() == value.sizes() && input.dtype() == value.dtype());
  return IntegerFakeQuantize::apply(input, log_change, scales, static_cast<int64_t>(id), width, value.detach());
}

}  // namespace qat
