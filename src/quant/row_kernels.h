// The vector kernels behind row_codec.h, each dispatched to the best instruction set of the machine at run time.
// Raw pointers, no checks: row_codec.cpp has checked the sizes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/float_types.h"

namespace qat::kernels {

// Signed integer codes under one scale; the limits as floats, which is what the arithmetic needs.
struct IntegerGrid {
  float scale;
  float inverse;
  float code_min;
  float code_max;
};

void encode_integers(const float* values, size_t count, const IntegerGrid& grid, int8_t* codes);
void encode_integers(const BFloat16* values, size_t count, const IntegerGrid& grid, int8_t* codes);
void fake_quantize_integers(const float* values, size_t count, const IntegerGrid& grid, float* results);
void fake_quantize_integers(const BFloat16* values, size_t count, const IntegerGrid& grid, BFloat16* results);

// Sum of (decode(encode(value)) - value)^2.
double squared_error(const float* values, size_t count, const IntegerGrid& grid);

// Sums of code * value and of code^2: their ratio is the scale of least squared error for these codes.
struct CodeProducts {
  double code_value;
  double code_code;
};
CodeProducts code_products(const float* values, size_t count, const IntegerGrid& grid);

// row_codec.h: scale_gradient().
double scale_gradient(const float* values, const float* gradient, size_t count, const IntegerGrid& grid, float* masked);
double scale_gradient(const BFloat16* values, const BFloat16* gradient, size_t count, const IntegerGrid& grid,
                      BFloat16* masked);

}  // namespace qat::kernels
