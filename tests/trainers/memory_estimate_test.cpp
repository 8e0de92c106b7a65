// The predicted memory against the bytes of tensors that really exist, counted, so that no machine, thread or malloc
// makes a difference.
#include "trainers/memory_estimate.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/output_file.h"
#include "core/process_memory.h"
#include "support/counting_allocator.h"
#include "support/expect_error.h"
#include "support/published_models.h"
#include "support/tiny_model_folder.h"
#include "trainers/activation_memory.h"
#include "trainers/adamw.h"
#include "trainers/calibration.h"
#include "trainers/lora.h"
#include "trainers/tiny_run.h"
#include "trainers/trainer.h"

namespace qat {
namespace {

using testing::CountingAllocator;
using testing::expect_error;
using testing::TinyRun;

PackedTokens document(int64_t tokens) { return PackedTokens::single(at::arange(tokens, at::kLong) + 2); }

// What is kept between the passes per token, from two lengths: weights and constants cancel.
double kept_per_token(const char* kind, const std::string& plan, at::ScalarType dtype, bool recomputed) {
  at::set_num_threads(1);
  Gemma4Model model(testing::tiny_config_of_kind(kind), dtype);
  initialize_weights(model, 3);
  FakeQuantSet set;
  if (!plan.empty()) {
    set = prepare(model, QuantPlan::load(plan).resolve(model.weights()), {});
    const at::NoGradGuard no_grad;
    const at::Tensor first_rows = at::tensor({int64_t{0}});
    set.start_calibration(&first_rows);
    model.hidden_states(document(8));
    set.finish_calibration({}, {});
  }
  for (auto& [name, parameter] : model.parameters()) parameter.set_requires_grad(true);
  for (LearnedScale* scale : set.scales()) at::Tensor(scale->log_change()).set_requires_grad(true);
  model.recompute_layers(recomputed);
  model.hidden_states(document(8));  // cached weights exist from here on
  const auto bytes = [&](int64_t tokens) {
    const PackedTokens batch = document(tokens);
    const CountingAllocator counter;
    const at::Tensor hidden = model.hidden_states(batch);
    return static_cast<double>(counter.bytes());
  };
  return (bytes(512) - bytes(256)) / 256;
}

TEST(ActivationMemory, IsWhatAForwardPassKeeps) {
  for (const char* kind : {"dense", "shared", "value_is_key", "experts"}) {
    for (const std::string plan : {"", "q4_0", "mobile-w4"}) {
      if (plan == "mobile-w4" && kind == std::string("experts")) continue;
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        SCOPED_TRACE(std::string(kind) + " " + plan + " " + toString(dtype));
        const Gemma4Config config = testing::tiny_config_of_kind(kind);
        ResolvedPlan resolved;
        if (!plan.empty()) resolved = QuantPlan::load(plan).resolve(WeightTable(config));
        const ActivationBytes wanted =
            activation_bytes(config, plan.empty() ? nullptr : &resolved, dtype == at::kFloat ? 4 : 2);
        for (const bool recomputed : {false, true}) {
          const auto predicted = static_cast<double>(wanted.kept(recomputed));
          const double found = kept_per_token(kind, plan, dtype, recomputed);
          EXPECT_NEAR(predicted / found, 1, 0.03) << predicted << " " << found << " recomputed " << recomputed;
        }
      }
    }
  }
}

// A step of a run put together as run_training does.
int64_t peak_of_run(const TrainConfig& config) {
  at::set_num_threads(1);
  const BaseModel base(config);
  TrainingData data(config, base.config());
  const CountingAllocator counter;
  const std::vector<std::string> frozen = frozen_weights(config, base);
  const at::ScalarType dtype = config.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  Gemma4Model model(base.config(), dtype, base.without_memory(unchanged_weights(config, base, frozen), dtype));
  model.recompute_layers(config.activation_checkpointing == "layers");
  base.fill(model, 1);
  LoraAdapters lora = attach_lora(config, base, frozen, model);
  std::vector<TrainedWeight> trained = lora.trained_weights();
  if (!config.trains_adapters()) trained = select_trained_weights(model, frozen);
  FakeQuantSet fake_quant = base.attach_fake_quant(model);
  if (fake_quant.needs_calibration()) calibrate(model, fake_quant, data.first_rows(2), config.quantization.calibration);
  if (config.changes_weights()) {
    for (TrainedWeight& scale : select_trained_scales(fake_quant, frozen)) trained.push_back(std::move(scale));
  }
  const auto optimizer = make_optimizer(std::move(trained), config.optimizer, 1);
  const auto objective = make_objective(config, base.config(), data);
  ProcessGroup alone;
  Trainer trainer(config, model, fake_quant, *objective, data, *optimizer, lora, alone);
  trainer.step();
  return counter.peak();
}

// A model with more vocabulary and width than TinyRun's, so that every part counts.
std::filesystem::path wider_model(const TinyRun& run) {
  const auto folder = run.folder("wider");
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(run.model() / "tokenizer.json", folder / "tokenizer.json");
  nlohmann::json config = load_json(run.model() / "config.json");
  config["hidden_size"] = 256;
  config["intermediate_size"] = 768;
  write_file(folder / "config.json", config.dump());
  testing::write_random_weights(folder);
  return folder;
}

// Long documents fill every row.
std::string full_rows(const TinyRun& run) {
  std::string text, lines;
  for (int i = 0; i < 600; ++i) text += i % 7 == 0 ? "river " : "green hill ";
  for (int i = 0; i < 40; ++i) lines += nlohmann::json{{"text", text}}.dump() + "\n";
  write_file(run.folder("long.jsonl"), lines);
  return run.folder("long.jsonl").string();
}

// Every run in both types: the prediction for the bytes that it takes lies between 3 % less and `most` times as much.
void expect_predicted(const std::vector<std::vector<std::string>>& runs, double most) {
  const TinyRun run;
  const std::string model = "model=" + wider_model(run).string();
  const std::string train = "data.train=" + full_rows(run);
  for (const char* dtype : {"dtype=float32", "dtype=bfloat16"}) {
    for (std::vector<std::string> overrides : runs) {
      overrides.insert(overrides.end(), {model, train, dtype, "sequence_length=256"});
      std::string name;
      for (const std::string& part : overrides) name += part + " ";
      SCOPED_TRACE(name);
      const TrainConfig config = run.config("a", overrides);
      const BaseModel base(config);
      const MemoryEstimate estimate = estimate_memory(config, base, frozen_weights(config, base));
      if (estimate.moment == "saving a checkpoint") continue;
      const auto found = static_cast<double>(peak_of_run(config));
      const double ratio = static_cast<double>(estimate.total()) / found;
      const std::string figures = join("found ", found, ", predicted in ", estimate.moment, ": ", describe(estimate));
      EXPECT_GT(ratio, 0.97) << figures;
      EXPECT_LT(ratio, most) << figures;
    }
  }
}

// What is estimated roughly is the temporary tensors of single operations.
TEST(MemoryEstimate, IsWhatAStepTakes) {
  expect_predicted(
      {{"plan=", "kv_cache=none", "gradient_accumulation=1"},
       {"plan=q4_0", "micro_batch_sequences=4"},
       {"plan=q4_0", "micro_batch_sequences=4", "activation_checkpointing=layers"},
       {"plan=q4_0", "optimizer.kind=adamw8bit", "optimizer.masters=bfloat16"},
       {"plan=mobile-w4", "kv_cache=plan", "micro_batch_sequences=4", "freeze_tables=no"},
       {"plan=mobile-w4", "kv_cache=plan", "micro_batch_sequences=4", "activation_checkpointing=layers",
        "optimizer.kind=adafactor", "optimizer.masters=bfloat16"},
       {"plan=q4_0", "quantization.keep=codes", "activation_checkpointing=layers", "gradient_accumulation=1"},
       {"plan=mobile-w4", "kv_cache=plan", "quantization.keep=nothing", "activation_checkpointing=layers"},
       {"plan=q4_0", "quantization.keep=codes", "micro_batch_sequences=4"},
       {"plan=q4_0", "initialize=pretrained", "freeze_tables=yes"},
       {"plan=q4_0", "initialize=pretrained", "lora.rank=8", "micro_batch_sequences=4"}},
      1.15);
}

// Where little is kept, those temporary tensors, of which not all exist at once, are a large part.
TEST(MemoryEstimate, OfLittleThatIsKeptIsNotTooLow) {
  const std::vector<std::string> lora{"initialize=pretrained", "lora.rank=8"};
  std::vector<std::vector<std::string>> runs{
      {"plan=q4_0", "lora.keep_merged=false", "activation_checkpointing=layers"},
      {"plan=q4_0", "lora.base=packed", "activation_checkpointing=layers"},
      {"plan=mobile-w4", "kv_cache=plan", "lora.base=packed", "activation_checkpointing=layers"},
      {"plan=q4_0", "lora.through_quantizer=false", "micro_batch_sequences=4"}};
  for (std::vector<std::string>& run : runs) run.insert(run.end(), lora.begin(), lora.end());
  runs.push_back({"plan=q4_0", "optimizer.kind=adafactor", "optimizer.masters=bfloat16", "gradient_accumulation=1",
                  "optimizer.step_in_backward=true", "activation_checkpointing=layers"});
  expect_predicted(runs, 1.5);
}

TEST(MemoryEstimate, ARunThatDoesNotFitIsRefusedWithWhatWouldFit) {
  const TinyRun run;
  const auto check = [&](const TrainConfig& config, double share) {
    const BaseModel base(config);
    const auto frozen = frozen_weights(config, base);
    const auto needed = static_cast<double>(estimate_memory(config, base, frozen).total());
    check_memory(config, base, frozen, static_cast<int64_t>(share * needed));
  };
  EXPECT_NO_THROW(check(run.config("a"), 1));
  expect_error(
      [&] { check(run.config("a"), 0.9); },
      {"needs at least", "available", "activation_checkpointing=layers: ", "optimizer.kind=adamw8bit: ",
       "optimizer.kind=adafactor: ", "optimizer.masters=bfloat16: ", "sequence_length=32: ", "memory_check=warn"});
  expect_error([&] { check(run.config("a", {"activation_checkpointing=layers"}), 0.9); },
               {"quantization.keep=codes: ", "quantization.keep=nothing: "});
  ::testing::internal::CaptureStderr();
  EXPECT_NO_THROW(check(run.config("a", {"memory_check=warn"}), 0.9));
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("needs at least"), std::string::npos);
}

