// XNNPACK's integer arithmetic for weights with a scale per row, bit for bit (mobile_format.md 3; google/XNNPACK's
// qs8-qc8w, qs8-qc4w, qd8-f32-qc8w, qd8-f32-qc4w and qc2w GEMMs as LiteRT's CPU delegate calls them). Weights are Int2,
// Int4 or Int8 matrices with one scale per row.
#pragma once

#include "reference/matrix.h"
#include "reference/thread_pool.h"
#include "reference/weight_view.h"

namespace qat::mobile {

// x W^T between static edges, both calibrated: QUANTIZE, FULLY_CONNECTED in int8, DEQUANTIZE. [tokens, rows of W]
Matrix static_product(const Matrix& x, const WeightView& weight, ThreadPool& pool);
// x W^T of a float input, which is quantized token by token: FULLY_CONNECTED with a float output. [tokens, rows of W]
Matrix dynamic_product(const Matrix& x, const WeightView& weight, ThreadPool& pool);

}  // namespace qat::mobile
