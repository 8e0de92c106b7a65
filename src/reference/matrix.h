// Activations: one row per token (or per token and head), contiguous.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <span>

namespace qat {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline std::span<const float> row_of(const Matrix& matrix, int64_t row) {
  return {matrix.data() + row * matrix.cols(), static_cast<size_t>(matrix.cols())};
}
inline std::span<float> row_of(Matrix& matrix, int64_t row) {
  return {matrix.data() + row * matrix.cols(), static_cast<size_t>(matrix.cols())};
}

}  // namespace qat
