#include <cstdio>

#include "cli/command.h"
#include "cli/untrained_checkpoint.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat quantize --model FOLDER --plan PLAN [--method rtn|mse] [--data FILE] --out CHECKPOINT",
    "Quantizes a model without training: the baseline that QAT is compared with. Writes the same kind of checkpoint as "
    "train, "
    "so export, verify, eval and compare treat both alike. Method rtn rounds every value to the nearest code, under "
    "the scale that the rule gives or the largest magnitude of its row and of its activation; mse searches the scales "
    "of q4_0 blocks, of int2, int4 and int8 rows and of static activations for the least squared error. Plans with static "
    "activations need --data to calibrate them.",
    "  gemma-qat quantize --model gemma-4-E2B-it --plan q4_0 --out runs/e2b-rtn\n"
    "  gemma-qat quantize --model gemma-4-E2B-it --plan q4_0 --method mse --out runs/e2b-mse\n"
    "  gemma-qat quantize --model gemma-4-E2B-it --plan q4_0-google --kv-cache q8_0 --out runs/e2b-rtn-kv8\n"
    "  gemma-qat quantize --model gemma-4-E2B-it --plan mobile-e2b --method mse --data chats.jsonl --out runs/e2b-mse"};

}  // namespace

int command_quantize(const Arguments& arguments) {
  const auto parsed = parse_arguments(arguments, kHelp, add_checkpoint_options, 0, 0);
  if (parsed.helped) return 0;
  const TrainConfig config = read_checkpoint_options(parsed.options, {"model", "plan", "out"}, kHelp.usage);
  write_untrained_checkpoint(config, {});
  std::printf("wrote %s (plan %s, method %s)\n", config.out.c_str(), config.plan.c_str(),
              parsed.options["method"].as<std::string>().c_str());
  return 0;
}

}  // namespace qat
