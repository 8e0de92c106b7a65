// The witness of a BF16 run: the numbers of an fp32 copy of the whole model, without the copy.
#include "trainers/checkpoint_writer.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/json.h"
#include "core/random.h"
#include "fake_quant/make_witness.h"
#include "fake_quant/tensor_values.h"
#include "support/counting_allocator.h"
#include "support/tiny_model_folder.h"
#include "trainers/calibration.h"
#include "trainers/lora.h"
#include "trainers/tiny_run.h"

namespace qat {
namespace {

using testing::bytes_of;
using testing::CountingAllocator;
using testing::TinyRun;

const std::vector<std::vector<int32_t>> kPrompts{{2, 17, 500, 31, 8}, {2, 90, 91}};

// A BF16 model with weights of a folder, adapters that change them, and quantizers.
struct Bfloat16Run {
  explicit Bfloat16Run(const std::string& plan, int layers = 4) {
    nlohmann::json shape = load_json(run.model() / "config.json");
    shape["num_hidden_layers"] = layers;
    shape["layer_types"] = std::vector<std::string>(static_cast<size_t>(layers), "full_attention");
    if (layers != 4) shape["hidden_size_per_layer_input"] = 0;
    write_file(run.model() / "config.json", shape.dump());
    testing::write_random_weights(run.model());
    config = run.config("a", {"plan=" + plan, "kv_cache=plan", "initialize=pretrained", "lora.rank=4", "dtype=bfloat16"});
    base = std::make_unique<BaseModel>(config);
    const auto unchanged = unchanged_weights(config, *base, {});
    model = std::make_unique<Gemma4Model>(base->config(), at::kBFloat16,
                                          base->readable_in_file(unchanged, at::kBFloat16));
    base->fill(*model, 0);
    lora = attach_lora(config, *base, {}, *model);
    SplitMix64 random(9);
    for (const auto& adapter : lora.adapters()) {
      for (float& value : values_of<float>(adapter.b)) value = static_cast<float>(0.1 * random.uniform() - 0.05);
    }
    lora.changed();
    fake_quant = base->attach_fake_quant(*model);
    if (fake_quant.needs_calibration()) {
      TrainingData data(config, base->config());
      calibrate(*model, fake_quant, data.first_rows(2), config.quantization.calibration);
    }
  }

  TinyRun run;
  TrainConfig config;
  std::unique_ptr<BaseModel> base;
  std::unique_ptr<Gemma4Model> model;
  LoraAdapters lora;
  FakeQuantSet fake_quant;
};

class WitnessOfBfloat16 : public ::testing::TestWithParam<const char*> {};

TEST_P(WitnessOfBfloat16, IsThatOfAFloatCopy) {
  const at::NoGradGuard no_grad;
  Bfloat16Run tiny(GetParam());
  CheckpointWriter(*tiny.base, kPrompts).write(tiny.run.folder("c"), *tiny.model, tiny.fake_quant, 1);

  Gemma4Model copy(tiny.model->config(), at::kFloat);
  for (auto& [name, parameter] : copy.parameters()) parameter.copy_(tiny.model->merged_parameter(name));
  const FakeQuantSet quantizers = tiny.base->attach_fake_quant(copy, tiny.fake_quant);
  make_witness(copy, quantizers, kPrompts).save(tiny.run.folder("wanted.safetensors"));
  EXPECT_EQ(bytes_of(tiny.run.folder("c") / "witness.safetensors"), bytes_of(tiny.run.folder("wanted.safetensors")));
}

INSTANTIATE_TEST_SUITE_P(Plans, WitnessOfBfloat16, ::testing::Values("bf16", "q4_0", "mobile-w4"),
                         [](const auto& tested) { return std::string(tested.param).substr(0, 4); });

int64_t peak_of_writing(int layers) {
  Bfloat16Run tiny("q4_0", layers);
  for (const auto& adapter : tiny.lora.adapters()) tiny.model->merged_parameter(adapter.weight.name);
  const CountingAllocator counter;
  CheckpointWriter(*tiny.base, kPrompts).write(tiny.run.folder("c"), *tiny.model, tiny.fake_quant, 1);
  return counter.peak();
}

TEST(CheckpointWriterMemory, DoesNotGrowWithTheNumberOfLayers) {
  const at::NoGradGuard no_grad;
  at::set_num_threads(1);
  const auto few = static_cast<double>(peak_of_writing(3));
  // Vectors are copied.
  EXPECT_LT(static_cast<double>(peak_of_writing(24)), 1.1 * few);
}

}  // namespace
}  // namespace qat
