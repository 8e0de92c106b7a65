// A matrix or table of the model with the slots through which LoRA and QAT enter. The model knows the interfaces only.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

namespace qat {

// Replaces a weight by the value the forward pass reads (fake quantization). Differentiable with respect to the master.
class WeightTransform {
 public:
  virtual ~WeightTransform() = default;
  // The whole weight: same shape and dtype as the master.
  virtual at::Tensor apply(const at::Tensor& master) = 0;
  // Rows of a table: `rows` int64 [n] -> [n, columns], equal to those rows of apply(). Used by embedding lookups, so a
  // table is never transformed as a whole for a lookup.
  virtual at::Tensor apply_rows(const at::Tensor& master, const at::Tensor& rows) = 0;
};

// Adds a low-rank or other change to a master before the weight transform (LoRA: W + s * B A).
class WeightDelta {
 public:
  virtual ~WeightDelta() = default;
  // Same shape and dtype as the master, and BF16 numbers like it: a checkpoint stores this.
  virtual at::Tensor add_to(const at::Tensor& master) = 0;
};

// Observes or fake-quantizes an activation: the input or output of a projection, or keys and values on their way to the
// cache. Same shape out as in.
class ActivationTransform {
 public:
  virtual ~ActivationTransform() = default;
  virtual at::Tensor apply(const at::Tensor& activation) = 0;
};

struct Projection {
  std::string name;   // as in WeightTable
  at::Tensor weight;  // the master, a leaf: [out, in], [vocabulary, width] or [experts, out, in]
  std::shared_ptr<WeightDelta> weight_delta;
  std::shared_ptr<WeightTransform> weight_transform;
  std::shared_ptr<ActivationTransform> input_transform;
  std::shared_ptr<ActivationTransform> output_transform;

  // What the transform reads and checkpoints store: weight + delta.
  at::Tensor merged_weight() const;
  // What the GEMM reads: transform(weight + delta).
  at::Tensor effective_weight() const;
  // Rows of it, gathered first: `rows` int64 [n] -> [n, columns].
  at::Tensor effective_rows(const at::Tensor& rows) const;
  // x [..., in] -> [..., out], both activation slots applied.
  at::Tensor operator()(const at::Tensor& x) const;
};

}  // namespace qat
