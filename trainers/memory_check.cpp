#include <cstdio>
#include <functional>

#include "core/error.h"
#include "core/terminal.h"
#include "trainers/memory_estimate.h"

namespace qat {

namespace {

// Settings that need less, with what they need then.
std::string advice(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& frozen,
                   int64_t processes) {
  std::string text;
  const auto add = [&](const std::string& setting, const std::function<void(TrainConfig&)>& change) {
    TrainConfig changed = config;
    change(changed);
    const int64_t bytes = estimate_memory(changed, base, frozen, processes).total();
    text += join("\n  ", setting, ": ", format_bytes(static_cast<double>(bytes)));
  };
  if (config.trains_adapters() && config.lora.through_quantizer && config.activation_checkpointing == "layers") {
    if (config.is_quantized() && !config.packs_base()) {
      add("lora.base=packed", [](TrainConfig& c) { c.lora.base = "packed"; });
    }
    if (config.lora.keep_merged && !config.packs_base()) {
      add("lora.keep_merged=false", [](TrainConfig& c) { c.lora.keep_merged = false; });
    }
  }
  if (config.activation_checkpointing == "none") {
    add("activation_checkpointing=layers", [](TrainConfig& c) { c.activation_checkpointing = "layers"; });
  }
  if (config.is_quantized() && config.activation_checkpointing == "layers") {
    if (config.quantization.keep == "values") {
      add("quantization.keep=codes", [](TrainConfig& c) { c.quantization.keep = "codes"; });
    }
    if (config.quantization.keep != "nothing") {
      add("quantization.keep=nothing", [](TrainConfig& c) { c.quantization.keep = "nothing"; });
    }
  }
  if (config.optimizer.kind == "adamw") {
    add("optimizer.kind=adamw8bit", [](TrainConfig& c) { c.optimizer.kind = "adamw8bit"; });
  }
  if (config.optimizer.kind != "adafactor") {
    add("optimizer.kind=adafactor", [](TrainConfig& c) { c.optimizer.kind = "adafactor"; });
  }
  if (config.optimizer.masters == "float32") {
    add("optimizer.masters=bfloat16", [](TrainConfig& c) { c.optimizer.masters = "bfloat16"; });
  }
  if (!config.optimizer.step_in_backward && processes == 1) {
    add("optimizer.step_in_backward=true (with gradient_accumulation=1)", [](TrainConfig& c) {
      c.optimizer.step_in_backward = true;
      c.gradient_accumulation = 1;
    });
  }
  if (processes > 1 && config.sharding == "none") {
    add("sharding=states", [](TrainConfig& c) { c.sharding = "states"; });
  }
  const bool can_shard = config.activation_checkpointing == "layers" && !config.trains_adapters();
  if (processes > 1 && can_shard && !config.shards_parameters()) {
    add("sharding=parameters", [](TrainConfig& c) { c.sharding = "parameters"; });
  }
  if (config.micro_batch_sequences > 1) {
    add("micro_batch_sequences=1", [](TrainConfig& c) { c.micro_batch_sequences = 1; });
  }
  add(join("sequence_length=", config.sequence_length / 2), [](TrainConfig& c) { c.sequence_length /= 2; });
  return text;
}

}  // namespace

std::string describe(const MemoryEstimate& estimate) {
  std::string text;
  for (const MemoryPart& part : estimate.parts) {
    text += join(text.empty() ? "" : ", ", part.name, " ", format_bytes(static_cast<double>(part.bytes)));
  }
  if (estimate.in_file > 0) {
    text += join("; ", format_bytes(static_cast<double>(estimate.in_file)), " of weights stay in the model's files");
  }
  return text;
}

void check_memory(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& frozen,
                  int64_t available, int64_t processes) {
  const MemoryEstimate estimate = estimate_memory(config, base, frozen, processes);
  if (estimate.total() <= available) return;
  const std::string message =
      join("the run needs at least ", format_bytes(static_cast<double>(estimate.total())), " of memory (",
           describe(estimate), "), ", format_bytes(static_cast<double>(available)),
           " are available. Of these settings each alone would need:", advice(config, base, frozen, processes),
           "\nCombine them, close other programs, or let it try with memory_check=warn");
  if (config.memory_check != "warn") fail(message);
  std::fputs(join("warning: ", message, "\n").c_str(), stderr);
}

}  // namespace qat
