// Optimizers with small moments or without masters against AdamW, against their published rules, and over threads.
#include "trainers/lean_optimizer.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "core/random.h"
#include "fake_quant/tensor_values.h"
#include "trainers/moment_codec.h"
#include "trainers/rounding_in_aten.h"

namespace qat {
namespace {

constexpr uint64_t kSeed = 20260711;

std::vector<float> decoded_first(std::span<const float> values, const ElementRandom& random, int64_t at = 0) {
  std::vector<int8_t> codes(values.size());
  std::vector<float> result(values.size());
  const float scale = encode_first_moments(values, random, at, codes);
  decode_first_moments(codes, scale, result);
  return result;
}

std::vector<float> decoded_second(std::span<const float> values, const ElementRandom& random, int64_t at = 0) {
  std::vector<uint8_t> codes(values.size());
  std::vector<float> result(values.size());
  const float scale = encode_second_moments(values, random, at, codes);
  decode_second_moments(codes, scale, result);
  return result;
}

TEST(MomentCodec, EveryCodeIsAFixedPoint) {
  const ElementRandom random(kSeed, 1, "w");
  std::vector<int8_t> first, first_again(255);
  for (int code = -127; code <= 127; ++code) first.push_back(static_cast<int8_t>(code));
  std::vector<float> values(255);
  decode_first_moments(first, 1.0F, values);
  EXPECT_EQ(encode_first_moments(values, random, 0, first_again), 1.0F);
  EXPECT_EQ(first_again, first);
  std::vector<uint8_t> second, second_again(256);
  for (int code = 0; code <= 255; ++code) second.push_back(static_cast<uint8_t>(code));
  values.resize(256);
  decode_second_moments(second, 1.0F, values);
  EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
  EXPECT_EQ(encode_second_moments(values, random, 0, second_again), 1.0F);
  EXPECT_EQ(second_again, second);
}

// Down to 2^-12 and 2^-25 of the largest value, a code away at most: a factor of 2^(1/10).
TEST(MomentCodec, SmallValuesKeepTheirRelativePrecision) {
  SCOPED_TRACE(kSeed);
  SplitMix64 random(kSeed);
  const ElementRandom rounding(kSeed, 1, "w");
  for (int block = 0; block < 400; ++block) {
    std::vector<float> first{1.5F}, second{2.5e-7F};
    while (std::ssize(first) < kMomentBlock) {
      const auto magnitude = static_cast<float>(std::exp2(-12 * random.uniform()));
      first.push_back(random.below(2) == 0 ? magnitude : -magnitude);
      second.push_back(static_cast<float>(2.5e-7 * std::exp2(-25 * random.uniform())));
    }
    const auto firsts = decoded_first(first, rounding, block * kMomentBlock);
    const auto seconds = decoded_second(second, rounding, block * kMomentBlock);
    const double factor = std::exp2(0.1) * (1 + 1e-6);
    for (size_t i = 0; i < first.size(); ++i) {
      ASSERT_GT(firsts[i] / first[i], 1 / factor) << first[i];
      ASSERT_LT(firsts[i] / first[i], factor) << first[i];
      ASSERT_GT(seconds[i] / second[i], 1 / factor) << second[i];
      ASSERT_LT(seconds[i] / second[i], factor) << second[i];
    }
  }
}

TEST(MomentCodec, RoundsWithoutBiasAndKeepsSecondMomentsAboveZero) {
  constexpr int64_t kBlocks = 4000;
  // Between codes, below the smallest code, and zero.
  const std::vector<float> values{1.0F, -0.7131F, 0.01F, -2e-5F, 0.0F}, squares{1.0F, 0.7131F, 3e-6F, 1e-12F, 0.0F};
  std::vector<double> means(5), square_means(5), variances(5);
  for (int64_t block = 0; block < kBlocks; ++block) {
    const ElementRandom random(kSeed, block, "w");
    const auto firsts = decoded_first(values, random), seconds = decoded_second(squares, random);
    for (size_t i = 0; i < 5; ++i) {
      means[i] += firsts[i] / static_cast<double>(kBlocks);
      square_means[i] += seconds[i] / static_cast<double>(kBlocks);
      variances[i] += std::pow(firsts[i] - values[i], 2) / static_cast<double>(kBlocks);
    }
    EXPECT_GT(seconds[3], 0.0F);
    EXPECT_EQ(seconds[4], 0.0F);
    EXPECT_EQ(firsts[4], 0.0F);
  }
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(means[i], values[i], 5 * std::sqrt(variances[i] / kBlocks) + 1e-12) << values[i];
  }
  EXPECT_GT(variances[3], 0);  // some are rounded to zero, some to the smallest code
  for (const size_t i : {1U, 2U}) EXPECT_NEAR(square_means[i] / squares[i], 1, 5 * 0.035 / std::sqrt(kBlocks));
  EXPECT_EQ(decoded_second(std::vector<float>(7, 0.0F), ElementRandom(kSeed, 1, "w")), std::vector<float>(7, 0.0F));
}

TEST(StochasticRounding, IsUnbiasedAndKeepsBf16Numbers) {
  constexpr int64_t kDraws = 200000;
  const ElementRandom random(kSeed, 3, "layers.0.mlp.up_proj.weight");
  for (const float value : {1.001F, -0.7531F, 3.99F, -1e-20F, 1e-40F}) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < kDraws; ++i) {
      const double error = double{to_float(round_stochastically(value, random.of_master(i)))} - value;
      sum += error;
      squares += error * error;
    }
    EXPECT_GT(squares, 0);
    EXPECT_LT(std::fabs(sum / kDraws), 5 * std::sqrt(squares / kDraws / kDraws)) << value;
  }
  for (const float kept : {1.0F, -0.75F, 0.0F, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(to_float(round_stochastically(kept, 0xffff)), kept);
  }
  EXPECT_TRUE(std::isnan(to_float(round_stochastically(std::numeric_limits<float>::quiet_NaN(), 0xffff))));
}

