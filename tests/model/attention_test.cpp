// Piecewise attention against softmax(q k^T + mask) v written out.
#include "model/attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <iterator>
#include <limits>

#include "model/bfloat16_attention.h"
#include "model/golden_models.h"

namespace qat {
namespace {

struct Case {
  const char* description;
  AttentionReach reach;
  int64_t heads;
  int64_t key_value_heads;
  int64_t head_dim;
};

const Case kCases[] = {
    {"one_document", {{0, 70}, 0, 0}, 4, 1, 16},
    {"window_below_length", {{0, 100}, 16, 0}, 4, 2, 8},
    {"window_above_length", {{0, 20}, 32, 0}, 2, 2, 8},
    {"documents_and_window", {{0, 1, 41, 42, 120}, 16, 0}, 4, 4, 8},
    {"documents", {{0, 33, 64, 65}, 0, 0}, 6, 2, 8},
    {"window_of_one", {{0, 40}, 1, 0}, 2, 1, 8},
    {"several_pieces", {{0, 600}, 0, 0}, 2, 1, 8},
    {"long_window", {{0, 700}, 200, 0}, 2, 1, 8},
    {"repeated_pieces", {{0, 200, 410}, 64, 0}, 6, 3, 8},
    {"many_heads", {{0, 300, 900, 907}, 0, 0}, 8, 1, 16},
    {"many_heads_and_window", {{0, 300, 900, 907}, 100, 0}, 16, 2, 16},
    {"past", {{0, 20}, 0, 31}, 4, 2, 8},
    {"past_and_window", {{0, 20}, 16, 15}, 4, 1, 8},
    {"past_and_one_query", {{0, 1}, 16, 15}, 4, 1, 8},
    {"past_and_pieces", {{0, 300}, 0, 40}, 2, 1, 8},
};

at::Tensor mask_by_definition(const AttentionReach& reach) {
  const int64_t queries = reach.document_starts.back();
  at::Tensor mask = at::full({queries, reach.past + queries}, -std::numeric_limits<float>::infinity());
  auto* values = mask.mutable_data_ptr<float>();
  for (size_t d = 0; d + 1 < reach.document_starts.size(); ++d) {
    for (int64_t i = reach.document_starts[d]; i < reach.document_starts[d + 1]; ++i) {
      const int64_t own = reach.past + i;
      const int64_t oldest = reach.past > 0 ? 0 : reach.document_starts[d];
      for (int64_t j = oldest; j <= own; ++j) {
        if (reach.window == 0 || own - j < reach.window) values[i * mask.size(1) + j] = 0;
      }
    }
  }
  return mask;
}

at::Tensor attention_by_definition(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                   const AttentionReach& reach, double scale) {
  const int64_t group = query.size(1) / key.size(1);
  const at::Tensor q = query.transpose(0, 1);
  const at::Tensor k = key.repeat_interleave(group, 1).transpose(0, 1);
  const at::Tensor v = value.repeat_interleave(group, 1).transpose(0, 1);
  const at::Tensor scores = at::matmul(q, k.transpose(1, 2)) * scale + mask_by_definition(reach);
  return at::matmul(scores.softmax(-1), v).transpose(0, 1);
}

struct Results {
  at::Tensor output;
  std::vector<at::Tensor> gradients;
};

template <class Function>
Results run(Function&& function, const std::vector<at::Tensor>& inputs, const at::Tensor& of_output,
            const AttentionReach& reach) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : inputs) leaves.push_back(input.detach().clone().requires_grad_(true));
  const at::Tensor output = function(leaves[0], leaves[1], leaves[2], reach, 0.3);
  torch::autograd::backward({output}, {of_output.to(output.scalar_type())});
  return {output.detach(), {leaves[0].grad(), leaves[1].grad(), leaves[2].grad()}};
}

