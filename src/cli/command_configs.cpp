#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/comparison_config.h"
#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"
#include "gemma4/quant_plan.h"
#include "trainers/train_config.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat configs list | show NAME | check FILE | explain [compare]",
    "Lists the plans and training configurations that come along, shows one, checks a file of yours, or explains every field "
    "of a training configuration, or of one for `compare`, with its default.",
    "  gemma-qat configs list\n"
    "  gemma-qat configs show q4_0"};

std::vector<std::filesystem::path> config_files() {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(configs_folder(), error)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

void list() {
  const auto files = config_files();
  size_t width = 0;
  for (const auto& file : files) width = std::max(width, file.stem().string().size());
  for (const auto& file : files) {
    const auto json = load_json(file);
    std::printf("%-6s %-*s %s\n", file.parent_path().filename().c_str(), static_cast<int>(width), file.stem().c_str(),
                json.is_object() ? json.value("about", "").c_str() : "");
  }
}

void show(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& file : config_files()) {
    names.push_back(file.stem().string());
    if (names.back() == name) {
      std::printf("%s", read_text_file(file).c_str());
      return;
    }
  }
  const auto nearest = nearest_name(name, names);
  fail_usage("\"", name, "\": no such configuration", nearest ? "; did you mean \"" + *nearest + "\"?" : "",
             "\n  gemma-qat configs list shows them");
}

template <class Config>
void explain(Config config) {
  std::printf("%s", describe_fields([&](FieldVisitor& visitor) { config.visit_fields(visitor); }).c_str());
}

}  // namespace

int command_configs(const Arguments& arguments) {
  const auto parsed = parse_arguments(arguments, kHelp, [](cxxopts::Options&) {}, 1, 2);
  if (parsed.helped) return 0;
  const std::string& what = parsed.positional[0];
  const bool has_name = parsed.positional.size() == 2;
  if (what == "list" && !has_name) {
    list();
  } else if (what == "show" && has_name) {
    show(parsed.positional[1]);
  } else if (what == "check" && has_name) {
    TrainConfig::load(parsed.positional[1], {});
    std::printf("%s: no faults found\n", parsed.positional[1].c_str());
  } else if (what == "explain" && !has_name) {
    explain(TrainConfig());
  } else if (what == "explain" && parsed.positional[1] == "compare") {
    explain(ComparisonConfig());
  } else {
    fail_usage("usage: ", kHelp.usage);
  }
  return 0;
}

}  // namespace qat
