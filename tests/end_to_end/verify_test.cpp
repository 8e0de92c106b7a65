// Verification must see one wrong nibble, one wrong scale, and a training forward pass that followed another rule.
#include "exporters/verify.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "core/output_file.h"
#include "exporters/export_checkpoint.h"
#include "fake_quant/make_witness.h"
#include "fake_quant/prepare.h"
#include "gemma4/witness.h"
#include "io/gguf.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"
#include "trainers/base_model.h"
#include "trainers/checkpoint_writer.h"

namespace qat {
namespace {

using testing::TemporaryFolder;
namespace fs = std::filesystem;

const char* const kTensor = "blk.2.ffn_up.weight";
const char* const kWeight = "layers.2.mlp.up_proj.weight";

// A quantizer of another rule: the trained codes moved by one step in one place.
class OffByOneStep final : public WeightTransform {
 public:
  explicit OffByOneStep(std::shared_ptr<WeightTransform> inner) : inner_(std::move(inner)) {}
  at::Tensor apply(const at::Tensor& master) override {
    at::Tensor value = inner_->apply(master).clone();
    value[3][5].mul_(0.5);
    return value;
  }
  at::Tensor apply_rows(const at::Tensor& values, const at::Tensor& rows) override {
    return inner_->apply_rows(values, rows);
  }

 private:
  std::shared_ptr<WeightTransform> inner_;
};

class Verification : public ::testing::Test {
 protected:
  Verification() {
    testing::write_tiny_model(folder_ / "base", fs::path(QAT_SOURCE_DIR) / "tests/golden/data/tokenizer.json");
  }

  // Quantizes the base model; `change` may tamper with the model before its forward pass is recorded.
  void quantize(const std::string& plan, const std::string& cache, const std::function<void(Gemma4Model&)>& change = {},
                const std::string& block_scales = "rule") {
    const at::NoGradGuard no_grad;
    TrainConfig config;
    config.model = (folder_ / "base").string();
    config.plan = plan;
    config.kv_cache = cache;
    config.quantization.block_scales = block_scales;
    const BaseModel base(config);
    Gemma4Model model(base.config(), at::kFloat);
    base.fill(model, 0);
    FakeQuantSet fake_quant = base.attach_fake_quant(model);
    if (change) change(model);
    CheckpointWriter(base, {{2, 30, 40, 50, 60, 70}, {2, 99}}).write(folder_ / "checkpoint", model, fake_quant, 0);
  }
  void export_file() { export_checkpoint(ModelFolder(folder_ / "checkpoint"), folder_ / "model.gguf", {"", 1}); }
  VerifyReport verify() { return verify_gguf(folder_ / "model.gguf", ModelFolder(folder_ / "checkpoint"), {true, 1}); }

  // Flips a bit of a tensor's byte in the exported file.
  void flip(const std::string& tensor_name, size_t byte) {
    size_t offset = 0;
    {
      const GgufFile file(folder_ / "model.gguf");
      const GgufTensor* tensor = file.find(tensor_name);
      ASSERT_NE(tensor, nullptr);
      const std::string content = read_text_file(folder_ / "model.gguf");
      const MappedFile mapped(folder_ / "model.gguf");
      offset = content.size();
      const auto all = mapped.bytes();
      for (size_t start = 0; start + tensor->bytes.size() <= all.size(); start += 32) {
        if (std::memcmp(all.data() + start, tensor->bytes.data(), tensor->bytes.size()) == 0) offset = start;
      }
      ASSERT_LT(offset, content.size());
    }
    std::fstream file(folder_ / "model.gguf", std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset + byte));
    const auto value = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(offset + byte));
    file.put(value);
  }

  void expect_difference(const VerifyReport& report, std::initializer_list<std::string> parts) {
    ASSERT_EQ(report.differences.size(), 1U) << (report.differences.empty() ? "" : report.differences.back());
    for (const std::string& part : parts) {
      EXPECT_NE(report.differences[0].find(part), std::string::npos) << "no \"" << part << "\" in " << report.differences[0];
    }
  }

  TemporaryFolder folder_;
};

TEST_F(Verification, AnUntouchedExportIsEqual) {
  for (const auto& [plan, cache] : {std::pair("q4_0", "none"), std::pair("q4_0", "q8_0"), std::pair("q4_0-q8-tables", "none")}) {
    quantize(plan, cache);
    export_file();
    const VerifyReport report = verify();
    EXPECT_TRUE(report.equal()) << plan << ": " << report.differences.front();
    EXPECT_EQ(report.witness_positions, 8);
    EXPECT_GT(report.quantized_weights, 20);
  }
}

TEST_F(Verification, SearchedAndLearnedScalesArriveInTheFile) {
  for (const char* method : {"search", "learned"}) {
    quantize("q4_0", "none", {}, method);
    export_file();
    const VerifyReport report = verify();
    EXPECT_TRUE(report.equal()) << method << ": " << report.differences.front();
    const ModelFolder checkpoint(folder_ / "checkpoint");
    const GgufFile file(folder_ / "model.gguf");
    EXPECT_EQ(std::memcmp(file.find(kTensor)->bytes.data(), checkpoint.stored_scales(kWeight).data(), 2), 0);
    flip(kTensor, 0);
    expect_difference(verify(), {kTensor, "scales", "row 0, block 0"});
  }
}

TEST_F(Verification, OneFlippedNibbleIsNamedWithRowAndBlock) {
  quantize("q4_0", "none");
  export_file();
  flip(kTensor, 2 * 36 + 18 + 2 + 7);  // row 2 has two blocks of 18 bytes; the second block's codes
  expect_difference(verify(), {kTensor, "codes", "row 2, block 1"});
}