class AttentionCases : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Case& c = GetParam();
    const int64_t queries = c.reach.document_starts.back();
    inputs_ = {at::randn({queries, c.heads, c.head_dim}),
               at::randn({c.reach.past + queries, c.key_value_heads, c.head_dim}),
               at::randn({c.reach.past + queries, c.key_value_heads, c.head_dim})};
    of_output_ = at::randn({queries, c.heads, c.head_dim});
    exact_ = run(attention_by_definition, inputs_, of_output_, c.reach);
  }

  void expect_exact(const Results& found, double tolerance) {
    EXPECT_LE(testing::relative_difference(found.output, exact_.output), tolerance);
    for (size_t i = 0; i < 3; ++i) {
      // With a window of one the gradients of queries and keys are exactly zero.
      const at::Tensor difference = found.gradients[i].to(at::kFloat) - exact_.gradients[i];
      const double size =
          exact_.gradients[i].norm().item<double>() + 0.1 * of_output_.to(at::kFloat).norm().item<double>();
      EXPECT_LE(difference.norm().item<double>(), tolerance * size) << "input " << i;
    }
  }

  std::vector<at::Tensor> inputs_;
  at::Tensor of_output_;
  Results exact_;
};

TEST_P(AttentionCases, EqualsTheDefinition) {
  expect_exact(run(attention, inputs_, of_output_, GetParam().reach), 1e-5);
}

TEST_P(AttentionCases, OfAnyDeviceEqualsTheDefinition) {
  expect_exact(run(attention_of_any_device, inputs_, of_output_, GetParam().reach), 1e-5);
}

TEST_P(AttentionCases, InBf16EqualsTheDefinitionUpToRounding) {
  for (at::Tensor& input : inputs_) input = input.to(at::kBFloat16);
  of_output_ = of_output_.to(at::kBFloat16);
  const Results found = run(attention, inputs_, of_output_, GetParam().reach);
  EXPECT_EQ(found.output.scalar_type(), at::kBFloat16);
  expect_exact(found, 2e-2);
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionCases, ::testing::ValuesIn(kCases),
                         [](const auto& shape) { return std::string(shape.param.description); });

// What CPUs with BF16 instructions compute.
class Bfloat16AttentionCases : public AttentionCases {
 protected:
  void SetUp() override {
    AttentionCases::SetUp();
    for (at::Tensor& input : inputs_) input = input.to(at::kBFloat16);
    of_output_ = of_output_.to(at::kBFloat16);
    if (!has_bfloat16_attention(inputs_[0], GetParam().reach)) GTEST_SKIP() << "this CPU has no BF16 instructions";
  }
};

TEST_P(Bfloat16AttentionCases, AreAsNearAsOneRounding) {
  std::vector<at::Tensor> in_float;
  for (const at::Tensor& input : inputs_) in_float.push_back(input.to(at::kFloat));
  exact_ = run(attention_by_definition, in_float, of_output_.to(at::kFloat), GetParam().reach);
  // In norm: results are rounded (each by at most 2^-8), and probabilities and their gradients before they are summed.
  expect_exact(run(attention, inputs_, of_output_, GetParam().reach), 0x1p-8);
}

TEST_P(Bfloat16AttentionCases, KnowNoNumberOfThreads) {
  const int before = at::get_num_threads();
  std::vector<Results> found;
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    found.push_back(run(attention, inputs_, of_output_, GetParam().reach));
  }
  at::set_num_threads(before);
  EXPECT_TRUE(found[0].output.equal(found[1].output));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(found[0].gradients[i].equal(found[1].gradients[i])) << "input " << i;
}

std::vector<Case> cases_without_past() {
  std::vector<Case> cases;
  std::copy_if(std::begin(kCases), std::end(kCases), std::back_inserter(cases),
               [](const Case& c) { return c.reach.past == 0; });
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Shapes, Bfloat16AttentionCases, ::testing::ValuesIn(cases_without_past()),
                         [](const auto& shape) { return std::string(shape.param.description); });

}  // namespace
}  // namespace qat
