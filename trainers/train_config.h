// What a training run is told: configs/train/*.json plus key=value overrides.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/json.h"

namespace qat {

// A plan's name that stands for the plan of the checkpoint which the run starts from.
inline constexpr const char* kPlanOfModel = "model";

struct DataConfig {
  std::vector<std::string> train;
  std::vector<std::string> eval;
  std::string chat_template;
  bool enable_thinking = false;
  bool parse_special_in_content = true;
  bool shuffle = true;

  void visit_fields(FieldVisitor& visitor);
};

struct OptimizerConfig {
  std::string kind = "adamw";
  std::string masters = "float32";
  double learning_rate = 1e-5;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0;
  int64_t warmup_steps = 10;
  double final_ratio = 0.1;
  double clip_norm = 1;
  bool step_in_backward = false;

  void visit_fields(FieldVisitor& visitor);
};

struct CalibrationConfig {
  int64_t rows = 32;
  std::string method = "least_error";
  double percentile = 99.99;

  void visit_fields(FieldVisitor& visitor);
};

struct QuantizationConfig {
  int64_t start_step = 0;
  int64_t activation_start_step = 0;
  int64_t cache_start_step = 0;
  std::string keep = "values";
  std::string block_scales = "rule";
  std::string row_scales = "search";
  bool learn_scales = true;
  double scale_learning_rate = 1e-3;
  double scale_freeze_share = 0.15;
  CalibrationConfig calibration;

  void visit_fields(FieldVisitor& visitor);
};

// Of the objectives with a teacher.
struct DistillationConfig {
  double temperature = 1;
  double cross_entropy_share = 0;
  double beta = 0.5;
  std::string cache;

  void visit_fields(FieldVisitor& visitor);
};

struct LoraConfig {
  int64_t rank = 0;
  double alpha = 16;
  double dropout = 0;
  bool rank_stabilized = false;
  bool through_quantizer = true;
  std::string base = "bfloat16";
  bool keep_merged = true;
  std::vector<std::string> roles{"attention_query", "attention_key", "attention_value", "attention_output",
                                 "mlp_gate",        "mlp_up",        "mlp_down"};
  std::string adapter;

  void visit_fields(FieldVisitor& visitor);
};

struct EvaluationConfig {
  int64_t every_steps = 100;
  int64_t documents = 64;
  std::string metric = "loss";
  std::string reference;

  void visit_fields(FieldVisitor& visitor);
};

struct CheckpointConfig {
  int64_t every_steps = 500;
  int64_t keep_last = 2;
  bool keep_best = true;
  int64_t witness_prompts = 4;

  void visit_fields(FieldVisitor& visitor);
};

struct TrainConfig {
  std::string about;
  std::string model;
  std::string initialize = "pretrained";
  std::string out;
  std::string plan;
  std::string kv_cache = "plan";
  std::string activations = "plan";
  std::string device = "cpu";
  std::string dtype = "auto";
  std::string objective = "cross_entropy";
  std::string teacher;
  DistillationConfig distillation;
  DataConfig data;
  int64_t sequence_length = 1024;
  int64_t micro_batch_sequences = 1;
  int64_t gradient_accumulation = 8;
  std::string sharding = "none";
  std::string activation_checkpointing = "none";
  std::string memory_check = "refuse";
  int64_t steps = 1000;
  int64_t seed = 0;
  int64_t threads = 0;
  OptimizerConfig optimizer;
  std::vector<std::string> parameters;
  std::vector<std::string> freeze;
  std::string freeze_tables = "plan";
  LoraConfig lora;
  QuantizationConfig quantization;
  EvaluationConfig eval;
  CheckpointConfig checkpoint;
  bool tensorboard = false;

  void visit_fields(FieldVisitor& visitor);

  // Reads the file and applies overrides ("optimizer.learning_rate=1e-5"). Unknown fields, wrong types, values out of
  // range, paths that do not exist and unknown plans are reported together in one Error (usage). Paths are relative to
  // the working folder.
  static TrainConfig load(const std::filesystem::path& path, const std::vector<std::string>& overrides);
  // The same from JSON; `where` names it in errors.
  static TrainConfig parse(nlohmann::json document, const std::vector<std::string>& overrides,
                           const std::string& where);

  // Every field, defaults included.
  nlohmann::ordered_json to_json() const;
  // A line per field with its help.
  static std::string describe();

  bool is_quantized() const { return !plan.empty(); }
  bool trains_adapters() const { return lora.rank > 0; }
  bool packs_base() const { return lora.base == "packed"; }
  // Whether each process of a group keeps masters and moments of its own weights only; and the values, too.
  bool shards_states() const { return sharding != "none"; }
  bool shards_parameters() const { return sharding == "parameters"; }
  // Whether what a step changes goes into quantized weights and scales.
  bool changes_weights() const { return !trains_adapters() || lora.through_quantizer; }
  bool distills() const { return objective != "cross_entropy"; }
  bool wants_kl() const { return eval.metric == "kl"; }
  // Folder of the model that KL is measured to; empty: the model that the run starts from.
  std::string kl_reference() const { return eval.reference.empty() && distills() ? teacher : eval.reference; }
  bool computes_on_cpu() const { return device == "cpu"; }
  // The dtype of the forward pass after "auto": BF16 on a GPU, and where the processor multiplies it fast (AVX512-BF16,
  // AMX).
  bool computes_in_bfloat16() const;
};

// The fields in which a resumed run differs from the one that wrote the state, as "field: before, now", one line each.
// Free to change are out, about, device, sharding, activation_checkpointing, lora.keep_merged,
// optimizer.step_in_backward, quantization.keep, memory_check, steps, threads, tensorboard, checkpoint.every_steps,
// keep_last and keep_best: they do not change what a step computes (device and threads may, in the last bits; more
// steps stretch the rest of the learning-rate schedule).
std::vector<std::string> changed_fields(const nlohmann::ordered_json& before, const nlohmann::ordered_json& now);

}  // namespace qat
