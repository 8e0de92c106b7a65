#include "trainers/rounding_in_aten.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include <algorithm>

namespace qat {

namespace {

constexpr int64_t kPiece = int64_t{1} << 22;  // values whose random numbers exist at a time

int64_t as_signed(uint64_t bits) { return static_cast<int64_t>(bits); }

// z ^ (z >> count) of unsigned numbers.
at::Tensor mixed(const at::Tensor& z, int64_t count) {
  return z.bitwise_xor(z.bitwise_right_shift(count).bitwise_and_(as_signed(~uint64_t{0} >> count)));
}

// ElementRandom::of_master() of `count` places from `first` on: int64. SplitMix64::at(), operation by operation.
at::Tensor masters_random(const ElementRandom& random, int64_t first, int64_t count, at::Device device) {
  const at::Tensor places = at::arange(first, first + count, at::TensorOptions(at::kLong).device(device));
  const at::Tensor state = places.add(1).mul_(as_signed(SplitMix64::kIncrement)).add_(as_signed(random.key()));
  const at::Tensor once = mixed(state, 30).mul_(as_signed(SplitMix64::kFirstFactor));
  const at::Tensor twice = mixed(once, 27).mul_(as_signed(SplitMix64::kSecondFactor));
  return mixed(twice, 31).bitwise_and_(0xffff);
}

at::Tensor rounded(const at::Tensor& values, const at::Tensor& random) {
  constexpr int64_t kExponent = 0x7f800000;
  const at::Tensor bits = values.view(at::kInt).to(at::kLong).bitwise_and_(0xffffffff);
  const at::Tensor upper = (bits + random).bitwise_right_shift(16).to(at::kShort).view(at::kBFloat16);
  return at::where(bits.bitwise_and(kExponent).eq(kExponent), values.to(at::kBFloat16), upper);
}

}  // namespace

at::Tensor round_stochastically_in_aten(const at::Tensor& values, const ElementRandom& random) {
  const at::Tensor flat = values.contiguous().view(-1);
  at::Tensor result = at::empty(flat.sizes(), flat.options().dtype(at::kBFloat16));
  for (int64_t first = 0; first < flat.numel(); first += kPiece) {
    const int64_t count = std::min(kPiece, flat.numel() - first);
    const at::Tensor drawn = masters_random(random, first, count, values.device());
    result.narrow(0, first, count).copy_(rounded(flat.narrow(0, first, count), drawn));
  }
  return result.view(values.sizes());
}

}  // namespace qat
