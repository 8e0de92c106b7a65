// Verification of mobile artifacts must see one wrong code and one wrong scale of any kind, and a training forward pass
// that followed another rule.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/mapped_file.h"
#include "exporters/litertlm_exporter.h"
#include "exporters/mobile_checkpoint.h"
#include "exporters/mobile_exporter.h"
#include "exporters/verify.h"
#include "fake_quant/prepare.h"
#include "gemma4/witness.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"
#include "trainers/base_model.h"
#include "trainers/checkpoint_writer.h"

namespace qat {
namespace {

using testing::TemporaryFolder;
namespace fs = std::filesystem;

const char* const kModule = "layers.2.mlp.down_proj";
const char* const kWeight = "layers.2.mlp.down_proj.weight";

// A quantizer of another rule: the trained codes moved by half a step in one place.
class OffByHalf final : public WeightTransform {
 public:
  explicit OffByHalf(std::shared_ptr<WeightTransform> inner) : inner_(std::move(inner)) {}
  at::Tensor apply(const at::Tensor& master) override {
    at::Tensor value = inner_->apply(master).clone();
    value[3].mul_(0.5);
    return value;
  }
  at::Tensor apply_rows(const at::Tensor& values, const at::Tensor& rows) override {
    return inner_->apply_rows(values, rows);
  }

 private:
  std::shared_ptr<WeightTransform> inner_;
};

// An activation quantizer that stores half of what it is given.
class HalfActivation final : public ActivationTransform {
 public:
  explicit HalfActivation(std::shared_ptr<ActivationTransform> inner) : inner_(std::move(inner)) {}
  at::Tensor apply(const at::Tensor& activation) override { return inner_->apply(activation.mul(0.5)); }

 private:
  std::shared_ptr<ActivationTransform> inner_;
};

// The weights of a checkpoint with something changed on the way to a file.
class ChangedWeights final : public LitertlmWeights {
 public:
  explicit ChangedWeights(const MobileCheckpoint& checkpoint) : checkpoint_(checkpoint) {
    const auto scales = checkpoint_.scales(*table().find(kWeight));
    scales_.assign(scales.begin(), scales.end());
  }

  const Gemma4Config& config() const override { return checkpoint_.config(); }
  const WeightTable& table() const override { return checkpoint_.table(); }
  const QuantScheme& scheme_of(const WeightSpec& weight) const override { return checkpoint_.scheme_of(weight); }
  std::span<const float> scales(const WeightSpec& weight) const override {
    return weight.name == kWeight ? std::span<const float>(scales_) : checkpoint_.scales(weight);
  }
  void codes(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<int8_t> codes) const override {
    checkpoint_.codes(weight, first_row, rows, codes);
    if (weight.name == kWeight && first_row == 0) codes[5] = static_cast<int8_t>(codes[5] ^ changed_code_bit);
  }
  void values(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<float> values) const override {
    checkpoint_.values(weight, first_row, rows, values);
  }
  LinearScales linear_scales(const WeightSpec& weight) const override {
    LinearScales scales = checkpoint_.linear_scales(weight);
    if (weight.name == kWeight) scales.output *= output_factor;
    return scales;
  }
  CacheScales cache_scales(int64_t layer) const override {
    CacheScales scales = checkpoint_.cache_scales(layer);
    if (layer == 1) scales.key *= key_factor;
    return scales;
  }

  void change_weight_scale() { scales_[3] *= 1.001F; }
  int changed_code_bit = 0;
  float output_factor = 1;
  float key_factor = 1;

 private:
  const MobileCheckpoint& checkpoint_;
  std::vector<float> scales_;
};

class MobileVerification : public ::testing::Test {
 protected:
  MobileVerification() {
    testing::write_tiny_model(folder_ / "base", fs::path(QAT_SOURCE_DIR) / "tests/golden/data/tokenizer.json");
  }

