// A matrix or table of the model with the slots through which LoRA and QAT enter. The model knows the interfaces only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace qat {

// Replaces a weight by the value the forward pass reads (fake quantization). Differentiable with respect to the master.
class WeightTransform {
 public:
  virtual ~WeightTransform() = default;
  // The whole weight: same shape and dtype as the master.
  virtual at::Tensor apply(const at::Tensor& master) = 0;
  // Some rows: `values` [n, columns] are the rows `rows` (int64 [n]) of the master, a stack of matrices counted through
  // as one. Equal to those rows of apply(), and nothing is kept of them. Used where a table is looked up, and where a
  // weight is made piece by piece.
  virtual at::Tensor apply_rows(const at::Tensor& values, const at::Tensor& rows) = 0;
  // Drops what it keeps of the weight between uses.
  virtual void forget() {}
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

// Adds to a projection's product another map of the same input (LoRA beside a weight that stays as it is).
class SideProduct {
 public:
  virtual ~SideProduct() = default;
  // x [..., in], product [..., out]; the sum has the product's shape and dtype.
  virtual at::Tensor add_to(const at::Tensor& x, const at::Tensor& product) = 0;
};

// A frozen master that is kept in another form than as a tensor (packed codes).
class StoredMaster {
 public:
  virtual ~StoredMaster() = default;
  // The whole weight, made anew: BF16 numbers in the weight's shape and the model's dtype.
  virtual at::Tensor make() const = 0;
};

// A use of a weight that is elsewhere between its uses: it can be read from arrive() on as long as this lives.
class WeightLoan {
 public:
  virtual ~WeightLoan() = default;
  virtual void arrive() = 0;
};

// Brings a weight from the process that owns it. Both functions start that and return at once; they are called for the
// same weights in the same order by all processes that use them.
class WeightLender {
 public:
  virtual ~WeightLender() = default;
  // To read the master.
  virtual std::unique_ptr<WeightLoan> lend_master() = 0;
  // To read effective_weight() alone, for which less may have to come.
  virtual std::unique_ptr<WeightLoan> lend_for_product() = 0;
};

// Values that are converted at a time where a weight has another dtype than its model.
inline constexpr int64_t kConvertedValues = int64_t{1} << 24;

struct Projection {
  std::string name;   // as in WeightTable
  at::Tensor weight;  // the master, a leaf: [out, in], [vocabulary, width] or [experts, out, in]
  // In place of `weight`, which is undefined then. What is made of it is not kept either.
  std::shared_ptr<const StoredMaster> stored_master;
  // The model's dtype, where it may be another one than the weight's: what is read of the weight is then converted at
  // every use, and nothing is kept of it.
  std::optional<at::ScalarType> computes_in;
  // Null: `weight` is always there. Else it is without memory (absent_weight.h) but for its loans.
  std::shared_ptr<WeightLender> lender;
  std::shared_ptr<WeightDelta> weight_delta;
  std::shared_ptr<WeightTransform> weight_transform;
  std::shared_ptr<ActivationTransform> input_transform;
  std::shared_ptr<SideProduct> side_product;
  std::shared_ptr<ActivationTransform> output_transform;

  // What has to live while effective_weight() is used; null where the weight is always there.
  std::unique_ptr<WeightLoan> borrow_for_product() const;
  // The same for whatever reads the master, arrived already.
  std::unique_ptr<WeightLoan> borrow_master() const;

  // The weight, made where it is stored in another form.
  at::Tensor master() const;
  // What the transform reads and checkpoints store: weight + delta, in the weight's dtype.
  at::Tensor merged_weight() const;
  // What the GEMM reads: transform(weight + delta).
  at::Tensor effective_weight() const;
  // Rows of it, gathered first: `rows` int64 [n] -> [n, columns].
  at::Tensor effective_rows(const at::Tensor& rows) const;
  // x [..., in] -> [..., out], the side product added, both activation slots applied.
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor weight_made_by_rows(const at::Tensor& merged) const;
};

}  // namespace qat
