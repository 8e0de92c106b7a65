#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <string>

#include "core/error.h"
#include "model/gemma4_model.h"

namespace qat {

namespace {

constexpr std::string_view kEmbedding = "embed_tokens.weight";
constexpr std::string_view kHead = "lm_head.weight";

bool ends_with_part(std::string_view name, std::string_view part) {
  return name == part || (name.ends_with(part) && name[name.size() - part.size() - 1] == '.');
}

// What stands before the names of the text model, "model.language_model." for instance: found by the token embedding,
// and where several modules have one, the one that also has the final norm.
std::string prefix_of(const TensorSource& source) {
  std::optional<std::string> found;
  for (const TensorView& tensor : source.tensors()) {
    if (!ends_with_part(tensor.name, kEmbedding)) continue;
    const std::string prefix = tensor.name.substr(0, tensor.name.size() - kEmbedding.size());
    if (!found || source.find(prefix + "norm.weight") != nullptr) found = prefix;
  }
  if (!found) {
    fail(source.where(), ": no tensor is named ", kEmbedding, " under any prefix; this is no Hugging Face Gemma model");
  }
  return *found;
}

const TensorView* find_weight(const TensorSource& source, const std::string& prefix, const WeightSpec& spec) {
  if (spec.role != WeightRole::OutputHead) return source.find(prefix + spec.name);
  // The head stands beside the text model, not inside.
  const auto& tensors = source.tensors();
  const auto head =
      std::find_if(tensors.begin(), tensors.end(), [](const auto& t) { return ends_with_part(t.name, kHead); });
  return head == tensors.end() ? nullptr : &*head;
}

std::string text_of(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

std::optional<at::ScalarType> dtype_of(ElementType type) {
  switch (type) {
    case ElementType::F32:
      return at::kFloat;
    case ElementType::F16:
      return at::kHalf;
    case ElementType::BF16:
      return at::kBFloat16;
    default:
      return std::nullopt;
  }
}

// What is wrong with a weight, or nothing.
std::string fault_of(const TensorView* tensor, const std::string& prefix, const WeightSpec& spec) {
  if (tensor == nullptr) return prefix + spec.name + " is missing";
  if (tensor->shape != spec.shape) {
    return tensor->name + " has shape " + text_of(tensor->shape) + ", wanted " + text_of(spec.shape);
  }
  if (!dtype_of(tensor->type)) {
    return tensor->name + " has type " + std::string(element_name(tensor->type)) + ", wanted F32, F16 or BF16";
  }
  return "";
}

// True if a value has all exponent bits set: NaN or infinity. `Bits` is the unsigned type of an element.
template <class Bits>
bool has_nonfinite(std::span<const std::byte> bytes, Bits exponent) {
  const auto count = static_cast<int64_t>(bytes.size() / sizeof(Bits));
  std::atomic<bool> found = false;
  at::parallel_for(0, count, int64_t{1} << 20, [&](int64_t first, int64_t end) {
    bool here = false;
    for (int64_t i = first; i < end; ++i) {
      Bits bits;
      std::memcpy(&bits, bytes.data() + static_cast<size_t>(i) * sizeof(Bits), sizeof(Bits));
      here |= (bits & exponent) == exponent;
    }
    if (here) found = true;
  });
  return found;
}

bool has_nonfinite(const TensorView& tensor) {
  switch (tensor.type) {
    case ElementType::F32:
      return has_nonfinite<uint32_t>(tensor.bytes, 0x7f800000u);
    case ElementType::F16:
      return has_nonfinite<uint16_t>(tensor.bytes, 0x7c00u);
    default:
      return has_nonfinite<uint16_t>(tensor.bytes, 0x7f80u);
  }
}

void check_all(const Gemma4Model& model, const TensorSource& source, const std::string& prefix) {
  std::string faults;
  int64_t count = 0;
  for (const WeightSpec& spec : model.weights().weights()) {
    const std::string fault = fault_of(find_weight(source, prefix, spec), prefix, spec);
    if (fault.empty()) continue;
    faults += "\n  " + fault;
    ++count;
  }
  if (count > 0) {
    fail(source.where(), ": ", count, " of ", model.weights().weights().size(),
         " weights do not fit the model that config.json describes:", faults);
  }
}

}  // namespace

void load_weights(Gemma4Model& model, const TensorSource& source) {
  const at::NoGradGuard no_gradients;
  const std::string prefix = prefix_of(source);
  check_all(model, source, prefix);
  for (const WeightSpec& spec : model.weights().weights()) {
    const TensorView& tensor = *find_weight(source, prefix, spec);
    if (has_nonfinite(tensor))
      fail(source.where(), ": ", tensor.name, " has NaN or infinite values; the file is damaged");
    // from_blob wants a mutable pointer; the tensor is only read.
    void* bytes = const_cast<std::byte*>(tensor.bytes.data());
    model.parameter(spec.name).copy_(at::from_blob(bytes, spec.shape, at::TensorOptions(*dtype_of(tensor.type))));
    source.release(tensor.bytes);
  }
}

}  // namespace qat
