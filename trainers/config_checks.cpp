#include "trainers/config_checks.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

#include "core/error.h"
#include "core/json.h"
#include "data/chat_template.h"
#include "gemma4/adapter_folder.h"
#include "gemma4/quant_plan.h"
#include "gemma4/weight_table.h"
#include "trainers/compute_settings.h"
#include "trainers/train_config.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

class Checker {
 public:
  explicit Checker(std::vector<std::string>& problems) : problems_(problems) {}

  template <class... Parts>
  void add(const Parts&... parts) {
    problems_.push_back(join(parts...));
  }
  template <class T>
  void at_least(const char* name, T value, T least) {
    if (!(value >= least)) add(name, ": must be ", least, " or more, found ", value);
  }
  // Within [least, end).
  void below(const char* name, double value, double least, double end) {
    if (!(value >= least && value < end))
      add(name, ": must be at least ", least, " and below ", end, ", found ", value);
  }
  void file(const char* name, const std::string& path) {
    if (!fs::is_regular_file(path)) add(name, ": there is no file ", path);
  }

 private:
  std::vector<std::string>& problems_;
};

void check_model(const TrainConfig& config, Checker& check) {
  if (config.out.empty()) check.add("out: is required (the run folder)");
  if (config.model.empty()) {
    check.add("model: is required (a Hugging Face folder)");
    return;
  }
  if (!fs::is_directory(config.model)) {
    check.add("model: there is no folder ", config.model);
    return;
  }
  for (const char* name : {"config.json", "tokenizer.json"}) {
    if (!fs::is_regular_file(fs::path(config.model) / name)) check.add("model: ", config.model, " has no ", name);
  }
}

void check_data(const DataConfig& data, Checker& check) {
  if (data.train.empty()) check.add("data.train: is required (one or more files)");
  for (const std::string& path : data.train) check.file("data.train", path);
  for (const std::string& path : data.eval) check.file("data.eval", path);
  if (data.chat_template.empty()) return;
  try {
    chat_template_by_name(data.chat_template);
  } catch (const Error& error) {
    check.add("data.chat_template: ", error.what());
  }
}

void check_plan(const TrainConfig& config, Checker& check) {
  if (!config.is_quantized()) {
    if (config.kv_cache == "q8_0" || config.kv_cache == "int8") check.add("kv_cache: ", config.kv_cache, " needs a plan (plan=bf16 quantizes nothing else)");
    if (config.quantization.start_step != 0) check.add("quantization.start_step: needs a plan");
    if (config.quantization.block_scales != "rule") check.add("quantization.block_scales: needs a plan");
    return;
  }
  const QuantizationConfig& quantization = config.quantization;
  for (const auto& [name, step] : {std::pair("activation_start_step", quantization.activation_start_step),
                                   std::pair("cache_start_step", quantization.cache_start_step)}) {
    check.at_least<int64_t>((std::string("quantization.") + name).c_str(), step, 0);
    if (step >= config.steps) {
      check.add("quantization.", name, ": must be below steps (", config.steps, "), found ", step,
                ": these quantizers would never be used");
    }
  }
  if (!(quantization.scale_learning_rate >= 0 && quantization.scale_learning_rate < 1)) {
    check.add("quantization.scale_learning_rate: must be at least 0 and below 1, found ", quantization.scale_learning_rate);
  }
  check.below("quantization.scale_freeze_share", quantization.scale_freeze_share, 0, 1);
  check.at_least<int64_t>("quantization.calibration.rows", quantization.calibration.rows, 1);
  if (!(quantization.calibration.percentile > 50 && quantization.calibration.percentile <= 100)) {
    check.add("quantization.calibration.percentile: must be above 50 and at most 100, found ",
              quantization.calibration.percentile);
  }
  try {
    if (config.plan != kPlanOfModel) QuantPlan::load(config.plan);
  } catch (const Error& error) {
    check.add("plan: ", error.what());
  }
  if (config.quantization.start_step >= config.steps) {
    check.add("quantization.start_step: must be below steps (", config.steps, "), found ",
              config.quantization.start_step, ": the quantizers would never be used");
  }
}