// The operations of other devices, on the CPU: more values than one piece of theirs.
TEST(StochasticRounding, InAtenOperationsGivesTheSameBits) {
  const ElementRandom random(kSeed, 5, "layers.0.mlp.up_proj.weight");
  constexpr int64_t kValues = (int64_t{1} << 22) + 1000;
  SplitMix64 numbers(kSeed);
  const at::Tensor values = at::empty({2, kValues / 2}, at::kFloat);
  // Any bits: of every size and sign, no numbers and infinite ones too.
  for (float& value : values_of<float>(values)) value = std::bit_cast<float>(static_cast<uint32_t>(numbers.next()));
  const at::Tensor rounded = round_stochastically_in_aten(values, random);
  ASSERT_EQ(rounded.sizes(), values.sizes());
  const auto inputs = values_of<const float>(values);
  const auto results = values_of<const BFloat16>(rounded);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const BFloat16 wanted = round_stochastically(inputs[i], random.of_master(static_cast<int64_t>(i)));
    if (std::isnan(inputs[i])) {
      ASSERT_TRUE(std::isnan(to_float(results[i]))) << i;
    } else {
      ASSERT_EQ(results[i].bits, wanted.bits) << i << " " << inputs[i];
    }
  }
}

TEST(StochasticRounding, RandomNumbersFollowFromSeedStepWeightAndElement) {
  const ElementRandom random(1, 2, "a");
  EXPECT_EQ(random.of_master(7), ElementRandom(1, 2, "a").of_master(7));
  EXPECT_EQ(random.of_first_moment(7), ElementRandom(1, 2, "a").of_first_moment(7));
  const auto differs = [&](const ElementRandom& other) {
    int same = 0;
    for (int64_t i = 0; i < 1000; ++i) same += other.of_second_moment(i) == random.of_second_moment(i) ? 1 : 0;
    return same < 5;
  };
  EXPECT_TRUE(differs(ElementRandom(2, 2, "a")));
  EXPECT_TRUE(differs(ElementRandom(1, 3, "a")));
  EXPECT_TRUE(differs(ElementRandom(1, 2, "b")));
}

at::Tensor noise(SplitMix64& random, at::IntArrayRef shape, double scale) {
  at::Tensor values = at::ones(shape, at::kFloat);
  for (float& value : values_of<float>(values)) {
    value = static_cast<float>(scale * (random.uniform() + random.uniform() + random.uniform() - 1.5));
  }
  return values;
}

