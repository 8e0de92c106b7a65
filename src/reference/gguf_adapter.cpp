#include "reference/gguf_adapter.h"

#include <cmath>

#include "core/error.h"
#include "io/tensor_source.h"

namespace qat {

namespace {

constexpr std::string_view kSuffixOfA = ".lora_a";
constexpr std::string_view kSuffixOfB = ".lora_b";

void check_text(const GgufFile& file, const char* key, const char* wanted) {
  const std::string found = file.metadata().contains(key) ? file.metadata().text(key) : "absent";
  if (found != wanted) fail(file.where(), ": is no LoRA adapter: ", key, " is ", found, ", wanted ", wanted);
}

void check_pair(const std::string& where, const std::string& weight, const GgufAdapter::Pair& pair) {
  if (pair.a == nullptr || pair.b == nullptr) {
    fail(where, ": ", weight, " has no ", weight, pair.a == nullptr ? kSuffixOfA : kSuffixOfB,
         "; the file is incomplete");
  }
  for (const GgufTensor* matrix : {pair.a, pair.b}) {
    if (matrix->shape.size() != 2 || scheme(matrix->scheme).is_quantized()) {
      fail(where, ": ", matrix->name, " is ", scheme(matrix->scheme).name, " ", shape_text(matrix->shape),
           ", wanted a matrix in F32, F16 or BF16");
    }
  }
  if (pair.a->shape[0] != pair.b->shape[1]) {
    fail(where, ": ", weight, ": A is ", shape_text(pair.a->shape), " and B ", shape_text(pair.b->shape),
         ", which have no rank in common");
  }
}

}  // namespace

GgufAdapter::GgufAdapter(const std::filesystem::path& path) : file_(path) {
  check_text(file_, "general.type", "adapter");
  check_text(file_, "adapter.type", "lora");
  const double alpha = file_.metadata().number("adapter.lora.alpha");
  if (!(alpha > 0) || !std::isfinite(alpha)) {
    fail(where(), ": adapter.lora.alpha is ", alpha, ", wanted more than 0");
  }
  for (const GgufTensor& tensor : file_.tensors()) {
    std::string_view name = tensor.name;
    const bool is_a = name.ends_with(kSuffixOfA);
    if (!is_a && !name.ends_with(kSuffixOfB)) fail(where(), ": ", tensor.name, " is no matrix A or B of LoRA");
    name.remove_suffix(kSuffixOfA.size());
    Pair& pair = pairs_[std::string(name)];
    (is_a ? pair.a : pair.b) = &tensor;
  }
  if (pairs_.empty()) fail(where(), ": holds no matrices A and B");
  for (auto& [weight, pair] : pairs_) {
    check_pair(where(), weight, pair);
    pair.scaling = static_cast<float>(alpha / static_cast<double>(pair.a->shape[0]));
  }
}

}  // namespace qat