TEST(MemoryEstimate, SettingsThatSaveMemoryAreSeenToSaveIt) {
  const TinyRun run;
  const auto needed = [&](const std::vector<std::string>& overrides) {
    const TrainConfig config = run.config("a", overrides);
    const BaseModel base(config);
    return estimate_memory(config, base, frozen_weights(config, base)).total();
  };
  const std::string many = "micro_batch_sequences=64";
  const int64_t whole = needed({many});
  for (const char* setting : {"activation_checkpointing=layers", "optimizer.kind=adamw8bit", "optimizer.kind=adafactor",
                              "optimizer.masters=bfloat16", "sequence_length=32", "freeze_tables=yes"}) {
    EXPECT_LT(needed({many, setting}), whole) << setting;
  }
  const auto keeping = [&](const char* what) {
    return needed({"activation_checkpointing=layers", std::string("quantization.keep=") + what});
  };
  EXPECT_LT(keeping("codes"), keeping("values"));
  EXPECT_LT(keeping("nothing"), keeping("codes"));
}

// What the CPU reads in the model's files, a teacher's too, is copied to a GPU.
TEST(MemoryEstimate, OfAGpuCountsFrozenWeights) {
  const TinyRun run;
  const auto folder = wider_model(run);
  const std::string model = "model=" + folder.string();
  const auto estimate = [&](const char* device, const char* dtype, const char* objective) {
    const TrainConfig config =
        run.config("a", {model, "initialize=pretrained", "freeze_tables=yes", device, dtype, objective});
    const BaseModel base(config);
    return estimate_memory(config, base, frozen_weights(config, base));
  };
  // The kernels of a CPU have temporary tensors of their own.
  const auto without_buffers = [](const MemoryEstimate& found) {
    int64_t bytes = found.total();
    for (const MemoryPart& part : found.parts) bytes -= part.name == "buffers" ? part.bytes : 0;
    return bytes;
  };
  const WeightTable table(Gemma4Config::load(folder));
  int64_t matrices = 0;
  for (const WeightSpec& weight : table.weights()) matrices += is_matrix(weight.role) ? 2 * weight.elements() : 0;
  for (const char* dtype : {"dtype=bfloat16", "dtype=float32"}) {
    const MemoryEstimate near = estimate("device=cpu", dtype, "objective=cross_entropy");
    const MemoryEstimate far = estimate("device=cuda", dtype, "objective=cross_entropy");
    EXPECT_GT(near.in_file, 0);
    EXPECT_EQ(far.in_file, 0);
    EXPECT_EQ(without_buffers(far), without_buffers(near) + near.in_file) << describe(far);
  }
  const MemoryEstimate near = estimate("device=cpu", "dtype=bfloat16", "objective=forward_kl");
  const MemoryEstimate far = estimate("device=cuda", "dtype=bfloat16", "objective=forward_kl");
  EXPECT_EQ(without_buffers(far), without_buffers(near) + near.in_file + matrices) << describe(far);
}

