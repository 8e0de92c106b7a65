// Folders of compressed-tensors' packed 4-bit weights: codes and scales arrive in the checkpoint as they are, and what
// is not read is named.
#include "gemma4/packed_folder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "core/output_file.h"
#include "gemma4/model_folder.h"
#include "gemma4/packed_import.h"
#include "quant/block_codec.h"
#include "quant/quantized_digest.h"
#include "support/expect_error.h"
#include "support/fresh_seed.h"
#include "support/temporary_folder.h"
#include "support/tiny_model_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::fresh_seed;
namespace fs = std::filesystem;

const char* const kWeight = "layers.0.mlp.up_proj.weight";
const char* const kModule = "model.layers.0.mlp.up_proj";

struct Tensor {
  ElementType type;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

template <class Value>
std::vector<std::byte> bytes_of(const std::vector<Value>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

class PackedModel : public ::testing::Test {
 protected:
  PackedModel() {
    testing::write_tiny_model(folder_ / "base", {});
    config_ = nlohmann::json::parse(read_text_file(folder_ / "base/config.json"));
    config_["quantization_config"] = nlohmann::json::parse(R"({"quant_method": "compressed-tensors",
      "format": "pack-quantized", "ignore": ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"],
      "input_activations": null, "output_activations": null, "weights": {"num_bits": 4, "type": "int",
      "symmetric": true, "strategy": "group", "group_size": 32, "actorder": null}}}})");
    const ModelFolder base(folder_ / "base");
    for (const WeightSpec& weight : base.table().weights()) {
      const TensorView& tensor = base.masters().of(weight);
      if (is_linear(weight.role)) {
        pack(weight, weight.columns() / 32);
      } else {
        tensors_["model." + weight.name] = {tensor.type, tensor.shape, {tensor.bytes.begin(), tensor.bytes.end()}};
      }
    }
  }

  // Random codes under BF16 scales, so many to a row.
  void pack(const WeightSpec& weight, int64_t groups) {
    std::vector<int8_t> codes(static_cast<size_t>(weight.elements()));
    std::vector<uint32_t> words(codes.size() / 8);
    for (size_t i = 0; i < codes.size(); ++i) {
      codes[i] = static_cast<int8_t>(random_.below(16)) - 8;
      words[i / 8] |= static_cast<uint32_t>(codes[i] + 8) << (4 * (i % 8));
    }
    std::vector<BFloat16> scales(static_cast<size_t>(weight.rows() * groups));
    for (BFloat16& scale : scales) scale = to_bfloat16(static_cast<float>(0.001 + 0.02 * random_.uniform()));
    codes_[weight.name] = codes;
    const std::string module = "model." + weight.module_name();
    tensors_[module + ".weight_packed"] = {ElementType::I32, {weight.rows(), weight.columns() / 8}, bytes_of(words)};
    tensors_[module + ".weight_scale"] = {ElementType::BF16, {weight.rows(), groups}, bytes_of(scales)};
    tensors_[module + ".weight_shape"] = {
        ElementType::I64, {2}, bytes_of(std::vector<int64_t>{weight.rows(), weight.columns()})};
  }

  fs::path write() {
    fs::remove_all(folder_ / "packed");
    fs::create_directories(folder_ / "packed");
    write_file(folder_ / "packed/config.json", config_.dump());
    SafetensorsWriter writer(folder_ / "packed/model.safetensors");
    for (const auto& [name, tensor] : tensors_) writer.declare(name, tensor.type, tensor.shape);
    for (const auto& [name, tensor] : tensors_) writer.write(tensor.bytes);
    writer.commit();
    return folder_ / "packed";
  }

  ModelFolder import() {
    import_packed_folder(PackedFolder(write()), folder_ / "checkpoint", [](const fs::path&) {});
    return ModelFolder(folder_ / "checkpoint");
  }

  void expect_refused(std::initializer_list<std::string> parts) {
    const fs::path path = write();
    ASSERT_TRUE(PackedFolder::is_one(path));
    expect_error([&] { const PackedFolder folder(path); }, parts);
  }

  const uint64_t seed_ = fresh_seed();
  SplitMix64 random_{seed_};
  testing::TemporaryFolder folder_;
  nlohmann::json config_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::vector<int8_t>> codes_;  // by weight
};

