#include <cstdio>
#include <exception>
#include <new>

#include "cli/command.h"
#include "core/error.h"
#include "core/json.h"
#include "core/process_memory.h"

namespace {

void print_overview() {
  std::printf(
      "gemma-qat fine-tunes Gemma with quantization-aware training and exports what it trained, bit for bit.\n\n"
      "usage: gemma-qat VERB ...        gemma-qat VERB --help\n\n");
  for (const qat::Command& command : qat::all_commands()) std::printf("  %-14s %s\n", command.name, command.summary);
  std::printf(
      "\nexample:\n"
      "  gemma-qat train configs/train/gemma4_e2b_q4_0.json model=gemma-4-E2B-it data.train=chats.jsonl out=runs/e2b\n"
      "  gemma-qat export runs/e2b/checkpoint --format gguf --out e2b.gguf\n"
      "  gemma-qat verify e2b.gguf --checkpoint runs/e2b/checkpoint\n"
      "  gemma-qat generate e2b.gguf --chat --prompt \"Why is the sky blue?\"\n");
}

int run(const qat::Arguments& arguments) {
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help") {
    print_overview();
    return 0;
  }
  if (arguments[0] == "--version") {
    std::printf("gemma-qat %s\n", QAT_VERSION);
    return 0;
  }
  std::vector<std::string> names;
  for (const qat::Command& command : qat::all_commands()) {
    if (arguments[0] == command.name) return command.run({arguments.begin() + 1, arguments.end()});
    names.emplace_back(command.name);
  }
  const auto nearest = qat::nearest_name(arguments[0], names);
  qat::fail_usage("\"", arguments[0], "\" is no verb", nearest ? "; did you mean \"" + *nearest + "\"?" : "",
                  "\n  gemma-qat without arguments lists them");
}

}  // namespace

int main(int count, char** values) {
  qat::keep_freed_memory();
  try {
    return run({values + 1, values + count});
  } catch (const qat::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: out of memory\n");
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