TEST_F(Verification, OneChangedScaleIsNamed) {
  quantize("q4_0", "none");
  export_file();
  flip(kTensor, 0);
  expect_difference(verify(), {kTensor, "scales", "row 0, block 0"});
}

TEST_F(Verification, ATrainingForwardOfAnotherRuleIsNamed) {
  quantize("q4_0", "none", [](Gemma4Model& model) {
    auto& slot = model.projection(kWeight).weight_transform;
    slot = std::make_shared<OffByOneStep>(slot);
  });
  export_file();
  expect_difference(verify(), {kTensor, "the matrix that the forward pass read", "training used another rule"});
}

TEST_F(Verification, AChangedUnquantizedWeightIsNamed) {
  quantize("q4_0", "none");
  export_file();
  flip("blk.1.post_ffw_norm.weight", 2);
  expect_difference(verify(), {"blk.1.post_ffw_norm.weight", "element 0"});
}

// The witness is changed, as if training had cached the keys of layer 1 by another rule.
TEST_F(Verification, CachedCodesOfAnotherRuleAreNamed) {
  quantize("q4_0", "q8_0");
  export_file();
  const VerifyReport equal = verify();
  ASSERT_TRUE(equal.equal()) << equal.differences.front();
  EXPECT_GT(equal.cached_codes, 1000);
  const fs::path file = folder_ / "checkpoint" / "witness.safetensors";
  const Witness recorded = Witness::load(file);
  const auto with_keys = [&](const std::function<void(std::vector<std::byte>&)>& change) {
    Witness changed = recorded;
    change(changed.caches.at(1).keys);
    changed.save(file);
    return verify();
  };
  const auto add = [](std::byte& code, int step) { code = static_cast<std::byte>(static_cast<int8_t>(code) + step); };
  expect_difference(with_keys([&](auto& keys) { add(keys[40], keys[40] == std::byte{127} ? -2 : 2); }),
                    {"key-value cache", "keys of layer 1", "training cached"});
  expect_difference(with_keys([&](auto& keys) {
                      for (size_t i = 2; i < keys.size(); i += 34) add(keys[i], keys[i] == std::byte{127} ? -1 : 1);
                    }),
                    {"key-value cache", "one step beside", "another rule"});
  expect_difference(with_keys([&](auto& keys) { keys.clear(); }), {"key-value cache", "the witness lacks the keys of layer 1"});
}

TEST_F(Verification, AnotherPlanIsNamed) {
  quantize("q4_0", "none");
  export_file();
  quantize("q4_0-q8-tables", "none");
  const VerifyReport report = verify();
  ASSERT_FALSE(report.equal());
  EXPECT_NE(report.differences[0].find("token_embd.weight: is stored as q4_0, the checkpoint trained q8_0"), std::string::npos);
}

TEST_F(Verification, StoredScalesArriveInTheFile) {
  const ModelFolder base(folder_ / "base");
  ResolvedPlan plan = QuantPlan::load("q4_0").resolve(base.table());
  plan.weights[kWeight].scales = ScaleSource::Stored;
  const WeightSpec& weight = *base.table().find(kWeight);
  // Perturbed: a fifth above what the rule gives, so no rule can find them again.
  std::vector<Float16> scales(static_cast<size_t>(weight.elements() / 32), to_float16(-0.0283F));
  for (size_t i = 0; i < scales.size(); i += 3) scales[i] = to_float16(0.031F);

  const at::NoGradGuard no_grad;
  Gemma4Model model(base.config(), at::kFloat);
  load_weights(model, base.tensors());
  KnownScales known;
  known.blocks = [&](const std::string&) { return std::span<const Float16>(scales); };
  const FakeQuantSet fake_quant = prepare(model, plan, known);
  const Witness witness = make_witness(model, fake_quant, {{2, 30, 40, 50}});
  CheckpointContents contents;
  contents.base_folder = &base.path();
  contents.base_tensors = &base.tensors();
  contents.table = &base.table();
  contents.plan = &plan;
  contents.stored_scales = {{kWeight, scales}};
  contents.write_master = [&](const WeightSpec& spec, const auto& write) {
    const TensorView& master = base.masters().of(spec);
    write({reinterpret_cast<const BFloat16*>(master.bytes.data()), static_cast<size_t>(spec.elements())});
  };
  contents.write_more = [&](const fs::path& target) { witness.save(target / "witness.safetensors"); };
  write_checkpoint(folder_ / "checkpoint", contents);
  export_file();
  const VerifyReport report = verify();
  EXPECT_TRUE(report.equal()) << report.differences.front();
  const GgufFile file(folder_ / "model.gguf");
  EXPECT_EQ(std::memcmp(file.find(kTensor)->bytes.data(), scales.data(), 2), 0);

  // The same checkpoint with the rule's scales must differ.
  quantize("q4_0", "none");
  expect_difference(verify(), {kTensor, "codes, scales"});
}

TEST_F(Verification, ACheckpointWithoutWitnessCannotBeVerified) {
  quantize("q4_0", "none");
  export_file();
  fs::remove(folder_ / "checkpoint" / "witness.safetensors");
  testing::expect_error([&] { verify(); }, {"witness.safetensors"});
}

TEST_F(Verification, AnUnquantizedExportIsComparedValueByValue) {
  export_checkpoint(ModelFolder(folder_ / "base"), folder_ / "model.gguf", {"", 1});
  fs::rename(folder_ / "base", folder_ / "checkpoint");
  const VerifyReport report = verify();
  EXPECT_TRUE(report.equal()) << report.differences.front();
  EXPECT_EQ(report.quantized_weights, 0);
}

}  // namespace
}  // namespace qat
