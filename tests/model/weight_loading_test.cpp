// Names, shapes, types and values that load_weights accepts and refuses.
#include <ATen/ops/randn.h>

#include <cstring>
#include <functional>
#include <limits>
#include <map>

#include "core/error.h"
#include "model/golden_models.h"

namespace qat {
namespace {

// Tensors in memory. Starts as a copy of a golden model's file; tests rename and spoil them.
class MemorySource final : public TensorSource {
 public:
  explicit MemorySource(const std::string& kind) {
    const SafetensorsSource file(testing::golden_folder(kind) / "model.safetensors");
    for (const TensorView& view : file.tensors()) {
      put(view.name.substr(std::string("model.").size()), view.type, view.shape,
          {view.bytes.begin(), view.bytes.end()});
    }
  }
  void put(const std::string& name, ElementType type, std::vector<int64_t> shape, std::vector<std::byte> bytes) {
    bytes_[name] = std::move(bytes);
    views_[name] = {name, type, std::move(shape), bytes_[name]};
    rebuild();
  }
  void put_tensor(const std::string& name, ElementType type, const at::Tensor& tensor) {
    const at::Tensor values = tensor.contiguous();
    std::vector<std::byte> bytes(static_cast<size_t>(values.nbytes()));
    std::memcpy(bytes.data(), values.const_data_ptr(), bytes.size());
    put(name, type, values.sizes().vec(), std::move(bytes));
  }
  void remove(const std::string& name) {
    views_.erase(name);
    rebuild();
  }
  void rename(const std::function<std::string(const std::string&)>& new_name) {
    const auto old_views = std::move(views_);
    views_.clear();
    for (const auto& [name, view] : old_views) {
      TensorView renamed = view;
      renamed.name = new_name(name);
      views_[renamed.name] = renamed;
    }
    rebuild();
  }

  const std::vector<TensorView>& tensors() const override { return sorted_; }
  const TensorView* find(std::string_view name) const override {
    for (const TensorView& view : sorted_) {
      if (view.name == name) return &view;
    }
    return nullptr;
  }
  std::string where() const override { return "memory"; }
  void release(std::span<const std::byte>) const override {}

 private:
  void rebuild() {
    sorted_.clear();
    for (const auto& [name, view] : views_) sorted_.push_back(view);
  }
  std::map<std::string, std::vector<std::byte>> bytes_;
  std::map<std::string, TensorView> views_;
  std::vector<TensorView> sorted_;
};

Gemma4Model empty_model(const std::string& kind, at::ScalarType dtype = at::kFloat) {
  return {Gemma4Config::load(testing::golden_folder(kind)), dtype};
}

std::string error_of(Gemma4Model& model, const TensorSource& source) {
  try {
    load_weights(model, source);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

void expect_equal(const Gemma4Model& found, const Gemma4Model& wanted) {
  for (const auto& [name, weight] : wanted.parameters()) EXPECT_TRUE(weight.equal(found.parameter(name))) << name;
}

TEST(WeightLoading, FindsTheNamesUnderAnyPrefix) {
  const auto wanted = testing::golden_model("e2b");
  for (const std::string prefix : {"", "model.", "model.language_model.", "language_model.model."}) {
    MemorySource source("e2b");
    source.rename([&](const std::string& name) { return prefix + name; });
    Gemma4Model model = empty_model("e2b");
    load_weights(model, source);
    expect_equal(model, *wanted);
  }
}

TEST(WeightLoading, IgnoresTiedHeadRedundantKeysAndOtherModules) {
  MemorySource source("e2b");
  source.rename([](const std::string& name) { return "model.language_model." + name; });
  const at::Tensor nonsense = at::randn({3, 3});
  source.put_tensor("lm_head.weight", ElementType::F32, nonsense);
  source.put_tensor("model.language_model.layers.7.self_attn.k_proj.weight", ElementType::F32, nonsense);
  source.put_tensor("model.vision_tower.embed_tokens.weight", ElementType::F32, nonsense);
  Gemma4Model model = empty_model("e2b");
  load_weights(model, source);
  expect_equal(model, *testing::golden_model("e2b"));
}

TEST(WeightLoading, ConvertsF32AndF16) {
  MemorySource source("gemma3");
  const at::Tensor norm = at::randn({32});
  source.put_tensor("norm.weight", ElementType::F32, norm);
  const at::Tensor half = at::randn({32}).to(at::kHalf);
  source.put_tensor("layers.0.input_layernorm.weight", ElementType::F16, half);
  Gemma4Model in_float = empty_model("gemma3");
  load_weights(in_float, source);
  EXPECT_TRUE(in_float.parameter("norm.weight").equal(norm));
  EXPECT_TRUE(in_float.parameter("layers.0.input_layernorm.weight").equal(half.to(at::kFloat)));
  Gemma4Model in_bf16 = empty_model("gemma3", at::kBFloat16);
  load_weights(in_bf16, source);
  EXPECT_TRUE(in_bf16.parameter("norm.weight").equal(norm.to(at::kBFloat16)));
}

TEST(WeightLoading, ListsAllFaultsTogether) {
  MemorySource source("e2b");
  source.remove("layers.0.self_attn.q_proj.weight");
  source.remove("norm.weight");
  source.put_tensor("layers.2.mlp.up_proj.weight", ElementType::F32, at::randn({7, 5}));
  source.put("layers.1.layer_scalar", ElementType::I8, {1}, {std::byte{1}});
  Gemma4Model model = empty_model("e2b");
  const std::string error = error_of(model, source);
  for (const char* part :
       {"memory", "4 of ", "layers.0.self_attn.q_proj.weight is missing", "norm.weight is missing",
        "layers.2.mlp.up_proj.weight has shape [7, 5], config.json wants [40, 32]", "layers.1.layer_scalar has type I8"}) {
    EXPECT_NE(error.find(part), std::string::npos) << part << "\n" << error;
  }
}

TEST(WeightLoading, NamesTensorsThatAreNotFinite) {
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    for (const auto& [type, dtype] : {std::pair{ElementType::F32, at::kFloat}, std::pair{ElementType::F16, at::kHalf},
                                      std::pair{ElementType::BF16, at::kBFloat16}}) {
      MemorySource source("gemma3");
      at::Tensor norm = at::randn({32});
      norm[13] = value;
      source.put_tensor("layers.4.self_attn.q_norm.weight", type, norm.narrow(0, 0, 16).to(dtype));
      Gemma4Model model = empty_model("gemma3");
      const std::string error = error_of(model, source);
      EXPECT_NE(error.find("layers.4.self_attn.q_norm.weight has NaN or infinite values"), std::string::npos) << error;
    }
  }
}

TEST(WeightLoading, RefusesFilesWithoutATokenEmbedding) {
  MemorySource source("e2b");
  source.remove("embed_tokens.weight");  // embed_tokens_per_layer.weight is still there
  Gemma4Model model = empty_model("e2b");
  EXPECT_NE(error_of(model, source).find("no tensor is named embed_tokens.weight"), std::string::npos);
}

}  // namespace
}  // namespace qat
