#include "reference/gguf_model.h"

#include "core/error.h"
#include "quant/block_codec.h"

namespace qat {

namespace {

std::string text_of(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

const WeightView& GgufModel::weight(std::string_view name) const {
  const auto found = weights_.find(name);
  QAT_CHECK(found != weights_.end());
  return found->second;
}

std::vector<float> GgufModel::vector(std::string_view name) const {
  const WeightView& view = weight(name);
  std::vector<float> values(static_cast<size_t>(view.rows() * view.columns()));
  decode_blocks(view.scheme->id, view.blocks, values);
  return values;
}

void GgufModel::add(const GgufFile& file, const WeightSpec& weight) {
  const GgufTensor* tensor = file.find(weight.gguf_name);
  if (tensor == nullptr) {
    fail(where_, ": the tensor ", weight.gguf_name, " is missing, which a ", config_.architecture(),
         " model of this file's metadata has");
  }
  if (tensor->shape != weight.shape) {
    fail(where_, ": ", weight.gguf_name, " has the shape ", text_of(tensor->shape), ", the metadata describes ",
         text_of(weight.shape));
  }
  weights_[weight.name] = {&scheme(tensor->scheme), weight.shape, tensor->bytes, weight.name};
}

GgufModel::GgufModel(const GgufFile& file) : where_(file.where()), config_(config_from_gguf(file)) {
  const WeightTable table(config_);
  for (const WeightSpec& spec : table.weights()) add(file, spec);
}

}  // namespace qat