void check_optimizer(const OptimizerConfig& optimizer, int64_t steps, Checker& check) {
  if (!(optimizer.learning_rate > 0)) {
    check.add("optimizer.learning_rate: must be above 0, found ", optimizer.learning_rate);
  }
  if (!(optimizer.epsilon > 0)) check.add("optimizer.epsilon: must be above 0, found ", optimizer.epsilon);
  check.below("optimizer.beta1", optimizer.beta1, 0, 1);
  check.below("optimizer.beta2", optimizer.beta2, 0, 1);
  check.at_least("optimizer.weight_decay", optimizer.weight_decay, 0.0);
  check.at_least("optimizer.clip_norm", optimizer.clip_norm, 0.0);
  check.at_least<int64_t>("optimizer.warmup_steps", optimizer.warmup_steps, 0);
  if (optimizer.warmup_steps > steps) {
    check.add("optimizer.warmup_steps: must not exceed steps (", steps, "), found ", optimizer.warmup_steps);
  }
  if (!(optimizer.final_ratio >= 0 && optimizer.final_ratio <= 1)) {
    check.add("optimizer.final_ratio: must be between 0 and 1, found ", optimizer.final_ratio);
  }
}

void check_sizes(const TrainConfig& config, Checker& check) {
  if (config.optimizer.step_in_backward && config.gradient_accumulation != 1) {
    check.add("optimizer.step_in_backward: needs gradient_accumulation = 1, found ", config.gradient_accumulation,
              ": gradients of several passes must be kept to be added");
  }
  check.at_least<int64_t>("sequence_length", config.sequence_length, 2);
  check.at_least<int64_t>("micro_batch_sequences", config.micro_batch_sequences, 1);
  check.at_least<int64_t>("gradient_accumulation", config.gradient_accumulation, 1);
  check.at_least<int64_t>("steps", config.steps, 1);
  check.at_least<int64_t>("seed", config.seed, 0);
  check.at_least<int64_t>("threads", config.threads, 0);
  check.at_least<int64_t>("quantization.start_step", config.quantization.start_step, 0);
  check.at_least<int64_t>("eval.every_steps", config.eval.every_steps, 0);
  check.at_least<int64_t>("eval.documents", config.eval.documents, 0);
  check.at_least<int64_t>("checkpoint.every_steps", config.checkpoint.every_steps, 0);
  check.at_least<int64_t>("checkpoint.keep_last", config.checkpoint.keep_last, 0);
  check.at_least<int64_t>("checkpoint.witness_prompts", config.checkpoint.witness_prompts, 1);
}

// The role of this name; a problem if there is none.
std::optional<WeightRole> role_of(const char* field, const std::string& name, Checker& check) {
  const auto role = role_by_name(name);
  if (role) return role;
  const auto nearest = nearest_name(name, role_names());
  check.add(field, ": there is no role \"", name, "\"", nearest ? "; did you mean \"" + *nearest + "\"?" : "");
  return std::nullopt;
}

