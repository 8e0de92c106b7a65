#include <ATen/core/grad_mode.h>

#include <cstdio>

#include "cli/command.h"
#include "core/error.h"
#include "data/tokenizer.h"
#include "trainers/base_model.h"
#include "trainers/checkpoint_writer.h"

namespace qat {

namespace {

namespace fs = std::filesystem;

const CommandHelp kHelp{
    "gemma-qat quantize --model FOLDER --plan PLAN [--method rtn] --out CHECKPOINT",
    "Quantizes a model without training: the baseline that QAT is compared with. Writes the same kind of checkpoint as train, "
    "so export, verify, eval and compare treat both alike. Method rtn rounds every value to the nearest code.",
    "  gemma-qat quantize --model gemma-4-E2B-it --plan q4_0 --out runs/e2b-rtn\n"
    "  gemma-qat quantize --model gemma-4-E2B-it --plan q4_0-google --kv-cache q8_0 --out runs/e2b-rtn-kv8"};

// Prompts whose logits the witness keeps: any text does, as long as it is not the same token again and again.
std::vector<std::vector<int32_t>> witness_prompts(const ModelFolder& folder) {
  const auto vocabulary = static_cast<int32_t>(folder.config().vocabulary_size);
  std::vector<std::vector<int32_t>> prompts;
  const fs::path file = folder.path() / "tokenizer.json";
  if (fs::exists(file)) {
    const Tokenizer tokenizer = Tokenizer::load(file);
    for (const char* text : {"The quick brown fox jumps over the lazy dog, and then it rests in the shade of an old tree.",
                             "Question: what is 17 + 25?\nAnswer: 17 + 25 = 42. Check: 42 - 25 = 17.",
                             "Es war einmal ein König, der hatte drei Töchter. Il était une fois trois sœurs."}) {
      std::vector<int32_t> prompt{static_cast<int32_t>(folder.config().bos_token)};
      for (const int32_t id : tokenizer.encode(text)) prompt.push_back(id % vocabulary);
      prompts.push_back(std::move(prompt));
    }
    return prompts;
  }
  for (const int32_t stride : {7, 31, 101}) {
    std::vector<int32_t> prompt{static_cast<int32_t>(folder.config().bos_token)};
    for (int32_t i = 1; i < 48; ++i) prompt.push_back(i * stride % vocabulary);
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace

int command_quantize(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("model", "model folder with BF16 weights", cxxopts::value<std::string>())(
            "plan", "name of a plan (gemma-qat configs list) or a file", cxxopts::value<std::string>())(
            "method", "rtn", cxxopts::value<std::string>()->default_value("rtn"))(
            "kv-cache", "none or q8_0 instead of the plan's", cxxopts::value<std::string>())(
            "out", "checkpoint folder to write", cxxopts::value<std::string>())("force", "replace it if it is there");
      },
      0, 0);
  if (parsed.helped) return 0;
  for (const char* name : {"model", "plan", "out"}) {
    if (parsed.options.count(name) == 0) fail_usage("--", name, " is missing\n  usage: ", kHelp.usage);
  }
  if (const auto method = parsed.options["method"].as<std::string>(); method != "rtn") {
    fail_usage("--method ", method, ": no such method (known: rtn)");
  }
  const fs::path out = parsed.options["out"].as<std::string>();
  if (fs::exists(out) && parsed.options.count("force") == 0) fail_usage(out.string(), ": is there already; --force replaces it");

  const at::NoGradGuard no_grad;
  TrainConfig config;
  config.model = parsed.options["model"].as<std::string>();
  config.plan = parsed.options["plan"].as<std::string>();
  if (parsed.options.count("kv-cache") > 0) config.kv_cache = parsed.options["kv-cache"].as<std::string>();
  if (config.kv_cache != "plan" && config.kv_cache != "none" && config.kv_cache != "q8_0") {
    fail_usage("--kv-cache ", config.kv_cache, ": wanted none or q8_0");
  }
  const BaseModel base(config);
  Gemma4Model model(base.config(), at::kFloat);
  base.fill(model, /*seed=*/0);
  for (auto& [name, parameter] : model.parameters()) parameter.copy_(parameter.to(at::kBFloat16));
  FakeQuantSet fake_quant = base.attach_fake_quant(model);
  CheckpointWriter(base, witness_prompts(*base.folder())).write(out, model, fake_quant, /*step=*/0);
  std::printf("wrote %s (plan %s, method rtn)\n", out.c_str(), base.plan()->name.c_str());
  return 0;
}

}  // namespace qat
