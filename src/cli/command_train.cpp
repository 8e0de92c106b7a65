#include "cli/command.h"
#include "trainers/distributed.h"
#include "trainers/run_training.h"

namespace qat {

namespace {
const CommandHelp kHelp{
    "gemma-qat train CONFIG [key=value ...] [--resume]",
    "Fine-tunes a model as CONFIG says, with the weights (and KV cache) fake-quantized by its plan, or in plain BF16 without "
    "one. Writes the run folder: checkpoint/, best/, metrics.jsonl, config.resolved.json and what --resume needs.\n"
    "Ctrl-C finishes the step, saves and exits with 130. Under torchrun --no-python several processes share each step. `gemma-qat configs explain` lists every field.",
    "  gemma-qat train configs/train/gemma4_e2b_q4_0.json model=gemma-4-E2B-it data.train=chats.jsonl out=runs/e2b\n"
    "  gemma-qat train configs/train/gemma4_e2b_q4_0.json out=runs/e2b --resume"};
}  // namespace

int command_train(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) { options.add_options()("resume", "continue the run in `out` from its last save"); }, 1, -1);
  if (parsed.helped) return 0;
  const std::vector<std::string> overrides(parsed.positional.begin() + 1, parsed.positional.end());
  ProcessGroup group = ProcessGroup::from_environment();
  return group.run([&] {
    return run_training(TrainConfig::load(parsed.positional[0], overrides), parsed.options.count("resume") > 0, group);
  });
}

}  // namespace qat
