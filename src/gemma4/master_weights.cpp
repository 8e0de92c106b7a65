#include "gemma4/master_weights.h"

#include <vector>

#include "core/error.h"

namespace qat {

namespace {

// The token embedding tells the prefix. Where several modules have one, the text model is the one with a final norm.
std::string find_prefix(const TensorSource& source) {
  static constexpr std::string_view kEmbedding = "embed_tokens.weight";
  std::vector<std::string> prefixes, with_norm;
  for (const TensorView& tensor : source.tensors()) {
    if (!tensor.name.ends_with(kEmbedding)) continue;
    const std::string prefix = tensor.name.substr(0, tensor.name.size() - kEmbedding.size());
    if (!prefix.empty() && !prefix.ends_with('.')) continue;
    prefixes.push_back(prefix);
    if (source.find(prefix + "norm.weight") != nullptr) with_norm.push_back(prefix);
  }
  if (prefixes.empty())
    fail(source.where(), ": no tensor is named ", kEmbedding, " under any prefix: this is no Gemma text model");
  if (prefixes.size() == 1) return prefixes.front();
  if (with_norm.size() == 1) return with_norm.front();
  fail(source.where(), ": has several token embeddings, under \"", prefixes[0], "\" and \"", prefixes[1], "\"");
}

bool is_float(ElementType type) {
  return type == ElementType::BF16 || type == ElementType::F32 || type == ElementType::F16;
}

// An untied head stands beside the text model: "lm_head.weight", or "language_model.lm_head.weight" beside
// "language_model.model.".
const TensorView* find_weight(const TensorSource& source, const std::string& prefix, const WeightSpec& weight) {
  static constexpr std::string_view kModel = "model.";
  if (const TensorView* tensor = source.find(prefix + weight.name)) return tensor;
  if (weight.role != WeightRole::OutputHead) return nullptr;
  const bool nested = prefix.ends_with(kModel);
  const std::string beside = nested ? prefix.substr(0, prefix.size() - kModel.size()) : "";
  const TensorView* tensor = source.find(beside + weight.name);
  return tensor == nullptr ? source.find(weight.name) : tensor;
}

// What is wrong with a weight's tensor, or nothing.
std::string fault_of(const TensorView* tensor, const WeightSpec& weight) {
  if (tensor == nullptr) return "is missing";
  if (tensor->shape != weight.shape) {
    return "has shape " + shape_text(tensor->shape) + ", config.json wants " + shape_text(weight.shape);
  }
  if (!is_float(tensor->type))
    return "has type " + std::string(element_name(tensor->type)) + ", wanted BF16, F32 or F16";
  return "";
}

}  // namespace

MasterWeights::MasterWeights(const WeightTable& table, const TensorSource& source) : prefix_(find_prefix(source)) {
  static constexpr int kListed = 20;
  std::string faults;
  int count = 0;
  for (const WeightSpec& weight : table.weights()) {
    const TensorView* tensor = find_weight(source, prefix_, weight);
    const std::string fault = fault_of(tensor, weight);
    if (fault.empty()) {
      by_weight_.emplace(weight.name, tensor);
      by_tensor_.emplace(tensor, &weight);
    } else if (++count <= kListed) {
      faults += "\n  " + weight.name + " " + fault;
    }
  }
  if (count == 0) return;
  if (count > kListed) faults += "\n  and " + std::to_string(count - kListed) + " more";
  fail(source.where(), ": ", count, " of ", table.weights().size(), " weights do not fit config.json (names under \"",
       prefix_, "\"):", faults);
}

const TensorView& MasterWeights::of(const WeightSpec& weight) const {
  const auto found = by_weight_.find(weight.name);
  QAT_CHECK(found != by_weight_.end());
  return *found->second;
}

const WeightSpec* MasterWeights::weight_of(const TensorView& tensor) const {
  const auto found = by_tensor_.find(&tensor);
  return found == by_tensor_.end() ? nullptr : found->second;
}

}  // namespace qat
