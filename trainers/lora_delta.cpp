#include "trainers/lora_delta.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/float_types.h"
#include "fake_quant/tensor_values.h"

namespace qat {

namespace {

// Columns that are summed at a time: as many fp32 values as the smallest vector registers hold together.
constexpr int64_t kColumns = 64;

float widened(float value) { return value; }
float widened(BFloat16 value) { return to_float(value); }

void store(float& target, BFloat16 value) { target = to_float(value); }
void store(BFloat16& target, BFloat16 value) { target = value; }

// merged = bf16(master + scaling * b A) for one row: `b` [rank], `a` [rank, columns]. Every column adds up its
// components in their order.
template <class Value>
void merge_row(std::span<const Value> master, std::span<const float> a, std::span<const float> b, float scaling,
               std::span<Value> merged) {
  const auto columns = static_cast<int64_t>(master.size());
  for (int64_t first = 0; first < columns; first += kColumns) {
    std::array<float, kColumns> sums{};
    const int64_t count = std::min(kColumns, columns - first);
    for (size_t component = 0; component < b.size(); ++component) {
      const float factor = b[component];
      const float* row = a.data() + static_cast<int64_t>(component) * columns + first;
      if (count == kColumns) {  // a count that the compiler knows, for vector instructions
        for (int64_t i = 0; i < kColumns; ++i) sums[static_cast<size_t>(i)] += factor * row[i];
      } else {
        for (int64_t i = 0; i < count; ++i) sums[static_cast<size_t>(i)] += factor * row[i];
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(first + i);
      store(merged[at], to_bfloat16(widened(master[at]) + scaling * sums[static_cast<size_t>(i)]));
    }
  }
}

template <class Value>
void merge_rows(const at::Tensor& master, const at::Tensor& a, const at::Tensor& b, float scaling,
                const at::Tensor& merged) {
  const auto columns = static_cast<size_t>(master.size(1));
  const auto rank = static_cast<size_t>(b.size(1));
  const auto masters = values_of<const Value>(master);
  const auto targets = values_of<Value>(merged);
  const auto values_of_a = values_of<const float>(a);
  const auto values_of_b = values_of<const float>(b);
  at::parallel_for(0, master.size(0), 1, [&](int64_t begin, int64_t end) {
    for (auto row = static_cast<size_t>(begin); row < static_cast<size_t>(end); ++row) {
      merge_row(masters.subspan(row * columns, columns), values_of_a, values_of_b.subspan(row * rank, rank), scaling,
                targets.subspan(row * columns, columns));
    }
  });
}

// The same additions for devices that merge_rows() does not run on.
at::Tensor merged_in_aten(const at::Tensor& master, const at::Tensor& a, const at::Tensor& b, float scaling) {
  at::Tensor sums = at::zeros(master.sizes(), a.options().requires_grad(false));
  for (int64_t component = 0; component < b.size(1); ++component) {
    sums.add_(b.narrow(1, component, 1) * a.narrow(0, component, 1));
  }
  return (master.to(at::kFloat) + sums.mul_(static_cast<double>(scaling))).to(at::kBFloat16).to(master.scalar_type());
}

at::Tensor merge(const at::Tensor& master, const at::Tensor& a, const at::Tensor& b, float scaling) {
  QAT_CHECK(master.dim() == 2 && master.is_contiguous());
  if (!master.is_cpu()) return merged_in_aten(master, a, b, scaling);
  const at::Tensor merged = at::empty_like(master);
  if (master.scalar_type() == at::kBFloat16) {
    merge_rows<BFloat16>(master, a, b, scaling, merged);
  } else {
    QAT_CHECK(master.scalar_type() == at::kFloat);
    merge_rows<float>(master, a, b, scaling, merged);
  }
  return merged;
}

// The merged weight as a function of A and B.
struct Merged : torch::autograd::Function<Merged> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& a, const at::Tensor& b,
                            const at::Tensor& merged, const at::Tensor& counts, double scaling) {
    context->save_for_backward({a, b, counts});
    context->saved_data["scaling"] = scaling;
    // A view, so that the node never owns the cached tensor itself.
    return merged.alias();
  }

  // dA = s (B c)^T G and dB = s (G A^T) c, c being how much the components count.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& counts = saved[2];
    const double scaling = context->saved_data["scaling"].toDouble();
    const at::Tensor gradient = gradients[0].to(at::kFloat);
    const at::Tensor of_a = at::mm((saved[1] * counts).t(), gradient).mul_(scaling);
    const at::Tensor of_b = at::mm(gradient, saved[0].t()).mul_(scaling).mul_(counts);
    return {of_a, of_b, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

LoraDelta::LoraDelta(at::Tensor a, at::Tensor b, float scaling)
    : a_(std::move(a)),
      b_(std::move(b)),
      scaling_(scaling),
      counts_(at::ones({a_.size(0)}, a_.options().requires_grad(false))) {
  QAT_CHECK(a_.scalar_type() == at::kFloat && b_.scalar_type() == at::kFloat && a_.size(0) == b_.size(1));
}

at::Tensor LoraDelta::add_to(const at::Tensor& master) {
  at::Tensor merged = merged_;
  if (!merged.defined()) {
    const c10::NoGradGuard no_grad;
    merged = merge(master, a_, b_ * counts_, scaling_);
  }
  if (keeps_merged_) merged_ = merged;
  return Merged::apply(a_, b_, merged, counts_, static_cast<double>(scaling_));
}

void LoraDelta::count_components(const at::Tensor& counts) {
  counts_ = counts;
  changed();
}

}  // namespace qat
