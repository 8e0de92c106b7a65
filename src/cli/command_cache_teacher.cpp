#include "cli/command.h"
#include "trainers/cache_teacher.h"

namespace qat {

namespace {
const CommandHelp kHelp{
    "gemma-qat cache-teacher CONFIG [key=value ...] [--force]",
    "Runs the teacher of a training configuration (objective forward_kl, reverse_kl or jensen_shannon) over its "
    "training "
    "data once and writes its final hidden states at the trained tokens to distillation.cache, 2 bytes per value in "
    "BF16. "
    "`train` with the same configuration then reads them instead of running the teacher. The file knows the teacher's "
    "weights, the tokenizer, the data and the settings that it belongs to; `train` refuses it with others.\n"
    "Ctrl-C stops and leaves nothing behind.",
    "  gemma-qat cache-teacher configs/train/gemma4_e2b_mobile.json model=runs/e2b-bf16/checkpoint out=runs/e2b-mobile "
    "\\\n"
    "      data.train=chats.jsonl data.eval=choose.jsonl distillation.cache=runs/e2b-teacher.h5\n"
    "  gemma-qat train configs/train/gemma4_e2b_mobile.json model=runs/e2b-bf16/checkpoint out=runs/e2b-mobile \\\n"
    "      data.train=chats.jsonl data.eval=choose.jsonl distillation.cache=runs/e2b-teacher.h5"};
}  // namespace

int command_cache_teacher(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) { options.add_options()("force", "replace the file if it is there"); }, 1, -1);
  if (parsed.helped) return 0;
  const std::vector<std::string> overrides(parsed.positional.begin() + 1, parsed.positional.end());
  return cache_teacher(TrainConfig::load(parsed.positional[0], overrides), parsed.options.count("force") > 0);
}

}  // namespace qat