TEST(MemoryEstimate, ProcessesThatShareStatesNeedTheirPartOfThem) {
  const TinyRun run;
  const auto states_of = [&](const char* sharding, int64_t processes) {
    const TrainConfig config = run.config("a", {sharding});
    const BaseModel base(config);
    int64_t bytes = 0;
    for (const MemoryPart& part : estimate_memory(config, base, frozen_weights(config, base), processes).parts) {
      if (part.name == "masters" || part.name == "moments") bytes += part.bytes;
    }
    return bytes;
  };
  const int64_t whole = states_of("sharding=none", 1);
  EXPECT_GT(whole, 0);
  EXPECT_EQ(states_of("sharding=none", 4), whole);
  EXPECT_EQ(states_of("sharding=states", 1), whole);
  EXPECT_EQ(states_of("sharding=states", 4), whole / 4);
}

// 31B as its configuration trains it, with as many passes a step as processes, in GiB of one process.
TEST(MemoryEstimate, ProcessesThatShareParametersNeedTheirPartOfThem) {
  const TinyRun run;
  const auto folder = run.folder("31b");
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(run.model() / "tokenizer.json", folder / "tokenizer.json");
  write_file(folder / "config.json", testing::published_31b().dump());
  const auto part = [&](const char* name, const char* sharding, int64_t processes) {
    TrainConfig config =
        TrainConfig::load(configs_folder() / "train/gemma4_31b_q4_0.json",
                          {"model=" + folder.string(), "out=" + run.folder("a").string(), "initialize=random",
                           "data.train=" + run.folder("train.jsonl").string(), "eval.metric=loss",
                           std::string("sharding=") + sharding, join("gradient_accumulation=", processes)});
    const BaseModel base(config);
    const MemoryEstimate estimate = estimate_memory(config, base, frozen_weights(config, base), processes);
    if (name == std::string("total")) return estimate.total();
    for (const MemoryPart& found : estimate.parts) {
      if (found.name == name) return found.bytes;
    }
    return int64_t{0};
  };
  const int64_t tables = 2 * int64_t{262144} * 5376;  // random ones are in no file
  const int64_t whole = part("parameters", "states", 8) - tables;
  EXPECT_GT(whole, int64_t{50} << 30);
  EXPECT_NEAR(static_cast<double>(part("parameters", "parameters", 8) - tables) / static_cast<double>(whole), 1.0 / 8,
              1e-3);
  EXPECT_EQ(part("fake-quantized weights", "parameters", 1), part("fake-quantized weights", "states", 8));
  EXPECT_LT(part("total", "parameters", 8), part("total", "states", 8) / 3);
  EXPECT_LT(part("total", "parameters", 16), part("total", "parameters", 8));
  EXPECT_EQ(part("total", "parameters", 1), part("total", "states", 1));
}

TEST(AvailableMemory, IsMoreThanNothingAndLessThanTheMachineHas) {
  EXPECT_GT(available_memory(), uint64_t{16} << 20);
  EXPECT_LT(available_memory(), uint64_t{1} << 50);
}

}  // namespace
}  // namespace qat
