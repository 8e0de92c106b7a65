#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "eval/row_kernel.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come first
// clang-format on
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <cmath>
#include <cstddef>
#include <limits>

#include "eval/row_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using kernels::PairSums;
using DoubleTag = hn::ScalableTag<double>;

HWY_INLINE hn::Vec<DoubleTag> load(const float* logits) {
  return hn::PromoteTo(DoubleTag(), hn::LoadU(hn::Rebind<float, DoubleTag>(), logits));
}

float largest(const float* row, size_t count) {
  const hn::ScalableTag<float> tag;
  const size_t lanes = hn::Lanes(tag);
  auto most = hn::Set(tag, row[0]);
  auto is_broken = hn::IsNaN(most);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto values = hn::LoadU(tag, row + i);
    is_broken = hn::Or(is_broken, hn::IsNaN(values));
    most = hn::Max(most, values);
  }
  float result = hn::GetLane(hn::MaxOfLanes(tag, most));
  bool broken = !hn::AllFalse(tag, is_broken);
  for (; i < count; ++i) {
    broken = broken || row[i] != row[i];
    result = HWY_MAX(result, row[i]);
  }
  return broken ? std::numeric_limits<float>::quiet_NaN() : result;
}

double sum_of_exponentials(const float* row, size_t count, double largest) {
  const DoubleTag tag;
  const size_t lanes = hn::Lanes(tag);
  const auto shift = hn::Set(tag, largest);
  auto even = hn::Zero(tag);
  auto odd = hn::Zero(tag);
  size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    even = hn::Add(even, hn::Exp(tag, hn::Sub(load(row + i), shift)));
    odd = hn::Add(odd, hn::Exp(tag, hn::Sub(load(row + i + lanes), shift)));
  }
  double sum = hn::GetLane(hn::SumOfLanes(tag, hn::Add(even, odd)));
  for (; i < count; ++i) sum += std::exp(static_cast<double>(row[i]) - largest);
  return sum;
}

// A product with a difference that may be infinite or NaN where the exponential is 0.
HWY_INLINE double weighted(double exponential, double difference) {
  return exponential > 0 ? exponential * difference : 0.0;
}

HWY_INLINE hn::Vec<DoubleTag> weighted(hn::Vec<DoubleTag> exponential, hn::Vec<DoubleTag> difference) {
  return hn::IfThenElseZero(hn::Gt(exponential, hn::Zero(DoubleTag())), hn::Mul(exponential, difference));
}

PairSums pair_sums(const float* first, double first_largest, const float* second, double second_largest, size_t count) {
  const DoubleTag tag;
  const size_t lanes = hn::Lanes(tag);
  const auto first_shift = hn::Set(tag, first_largest);
  const auto second_shift = hn::Set(tag, second_largest);
  auto sum = hn::Zero(tag);
  auto differences = hn::Zero(tag);
  auto other_sum = hn::Zero(tag);
  auto other_differences = hn::Zero(tag);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto a = load(first + i);
    const auto b = load(second + i);
    const auto of_a = hn::Exp(tag, hn::Sub(a, first_shift));
    const auto of_b = hn::Exp(tag, hn::Sub(b, second_shift));
    sum = hn::Add(sum, of_a);
    differences = hn::Add(differences, weighted(of_a, hn::Sub(a, b)));
    other_sum = hn::Add(other_sum, of_b);
    other_differences = hn::Add(other_differences, weighted(of_b, hn::Sub(b, a)));
  }
  const auto total = [&](hn::Vec<DoubleTag> values) { return hn::GetLane(hn::SumOfLanes(tag, values)); };
  PairSums sums{total(sum), total(differences), total(other_sum), total(other_differences)};
  for (; i < count; ++i) {
    const double a = first[i];
    const double b = second[i];
    const double of_a = std::exp(a - first_largest);
    const double of_b = std::exp(b - second_largest);
    sums.first += of_a;
    sums.first_differences += weighted(of_a, a - b);
    sums.second += of_b;
    sums.second_differences += weighted(of_b, b - a);
  }
  return sums;
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat {
HWY_EXPORT(largest);
HWY_EXPORT(sum_of_exponentials);
HWY_EXPORT(pair_sums);

namespace kernels {

float largest_logit(std::span<const float> row) { return HWY_DYNAMIC_DISPATCH(largest)(row.data(), row.size()); }

double sum_of_exponentials(std::span<const float> row, double largest) {
  return HWY_DYNAMIC_DISPATCH(sum_of_exponentials)(row.data(), row.size(), largest);
}

PairSums pair_sums(std::span<const float> first, double first_largest, std::span<const float> second,
                   double second_largest) {
  return HWY_DYNAMIC_DISPATCH(pair_sums)(first.data(), first_largest, second.data(), second_largest, first.size());
}

}  // namespace kernels
}  // namespace qat
#endif
