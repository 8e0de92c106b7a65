// Finds the weights of a table among the tensors of a file.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "gemma4/weight_table.h"
#include "io/safetensors.h"

namespace qat {

// The tensors of a table inside a source: under any prefix ("model.language_model.", "model.", none).
class MasterWeights {
 public:
  // Throws Error that lists missing, wrongly shaped and wrongly typed weights together. `table` and `source` must
  // outlive this.
  MasterWeights(const WeightTable& table, const TensorSource& source);

  // The tensor of a weight of the table, in BF16, F32 or F16.
  const TensorView& of(const WeightSpec& weight) const;
  // The weight that a tensor of the source is, or null for other modalities' and redundant tensors.
  const WeightSpec* weight_of(const TensorView& tensor) const;
  // What stands before the table's names in this source: "model.language_model.".
  const std::string& prefix() const { return prefix_; }

 private:
  std::string prefix_;
  std::map<std::string, const TensorView*, std::less<>> by_weight_;
  std::map<const TensorView*, const WeightSpec*> by_tensor_;
};

}  // namespace qat