TEST_F(PackedModel, CodesAndScalesArriveAsTheyAre) {
  SCOPED_TRACE("seed " + std::to_string(seed_));
  const ModelFolder base(folder_ / "base");
  pack(*base.table().find(kWeight), 1);  // a scale for the whole row
  const ModelFolder checkpoint = import();
  for (const WeightSpec& weight : checkpoint.table().weights()) {
    const TensorView& master = checkpoint.masters().of(weight);
    const auto scales = checkpoint.stored_scales(weight.name);
    if (!is_linear(weight.role)) {
      EXPECT_TRUE(std::ranges::equal(master.bytes, base.masters().of(weight).bytes)) << weight.name;
      EXPECT_TRUE(scales.empty());
      continue;
    }
    const Tensor& packed = tensors_.at("model." + weight.module_name() + ".weight_scale");
    const auto* groups = reinterpret_cast<const BFloat16*>(packed.bytes.data());
    const int64_t blocks_of_group = weight.columns() / 32 / packed.shape[1];
    for (size_t i = 0; i < scales.size(); ++i) {
      ASSERT_EQ(to_float(scales[i]), to_float(groups[static_cast<int64_t>(i) / blocks_of_group])) << weight.name;
    }
    const std::span values(reinterpret_cast<const BFloat16*>(master.bytes.data()),
                           static_cast<size_t>(weight.elements()));
    std::vector<std::byte> blocks(scales.size() * 18);
    encode_blocks(Scheme::Q4_0, values, scales, blocks);
    std::vector<int8_t> codes(values.size());
    unpack_codes(Scheme::Q4_0, blocks, codes);
    EXPECT_EQ(codes, codes_.at(weight.name)) << weight.name;
  }
  EXPECT_FALSE(
      nlohmann::json::parse(read_text_file(folder_ / "checkpoint/config.json")).contains("quantization_config"));
}

TEST_F(PackedModel, OtherModalitiesTravelAndScalesThatAreRoundedAreCounted) {
  tensors_["vision.norm"] = {ElementType::BF16, {3}, std::vector<std::byte>(6, std::byte{0x3f})};
  const std::string name = std::string(kModule) + ".weight_scale";
  Tensor& scales = tensors_.at(name);
  scales.type = ElementType::F32;
  scales.bytes = bytes_of(std::vector<float>(static_cast<size_t>(scales.shape[0] * scales.shape[1]), 0.01F));
  EXPECT_EQ(PackedFolder(write()).rounded_scales(), scales.shape[0] * scales.shape[1]);
  const ModelFolder checkpoint = import();
  ASSERT_NE(checkpoint.tensors().find("vision.norm"), nullptr);
  EXPECT_EQ(checkpoint.stored_scales(kWeight)[0], to_float16(0.01F));
}

TEST_F(PackedModel, WhatIsNotReadIsNamed) {
  const auto good = config_;
  const auto change = [&](const char* pointer, const nlohmann::json& value) {
    config_ = good;
    config_["quantization_config"][nlohmann::json::json_pointer(pointer)] = value;
  };
  change("/config_groups/group_0/weights/num_bits", 8);
  expect_refused({"config.json", "group_0.weights.num_bits is 8, wanted 4"});
  change("/config_groups/group_0/weights/symmetric", false);
  expect_refused({"group_0.weights.symmetric is false"});
  change("/config_groups/group_0/input_activations", {{"num_bits", 8}});
  expect_refused({"group_0.input_activations"});
  change("/format", "marlin-24");
  expect_refused({"format is \"marlin-24\""});
  change("/config_groups", nullptr);
  expect_refused({"has no config_groups"});
}

TEST_F(PackedModel, WrongTensorsAreListedTogether) {
  const std::string module = kModule;
  const auto good = tensors_;
  tensors_.at(module + ".weight_packed").type = ElementType::F32;
  tensors_.erase("model.layers.1.mlp.up_proj.weight_scale");
  expect_refused({"2 faults", module + ".weight_packed is F32", "layers.1.mlp.up_proj.weight_scale is missing"});

  tensors_ = good;
  tensors_[module + ".weight_g_idx"] = {ElementType::I32, {1}, std::vector<std::byte>(4)};
  tensors_["tower.proj.weight_packed"] = {ElementType::I32, {1}, std::vector<std::byte>(4)};
  expect_refused({"weight_g_idx: codes with an offset or in another order", "tower.proj.weight_packed belongs to no"});

  for (const float bad : {INFINITY, NAN, 1e9F, 1e-9F}) {
    tensors_ = good;
    const BFloat16 scale = to_bfloat16(bad);
    std::memcpy(tensors_.at(module + ".weight_scale").bytes.data() + 4, &scale, sizeof(scale));
    expect_refused({module + ".weight_scale has", "at 2, which is no number"});
  }
  tensors_ = good;
  tensors_.erase(module + ".weight_packed");
  expect_refused({"model.layers.0.mlp.up_proj.weight is missing, wanted BF16"});
}

}  // namespace
}  // namespace qat
