#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quant/row_kernel.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come first
// clang-format on
#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "core/float_types.h"
#include "quant/grid.h"
#include "quant/row_kernels.h"
#include "quant/vector_loads-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using kernels::IntegerGrid;
using FloatTag = Floats;

// The code as a whole float, never -0. The comparisons choose the limit for a NaN, as fmin and fmax of the scalar rule
// do.
HWY_INLINE hn::Vec<FloatTag> code_of(FloatTag tag, hn::Vec<FloatTag> value, const IntegerGrid& grid) {
  const auto scaled = hn::Mul(value, hn::Set(tag, grid.inverse));
  const auto upper = hn::IfThenElse(hn::Lt(scaled, hn::Set(tag, grid.code_max)), scaled, hn::Set(tag, grid.code_max));
  const auto clamped = hn::IfThenElse(hn::Gt(upper, hn::Set(tag, grid.code_min)), upper, hn::Set(tag, grid.code_min));
  return hn::Add(hn::Round(clamped), hn::Zero(tag));
}

HWY_INLINE float scalar_code(float value, const IntegerGrid& grid) {
  return static_cast<float>(
      grid::integer_code(value, grid.inverse, static_cast<int>(grid.code_min), static_cast<int>(grid.code_max)));
}

HWY_INLINE float widen(float value) { return value; }
HWY_INLINE float widen(BFloat16 value) { return to_float(value); }
HWY_INLINE void store(float value, float* target) { *target = value; }
HWY_INLINE void store(float value, BFloat16* target) { *target = to_bfloat16(value); }
HWY_INLINE void store(FloatVector values, float* target) { hn::StoreU(values, Floats(), target); }
HWY_INLINE void store(FloatVector values, BFloat16* target) { store_bfloat16(values, target); }

template <class Value>
HWY_INLINE void encode(const Value* values, size_t count, const IntegerGrid& grid, int8_t* codes) {
  const FloatTag tag;
  const hn::RebindToSigned<FloatTag> integers;
  const hn::Rebind<int8_t, FloatTag> bytes;
  const size_t lanes = hn::Lanes(tag);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::DemoteTo(bytes, hn::ConvertTo(integers, code_of(tag, load_values(values + i), grid))), bytes,
               codes + i);
  }
  for (; i < count; ++i) codes[i] = static_cast<int8_t>(scalar_code(widen(values[i]), grid));
}

template <class Value>
HWY_INLINE void fake_quantize(const Value* values, size_t count, const IntegerGrid& grid, Value* results) {
  const FloatTag tag;
  const size_t lanes = hn::Lanes(tag);
  const auto scale = hn::Set(tag, grid.scale);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    store(hn::Mul(code_of(tag, load_values(values + i), grid), scale), results + i);
  }
  for (; i < count; ++i) store(scalar_code(widen(values[i]), grid) * grid.scale, results + i);
}

void fake_quantize_float(const float* values, size_t count, const IntegerGrid& grid, float* results) {
  fake_quantize(values, count, grid, results);
}
void fake_quantize_bfloat16(const BFloat16* values, size_t count, const IntegerGrid& grid, BFloat16* results) {
  fake_quantize(values, count, grid, results);
}

void encode_float(const float* values, size_t count, const IntegerGrid& grid, int8_t* codes) {
  encode(values, count, grid, codes);
}
void encode_bfloat16(const BFloat16* values, size_t count, const IntegerGrid& grid, int8_t* codes) {
  encode(values, count, grid, codes);
}

// A sum of floats: short runs of fp32 additions in every lane, gathered in a double.
class Sum {
 public:
  HWY_INLINE Sum() : lanes_(hn::Zero(FloatTag())) {}
  HWY_INLINE void add(hn::Vec<FloatTag> part) {
    lanes_ = hn::Add(lanes_, part);
    if (++additions_ % kRun == 0) flush();
  }
  HWY_INLINE double total() {
    flush();
    return total_;
  }

 private:
  static constexpr size_t kRun = 16;

  HWY_INLINE void flush() {
    const FloatTag tag;
    total_ += static_cast<double>(hn::GetLane(hn::SumOfLanes(tag, lanes_)));
    lanes_ = hn::Zero(tag);
  }

  hn::Vec<FloatTag> lanes_;
  size_t additions_ = 0;
  double total_ = 0;
};

double squared_error_float(const float* values, size_t count, const IntegerGrid& grid) {
  const FloatTag tag;
  const size_t lanes = hn::Lanes(tag);
  const auto scale = hn::Set(tag, grid.scale);
  Sum sum;
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto value = load_values(values + i);
    const auto error = hn::Sub(hn::Mul(code_of(tag, value, grid), scale), value);
    sum.add(hn::Mul(error, error));
  }
  double total = sum.total();
  for (; i < count; ++i) {
    const float error = scalar_code(values[i], grid) * grid.scale - values[i];
    total += static_cast<double>(error * error);
  }
  return total;
}

