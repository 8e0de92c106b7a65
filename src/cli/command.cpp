#include "cli/command.h"

#include <array>
#include <cstdio>

#include "core/error.h"
#include "core/json.h"

namespace qat {

namespace {
constexpr std::array kCommands{
    Command{"train", "fine-tunes a model with fake-quantized weights, or in plain BF16", command_train},
    Command{"cache-teacher", "stores the states of a run's teacher, so that training need not run it",
            command_cache_teacher},
    Command{"report", "writes the curves of a training run as an HTML file", command_report},
    Command{"quantize", "quantizes a model without training (the PTQ baseline)", command_quantize},
    Command{"merge", "adds a LoRA adapter to its base model, as a checkpoint", command_merge},
    Command{"import", "turns a folder of Gemma's mobile format into a checkpoint to train on", command_import},
    Command{"export", "writes a checkpoint as a GGUF file, a mobile folder or a .litertlm file", command_export},
    Command{"export-adapter", "writes a LoRA adapter as a GGUF file for llama.cpp's --lora", command_export_adapter},
    Command{"verify", "proves that an exported file holds what was trained", command_verify},
    Command{"generate", "continues a prompt", command_generate},
    Command{"eval", "measures perplexity, KL divergence and multiple-choice accuracy", command_eval},
    Command{"compare", "puts several models side by side in a table and an HTML report", command_compare},
    Command{"inspect", "shows what a model folder, checkpoint or exported file holds", command_inspect},
    Command{"configs", "lists and shows the plans and training configurations that come along", command_configs},
};

std::vector<std::string> option_names(const cxxopts::Options& options) {
  std::vector<std::string> names;
  for (const auto& group : options.groups()) {
    for (const auto& option : options.group_help(group).options) {
      for (const auto& name : option.l) names.push_back(name);
    }
  }
  return names;
}

}  // namespace

std::span<const Command> all_commands() { return kCommands; }

ParsedArguments parse_arguments(const Arguments& arguments, const CommandHelp& help,
                                const std::function<void(cxxopts::Options&)>& describe, int least_positional,
                                int most_positional) {
  cxxopts::Options options("gemma-qat", help.about);
  options.custom_help("\b").set_width(110);
  describe(options);
  options.add_options()("help", "show this help");

  std::vector<const char*> argv{"gemma-qat"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());

  ParsedArguments parsed;
  try {
    parsed.options = options.parse(static_cast<int>(argv.size()), argv.data());
  } catch (const cxxopts::exceptions::exception& error) {
    std::string hint;
    for (const std::string& argument : arguments) {
      if (!argument.starts_with("--")) continue;
      const std::string name = argument.substr(2, argument.find('=') - 2);
      const auto names = option_names(options);
      if (std::find(names.begin(), names.end(), name) != names.end()) continue;
      if (const auto nearest = nearest_name(name, names)) hint = "; did you mean --" + *nearest + "?";
    }
    fail_usage(error.what(), hint, "\n  usage: ", help.usage);
  }
  if (parsed.options.count("help") > 0) {
    std::string listing = options.help({""});
    std::printf("usage: %s\n\n%s\n\noptions:\n", help.usage.c_str(), help.about.c_str());
    const size_t first = listing.find("  -");
    const size_t option = std::min(first, listing.find("      --"));
    std::printf("%s\nexamples:\n%s\n", listing.substr(option).c_str(), help.examples.c_str());
    parsed.helped = true;
    return parsed;
  }
  // Not as a declared option of several values: that would be split at the commas of key=["a","b"].
  parsed.positional = parsed.options.unmatched();
  const auto count = static_cast<int>(parsed.positional.size());
  if (count < least_positional || (most_positional >= 0 && count > most_positional)) {
    fail_usage(count < least_positional ? "an argument is missing" : "too many arguments: \"" + parsed.positional.back() + "\"",
               "\n  usage: ", help.usage);
  }
  return parsed;
}

}  // namespace qat
