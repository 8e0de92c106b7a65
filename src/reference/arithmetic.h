// The operations of a Gemma forward pass whose numbers depend on where it runs. The pass itself is forward.h.
#pragma once

#include <algorithm>
#include <memory>
#include <span>

#include "gemma4/config.h"
#include "reference/key_value_cache.h"
#include "reference/matrix.h"
#include "reference/thread_pool.h"
#include "reference/weight_view.h"

namespace qat {

// What one layer's queries attend to.
struct AttentionShape {
  int64_t heads = 0;
  int64_t key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t window = 0;          // keys a query sees, itself included; 0 = all before it
  int64_t first_position = 0;  // of the first query row

  // The first position that the query at `position` sees.
  int64_t first_visible(int64_t position) const {
    return window == 0 ? 0 : std::max<int64_t>(0, position - window + 1);
  }
};

// Static int8 codes of an edge, decoded again; scale 0: as it is.
void fake_quantize_edge(Matrix& values, float scale);

class Arithmetic {
 public:
  virtual ~Arithmetic() = default;

  // Decoded rows of a table: [ids, columns].
  virtual Matrix gather(const WeightView& table, std::span<const int32_t> ids) const = 0;
  // x W^T: [tokens, rows of W]. `row_by_row`: the tokens come one at a time, as experts get theirs.
  virtual Matrix linear(const Matrix& x, const WeightView& weight, bool row_by_row = false) const = 0;
  // RMSNorm of every group of `width` values, times `weight` [width] unless that is empty.
  virtual void norm(Matrix& x, int64_t width, std::span<const float> weight, float epsilon) const = 0;
  // Rotary embedding of rows [tokens, heads * head_dim] that start at `first_position`.
  virtual void rotate(Matrix& x, const RopeConfig& rope, int64_t first_position) const = 0;
  // gate = gelu_tanh(gate) * factor, element by element.
  virtual void gate(Matrix& gate, const Eigen::Ref<const Matrix, 0, Eigen::OuterStride<>>& factor) const = 0;
  // softmax(q k^T) v over the cached positions that each query may see: [tokens, heads * head_dim]. The queries' own
  // keys and values are in the cache already. Queries are scaled.
  virtual Matrix attend(const Matrix& queries, const KeyValueCache& cache, const AttentionShape& shape) const = 0;
  // Replaces values by exp(value - largest) and returns their sum.
  virtual double exponentials(std::span<float> values, float largest) const = 0;
  // cap * tanh(x / cap)
  virtual void softcap(Matrix& logits, float cap) const = 0;
};

// What training computed: weights of block schemes as the BF16 matrices that its GEMM read, everything else fp32;
// static edges of a weight fake-quantized.
std::unique_ptr<Arithmetic> make_float_arithmetic(ThreadPool& pool);
// llama.cpp's CPU kernels for x86-64 with AVX2 and FMA (device_arithmetic.cpp names the paths).
std::unique_ptr<Arithmetic> make_device_arithmetic(ThreadPool& pool);

// XNNPACK's kernels, bit for bit: integer products wherever a weight has row scales (mobile_products.h), fp32 between
// them (mobile_floats.h). `context`: positions that the client's caches have room for, which decides the order of some
// sums; kAnyContext: a multiple of all vectors' lengths.
inline constexpr int64_t kAnyContext = int64_t{1} << 40;
std::unique_ptr<Arithmetic> make_mobile_device_arithmetic(ThreadPool& pool, int64_t context);

}  // namespace qat
