// One process of a group that sums gradients, to be started several times: exchange_once CASE
// It knows the gradients of all ranks and checks the sums: every bit where they are added in the order of ranks, that
// they are equal everywhere and within rounding where another order is allowed. Exit code 3: they are wrong.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/random.h"
#include "fake_quant/tensor_values.h"
#include "trainers/gradient_exchange.h"

namespace qat {
namespace {

#ifdef QAT_IN_ANY_ORDER
constexpr bool kInAnyOrder = true;
#else
constexpr bool kInAnyOrder = false;
#endif

// Some travel together, one alone, one in several pieces.
const std::vector<std::vector<int64_t>> kShapes{{40}, {3, 50}, {300, 300}, {7}, {2100, 2100}, {64}};
constexpr size_t kLarge = 4;

std::vector<TrainedWeight> make_weights(at::ScalarType type) {
  std::vector<TrainedWeight> weights;
  for (size_t i = 0; i < kShapes.size(); ++i) {
    weights.push_back({join("weight ", i), at::zeros(kShapes[i], type).requires_grad_(true)});
  }
  return weights;
}

at::Tensor factor_of(size_t weight, int64_t rank, int64_t pass, at::ScalarType type) {
  const at::Tensor factor = at::empty(kShapes[weight], at::kFloat);
  SplitMix64 random(static_cast<uint64_t>((rank * 10 + pass) * 100) + weight);
  for (float& value : values_of<float>(factor)) value = static_cast<float>(random.below(2000001)) * 1e-6F - 1;
  return factor.to(type);
}

bool reaches(size_t weight, int64_t rank) { return !(weight == 3 && rank == 1); }

// Of the gradients of all ranks.
struct Sum {
  at::Tensor in_order;    // in fp32
  at::Tensor exact;       // in double
  at::Tensor magnitudes;  // of what is added

  // `found` needs not be of fp32 in this order.
  bool is(const at::Tensor& found) const {
    if (!kInAnyOrder) return found.equal(in_order);
    return ((found - exact).abs() <= magnitudes * std::numeric_limits<float>::epsilon()).all().item<bool>();
  }
};

Sum sum_of(size_t weight, int64_t ranks, int64_t passes, at::ScalarType type) {
  Sum sum{at::zeros(kShapes[weight], at::kFloat), {}, {}};
  sum.exact = sum.in_order.to(at::kDouble);
  sum.magnitudes = at::zeros_like(sum.exact);
  for (int64_t rank = 0; rank < ranks; ++rank) {
    if (!reaches(weight, rank)) continue;
    at::Tensor of_rank = factor_of(weight, rank, 0, type).to(at::kFloat);
    if (passes == 2) of_rank = of_rank + factor_of(weight, rank, 1, type).to(at::kFloat);
    sum.in_order = sum.in_order + of_rank;
    sum.exact = sum.exact + of_rank;
    sum.magnitudes = sum.magnitudes + of_rank.abs();
  }
  return sum;
}

// That the first process has these bits, too.
bool is_of_first(const at::Tensor& values, ProcessGroup& group) {
  const at::Tensor first = values.clone();
  group.copy_from_first(first);
  return first.equal(values);
}

int run(const std::string& name, ProcessGroup& group) {
  const at::ScalarType type = name.find("bf16") == std::string::npos ? at::kFloat : at::kBFloat16;
  const bool owners_only = name.find("owners") != std::string::npos;
  const bool has_nan = name.find("nan") != std::string::npos;
  const int64_t passes = name.find("two") == std::string::npos ? 1 : 2;
  const auto weights = make_weights(type);
  const WeightShares shares(weights, group.size());
  GradientExchange exchange(weights, group, owners_only, passes);
  for (int64_t step = 1; step <= 2; ++step) {  // the second finds nothing of the first
    exchange.start(step);
    for (int64_t pass = 0; pass < passes; ++pass) {
      at::Tensor loss = at::zeros({}, at::kFloat);
      for (size_t i = 0; i < weights.size(); ++i) {
        if (!reaches(i, group.rank())) continue;
        at::Tensor factor = factor_of(i, group.rank(), pass, type);
        if (has_nan && group.rank() == 1 && i == kLarge) {
          factor.view(-1)[4300000] = std::numeric_limits<float>::quiet_NaN();
        }
        loss = loss + (weights[i].parameter * factor).sum().to(at::kFloat);
      }
      exchange.backward(loss);
    }
    double squares = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      const Sum wanted = sum_of(i, group.size(), passes, type);
      squares += wanted.in_order.to(at::kDouble).square().sum().item<double>();
      const at::Tensor& found = exchange.sums()[i];
      const bool is_wanted = !owners_only || shares.owner(i) == group.rank();
      const bool is_right = found.defined() == is_wanted && (!is_wanted || wanted.is(found));
      if (!is_right || (!owners_only && !is_of_first(found, group))) {
        std::fprintf(stderr, "rank %d: the sum of %s is wrong\n", static_cast<int>(group.rank()),
                     weights[i].name.c_str());
        return 3;
      }
    }
    const double ratio = exchange.norm() / std::sqrt(squares);
    // Alone, and with sums in any order, it is computed in fp32.
    if (!(std::abs(ratio - 1) < (group.size() == 1 || kInAnyOrder ? 1e-3 : 1e-12))) {
      std::fprintf(stderr, "the norm is %g times the right one\n", ratio);
      return 3;
    }
    QAT_CHECK(exchange.norm() == std::stod(group.from_first(join(std::hexfloat, exchange.norm()))));
  }
  return 0;
}

}  // namespace
}  // namespace qat

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  qat::ProcessGroup group = qat::ProcessGroup::from_environment();
  return group.run([&] { return qat::run(argv[1], group); });
}
