#include <cstdio>

#include "cli/command.h"
#include "cli/quantize_by_layers.h"
#include "cli/untrained_checkpoint.h"
#include "core/error.h"
#include "trainers/lora.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat merge --model BASE --adapter FOLDER --out CHECKPOINT [--plan PLAN [--base packed]]",
    "Adds a LoRA adapter in PEFT's format to the model that it was trained on, W + scaling * B A rounded to BF16: bit "
    "for bit "
    "what a LoRA run of train quantizes and stores. Writes the same kind of checkpoint as quantize; without --plan a "
    "plain "
    "BF16 model, which loads in transformers as it is. --base packed: the adapter was trained with lora.base=packed, "
    "so "
    "that W is what the plan's codes of the base stand for.",
    "  gemma-qat merge --model gemma-4-E2B-it --adapter runs/e2b-lora/adapter --out e2b-merged\n"
    "  gemma-qat merge --model gemma-4-E2B-it --adapter my-peft-adapter --plan q4_0 --out e2b-merged-q4"};

}  // namespace

int command_merge(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        add_checkpoint_options(options);
        options.add_options()("adapter", "folder with adapter_config.json and adapter_model.safetensors",
                              cxxopts::value<std::string>())("base", "bfloat16, or packed as with lora.base of the run",
                                                             cxxopts::value<std::string>()->default_value("bfloat16"));
      },
      0, 0);
  if (parsed.helped) return 0;
  TrainConfig config = read_checkpoint_options(parsed.options, {"model", "adapter", "out"}, kHelp.usage);
  const auto method = parsed.options["method"].as<std::string>();
  if (looks_at_activations(method)) {
    fail_usage("--method ", method, ": merge without --plan first, then quantize what that writes");
  }
  if (method == "recover") {
    fail_usage(
        "--method recover: weights with an adapter in them lie on no lattice any more; recover the base with quantize, "
        "and train the adapter on that with lora.base=packed, or choose rtn or mse");
  }
  config.lora.base = parsed.options["base"].as<std::string>();
  if (config.lora.base != "bfloat16" && !config.packs_base()) {
    fail_usage("--base ", config.lora.base, ": wanted bfloat16 or packed");
  }
  if (config.packs_base() && !config.is_quantized())
    fail_usage("--base packed: needs --plan, whose codes it is kept in");
  write_untrained_checkpoint(config, [&](const BaseModel& base, Gemma4Model& model) {
    const AdapterFolder folder(parsed.options["adapter"].as<std::string>(), base.table());
    AdapterSettings settings = folder.settings();
    if (config.is_quantized() && !settings.through_quantizer.value_or(true)) {
      fail_usage("--plan: ", folder.path().string(),
                 " was trained beside quantized weights, and inside them it changes ",
                 "their codes; write it for llama.cpp with export-adapter, or merge it without --plan");
    }
    settings.through_quantizer = true;
    LoraAdapters(base, model, settings, /*seed=*/0).add(folder);
  });
  std::printf("wrote %s\n", config.out.c_str());
  return 0;
}

}  // namespace qat
