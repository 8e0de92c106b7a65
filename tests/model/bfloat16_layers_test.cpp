// Norms and gated GELUs of BF16 tensors, which run in kernels of their own, against the formulas in fp64.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "core/error.h"
#include "model/gated_gelu.h"
#include "model/golden_models.h"
#include "model/rms_norm.h"

namespace qat {
namespace {

using testing::relative_difference;
using Function = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

struct Outcome {
  at::Tensor output;
  std::vector<at::Tensor> gradients;
};

Outcome run(const Function& function, const std::vector<at::Tensor>& inputs, const at::Tensor& of_output) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : inputs) leaves.push_back(input.detach().clone().requires_grad_(true));
  const at::Tensor output = function(leaves);
  torch::autograd::backward({output}, {of_output.to(output.scalar_type())});
  Outcome outcome{output.detach(), {}};
  for (const at::Tensor& leaf : leaves) outcome.gradients.push_back(leaf.grad());
  return outcome;
}

// Results are rounded once or, where the formula says so, twice: by at most 2^-8 each.
void expect_as_in_double(const Function& function, const Function& exactly, const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> rounded, exact;
  for (const at::Tensor& input : inputs) {
    rounded.push_back(input.to(at::kBFloat16));
    exact.push_back(rounded.back().to(at::kDouble));
  }
  const at::Tensor of_output = at::randn(function(rounded).sizes()).to(at::kBFloat16);
  const Outcome found = run(function, rounded, of_output);
  const Outcome wanted = run(exactly, exact, of_output.to(at::kDouble));
  EXPECT_EQ(found.output.scalar_type(), at::kBFloat16);
  EXPECT_LT(relative_difference(found.output, wanted.output), 0x1p-7);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(found.gradients[i].scalar_type(), at::kBFloat16);
    EXPECT_LT(relative_difference(found.gradients[i], wanted.gradients[i]), 0x1p-7) << "input " << i;
  }
}

TEST(Bfloat16RmsNorm, IsTheFormula) {
  for (const int64_t width : {1, 8, 17, 256, 1000}) {
    for (const int64_t rows : {1, 3, 700}) {
      for (const double offset : {0.0, 1.0}) {
        SCOPED_TRACE(join(rows, " x ", width, " offset ", offset));
        const auto exactly = [&](const std::vector<at::Tensor>& in) {
          return in[0] * (in[0].square().mean(-1, true) + 0.1).rsqrt() * (in[1] + offset);
        };
        const auto norm = [&](const std::vector<at::Tensor>& in) { return rms_norm(in[0], in[1], 0.1, offset); };
        expect_as_in_double(norm, exactly, {at::randn({rows, width}), at::rand({width}) + 0.5});
      }
    }
  }
}

TEST(Bfloat16RmsNorm, OfRowsWithoutAWeightAndOfHeads) {
  const auto exactly = [](const std::vector<at::Tensor>& in) {
    return in[0] * (in[0].square().mean(-1, true) + 1e-6).rsqrt();
  };
  const auto norm = [](const std::vector<at::Tensor>& in) { return rms_norm(in[0], std::nullopt, 1e-6, 0); };
  expect_as_in_double(norm, exactly, {at::randn({5, 4, 24})});
  expect_as_in_double(norm, exactly, {at::randn({24, 5}).t()});
}

TEST(Bfloat16RmsNorm, KnowsNoNumberOfThreads) {
  const at::Tensor x = at::randn({900, 256}).to(at::kBFloat16);
  const at::Tensor weight = at::randn({256}).to(at::kBFloat16);
  const at::Tensor of_output = at::randn({900, 256}).to(at::kBFloat16);
  const int before = at::get_num_threads();
  std::vector<Outcome> found;
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    const auto norm = [](const std::vector<at::Tensor>& in) { return rms_norm(in[0], in[1], 1e-6, 0); };
    found.push_back(run(norm, {x, weight}, of_output));
  }
  at::set_num_threads(before);
  EXPECT_TRUE(found[0].output.equal(found[1].output));
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(found[0].gradients[i].equal(found[1].gradients[i])) << "input " << i;
}

TEST(Bfloat16GatedGelu, IsTheFormula) {
  const auto exactly = [](const std::vector<at::Tensor>& in) { return at::gelu(in[0], "tanh") * in[1]; };
  const auto gated = [](const std::vector<at::Tensor>& in) { return gated_gelu(in[0], in[1]); };
  for (const int64_t count : {16, 17, 40, 100001}) {
    SCOPED_TRACE(count);
    expect_as_in_double(gated, exactly, {3 * at::randn({count}), at::randn({count})});
  }
  expect_as_in_double(gated, exactly, {at::randn({30, 20}).t(), at::randn({20, 2, 30}).select(1, 0)});
}

// Far from zero the function is x or nothing, without overflow on the way.
TEST(Bfloat16GatedGelu, OfLargeNumbers) {
  const at::Tensor gate = at::tensor({-1e4f, -60.0f, -20.0f, 20.0f, 60.0f, 1e4f}).to(at::kBFloat16).repeat({4});
  const at::Tensor up = at::ones_like(gate);
  const auto gated = [](const std::vector<at::Tensor>& in) { return gated_gelu(in[0], in[1]); };
  const Outcome found = run(gated, {gate, up}, up);
  EXPECT_LT((found.output - gate.clamp_min(0)).abs().max().item<float>(), 1e-20f);
  EXPECT_LT((found.gradients[0] - (gate > 0).to(at::kBFloat16)).abs().max().item<float>(), 1e-20f);
}

}  // namespace
}  // namespace qat
