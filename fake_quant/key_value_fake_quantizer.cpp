#include "fake_quant/key_value_fake_quantizer.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <span>

#include "core/error.h"
#include "fake_quant/aten_values.h"
#include "fake_quant/straight_through.h"
#include "model/recompute.h"
#include "quant/grid.h"
#include "quant/key_value_block.h"
#include "quant/key_value_rotation.h"

namespace qat {

KeyValueFakeQuantizer::KeyValueFakeQuantizer(std::string name, int64_t rotation, int64_t head_dim)
    : name_(std::move(name)), rotation_(rotation) {
  if (head_dim % grid::kBlock != 0) {
    fail_usage(name_, ": head size ", head_dim, ", a q8_0 KV cache needs a multiple of ", grid::kBlock,
               "; set kv_cache to \"none\"");
  }
}

at::Tensor KeyValueFakeQuantizer::apply(const at::Tensor& activation) {
  if (!enabled_) return activation;
  fired_ = true;
  // Only the kernel has blocks to record; the values are the same.
  const bool records = recorded_ != nullptr && !is_recomputing();
  if (!activation.is_cpu() && !records) return straight_through(activation, key_values_in_aten(activation, rotation_));
  at::Tensor value;
  {
    const c10::NoGradGuard no_grad;
    value = activation.detach().to(at::kCPU, at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
    const int64_t head_dim = value.size(-1);
    const int64_t heads = value.numel() / head_dim;
    auto* data = value.mutable_data_ptr<float>();
    const int64_t head_bytes = key_value_bytes(head_dim);
    std::vector<std::byte> blocks(static_cast<size_t>(heads * head_bytes));
    at::parallel_for(0, heads, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const std::span<float> head(data + i * head_dim, static_cast<size_t>(head_dim));
        if (rotation_ > 0) rotate_hadamard(head, rotation_);
        encode_key_values(head, blocks.data() + i * head_bytes);
        decode_key_values(blocks.data() + i * head_bytes, head);
        if (rotation_ > 0) rotate_hadamard(head, rotation_);
      }
    });
    if (records) recorded_->insert(recorded_->end(), blocks.begin(), blocks.end());
    value = value.to(activation.device(), activation.scalar_type());
  }
  return straight_through(activation, value);
}

}  // namespace qat