bool holds(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void check_trained_roles(const TrainConfig& config, Checker& check) {
  for (const std::string& name : config.freeze) role_of("freeze", name, check);
  if (config.parameters.empty()) return;
  if (config.trains_adapters()) check.add("parameters: contradicts lora.rank: beside adapters no weight learns");
  bool names_table = false;
  for (const std::string& name : config.parameters) {
    const auto role = role_of("parameters", name, check);
    if (holds(config.freeze, name)) check.add("parameters: \"", name, "\" is in freeze, too");
    if (!role || !is_table(*role)) continue;
    names_table = true;
    if (config.freeze_tables == "yes") {
      check.add("parameters: \"", name,
                "\" is a table, and freeze_tables = yes; set it to plan, or leave the table out");
    }
  }
  if (config.freeze_tables == "no" && !names_table) {
    check.add(
        "freeze_tables: no has no effect beside parameters, which names no table; name token_embedding or "
        "per_layer_embedding there");
  }
}

void check_sharding(const TrainConfig& config, Checker& check) {
  if (config.shards_parameters() && config.activation_checkpointing != "layers") {
    check.add("sharding: parameters keeps no values for the backward pass; set activation_checkpointing = layers");
  }
  if (config.shards_parameters() && config.trains_adapters()) {
    check.add("sharding: parameters shares matrices that learn, and beside adapters (lora.rank) none does; use states");
  }
}

void check_packed_base(const TrainConfig& config, Checker& check) {
  if (!config.is_quantized()) check.add("lora.base: packed needs a plan, whose codes the base is kept in");
  if (config.activation_checkpointing != "layers") {
    check.add("lora.base: packed keeps no values for the backward pass; set activation_checkpointing = layers");
  }
}

void check_adapters_beside(const TrainConfig& config, Checker& check) {
  if (!config.is_quantized()) {
    check.add("lora.through_quantizer: false needs a plan: without one there is no quantizer to stay beside");
  }
  for (const char* role : {"output_head", "router"}) {
    if (!holds(config.lora.roles, role)) continue;
    check.add("lora.roles: \"", role, "\" has an adapter only with lora.through_quantizer = true");
  }
}

void check_lora(const TrainConfig& config, Checker& check) {
  const LoraConfig& lora = config.lora;
  check.at_least<int64_t>("lora.rank", lora.rank, 0);
  check.below("lora.dropout", lora.dropout, 0, 1);
  if (!(lora.alpha > 0) || !std::isfinite(lora.alpha)) check.add("lora.alpha: must be above 0, found ", lora.alpha);
  for (const std::string& name : lora.roles) {
    const auto role = role_of("lora.roles", name, check);
    if (role && !takes_adapter(*role)) {
      check.add("lora.roles: \"", name, "\" has no adapter: only matrices do, not vectors, tables and stacked experts");
    }
    if (holds(config.freeze, name) && config.trains_adapters())
      check.add("lora.roles: \"", name, "\" is in freeze, too");
  }
  if (!lora.adapter.empty() && !fs::is_directory(lora.adapter)) {
    check.add("lora.adapter: there is no folder ", lora.adapter);
  }
  if (!config.trains_adapters()) {
    if (!lora.adapter.empty()) check.add("lora.adapter: needs lora.rank, the r of its adapter_config.json");
    if (config.packs_base()) {
      check.add("lora.base: packed needs lora.rank: packed weights cannot learn, only adapters beside them");
    }
    if (!lora.through_quantizer) check.add("lora.through_quantizer: false needs lora.rank");
    return;
  }
  if (config.packs_base()) check_packed_base(config, check);
  if (!lora.through_quantizer) check_adapters_beside(config, check);
  if (lora.roles.empty()) check.add("lora.roles: is empty, so no weight would get an adapter");
  if (config.initialize == "random") {
    check.add("lora.rank: adapters need a base that stays; initialize = random draws one that is kept nowhere");
  }
  if (config.freeze_tables == "no") {
    check.add("freeze_tables: no contradicts lora.rank: beside adapters no weight learns");
  }
}

void check_distillation(const TrainConfig& config, Checker& check) {
  const DistillationConfig& distillation = config.distillation;
  const DistillationConfig defaults;
  if (!config.teacher.empty() && !fs::is_directory(config.teacher)) {
    check.add("teacher: there is no folder ", config.teacher);
  }
  if (!(distillation.temperature > 0 && std::isfinite(distillation.temperature))) {
    check.add("distillation.temperature: must be above 0, found ", distillation.temperature);
  }
  check.below("distillation.cross_entropy_share", distillation.cross_entropy_share, 0, 1);
  if (!(distillation.beta > 0 && distillation.beta < 1)) {
    check.add("distillation.beta: must be above 0 and below 1, found ", distillation.beta);
  }
  if (distillation.beta != defaults.beta && config.objective != "jensen_shannon") {
    check.add("distillation.beta: needs objective = jensen_shannon");
  }
  if (config.distills()) {
    if (config.teacher.empty() && config.initialize == "random") {
      check.add("objective: ", config.objective, " to random weights says nothing; name a model as teacher");
    }
    return;
  }
  for (const auto& [name, is_set] :
       {std::pair("teacher", !config.teacher.empty()),
        std::pair("distillation.temperature", distillation.temperature != defaults.temperature),
        std::pair("distillation.cross_entropy_share", distillation.cross_entropy_share != 0),
        std::pair("distillation.cache", !distillation.cache.empty())}) {
    if (is_set) check.add(name, ": needs objective = forward_kl, reverse_kl or jensen_shannon");
  }
}

void check_evaluation(const TrainConfig& config, Checker& check) {
  if (!config.eval.reference.empty() && !fs::is_directory(config.eval.reference)) {
    check.add("eval.reference: there is no folder ", config.eval.reference);
  }
  if (!config.eval.reference.empty() && !config.wants_kl()) check.add("eval.reference: needs eval.metric = kl");
  if (!config.wants_kl()) return;
  if (config.data.eval.empty()) check.add("eval.metric: kl needs data.eval");
  if (config.initialize == "random" && config.kl_reference().empty()) {
    check.add("eval.metric: kl to random weights says nothing; use loss, or name a model as eval.reference");
  }
}

}  // namespace

void check_values(const TrainConfig& config, std::vector<std::string>& problems) {
  Checker check(problems);
  check_model(config, check);
  check_data(config.data, check);
  check_plan(config, check);
  check_optimizer(config.optimizer, config.steps, check);
  check_sizes(config, check);
  check_sharding(config, check);
  for (const std::string& problem : device_problems(config)) check.add(problem);
  check_trained_roles(config, check);
  check_distillation(config, check);
  check_lora(config, check);
  check_evaluation(config, check);
}

}  // namespace qat
