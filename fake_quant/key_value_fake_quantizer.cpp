#include "fake_quant/key_value_fake_quantizer.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <span>

#include "core/error.h"
#include "fake_quant/straight_through.h"
#include "quant/grid.h"

namespace qat {

namespace {

// In-place normalized Walsh-Hadamard transform; it is its own inverse. `size` is a power of two.
void hadamard(std::span<float> values) {
  const size_t size = values.size();
  for (size_t half = 1; half < size; half *= 2) {
    for (size_t start = 0; start < size; start += 2 * half) {
      for (size_t i = start; i < start + half; ++i) {
        const float a = values[i];
        const float b = values[i + half];
        values[i] = a + b;
        values[i + half] = a - b;
      }
    }
  }
  const float normalization = 1.0f / std::sqrt(static_cast<float>(size));
  for (float& value : values) value *= normalization;
}

void rotate(std::span<float> head, int64_t rotation) {
  for (size_t start = 0; start < head.size(); start += static_cast<size_t>(rotation)) {
    hadamard(head.subspan(start, static_cast<size_t>(rotation)));
  }
}

void through_q8_0(std::span<float> head) {
  for (size_t start = 0; start < head.size(); start += grid::kBlock) {
    const auto block = std::span<float, grid::kBlock>(head.subspan(start, grid::kBlock));
    const Float16 scale = to_float16(grid::q8_0_scale(block));
    const float inverse = grid::q8_0_runtime_inverse(block);
    for (float& value : block) value = grid::q8_0_value(grid::q8_0_runtime_code(value, inverse), scale);
  }
}

}  // namespace

int64_t rotation_size(CacheSide side, int64_t head_dim) {
  if (head_dim % 64 != 0) return 0;
  return side == CacheSide::Value ? 64 : head_dim & -head_dim;
}

KeyValueFakeQuantizer::KeyValueFakeQuantizer(std::string name, CacheSide side, int64_t head_dim)
    : name_(std::move(name)), rotation_(rotation_size(side, head_dim)) {
  if (head_dim % grid::kBlock != 0) {
    fail_usage(name_, ": head size ", head_dim, ", a q8_0 KV cache needs a multiple of ", grid::kBlock,
               "; set kv_cache to \"none\"");
  }
}

at::Tensor KeyValueFakeQuantizer::apply(const at::Tensor& activation) {
  if (!enabled_) return activation;
  fired_ = true;
  at::Tensor value;
  {
    const c10::NoGradGuard no_grad;
    value = activation.detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
    const int64_t head_dim = value.size(-1);
    const int64_t heads = value.numel() / head_dim;
    auto* data = value.mutable_data_ptr<float>();
    at::parallel_for(0, heads, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const std::span<float> head(data + i * head_dim, static_cast<size_t>(head_dim));
        if (rotation_ > 0) rotate(head, rotation_);
        through_q8_0(head);
        if (rotation_ > 0) rotate(head, rotation_);
      }
    });
    value = value.to(activation.scalar_type());
  }
  return straight_through(activation, value);
}

}  // namespace qat
