#include <ATen/core/grad_mode.h>

#include <cstdio>

#include "cli/command.h"
#include "cli/witness_prompts.h"
#include "core/error.h"
#include "fake_quant/make_witness.h"
#include "fake_quant/prepare.h"
#include "gemma4/mobile_import.h"
#include "gemma4/model_folder.h"
#include "gemma4/packed_import.h"
#include "model/gemma4_model.h"

namespace qat {

namespace {

namespace fs = std::filesystem;

const CommandHelp kHelp{
    "gemma-qat import FOLDER --out CHECKPOINT",
    "Turns a quantized folder into a checkpoint: its codes and scales are kept exactly, and training goes on from "
    "them with plan=model. The folder is in transformers' mobile format (quant_method gemma, such as Google's mobile "
    "checkpoints), whose packed widths are checked against shapes, so that a wrong pattern in config.json is an error "
    "and not garbage; or has symmetric 4-bit weights packed by compressed-tensors (w4a16), which become q4_0 blocks "
    "under their own scales.",
    "  gemma-qat import gemma-4-E2B-it-qat-mobile-transformers --out e2b-mobile\n"
    "  gemma-qat import gemma-4-E2B-it-qat-w4a16-ct --out e2b-w4\n"
    "  gemma-qat train configs/train/gemma4_e2b_mobile.json model=e2b-mobile plan=model data.train=chats.jsonl "
    "out=runs/e2b"};

void write_witness(const fs::path& folder) {
  const at::NoGradGuard no_grad;
  const ModelFolder checkpoint(folder);
  Gemma4Model model(checkpoint.config(), at::kFloat, readable_in_file(checkpoint.table(), at::kFloat));
  load_weights(model, checkpoint.tensors());
  const FakeQuantSet fake_quant = prepare(model, *checkpoint.plan(), KnownScales::of(checkpoint));
  make_witness(model, fake_quant, witness_prompts(checkpoint)).save(folder / "witness.safetensors");
}

void import_packed(const fs::path& path, const fs::path& out) {
  const PackedFolder folder(path);
  if (folder.rounded_scales() > 0) {
    std::printf("the scales of %lld blocks are no fp16 numbers and were rounded; codes are kept\n",
                static_cast<long long>(folder.rounded_scales()));
  }
  import_packed_folder(folder, out, write_witness);
}

}  // namespace

int command_import(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("out", "checkpoint folder to write", cxxopts::value<std::string>())(
            "force", "replace it if it is there");
      },
      1, 1);
  if (parsed.helped) return 0;
  if (parsed.options.count("out") == 0) fail_usage("--out is missing\n  usage: ", kHelp.usage);
  const fs::path out = parsed.options["out"].as<std::string>();
  if (fs::exists(out) && parsed.options.count("force") == 0)
    fail_usage(out.string(), ": is there already; --force replaces it");
  const fs::path path = parsed.positional[0];
  if (MobileFolder::is_one(path)) {
    import_mobile_folder(MobileFolder(path), out, write_witness);
  } else if (PackedFolder::is_one(path)) {
    import_packed(path, out);
  } else {
    fail(path.string(),
         ": is no quantized folder: its config.json has no quantization_config with quant_method \"gemma\" or "
         "\"compressed-tensors\"; what was trained for 4 bits and saved in BF16: quantize --method recover");
  }
  std::printf("wrote %s\n", out.c_str());
  return 0;
}

}  // namespace qat
