#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/attention_kernel.cpp"
// clang-format off
#include <hwy/foreach_target.h>  // must come first
// clang-format on
#include <hwy/contrib/math/math-inl.h>

#include "model/attention_kernels.h"
#include "quant/vector_loads-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qat::HWY_NAMESPACE {
using attention_kernels::RunningSoftmax;
using attention_kernels::ScoreGradients;

HWY_INLINE hn::Vec<Words> pair_of(FloatVector first, FloatVector second) {
  return hn::Or(bfloat16_bits(first), hn::ShiftLeft<16>(bfloat16_bits(second)));
}

bool add_scores(const float* scores, int64_t keys, int64_t columns, float scale, const RunningSoftmax& softmax,
                uint32_t* pairs) {
  const Floats tag;
  const FloatVector factor = hn::Set(tag, scale);
  const FloatVector one = hn::Set(tag, 1.0f);
  bool decays = false;
  for (int64_t column = 0; column < columns; column += static_cast<int64_t>(hn::Lanes(tag))) {
    const FloatVector before = hn::LoadU(tag, softmax.largest + column);
    FloatVector largest = hn::LoadU(tag, scores + column);
    for (int64_t key = 1; key < keys; ++key) {
      largest = hn::Max(largest, hn::LoadU(tag, scores + key * columns + column));
    }
    largest = hn::Max(before, hn::Mul(largest, factor));
    const FloatVector decay = hn::Exp(tag, hn::Sub(before, largest));
    decays = decays || !hn::AllTrue(tag, hn::Eq(decay, one));
    FloatVector sum = hn::Mul(hn::LoadU(tag, softmax.sum + column), decay);
    for (int64_t key = 0; key < keys; key += 2) {
      const float* row = scores + key * columns + column;
      const FloatVector first = hn::Exp(tag, hn::Sub(hn::Mul(hn::LoadU(tag, row), factor), largest));
      const FloatVector second = hn::Exp(tag, hn::Sub(hn::Mul(hn::LoadU(tag, row + columns), factor), largest));
      sum = hn::Add(sum, hn::Add(first, second));
      hn::StoreU(pair_of(first, second), Words(), pairs + key / 2 * columns + column);
    }
    hn::StoreU(largest, tag, softmax.largest + column);
    hn::StoreU(decay, tag, softmax.decay + column);
    hn::StoreU(sum, tag, softmax.sum + column);
  }
  return decays;
}

void differentiate_scores(const float* scores, const float* of_probabilities, int64_t keys, int64_t columns,
                          float scale, const float* log_sums, const float* dots, const ScoreGradients& results) {
  const Floats tag;
  const FloatVector factor = hn::Set(tag, scale);
  for (int64_t column = 0; column < columns; column += static_cast<int64_t>(hn::Lanes(tag))) {
    const FloatVector log_sum = hn::LoadU(tag, log_sums + column);
    const FloatVector mean = hn::LoadU(tag, dots + column);
    const auto of_score = [&](int64_t key) {
      const int64_t at = key * columns + column;
      const int64_t to = key * results.stride + column;
      const FloatVector score = hn::Mul(hn::LoadU(tag, scores + at), factor);
      const FloatVector probability = hn::Exp(tag, hn::Sub(score, log_sum));
      store_bfloat16(probability, results.probabilities + to);
      const FloatVector gradient =
          hn::Mul(hn::Mul(probability, factor), hn::Sub(hn::LoadU(tag, of_probabilities + at), mean));
      store_bfloat16(gradient, results.of_scores + to);
      return gradient;
    };
    for (int64_t key = 0; key < keys; key += 2) {
      const FloatVector first = of_score(key);
      const FloatVector second = of_score(key + 1);
      hn::StoreU(pair_of(first, second), Words(), results.pairs + key / 2 * columns + column);
    }
  }
}

void scale_columns(float* values, int64_t rows, int64_t columns, const float* factors) {
  const Floats tag;
  for (int64_t row = 0; row < rows; ++row, values += columns) {
    for (int64_t column = 0; column < columns; column += static_cast<int64_t>(hn::Lanes(tag))) {
      hn::StoreU(hn::Mul(hn::LoadU(tag, values + column), hn::LoadU(tag, factors + column)), tag, values + column);
    }
  }
}

void narrow_to_pairs(const float* values, int64_t rows, int64_t columns, const float* factors, uint32_t* pairs) {
  const Floats tag;
  for (int64_t row = 0; row < rows; row += 2, values += 2 * columns, pairs += columns) {
    for (int64_t column = 0; column < columns; column += static_cast<int64_t>(hn::Lanes(tag))) {
      const FloatVector factor = hn::LoadU(tag, factors + column);
      hn::StoreU(pair_of(hn::Mul(hn::LoadU(tag, values + column), factor),
                         hn::Mul(hn::LoadU(tag, values + columns + column), factor)),
                 Words(), pairs + column);
    }
  }
}

void pair_rows(const BFloat16* values, int64_t rows, int64_t columns, uint32_t* pairs) {
  for (int64_t row = 0; row < rows; row += 2, values += 2 * columns, pairs += columns) {
    for (int64_t column = 0; column < columns; ++column) {
      pairs[column] = values[column].bits | static_cast<uint32_t>(values[columns + column].bits) << 16;
    }
  }
}

float dot(const BFloat16* a, const BFloat16* b, int64_t count) {
  const Floats tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  FloatVector sum = hn::Zero(tag);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) sum = hn::MulAdd(load_values(a + i), load_values(b + i), sum);
  float result = hn::GetLane(hn::SumOfLanes(tag, sum));
  for (; i < count; ++i) result += to_float(a[i]) * to_float(b[i]);
  return result;
}

}  // namespace qat::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qat {
HWY_EXPORT(add_scores);
HWY_EXPORT(differentiate_scores);
HWY_EXPORT(scale_columns);
HWY_EXPORT(narrow_to_pairs);
HWY_EXPORT(pair_rows);
HWY_EXPORT(dot);

namespace attention_kernels {

bool add_scores(const float* scores, int64_t keys, int64_t columns, float scale, const RunningSoftmax& softmax,
                uint32_t* pairs) {
  return HWY_DYNAMIC_DISPATCH(add_scores)(scores, keys, columns, scale, softmax, pairs);
}
void differentiate_scores(const float* scores, const float* of_probabilities, int64_t keys, int64_t columns,
                          float scale, const float* log_sums, const float* dots, const ScoreGradients& results) {
  HWY_DYNAMIC_DISPATCH(differentiate_scores)
  (scores, of_probabilities, keys, columns, scale, log_sums, dots, results);
}
void scale_columns(float* values, int64_t rows, int64_t columns, const float* factors) {
  HWY_DYNAMIC_DISPATCH(scale_columns)(values, rows, columns, factors);
}
void narrow_to_pairs(const float* values, int64_t rows, int64_t columns, const float* factors, uint32_t* pairs) {
  HWY_DYNAMIC_DISPATCH(narrow_to_pairs)(values, rows, columns, factors, pairs);
}
void pair_rows(const BFloat16* values, int64_t rows, int64_t columns, uint32_t* pairs) {
  HWY_DYNAMIC_DISPATCH(pair_rows)(values, rows, columns, pairs);
}
float dot(const BFloat16* a, const BFloat16* b, int64_t count) { return HWY_DYNAMIC_DISPATCH(dot)(a, b, count); }

}  // namespace attention_kernels
}  // namespace qat
#endif
