// The committed tiny models of tests/golden/model and what transformers computed with them.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "io/safetensors.h"
#include "model/gemma4_model.h"

namespace qat::testing {

inline const char* const kKinds[] = {"e2b", "e4b", "12b", "31b", "26b", "gemma3"};

inline std::filesystem::path golden_folder(const std::string& kind) {
  return std::filesystem::path(QAT_SOURCE_DIR) / "tests" / "golden" / "model" / kind;
}

inline at::ScalarType dtype_of(ElementType type) {
  switch (type) {
    case ElementType::I64:
      return at::kLong;
    case ElementType::BF16:
      return at::kBFloat16;
    default:
      return at::kFloat;
  }
}

inline at::Tensor tensor_of(const TensorView& view) {
  void* bytes = const_cast<std::byte*>(view.bytes.data());
  return at::from_blob(bytes, view.shape, at::TensorOptions(dtype_of(view.type))).clone();
}

struct Expected {
  explicit Expected(const std::string& kind) : source(golden_folder(kind) / "expected.safetensors") {}
  bool has(const std::string& name) const { return source.find(name) != nullptr; }
  at::Tensor operator[](const std::string& name) const {
    const TensorView* view = source.find(name);
    if (view == nullptr) throw std::runtime_error("no golden named " + name);
    return tensor_of(*view);
  }
  SafetensorsSource source;
};

inline std::unique_ptr<Gemma4Model> golden_model(const std::string& kind, at::ScalarType dtype = at::kFloat) {
  auto model = std::make_unique<Gemma4Model>(Gemma4Config::load(golden_folder(kind)), dtype);
  load_weights(*model, SafetensorsSource(golden_folder(kind) / "model.safetensors"));
  return model;
}

inline void require_gradients(const Gemma4Model& model) {
  for (auto& [name, parameter] : model.parameters()) parameter.set_requires_grad(true);
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.detach() - b.detach()).abs().max().to(at::kDouble).item<double>();
}

inline double relative_difference(const at::Tensor& found, const at::Tensor& wanted) {
  const at::Tensor exact = wanted.detach().to(at::kDouble);
  return ((found.detach().to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
}

class GoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  std::string kind() const { return GetParam(); }
};

inline std::string name_of_kind(const ::testing::TestParamInfo<const char*>& info) {
  return std::string("of_") + info.param;
}

}  // namespace qat::testing