kernels::CodeProducts code_products_float(const float* values, size_t count, const IntegerGrid& grid) {
  const FloatTag tag;
  const size_t lanes = hn::Lanes(tag);
  Sum with_value;
  Sum with_code;
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto value = load_values(values + i);
    const auto code = code_of(tag, value, grid);
    with_value.add(hn::Mul(code, value));
    with_code.add(hn::Mul(code, code));
  }
  kernels::CodeProducts products{with_value.total(), with_code.total()};
  for (; i < count; ++i) {
    const float code = scalar_code(values[i], grid);
    products.code_value += static_cast<double>(code * values[i]);
    products.code_code += static_cast<double>(code * code);
  }
  return products;
}

template <class Value>
HWY_INLINE double mask_gradient(const Value* values, const Value* gradient, size_t count, const IntegerGrid& grid,
                                Value* masked) {
  const FloatTag tag;
  const size_t lanes = hn::Lanes(tag);
  const auto code_min = hn::Set(tag, grid.code_min);
  const auto code_max = hn::Set(tag, grid.code_max);
  Sum sum;
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto value = load_values(values + i);
    const auto scaled = hn::Mul(value, hn::Set(tag, grid.inverse));
    const auto inside = hn::And(hn::Ge(scaled, code_min), hn::Le(scaled, code_max));
    const auto code = code_of(tag, value, grid);
    const auto step = hn::IfThenElse(inside, hn::Sub(code, scaled), code);
    const auto incoming = load_values(gradient + i);
    sum.add(hn::Mul(incoming, step));
    store(hn::IfThenElseZero(inside, incoming), masked + i);
  }
  double total = sum.total();
  for (; i < count; ++i) {
    const float scaled = widen(values[i]) * grid.inverse, incoming = widen(gradient[i]);
    const bool inside = scaled >= grid.code_min && scaled <= grid.code_max;
    const float code = scalar_code(widen(values[i]), grid);
    total += static_cast<double>(incoming * (inside ? code - scaled : code));
    store(inside ? incoming : 0.0f, masked + i);
  }
  return total;
}

double scale_gradient_float(const float* values, const float* gradient, size_t count, const IntegerGrid& grid,
                            float* masked) {
  return mask_gradient(values, gradient, count, grid, masked);
}
double scale_gradient_bfloat16(const BFloat16* values, const BFloat16* gradient, size_t count, const IntegerGrid& grid,
                               BFloat16* masked) {
  return mask_gradient(values, gradient, count, grid, masked);
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat::kernels {
HWY_EXPORT(encode_float);
HWY_EXPORT(encode_bfloat16);
HWY_EXPORT(fake_quantize_float);
HWY_EXPORT(fake_quantize_bfloat16);
HWY_EXPORT(squared_error_float);
HWY_EXPORT(code_products_float);
HWY_EXPORT(scale_gradient_float);
HWY_EXPORT(scale_gradient_bfloat16);

void encode_integers(const float* values, size_t count, const IntegerGrid& grid, int8_t* codes) {
  HWY_DYNAMIC_DISPATCH(encode_float)(values, count, grid, codes);
}
void encode_integers(const BFloat16* values, size_t count, const IntegerGrid& grid, int8_t* codes) {
  HWY_DYNAMIC_DISPATCH(encode_bfloat16)(values, count, grid, codes);
}
void fake_quantize_integers(const float* values, size_t count, const IntegerGrid& grid, float* results) {
  HWY_DYNAMIC_DISPATCH(fake_quantize_float)(values, count, grid, results);
}
void fake_quantize_integers(const BFloat16* values, size_t count, const IntegerGrid& grid, BFloat16* results) {
  HWY_DYNAMIC_DISPATCH(fake_quantize_bfloat16)(values, count, grid, results);
}
double squared_error(const float* values, size_t count, const IntegerGrid& grid) {
  return HWY_DYNAMIC_DISPATCH(squared_error_float)(values, count, grid);
}
CodeProducts code_products(const float* values, size_t count, const IntegerGrid& grid) {
  return HWY_DYNAMIC_DISPATCH(code_products_float)(values, count, grid);
}
double scale_gradient(const float* values, const float* gradient, size_t count, const IntegerGrid& grid,
                      float* masked) {
  return HWY_DYNAMIC_DISPATCH(scale_gradient_float)(values, gradient, count, grid, masked);
}
double scale_gradient(const BFloat16* values, const BFloat16* gradient, size_t count, const IntegerGrid& grid,
                      BFloat16* masked) {
  return HWY_DYNAMIC_DISPATCH(scale_gradient_bfloat16)(values, gradient, count, grid, masked);
}

}  // namespace qat::kernels
#endif
