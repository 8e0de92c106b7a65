#include "reference/device_activations.h"

#include "core/error.h"
#include "core/float_types.h"
#include "quant/grid.h"

namespace qat {

namespace {

QuantizedRows empty_rows(const Eigen::Ref<const Matrix>& x, int64_t block) {
  QAT_CHECK(x.cols() % block == 0 && x.outerStride() == x.cols());
  QuantizedRows result{x.rows(), x.cols(), block, {}, {}, {}};
  result.codes.resize(static_cast<size_t>(x.size()));
  result.scales.resize(static_cast<size_t>(x.size() / block));
  return result;
}

}  // namespace

QuantizedRows quantize_q8_0(const Eigen::Ref<const Matrix>& x, CodeOrder order) {
  QuantizedRows result = empty_rows(x, grid::kBlock);
  for (int64_t start = 0; start < x.size(); start += grid::kBlock) {
    const std::span<const float, grid::kBlock> block(x.data() + start, grid::kBlock);
    const float inverse = grid::q8_0_runtime_inverse(block);
    result.scales[static_cast<size_t>(start / grid::kBlock)] = to_float(to_float16(grid::q8_0_scale(block)));
    for (int64_t i = 0; i < grid::kBlock; ++i) {
      result.codes[static_cast<size_t>(start + code_place(order, i))] =
          grid::q8_0_runtime_code(block[static_cast<size_t>(i)], inverse);
    }
  }
  return result;
}

QuantizedRows quantize_q8_k(const Eigen::Ref<const Matrix>& x) {
  QuantizedRows result = empty_rows(x, grid::kSuperBlock);
  result.sums.resize(static_cast<size_t>(x.size() / grid::kGroup));
  for (int64_t start = 0; start < x.size(); start += grid::kSuperBlock) {
    const std::span<const float, grid::kSuperBlock> block(x.data() + start, grid::kSuperBlock);
    const float inverse = grid::q8_k_inverse(block);
    result.scales[static_cast<size_t>(start / grid::kSuperBlock)] = grid::inverse_scale(inverse);
    for (int64_t i = 0; i < grid::kSuperBlock; ++i) {
      const int16_t code = grid::q8_k_code(block[static_cast<size_t>(i)], inverse);
      const int64_t base = start + i / grid::kBlock * grid::kBlock;
      result.codes[static_cast<size_t>(base + code_place(CodeOrder::Quads, i % grid::kBlock))] = code;
      result.sums[static_cast<size_t>((start + i) / grid::kGroup)] += code;
    }
  }
  return result;
}

}  // namespace qat
