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

void GgufModel::add_changes(const GgufAdapter& adapter, const WeightTable& table) {
  const auto refuse = [&](const auto&... how) {
    fail(adapter.where(), ": ", how..., "; this adapter belongs to another model than ", where_);
  };
  if (adapter.architecture() != config_.architecture()) {
    refuse("general.architecture is ", adapter.architecture(), ", the model's is ", config_.architecture());
  }
  for (const auto& [name, pair] : adapter.pairs()) {
    const WeightSpec* spec = table.find_gguf(name);
    if (spec == nullptr || spec->shape.size() != 2 || is_table(spec->role)) {
      refuse("changes ", name, ", which is no matrix of the model");
    }
    if (pair.a->shape[1] != spec->columns() || pair.b->shape[0] != spec->rows()) {
      refuse("A and B of ", name, " make a matrix ", shape_text(std::vector{pair.b->shape[0], pair.a->shape[1]}),
             ", the model's is ", shape_text(spec->shape));
    }
    const auto view = [](const GgufTensor& tensor) {
      return WeightView{&scheme(tensor.scheme), tensor.shape, tensor.bytes};
    };
    weights_.at(spec->name).change =
        std::make_shared<const LowRankChange>(LowRankChange{view(*pair.a), view(*pair.b), pair.scaling});
  }
}

GgufModel::GgufModel(const GgufFile& file, const GgufAdapter* adapter)
    : where_(file.where()), config_(config_from_gguf(file)) {
  const WeightTable table(config_);
  for (const WeightSpec& spec : table.weights()) add(file, spec);
  if (adapter != nullptr) add_changes(*adapter, table);
}

}  // namespace qat