  // Quantizes and calibrates the base model; `change` may tamper with the model before its forward pass is recorded.
  void quantize(const std::string& plan, const std::function<void(Gemma4Model&)>& change = {}) {
    const at::NoGradGuard no_grad;
    TrainConfig config;
    config.model = (folder_ / "base").string();
    config.plan = plan;
    const BaseModel base(config);
    Gemma4Model model(base.config(), at::kFloat);
    base.fill(model, 0);
    FakeQuantSet fake_quant = base.attach_fake_quant(model);
    const at::Tensor first_rows = at::zeros({1}, at::kLong);
    fake_quant.start_calibration(&first_rows);
    model.hidden_states(PackedTokens::single(at::arange(2, 66, at::kLong)));
    fake_quant.finish_calibration({}, {});
    if (change) change(model);
    CheckpointWriter(base, {{2, 30, 40, 50, 60, 70}, {2, 99}}).write(folder_ / "checkpoint", model, fake_quant, 0);
  }

  VerifyReport verify_folder() const {
    return verify_mobile_folder(folder_ / "mobile", ModelFolder(folder_ / "checkpoint"), {true, 1});
  }
  void export_folder() const {
    export_mobile_folder(MobileCheckpoint(ModelFolder(folder_ / "checkpoint")), folder_ / "mobile");
  }

  VerifyReport verify_litertlm_of(const std::function<void(ChangedWeights&)>& change = {}) const {
    const ModelFolder checkpoint(folder_ / "checkpoint");
    const MobileCheckpoint mobile(checkpoint);
    ChangedWeights weights(mobile);
    if (change) change(weights);
    LitertlmExportInputs inputs;
    inputs.weights = &weights;
    inputs.model_folder = checkpoint.path();
    inputs.output = folder_ / "model.litertlm";
    inputs.context = 64;
    export_litertlm(inputs);
    return verify_litertlm(inputs.output, checkpoint, {true, 1});
  }

  // Flips a low bit of a tensor of the exported folder, exports again afterwards.
  VerifyReport verify_with_flipped(const std::string& tensor, size_t byte) const {
    const fs::path path = folder_ / "mobile/model.safetensors";
    size_t place = 0;
    {
      const MappedFile file(path);
      uint64_t header = 0;
      std::memcpy(&header, file.bytes().data(), sizeof(header));
      const auto* text = reinterpret_cast<const char*>(file.bytes().data()) + 8;
      place = 8 + header +
              nlohmann::json::parse(text, text + header).at(tensor).at("data_offsets").at(0).get<size_t>() + byte;
    }
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(place));
    const auto value = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(place));
    file.put(value);
    file.close();
    const VerifyReport report = verify_folder();
    export_folder();
    return report;
  }

  static void expect_difference(const VerifyReport& report, std::initializer_list<std::string> parts) {
    ASSERT_EQ(report.differences.size(), 1U) << (report.differences.empty() ? "" : report.differences.back());
    for (const std::string& part : parts) {
      EXPECT_NE(report.differences[0].find(part), std::string::npos)
          << "no \"" << part << "\" in " << report.differences[0];
    }
  }

  TemporaryFolder folder_;
};

TEST_F(MobileVerification, UntouchedExportsAreEqual) {
  for (const char* plan : {"mobile-w4", "mobile-e2b", "mobile-e2b-litert"}) {
    SCOPED_TRACE(plan);
    quantize(plan);
    export_folder();
    const VerifyReport of_folder = verify_folder();
    const VerifyReport of_litertlm = verify_litertlm_of();
    for (const VerifyReport& report : {of_folder, of_litertlm}) {
      EXPECT_TRUE(report.equal()) << report.differences.front();
      EXPECT_GT(report.quantized_weights, 25);
      EXPECT_GT(report.unquantized_weights, 20);
    }
    // A folder holds the quantized projection of mobile-e2b-litert in BF16, which no run of the model can equal.
    const bool folder_is_exact = std::string(plan) != "mobile-e2b-litert";
    EXPECT_EQ(of_folder.inexact.empty(), folder_is_exact);
    EXPECT_EQ(of_folder.witness_positions, folder_is_exact ? 8 : 0);
    EXPECT_TRUE(of_litertlm.inexact.empty());
    EXPECT_EQ(of_litertlm.witness_positions, 8);
    EXPECT_GT(of_litertlm.edge_codes, 10000);
    EXPECT_LE(of_litertlm.edge_codes_aside * 1000, of_litertlm.edge_codes);
  }
}

