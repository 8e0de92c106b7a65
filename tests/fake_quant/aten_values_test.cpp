// The ATen operations that CUDA runs, on the CPU, against the kernels of src/quant: every bit.
#include "fake_quant/aten_values.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "fake_quant/integer_fake_quantize.h"
#include "fake_quant/key_value_fake_quantizer.h"
#include "fake_quant/tensor_values.h"
#include "fake_quant/weight_fake_quantizer.h"
#include "quant/row_codec.h"

namespace qat {
namespace {

// Bits, so that -0 and 0 differ; one NaN is as good as another.
testing::AssertionResult same_bits(const at::Tensor& a, const at::Tensor& b) {
  const auto bits = [](const at::Tensor& x) {
    return x.scalar_type() == at::kFloat ? x.contiguous().view(at::kInt) : x.contiguous().view(at::kShort);
  };
  const at::Tensor differ =
      bits(a).ne(bits(b)).logical_and_(a.isnan().logical_and(b.isnan()).logical_not()).flatten().nonzero();
  if (differ.numel() == 0) return testing::AssertionSuccess();
  const auto first = differ[0].item<int64_t>();
  return testing::AssertionFailure() << differ.numel() << " differ, the first at " << first << ": "
                                     << a.flatten()[first].item<float>() << " and " << b.flatten()[first].item<float>();
}

// Normal numbers of many sizes, blocks of zeros, of one magnitude with both signs, of halves between codes, and blocks
// whose scale or inverse has no normal fp16 or fp32.
at::Tensor masters() {
  std::vector<at::Tensor> parts{at::randn({64, 256}), at::randn({64, 256}) * (at::rand({64, 1}) * 60 - 40).exp2()};
  parts.push_back(at::zeros({1, 256}));
  parts.push_back(at::full({1, 256}, -0.0));
  parts.push_back((at::rand({8, 256}) > 0.5).to(at::kFloat) * 2 - 1);
  parts.push_back((at::rand({8, 256}) * 32).round() / 4 - 4);
  parts.push_back(at::randn({8, 256}) * 1e-38);
  parts.push_back(at::randn({8, 256}) * 3e-40);
  parts.push_back(at::randn({8, 256}) * 1e-7);
  return at::cat(parts);
}

// Puts every edge into some of the scales.
at::Tensor with_edges(at::Tensor scales, const std::vector<double>& edges) {
  const auto stride = 2 * static_cast<int64_t>(edges.size()) + 1;
  int64_t first = 1;
  for (const double edge : edges) scales.slice(0, first++, scales.numel(), stride).fill_(edge);
  return scales;
}

// As a search or a checkpoint may give them: of either sign, 0, the smallest and the largest fp16.
at::Tensor stored_scales(int64_t blocks) {
  return with_edges((at::randn({blocks}) * 0.2).to(at::kHalf), {0, -0.0, 0x1p-24, -0x1p-24, 0x1p-14, 65504, -65504});
}

// Of either sign; some are 0, have an inverse that is infinite or no normal number, or are as large as fp32 goes.
at::Tensor integer_scales(int64_t groups) {
  const at::Tensor signs = (at::rand({groups}) > 0.5).to(at::kFloat) * 2 - 1;
  return with_edges((at::rand({groups}) * 0.1 + 0.01) * signs, {0, -0.0, 0x1p-149, -0x1p-130, 0x1p-126, 0x1p127});
}

class AtenValues : public testing::TestWithParam<at::ScalarType> {};

TEST_P(AtenValues, OfBlocksAreThoseOfTheKernels) {
  const at::Tensor master = masters().to(GetParam());
  for (const Scheme scheme : {Scheme::Q4_0, Scheme::Q8_0}) {
    WeightFakeQuantizer quantizer("w", scheme, {});
    EXPECT_TRUE(same_bits(block_values_in_aten(scheme, master, {}), quantizer.apply(master)))
        << static_cast<int>(scheme);
  }
  const at::Tensor scales = stored_scales(master.numel() / 32);
  WeightFakeQuantizer stored("w", Scheme::Q4_0, values_of<const Float16>(scales));
  EXPECT_TRUE(same_bits(block_values_in_aten(Scheme::Q4_0, master, scales), stored.apply(master)));
}

TEST_P(AtenValues, OfIntegersAreThoseOfTheKernels) {
  const at::Tensor input = masters().to(GetParam());
  for (const Scheme scheme : {Scheme::Int2, Scheme::Int4, Scheme::Int8}) {
    for (const int64_t width : {int64_t{256}, int64_t{32}, input.numel()}) {
      const at::Tensor scales = integer_scales(input.numel() / width);
      EXPECT_TRUE(
          same_bits(integer_values_in_aten(scheme, input, scales, width), integer_values(scheme, input, scales, width)))
          << static_cast<int>(scheme) << " " << width;
    }
  }
}

struct OfRow {
  at::Tensor masked;
  double of_scale;
};

template <class Value>
OfRow kernel_gradients(Scheme scheme, const at::Tensor& input, const at::Tensor& gradient, float scale) {
  OfRow row{at::empty_like(input), 0};
  row.of_scale = scale_gradient(scheme, values_of<const Value>(input), values_of<const Value>(gradient), scale,
                                values_of<Value>(row.masked));
  return row;
}

// Calls compare(sum of the ATen operations, sum of the kernel) for every row, after comparing the masked gradients.
template <class Compare>
void compare_gradients(const at::Tensor& input, const at::Tensor& gradient, const at::Tensor& scales,
                       const Compare& compare) {
  const bool in_bfloat16 = input.scalar_type() == at::kBFloat16;
  for (const Scheme scheme : {Scheme::Int2, Scheme::Int4, Scheme::Int8}) {
    const IntegerGradients found = integer_gradients_in_aten(scheme, input, gradient, scales, input.size(1));
    for (int64_t row = 0; row < input.size(0); ++row) {
      const auto scale = scales[row].item<float>();
      const OfRow wanted = in_bfloat16 ? kernel_gradients<BFloat16>(scheme, input[row], gradient[row], scale)
                                       : kernel_gradients<float>(scheme, input[row], gradient[row], scale);
      EXPECT_TRUE(same_bits(found.masked[row], wanted.masked)) << static_cast<int>(scheme) << " " << row;
      compare(found.of_scales[row].item<double>(), wanted.of_scale);
    }
  }
}

// The kernel adds up a part of a group in fp32, in another order.
TEST_P(AtenValues, GradientsOfIntegersAreThoseOfTheKernels) {
  const at::Tensor input = at::randn({32, 128}).to(GetParam()), gradient = at::randn({32, 128}).to(GetParam());
  compare_gradients(input, gradient, at::rand({32}) * 0.3 + 0.05,
                    [](double found, double wanted) { EXPECT_NEAR(found, wanted, 1e-4); });
}

// Sixteenths and halves of a scale that is a power of two, times small whole numbers: the middle between codes, both
// ends of the codes, and sums that fp32 holds exactly whatever their order is.
TEST_P(AtenValues, GradientsOfIntegersAreEqualWhereSumsAreExact) {
  const at::Tensor input = (at::rand({32, 128}) * 96 - 48).round().to(GetParam()) / 64;
  const at::Tensor far = (at::rand({32, 128}) * 600 - 300).round().to(GetParam()) / 8;
  const at::Tensor gradient = (at::rand({32, 128}) * 6 - 3).round().to(GetParam());
  const at::Tensor scales = at::full({32}, 0.25);
  for (const at::Tensor& values : {input, far}) {
    compare_gradients(values, gradient, scales, [](double found, double wanted) { EXPECT_EQ(found, wanted); });
  }
}

TEST_P(AtenValues, OfCachedKeysAreThoseOfTheKernels) {
  for (const int64_t rotation : {0, 32, 64, 128, 256}) {
    const at::Tensor keys = masters().slice(0, 0, 150).to(GetParam()).view({-1, 1, 256});
    KeyValueFakeQuantizer quantizer("k", rotation, 256);
    EXPECT_TRUE(same_bits(key_values_in_aten(keys, rotation), quantizer.apply(keys))) << rotation;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, AtenValues, testing::Values(at::kFloat, at::kBFloat16));

}  // namespace
}  // namespace qat
