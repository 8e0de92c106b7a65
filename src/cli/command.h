// The table of verbs. Each verb lives in a file of its own: command_train.cpp and so on.
#pragma once

#include <cxxopts.hpp>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace qat {

using Arguments = std::vector<std::string>;

struct Command {
  const char* name;
  const char* summary;               // one sentence
  int (*run)(const Arguments& arguments);  // arguments after the verb; returns the exit code
};

int command_train(const Arguments& arguments);
int command_cache_teacher(const Arguments& arguments);
int command_report(const Arguments& arguments);
int command_quantize(const Arguments& arguments);
int command_merge(const Arguments& arguments);
int command_import(const Arguments& arguments);
int command_export(const Arguments& arguments);
int command_export_adapter(const Arguments& arguments);
int command_verify(const Arguments& arguments);
int command_generate(const Arguments& arguments);
int command_eval(const Arguments& arguments);
int command_compare(const Arguments& arguments);
int command_inspect(const Arguments& arguments);
int command_configs(const Arguments& arguments);

// In the order of the data path.
std::span<const Command> all_commands();

// What every verb's help is made of.
struct CommandHelp {
  std::string usage;     // "gemma-qat verify ARTIFACT --checkpoint CHECKPOINT"
  std::string about;     // what it does and writes
  std::string examples;  // two, one per line
};

// Parsed arguments of one verb. Throws Error (usage) for an unknown option (naming the nearest), a missing value, or more or
// fewer positional arguments than `positional` names. After --help was printed `helped` is true.
struct ParsedArguments {
  cxxopts::ParseResult options;
  std::vector<std::string> positional;
  bool helped = false;
};
// `describe` adds the verb's options. `most_positional` < 0: any number from `least_positional` on.
ParsedArguments parse_arguments(const Arguments& arguments, const CommandHelp& help,
                                const std::function<void(cxxopts::Options&)>& describe, int least_positional,
                                int most_positional);

}  // namespace qat
