// The ATen operations that CUDA runs, on the CPU, against the kernels of src/quant: every bit.
#include "fake_quant/aten_values.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
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

class AtenValues : public testing::TestWithParam<at::ScalarType> {};

TEST_P(AtenValues, OfBlocksAreThoseOfTheKernels) {
  const at::Tensor master = masters().to(GetParam());
  for (const Scheme scheme : {Scheme::Q4_0, Scheme::Q8_0}) {
    WeightFakeQuantizer quantizer("w", scheme, {});
    EXPECT_TRUE(same_bits(block_values_in_aten(scheme, master, {}), quantizer.apply(master)))
        << static_cast<int>(scheme);
  }
  const at::Tensor scales = (at::randn({master.numel() / 32}) * 0.2).to(at::kHalf);
  WeightFakeQuantizer stored("w", Scheme::Q4_0, values_of<const Float16>(scales));
  EXPECT_TRUE(same_bits(block_values_in_aten(Scheme::Q4_0, master, scales), stored.apply(master)));
}

TEST_P(AtenValues, OfIntegersAreThoseOfTheKernels) {
  const at::Tensor input = masters().to(GetParam());
  for (const Scheme scheme : {Scheme::Int2, Scheme::Int4, Scheme::Int8}) {
    for (const int64_t width : {int64_t{256}, int64_t{64}, input.numel()}) {
      const at::Tensor scales = at::rand({input.numel() / width}) * 0.1 + 0.01;
      EXPECT_TRUE(
          same_bits(integer_values_in_aten(scheme, input, scales, width), integer_values(scheme, input, scales, width)))
          << static_cast<int>(scheme) << " " << width;
    }
  }
}

// The kernel adds up parts of a group in fp32.
TEST_P(AtenValues, GradientsOfIntegersAreThoseOfTheKernels) {
  const at::Tensor input = at::randn({32, 128}).to(GetParam());
  const at::Tensor gradient = at::randn({32, 128}).to(GetParam());
  const at::Tensor scales = at::rand({32}) * 0.3 + 0.05;
  for (const Scheme scheme : {Scheme::Int2, Scheme::Int4, Scheme::Int8}) {
    const IntegerGradients found = integer_gradients_in_aten(scheme, input, gradient, scales, 128);
    for (int64_t row = 0; row < 32; ++row) {
      const at::Tensor values = input[row].to(at::kFloat), incoming = gradient[row].to(at::kFloat);
      std::vector<float> masked(128);
      const double sum = scale_gradient(scheme, values_of<const float>(values), values_of<const float>(incoming),
                                        scales[row].item<float>(), masked);
      EXPECT_NEAR(found.of_scales[row].item<double>(), sum, 1e-4) << row;
      const at::Tensor found_row = found.masked[row].to(at::kFloat).contiguous();
      const auto of_row = values_of<const float>(found_row);
      EXPECT_TRUE(std::equal(of_row.begin(), of_row.end(), masked.begin())) << row;
    }
  }
}

TEST_P(AtenValues, OfCachedKeysAreThoseOfTheKernels) {
  for (const int64_t rotation : {0, 64, 256}) {
    const at::Tensor keys = masters().slice(0, 0, 150).to(GetParam()).view({-1, 1, 256});
    KeyValueFakeQuantizer quantizer("k", rotation, 256);
    EXPECT_TRUE(same_bits(key_values_in_aten(keys, rotation), quantizer.apply(keys))) << rotation;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, AtenValues, testing::Values(at::kFloat, at::kBFloat16));

}  // namespace
}  // namespace qat
