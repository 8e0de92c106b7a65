#include "trainers/run_training.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/output_file.h"
#include "core/terminal.h"
#include "trainers/calibration.h"
#include "trainers/compute_settings.h"
#include "trainers/group_optimizer.h"
#include "trainers/lora.h"
#include "trainers/memory_plan.h"
#include "trainers/run_checks.h"
#include "trainers/training_run.h"

namespace qat {

namespace {

std::string without_place(const TrainConfig& config) {
  nlohmann::ordered_json json = config.to_json();
  json.erase("out");
  return json.dump(1);
}

// The hidden states of the model that KL is measured to; `model` is the one the run starts from, not yet quantized.
std::optional<ReferenceStates> make_reference(const TrainConfig& config, const Gemma4Model& model,
                                              const TrainingData& data, ProcessGroup& group) {
  if (!config.wants_kl() || config.eval.every_steps == 0) return std::nullopt;
  const std::string path = config.kl_reference();
  if (path.empty()) {
    return ReferenceStates(model, data.held_out(), /*keeps_head=*/!model.head().weight.requires_grad(), group);
  }
  const ModelFolder folder(path);
  if (folder.config().vocabulary_size != model.config().vocabulary_size) {
    fail_usage("eval.reference: ", path, " has ", folder.config().vocabulary_size,
               " tokens, the model ", model.config().vocabulary_size);
  }
  Gemma4Model reference(folder.config(), model.dtype(), readable_in_file(folder.table(), model.dtype()),
                        model.device());
  load_weights(reference, folder.tensors());
  return ReferenceStates(reference, data.held_out(), /*keeps_head=*/false, group);
}

void append(std::vector<TrainedWeight>& weights, std::vector<TrainedWeight> more) {
  std::move(more.begin(), more.end(), std::back_inserter(weights));
}

void print_summary(const TrainConfig& config, const BaseModel& base, const TrainingData& data, const Optimizer& optimizer,
                   const TrainState& state, const ProcessGroup& group) {
  const BatchSource& source = data.source();
  std::fputs(
      join("model      ", config.model, " (", base.config().architecture(), ", ", base.config().layer_count(),
           " layers, ", format_count(static_cast<double>(base.table().elements())), " values, ",
           format_count(static_cast<double>(optimizer.trained_values())), " trained)\n", "plan       ",
           base.plan() == nullptr ? "none: plain BF16" : base.plan()->name,
           base.plan() != nullptr && base.plan()->key_value_cache
               ? join(", KV cache ", scheme(*base.plan()->key_value_cache).name)
               : "", "\n", "data       ",
           source.example_count(), " documents in ", source.rows_in_epoch(), " rows, ",
           format_count(static_cast<double>(source.trained_tokens_per_epoch())), " trained tokens an epoch",
           source.cut_examples() > 0 ? join("; ", source.cut_examples(), " cut") : "",
           source.untrained_examples() > 0 ? join("; ", source.untrained_examples(), " left out") : "", "; ",
           data.held_out().size(), group.size() > 1 ? " held-out rows here" : " held-out rows", "\n", "step       ",
           config.micro_batch_sequences * config.gradient_accumulation, " rows of up to ", config.sequence_length,
           " tokens, ", config.dtype, ", ", config.computes_on_cpu() ? "" : config.device + ", ",
           group.size() > 1 ? join(group.size(), " processes of ") : "", config.threads, " threads\n", "steps      ",
           config.steps,
           state.step > 0 ? join(", resumed after step ", state.step) : "", "\n", "run        ", config.out, "\n")
          .c_str(),
      stdout);
  std::fflush(stdout);
}

}  // namespace

int run_training(TrainConfig config, bool resume, ProcessGroup& group) {
  RunFolder folder(config.out);
  if (!resume && group.is_first()) folder.refuse_second_run();
  install_interrupt_handler();
  choose_own_device(config, group.local_rank(), group.local_size());
  resolve_automatic_values(config);

  TrainState state;
  if (resume && group.is_first() && std::filesystem::exists(folder.state())) {
    state = load_state(folder.state());
    check_same_config(config, state);
  }
  state = from_first(group, std::move(state));
  state.config = without_place(config);

  const BaseModel base(config);
  check_lengths(config, base.config());
  TrainingData data(config, base.config(), group);
  check_group(config, data, group);
  check_same_settings(config, group);
  data.seek(state.data);

  const std::vector<std::string> frozen = frozen_weights(config, base);
  const MemoryPlan memory(config, base, frozen, group);
  const std::vector<std::string> unchanged = unchanged_weights(config, base, frozen);
  const at::ScalarType dtype = compute_type(config);
  ShardedWeights sharded(config, base, unchanged, group);
  const auto without_memory = [&, stays = base.without_memory(unchanged, dtype)](const WeightSpec& weight) {
    return sharded.contains(weight) || stays(weight);
  };
  Gemma4Model model(base.config(), dtype, without_memory, compute_device(config));
  model.recompute_layers(config.activation_checkpointing == "layers");
  base.fill(model, static_cast<uint64_t>(config.seed), [&](const WeightSpec& weight, Projection& projection) {
    if (sharded.contains(weight)) sharded.take(weight, projection, dtype);
  });
  std::vector<TrainedWeight> trained = select_trained_weights(model, unchanged);
  const std::unique_ptr<Objective> objective = make_objective(config, base.config(), data);
  const std::optional<ReferenceStates> reference = make_reference(config, model, data, group);
  LoraAdapters lora = attach_lora(config, base, frozen, model);
  append(trained, lora.trained_weights());
  FakeQuantSet fake_quant = base.attach_fake_quant(model);
  if (state.step > 0) load_scale_starts(folder.state(), fake_quant, group);
  std::string calibrated;
  if (fake_quant.needs_calibration()) {
    const auto rows = data.first_rows(config.quantization.calibration.rows);
    calibrated = describe_calibration(calibrate(model, fake_quant, rows, config.quantization.calibration));
    share_scale_starts(fake_quant, group);
  }
  if (config.quantization.learn_scales && config.changes_weights()) {
    append(trained, select_trained_scales(fake_quant, frozen));
  }
  check_same_start(data, trained, sharded, group);
  const auto optimizer = make_run_optimizer(std::move(trained), config, group);
  if (state.step > 0) load_optimizer(folder.state(), state, *optimizer, group);
  lora.changed();
  fake_quant.changed();

  if (group.is_first()) {
    folder.open();
    check_disk_space(config, folder, base, *optimizer);
    write_file(folder.resolved_config(), config.to_json().dump(1) + "\n");
    print_summary(config, base, data, *optimizer, state, group);
    std::fputs(memory.summary().c_str(), stdout);
    if (!calibrated.empty()) std::fputs(join("scales     ", calibrated, "\n").c_str(), stdout);
  }

  if (config.quantization.keep != "values") fake_quant.keep_frozen_head_in(folder.for_scratch_files());

  const CheckpointWriter checkpoints(base, data.witness_prompts());
  Trainer trainer(config, model, fake_quant, *objective, data, *optimizer, lora, group);
  TrainingRun run({config, folder, checkpoints, model, fake_quant, data, *optimizer, trainer, lora,
                   reference ? &*reference : nullptr, sharded, group},
                  state);
  const ExitCode code = run.run();
  if (!group.is_first()) return static_cast<int>(code);
  std::fputs(memory.outcome().c_str(), stdout);
  std::fputs(join("checkpoint ", folder.checkpoint().string(), "\n").c_str(), stdout);
  return static_cast<int>(code);
}

}  // namespace qat
