#include "reference/gguf_model.h"

#include "core/error.h"
#include "io/tensor_source.h"

namespace qat {

void GgufModel::add(const GgufFile& file, const WeightSpec& weight) {
  const GgufTensor* tensor = file.find(weight.gguf_name);
  if (tensor == nullptr) {
    fail(where_, ": the tensor ", weight.gguf_name, " is missing, which a ", config_.architecture(),
         " model of this file's metadata has");
  }
  if (tensor->shape != weight.shape) {
    fail(where_, ": ", weight.gguf_name, " has the shape ", shape_text(tensor->shape), ", the metadata describes ",
         shape_text(weight.shape));
  }
  weights_[weight.name] = {&scheme(tensor->scheme), weight.shape, tensor->bytes, weight.name};
}

GgufModel::GgufModel(const GgufFile& file) : where_(file.where()), config_(config_from_gguf(file)) {
  const WeightTable table(config_);
  for (const WeightSpec& spec : table.weights()) add(file, spec);
}

}  // namespace qat