TEST_F(MobileVerification, ChangedBytesOfAFolderAreNamed) {
  quantize("mobile-w4");
  export_folder();
  const std::string module = "model." + std::string(kModule);
  expect_difference(verify_with_flipped(module + ".weight", 77), {kWeight, "codes", "differ from what training used"});
  expect_difference(verify_with_flipped(module + ".weight_scale", 4 * 3), {kWeight, "scales"});
  expect_difference(verify_with_flipped(module + ".input_activation_scale", 0), {kWeight, "static scales"});
  expect_difference(verify_with_flipped(module + ".output_activation_scale", 0), {kWeight, "static scales"});
  expect_difference(verify_with_flipped("model.layers.1.self_attn.k_cache_scale", 0), {"cache of layer 1"});
  expect_difference(verify_with_flipped("model.layers.0.self_attn.v_cache_scale", 0), {"cache of layer 0"});
  expect_difference(verify_with_flipped("lm_head.weight", 1000), {"lm_head.weight", "codes"});
  expect_difference(verify_with_flipped("model.layers.1.input_layernorm.weight", 10),
                    {"layers.1.input_layernorm.weight", "element 5"});
  expect_difference(verify_with_flipped("model.per_layer_model_projection.weight", 2),
                    {"per_layer_model_projection.weight", "column 1"});
  EXPECT_TRUE(verify_folder().equal());
}

TEST_F(MobileVerification, ChangedPartsOfALitertlmFileAreNamed) {
  quantize("mobile-w4");
  expect_difference(verify_litertlm_of([](ChangedWeights& weights) { weights.changed_code_bit = 1; }),
                    {kWeight, "codes"});
  expect_difference(verify_litertlm_of([](ChangedWeights& weights) { weights.change_weight_scale(); }),
                    {kWeight, "scales"});
  expect_difference(verify_litertlm_of([](ChangedWeights& weights) { weights.output_factor = 1.001F; }),
                    {kWeight, "static scales"});
  expect_difference(verify_litertlm_of([](ChangedWeights& weights) { weights.key_factor = 1.001F; }),
                    {"cache of layer 1"});
  EXPECT_TRUE(verify_litertlm_of().equal());
}

TEST_F(MobileVerification, ATrainingForwardOfAnotherRuleIsNamed) {
  quantize("mobile-w4", [](Gemma4Model& model) {
    auto& slot = model.projection(kWeight).weight_transform;
    slot = std::make_shared<OffByHalf>(slot);
  });
  export_folder();
  for (const VerifyReport& report : {verify_folder(), verify_litertlm_of()}) {
    expect_difference(report, {kWeight, "the matrix that the forward pass read"});
  }
}

TEST_F(MobileVerification, TrainedActivationsOfAnotherRuleAreNamed) {
  quantize("mobile-w4", [](Gemma4Model& model) {
    auto& slot = model.projection(kWeight).output_transform;
    slot = std::make_shared<HalfActivation>(slot);
  });
  export_folder();
  for (const VerifyReport& report : {verify_folder(), verify_litertlm_of()}) {
    expect_difference(report, {"static activations", kModule});
  }
}

TEST_F(MobileVerification, ACheckpointWithoutWitnessCannotBeVerified) {
  quantize("mobile-w4");
  export_folder();
  fs::remove(folder_ / "checkpoint" / "witness.safetensors");
  testing::expect_error([&] { verify_folder(); }, {"witness.safetensors"});
}

}  // namespace
}  // namespace qat
