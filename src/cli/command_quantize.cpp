#include <cstdio>

#include "cli/command.h"
#include "cli/quantize_by_layers.h"
#include "cli/untrained_checkpoint.h"
#include "trainers/calibration.h"
#include "trainers/lattice_recovery.h"

namespace qat {

namespace {

const CommandHelp kHelp{
    "gemma-qat quantize --model FOLDER --plan PLAN [--method METHOD] [--data FILE] --out CHECKPOINT",
    "Quantizes a model without training: the baseline that QAT is compared with. Writes the same kind of checkpoint "
    "as train, so export, verify, eval and compare treat both alike. Method rtn rounds every value to the nearest "
    "code, under the scale that the rule gives or the largest magnitude of its row and of its activation; mse "
    "searches the scales of q4_0 blocks, of int2, int4 and int8 rows and of static activations for the least squared "
    "error. Methods imatrix, gptq, awq and autoround compute --data through the model, layer by layer, and change the "
    "linears of q4_0 blocks by what reaches them: imatrix chooses scales and codes as llama.cpp does with an importance "
    "matrix, gptq lets values that are not rounded yet make up for those that are (arXiv 2210.17323), awq does as imatrix "
    "after it made large channels of inputs smaller and the columns that they meet larger (arXiv 2306.00978; norms and "
    "linears before take the inverse, and what cannot be scaled so is rounded as by rtn and listed), awq-gptq scales as "
    "awq does and then rounds as gptq does, autoround learns "
    "roundings and scales by signed gradient descent on the output error (arXiv 2309.05516); every fourth row is kept to "
    "tell how output errors changed. Method recover is for models that were trained for 4 bits and published in BF16 (fp16, fp32), such as "
    "Google's q4_0-unquantized ones: it finds the scales and codes of q4_0 blocks that their weights come from, "
    "whatever rule chose them, and says for each weight how many blocks were found; the others are rounded as by rtn. "
    "Train on from them with plan=model, or with quantization.block_scales=learned. Plans with static activations "
    "need --data to calibrate them.",
    "  gemma-qat quantize --model gemma-4-E2B-it --plan q4_0 --out runs/e2b-rtn\n"
    "  gemma-qat quantize --model gemma-4-E2B-it --plan q4_0 --method gptq --data chats.jsonl --out runs/e2b-gptq\n"
    "  gemma-qat quantize --model gemma-4-E2B-it-qat-q4_0-unquantized --plan q4_0-google --method recover --out "
    "e2b-qat\n"
    "  gemma-qat quantize --model gemma-4-E2B-it --plan q4_0-google --kv-cache q8_0 --out runs/e2b-rtn-kv8\n"
    "  gemma-qat quantize --model gemma-4-E2B-it --plan mobile-e2b --method mse --data chats.jsonl --out runs/e2b-mse"};

FakeQuantSet attach_recovered_scales(const TrainConfig& config, const BaseModel& base, Gemma4Model& model) {
  const LatticeRecovery recovery(base);
  std::printf("%s", recovery.describe().c_str());
  return recovery.attach_fake_quant(model, row_scale_method(config.quantization));
}

}  // namespace

int command_quantize(const Arguments& arguments) {
  const auto parsed = parse_arguments(arguments, kHelp, add_checkpoint_options, 0, 0);
  if (parsed.helped) return 0;
  const TrainConfig config = read_checkpoint_options(parsed.options, {"model", "plan", "out"}, kHelp.usage);
  const auto method = parsed.options["method"].as<std::string>();
  if (method == "recover") {
    write_untrained_checkpoint(config, {}, [&](const BaseModel& base, Gemma4Model& model) {
      return attach_recovered_scales(config, base, model);
    });
  } else if (looks_at_activations(method)) {
    write_untrained_checkpoint(config, {}, [&](const BaseModel& base, Gemma4Model& model) {
      return attach_after_layers(config, method, base, model);
    });
  } else {
    write_untrained_checkpoint(config, {});
  }
  std::printf("wrote %s (plan %s, method %s)\n", config.out.c_str(), config.plan.c_str(), method.c_str());
  return 0;
}

}  // namespace qat