OptimizerConfig options_of(const char* kind, const char* masters) {
  OptimizerConfig options;
  options.kind = kind;
  options.masters = masters;
  options.weight_decay = 0.1;
  return options;
}

// A matrix that is no multiple of a block, a vector, a stack of matrices, and the scale of a quantizer.
std::vector<TrainedWeight> weights_of(at::ScalarType dtype) {
  SplitMix64 random(kSeed);
  const auto make = [&](at::IntArrayRef shape) {
    return noise(random, shape, 0.5).to(at::kBFloat16).to(dtype).set_requires_grad(true);
  };
  return {{"matrix", make({37, 61}), true},
          {"norm", make({41})},
          {"scale of edge", noise(random, {3}, 0.1).set_requires_grad(true), false, true},
          {"experts", make({3, 8, 24}), true}};
}

// Gradients as of a noisy quadratic valley: the weights' distance to a fixed place, and noise of the same size.
std::vector<at::Tensor> gradients_of(const std::vector<TrainedWeight>& weights, SplitMix64& random) {
  std::vector<at::Tensor> gradients;
  for (const TrainedWeight& weight : weights) {
    const at::Tensor away = weight.parameter.detach().to(at::kFloat) - 0.25;
    gradients.push_back(away + noise(random, weight.parameter.sizes(), 0.5));
  }
  return gradients;
}

// With equal gradients; each code differs from its moment by 4 % in the root mean square, and averages of 1 / (1 -
// beta) steps collect 1 / sqrt(1 - beta^2) such errors: 9 % of the first moment, and 6 % of the second's root. What
// matters is the way that weights went, over which these errors average out further.
TEST(LeanOptimizer, CodedMomentsFollowAdamW) {
  for (const int64_t steps : {10, 200}) {
    auto wanted = weights_of(at::kFloat), found = weights_of(at::kFloat);
    const auto start = weights_of(at::kFloat);
    AdamW full(wanted, options_of("adamw", "float32"));
    LeanOptimizer coded(found, options_of("adamw8bit", "float32"), kSeed);
    SplitMix64 random(kSeed);
    for (int64_t step = 0; step < steps; ++step) {
      auto gradients = gradients_of(wanted, random);
      std::vector<at::Tensor> copies;
      for (const at::Tensor& gradient : gradients) copies.push_back(gradient.clone());
      full.step(gradients, {3, 2e-3, 1e-3});
      coded.step(copies, {3, 2e-3, 1e-3});
    }
    for (const size_t i : {0U, 1U, 3U}) {
      const at::Tensor way = wanted[i].parameter.detach() - start[i].parameter.detach();
      const at::Tensor error = found[i].parameter.detach() - wanted[i].parameter.detach();
      EXPECT_LT(error.norm().item<double>(), 0.12 * way.norm().item<double>()) << wanted[i].name << " " << steps;
      EXPECT_GT(error.norm().item<double>(), 0) << wanted[i].name;
    }
    EXPECT_TRUE(found[2].parameter.equal(wanted[2].parameter)) << "scales are AdamW's, bit for bit";
  }
}

// FP32 moments of the lean optimizer are AdamW's; only the masters differ, by half a unit in the last place at a time.
TEST(LeanOptimizer, WithoutMastersFollowsAdamW) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    auto wanted = weights_of(dtype), found = weights_of(dtype);
    const auto start = weights_of(dtype);
    AdamW full(wanted, options_of("adamw", "float32"));
    LeanOptimizer lean(found, options_of("adamw", "bfloat16"), kSeed);
    SplitMix64 random(kSeed);
    for (int64_t step = 0; step < 100; ++step) {
      auto gradients = gradients_of(wanted, random);
      std::vector<at::Tensor> copies;
      for (const at::Tensor& gradient : gradients) copies.push_back(gradient.clone());
      full.step(gradients, {3, 1e-4, 1e-3});  // most updates are far below a unit in the last place
      lean.step(copies, {3, 1e-4, 1e-3});
    }
    for (const size_t i : {0U, 1U, 3U}) {
      const at::Tensor parameter = found[i].parameter.detach();
      EXPECT_TRUE(parameter.to(at::kBFloat16).to(dtype).equal(parameter)) << "BF16 numbers";
      // Means over a weight: what rounding adds to a single element averages out.
      const auto mean_way = [&](const TrainedWeight& weight) {
        return (weight.parameter.detach().to(at::kFloat) - start[i].parameter.detach().to(at::kFloat)).mean();
      };
      const auto way = mean_way(wanted[i]).item<double>();
      EXPECT_NEAR(mean_way(found[i]).item<double>(), way, 0.25 * std::fabs(way) + 2e-4) << wanted[i].name;
    }
    EXPECT_TRUE(found[2].parameter.equal(wanted[2].parameter));
  }
}

