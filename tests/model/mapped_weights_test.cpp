// Weights that stay in the file they come from: the same results as copies, and no anonymous memory.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <nlohmann/json.hpp>

#include "core/process_memory.h"
#include "model/chunked_head.h"
#include "model/gemma4_model.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

// A folder with random BF16 weights of a kind's shape.
struct Folder {
  explicit Folder(const nlohmann::json& changes = nlohmann::json::object()) {
    nlohmann::json config = nlohmann::json::parse(testing::kTinyConfig);
    config.update(changes);
    write_file(path / "config.json", config.dump());
    testing::write_random_weights(path.path());
    source = std::make_unique<SafetensorsSource>(path.path());
  }
  Gemma4Config config() const { return Gemma4Config::load(path.path()); }
  const TensorView& tensor(const std::string& name) const { return *source->find("model." + name); }

  testing::TemporaryFolder path;
  std::unique_ptr<SafetensorsSource> source;
};

const nlohmann::json kExperts = {{"hidden_size_per_layer_input", 0}, {"num_kv_shared_layers", 0},
                                 {"use_double_wide_mlp", false},     {"attention_k_eq_v", true},
                                 {"enable_moe_block", true},         {"num_experts", 4},
                                 {"top_k_experts", 2},               {"moe_intermediate_size", 32}};

std::unique_ptr<Gemma4Model> loaded(const Folder& folder, at::ScalarType dtype, bool mapped) {
  const WeightTable table(folder.config());
  auto model = std::make_unique<Gemma4Model>(folder.config(), dtype,
                                             mapped ? readable_in_file(table, dtype) : WeightChoice());
  load_weights(*model, *folder.source);
  return model;
}

bool lies_in(const at::Tensor& weight, const TensorView& tensor) {
  return static_cast<const void*>(tensor.bytes.data()) == weight.const_data_ptr();
}

TEST(MappedWeights, AreTheFilesBytesWhereTheModelCanReadThem) {
  const Folder folder;
  for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
    const auto model = loaded(folder, dtype, true);
    for (const WeightSpec& weight : model->weights().weights()) {
      const bool wanted = dtype == at::kBFloat16 ? is_matrix(weight.role) : weight.role == WeightRole::PerLayerEmbedding;
      EXPECT_EQ(lies_in(model->parameter(weight.name), folder.tensor(weight.name)), wanted) << weight.name;
    }
  }
}

TEST(MappedWeights, GiveTheBitsOfCopies) {
  for (const nlohmann::json& kind : {nlohmann::json::object(), kExperts}) {
    const Folder folder(kind);
    const at::Tensor tokens = at::arange(40, at::kLong) + 2;
    for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
      std::vector<at::Tensor> results;
      for (const bool mapped : {false, true}) {
        const auto model = loaded(folder, dtype, mapped);
        // The norms learn, so that a backward pass goes through every product.
        std::vector<at::Tensor> leaves;
        for (const auto& [name, parameter] : model->parameters()) {
          if (name.ends_with("norm.weight")) leaves.push_back(parameter.set_requires_grad(true));
        }
        const at::Tensor hidden = model->hidden_states(PackedTokens::single(tokens));
        const at::Tensor loss = cross_entropy_sum(*model, hidden, tokens.roll(-1));
        torch::autograd::backward({loss}, {});
        std::vector<at::Tensor> found{hidden.detach(), loss.detach(), model->logits(hidden.detach())};
        for (const at::Tensor& leaf : leaves) found.push_back(leaf.grad());
        for (size_t i = 0; mapped && i < found.size(); ++i) EXPECT_TRUE(found[i].equal(results[i])) << i;
        results = std::move(found);
      }
    }
  }
}

TEST(MappedWeights, OtherTypesAreCopied) {
  const Folder folder;
  const std::filesystem::path file = folder.path / "wide.safetensors";
  {
    SafetensorsWriter writer(file);
    const WeightTable table(folder.config());
    for (const WeightSpec& weight : table.weights()) writer.declare(weight.name, ElementType::F32, weight.shape);
    for (const WeightSpec& weight : table.weights()) {
      const std::vector<float> values(static_cast<size_t>(weight.elements()), 0.3F);
      writer.write(std::as_bytes(std::span(values)));
    }
    writer.commit();
  }
  const SafetensorsSource source(file);
  for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
    Gemma4Model model(folder.config(), dtype, readable_in_file(WeightTable(folder.config()), dtype));
    load_weights(model, source);
    at::Tensor table = model.parameter("embed_tokens_per_layer.weight");
    EXPECT_EQ(table.scalar_type(), dtype);
    EXPECT_NO_FATAL_FAILURE(table.zero_());  // the file is mapped read-only
  }
  EXPECT_EQ(source.find("embed_tokens_per_layer.weight")->bytes[0], std::as_bytes(std::span("\x9a"))[0]);
}

TEST(MappedWeights, ThatAreNotFiniteAreNamed) {
  const Folder folder;
  std::string bytes = read_text_file(folder.path / "model.safetensors");
  bytes.replace(bytes.size() - 400, 2, "\x80\x7f");
  write_file(folder.path / "model.safetensors", bytes);
  const SafetensorsSource spoiled(folder.path.path());
  Gemma4Model model(folder.config(), at::kBFloat16, readable_in_file(WeightTable(folder.config()), at::kBFloat16));
  testing::expect_error([&] { load_weights(model, spoiled); }, {"NaN or infinite values"});
}

// A per-layer table of 64 MiB: only the rows that are looked up come into memory, and none of it is anonymous.
TEST(MappedWeights, ATableCostsTheRowsThatAreLookedUp) {
  constexpr uint64_t kMiB = uint64_t{1} << 20;
  const Folder folder({{"vocab_size", 16384}, {"vocab_size_per_layer_input", 16384}, {"hidden_size_per_layer_input", 512}});
  for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
    const at::NoGradGuard no_grad;
    const MemoryUse before = current_memory_use();
    const auto model = loaded(folder, dtype, true);
    ASSERT_EQ(model->parameter("embed_tokens_per_layer.weight").nbytes(), 64 * kMiB);
    model->hidden_states(PackedTokens::single(at::tensor({5, 9000, 16000}, at::kLong)));
    const MemoryUse after = current_memory_use();
    EXPECT_LT(after.anonymous, before.anonymous + 24 * kMiB);
    // Pages of libraries that are used for the first time are file-backed as well.
    EXPECT_LT(after.file_backed, before.file_backed + 48 * kMiB);
  }
}

}  // namespace
}  // namespace qat
