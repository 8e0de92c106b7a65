#include "exporters/gguf_masters.h"

#include <cmath>
#include <type_traits>

#include "core/error.h"
#include "gemma4/tensor_faults.h"
#include "reference/gguf_model.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

std::string describe(const GgufTensor& tensor) {
  return join(scheme(tensor.scheme).name, " ", shape_text(tensor.shape));
}

// A table of fewer rows comes from llama.cpp's converter, which cuts what the tokenizer has no pieces for.
std::string hint_of_rows(const GgufTensor& tensor, const WeightSpec& weight, const std::string& config_file) {
  const bool is_cut = is_table(weight.role) && tensor.shape.size() == 2 && tensor.columns() == weight.columns() &&
                      tensor.shape[0] < weight.rows();
  return is_cut
             ? join(": if rows of padding were cut, set vocab_size to ", tensor.shape[0], " in a copy of ", config_file)
             : "";
}

// What is the same for all positions of a model and cannot be seen from the shapes of its weights.
class Facts {
 public:
  template <class Value>
  void compare(const std::string& fact, const Value& found, const Value& wanted) {
    if constexpr (std::is_floating_point_v<Value>) {
      if (std::fabs(found - wanted) <= 1e-6 * std::fabs(wanted)) return;  // the file has fp32
    } else {
      if (found == wanted) return;
    }
    differences_ += join("\n  ", fact, " is ", found, ", wanted ", wanted);
  }

  void compare(const LayerConfig& found, const LayerConfig& wanted) {
    const std::string layer = join("layer ", wanted.index, ": ");
    const auto type_name = [](LayerType type) { return std::string(type == LayerType::Full ? "full" : "sliding"); };
    compare(layer + "attention", type_name(found.type), type_name(wanted.type));
    compare(layer + "sliding window", found.window, wanted.window);
    compare(layer + "heads", found.heads, wanted.heads);
    compare(layer + "key-value heads", found.key_value_heads, wanted.key_value_heads);
    compare(layer + "layer whose keys it reads", found.key_value_donor.value_or(found.index),
            wanted.key_value_donor.value_or(wanted.index));
    compare(layer + "rotary base", found.rope.theta, wanted.rope.theta);
    compare(layer + "pairs that turn", found.rope.rotated_pairs, wanted.rope.rotated_pairs);
    compare(layer + "rotary factor", found.rope.factor, wanted.rope.factor);
  }

  void compare(const Gemma4Config& found, const Gemma4Config& wanted) {
    compare("epsilon of norms", found.norm_epsilon, wanted.norm_epsilon);
    compare("attention scale", found.attention_scale, wanted.attention_scale);
    compare("soft-cap of logits", found.final_logit_softcap, wanted.final_logit_softcap);
    compare("experts per token", found.experts_per_token, wanted.experts_per_token);
    for (size_t i = 0; i < wanted.layers.size() && differences_.empty(); ++i) {
      compare(found.layers[i], wanted.layers[i]);  // one layer's differences will do
    }
  }

  const std::string& differences() const { return differences_; }

 private:
  std::string differences_;
};

}  // namespace

GgufMasters::GgufMasters(const fs::path& file, const fs::path& like)
    : file_(file), config_(Gemma4Config::load(like)), table_(config_) {
  const std::string config_file = (like / "config.json").string();
  const std::string& architecture = file_.metadata().text("general.architecture");
  if (architecture != config_.architecture()) {
    fail(file_.where(), ": general.architecture is \"", architecture, "\", ", config_file, " describes a ",
         config_.architecture(), " model");
  }
  check_tensors(config_file);
  const Gemma4Config found = config_from_gguf(file_);
  Facts facts;
  facts.compare("layers", found.layer_count(), config_.layer_count());
  if (facts.differences().empty()) facts.compare(found, config_);
  if (facts.differences().empty()) return;
  fail(file_.where(), ": its metadata describes another model than ", config_file, ":", facts.differences());
}

void GgufMasters::check_tensors(const std::string& config_file) {
  TensorFaults faults;
  for (const WeightSpec& weight : table_.weights()) {
    const GgufTensor* tensor = file_.find(weight.gguf_name);
    if (tensor == nullptr) {
      faults.add(weight.gguf_name, " is missing, wanted ", shape_text(weight.shape));
    } else if (tensor->shape != weight.shape) {
      faults.add(weight.gguf_name, " is ", describe(*tensor), ", wanted ", shape_text(weight.shape),
                 hint_of_rows(*tensor, weight, config_file));
    } else if (!is_matrix(weight.role) && scheme(tensor->scheme).is_quantized()) {
      faults.add(weight.gguf_name, " is ", describe(*tensor), ", wanted F32, F16 or BF16");
    }
  }
  for (const GgufTensor& tensor : file_.tensors()) {
    if (table_.find_gguf(tensor.name) != nullptr || tensor.name == "rope_freqs.weight") continue;
    if (table_.is_redundant(tensor.name)) {
      redundant_.push_back(tensor.name);
    } else {
      faults.add(tensor.name, " is ", describe(tensor), ", which is no weight of the model of ", config_file);
    }
  }
  faults.throw_if_any(file_.where() + " (wanted: what " + config_file + " describes)", config_.architecture().c_str());
}

const GgufTensor& GgufMasters::of(const WeightSpec& weight) const {
  const GgufTensor* tensor = file_.find(weight.gguf_name);
  QAT_CHECK(tensor != nullptr);
  return *tensor;
}

float GgufMasters::offset_of(const WeightSpec& weight) const {
  return weight.role == WeightRole::Norm ? static_cast<float>(config_.norm_offset) : 0.0f;
}

}  // namespace qat