// A constant pull of a thirtieth of a unit in the last place: rounding to nearest would never move.
TEST(LeanOptimizer, SmallUpdatesAddUpWithoutMasters) {
  std::vector<TrainedWeight> weights{{"w", at::ones({4096}, at::kBFloat16).set_requires_grad(true)}};
  LeanOptimizer lean(weights, options_of("adamw", "bfloat16"), kSeed);
  constexpr double kRate = 1.0 / 256 / 30;  // AdamW's step under a constant gradient
  for (int step = 0; step < 90; ++step) lean.step({at::ones({4096}, at::kFloat)}, {1, kRate, 0});
  const double mean = weights[0].parameter.detach().to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(1 - mean, 90 * kRate, 0.05 * 90 * kRate);
}

// Algorithm 4 of arXiv 1804.04235 for one matrix, as it is printed (sums, not means), in double precision.
struct Adafactor {
  int64_t rows, columns;
  std::vector<double> of_rows = std::vector<double>(static_cast<size_t>(rows));
  std::vector<double> of_columns = std::vector<double>(static_cast<size_t>(columns));

  // Unclipped directions.
  std::vector<double> take(std::span<const float> gradient, double decay) {
    std::vector<double> row_sums(of_rows.size()), column_sums(of_columns.size());
    for (size_t r = 0; r < row_sums.size(); ++r) {
      for (size_t c = 0; c < column_sums.size(); ++c) {
        const double g = gradient[r * column_sums.size() + c];
        row_sums[r] += g * g + 1e-30;
        column_sums[c] += g * g + 1e-30;
      }
    }
    double total = 0;
    for (size_t r = 0; r < row_sums.size(); ++r) total += of_rows[r] = decay * of_rows[r] + (1 - decay) * row_sums[r];
    for (size_t c = 0; c < column_sums.size(); ++c) {
      of_columns[c] = decay * of_columns[c] + (1 - decay) * column_sums[c];
    }
    std::vector<double> directions;
    for (size_t r = 0; r < row_sums.size(); ++r) {
      for (size_t c = 0; c < column_sums.size(); ++c) {
        directions.push_back(gradient[r * column_sums.size() + c] / std::sqrt(of_rows[r] * of_columns[c] / total));
      }
    }
    return directions;
  }
};

