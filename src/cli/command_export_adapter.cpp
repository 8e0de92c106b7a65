#include <cstdio>
#include <filesystem>

#include "cli/command.h"
#include "core/error.h"
#include "exporters/gguf_adapter_exporter.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat export-adapter ADAPTER --model BASE --out FILE.gguf",
    "Writes a LoRA adapter (a folder in PEFT's format, such as the adapter/ of a run) as a GGUF file that llama.cpp "
    "adds "
    "to a base model with --lora. The base is the GGUF file of the run's checkpoint: with lora.through_quantizer=false "
    "its codes are those that the adapter was trained beside. An adapter that was trained through the quantizer "
    "belongs "
    "inside the weights and is refused: its run's checkpoint holds them merged.",
    "  gemma-qat export-adapter runs/e2b-lora/adapter --model gemma-4-E2B-it --out e2b-lora.gguf\n"
    "  llama-cli -m e2b.gguf --lora e2b-lora.gguf"};

}  // namespace

int command_export_adapter(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("model", "model folder or checkpoint that the adapter changes",
                              cxxopts::value<std::string>())("out", "file to write", cxxopts::value<std::string>())(
            "name", "general.name in the file (default: the folder's name)", cxxopts::value<std::string>())(
            "force", "replace it if it is there");
      },
      1, 1);
  if (parsed.helped) return 0;
  for (const char* name : {"model", "out"}) {
    if (parsed.options.count(name) == 0) fail_usage("--", name, " is missing\n  usage: ", kHelp.usage);
  }
  const std::filesystem::path out = parsed.options["out"].as<std::string>();
  if (std::filesystem::exists(out) && parsed.options.count("force") == 0) {
    fail_usage(out.string(), ": is there already; --force replaces it");
  }
  const Gemma4Config config = Gemma4Config::load(parsed.options["model"].as<std::string>());
  const AdapterFolder adapter(parsed.positional[0], WeightTable(config));
  if (adapter.settings().through_quantizer.value_or(false)) {
    fail(adapter.path().string(),
         ": was trained through the quantizer, inside its weights; beside quantized weights it ",
         "would mean something else. The checkpoint of its run holds them merged: export that");
  }
  const std::string name = parsed.options.count("name") > 0
                               ? parsed.options["name"].as<std::string>()
                               : std::filesystem::absolute(adapter.path()).lexically_normal().filename().string();
  export_gguf_adapter(adapter, config, name, out);
  std::printf("wrote %s (%zu weights, rank %lld)\n", out.c_str(), adapter.changes().size(),
              static_cast<long long>(adapter.settings().rank));
  return 0;
}

}  // namespace qat