TEST(LeanOptimizer, AdafactorEqualsItsPublishedRule) {
  auto weights = weights_of(at::kFloat);
  OptimizerConfig options = options_of("adafactor", "float32");
  LeanOptimizer lean(weights, options, kSeed);
  std::vector<std::vector<double>> masters;
  for (const TrainedWeight& weight : weights) {
    const auto values = values_of<const float>(weight.parameter);
    masters.emplace_back(values.begin(), values.end());
  }
  std::vector<Adafactor> matrix{{37, 61}}, experts{{8, 24}, {8, 24}, {8, 24}};
  std::vector<double> of_vector(41);
  SplitMix64 random(kSeed);
  bool clipped = false, free = false;
  for (int64_t step = 1; step <= 30; ++step) {
    const double decay = 1 - std::pow(static_cast<double>(step), -0.8);
    const double rate = 1e-2;
    auto gradients = gradients_of(weights, random);
    if (step % 5 == 0) gradients[0].mul_(20);  // a jump, which clipping holds
    for (const size_t i : {0U, 1U, 3U}) {
      const auto gradient = values_of<const float>(gradients[i]);
      std::vector<double> directions;
      if (i == 1) {
        for (size_t k = 0; k < 41; ++k) {
          const double g = gradient[k];
          of_vector[k] = decay * of_vector[k] + (1 - decay) * (g * g + 1e-30);
          directions.push_back(g / std::sqrt(of_vector[k]));
        }
      } else {
        auto& matrices = i == 0 ? matrix : experts;
        const size_t size = gradient.size() / matrices.size();
        for (size_t m = 0; m < matrices.size(); ++m) {
          const auto part = matrices[m].take(gradient.subspan(m * size, size), decay);
          directions.insert(directions.end(), part.begin(), part.end());
        }
      }
      double squares = 0;
      for (const double direction : directions) squares += direction * direction;
      const double root = std::sqrt(squares / static_cast<double>(directions.size()));
      (root > 1 ? clipped : free) = true;
      for (size_t k = 0; k < directions.size(); ++k) {
        masters[i][k] -=
            rate * (weights[i].decays ? 0.1 * masters[i][k] : 0) + rate * directions[k] / std::max(1.0, root);
      }
    }
    for (at::Tensor& gradient : gradients) gradient.mul_(2);
    lean.step(gradients, {2, rate, 1e-3});
  }
  EXPECT_TRUE(clipped && free);
  for (const StateArray& array : lean.state_arrays()) {
    for (const size_t i : {0U, 1U, 3U}) {
      if (array.name != "masters/" + weights[i].name) continue;
      const auto found = values_of<const float>(array.values);
      for (size_t k = 0; k < found.size(); ++k) ASSERT_NEAR(found[k], masters[i][k], 3e-6) << array.name << " " << k;
    }
  }
}

struct Kind {
  const char* kind;
  const char* masters;
};
void PrintTo(const Kind& which, std::ostream* out) { *out << which.kind << "_" << which.masters; }

class LeanKinds : public ::testing::TestWithParam<Kind> {};

TEST_P(LeanKinds, DoNotDependOnThreads) {
  const int before = at::get_num_threads();
  std::vector<std::vector<StateArray>> states;
  for (const int threads : {1, 2, 5}) {
    at::set_num_threads(threads);
    SplitMix64 random(kSeed);
    std::vector<TrainedWeight> weights{
        {"w", noise(random, {300, 257}, 0.5).to(at::kBFloat16).set_requires_grad(true), true}};
    LeanOptimizer lean(weights, options_of(GetParam().kind, GetParam().masters), kSeed);
    for (int step = 0; step < 3; ++step) lean.step({noise(random, {300, 257}, 1)}, {2, 1e-3, 0});
    states.push_back(lean.state_arrays());
    states.back().push_back({"parameter", weights[0].parameter.detach()});
  }
  at::set_num_threads(before);
  for (const auto& state : states) {
    ASSERT_EQ(state.size(), states[0].size());
    for (size_t i = 0; i < state.size(); ++i) EXPECT_TRUE(state[i].values.equal(states[0][i].values)) << state[i].name;
  }
}

TEST_P(LeanKinds, KeepTheBytesTheyPromise) {
  const at::Tensor parameter = at::ones({512, 1024}, at::kBFloat16).set_requires_grad(true);
  const LeanOptimizer lean({{"w", parameter, true}}, options_of(GetParam().kind, GetParam().masters), kSeed);
  const std::string kind = GetParam().kind;
  double per_weight = std::string(GetParam().masters) == "float32" ? 4 : 2;
  per_weight += kind == "adamw" ? 8 : kind == "adamw8bit" ? 2 + 8.0 / kMomentBlock : 4.0 / 512 + 4.0 / 1024;
  EXPECT_EQ(static_cast<double>(lean.state_bytes()), per_weight * 512 * 1024);
}

INSTANTIATE_TEST_SUITE_P(All, LeanKinds,
                         ::testing::Values(Kind{"adamw", "bfloat16"}, Kind{"adamw8bit", "float32"},
                                           Kind{"adamw8bit", "bfloat16"}, Kind{"adafactor", "float32"},
                                           Kind{"adafactor", "bfloat16"}));

}  // namespace
}  // namespace qat
