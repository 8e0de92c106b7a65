#include <ATen/core/grad_mode.h>

#include <cstdio>

#include "cli/command.h"
#include "cli/gguf_import_listing.h"
#include "cli/witness_prompts.h"
#include "core/error.h"
#include "exporters/gguf_import.h"
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
    "gemma-qat import FOLDER|FILE.gguf [--like FOLDER] --out CHECKPOINT",
    "Turns a quantized folder or GGUF file into a checkpoint: its codes and scales are kept, and training goes on from "
    "them with plan=model. The folder is in transformers' mobile format (quant_method gemma, such as Google's mobile "
    "checkpoints), whose packed widths are checked against shapes, so that a wrong pattern in config.json is an error "
    "and not garbage; or has symmetric 4-bit weights packed by compressed-tensors (w4a16), which become q4_0 blocks "
    "under their own scales.\n"
    "A GGUF file of Gemma 4 or Gemma 3 needs --like: a model folder of the same architecture, whose config.json, "
    "tokenizer and other small files the checkpoint gets (its weights are not read). q4_0 keeps codes and scales; f32, "
    "f16, bf16, q8_0 and q6_k become BF16 masters, and export writes the same types again. A row per tensor says how "
    "many of its blocks come out with the same bytes.",
    "  gemma-qat import gemma-4-E2B-it-qat-mobile-transformers --out e2b-mobile\n"
    "  gemma-qat import gemma-4-E2B-it-qat-w4a16-ct --out e2b-w4\n"
    "  gemma-qat import gemma-4-E2B-it-qat-q4_0.gguf --like gemma-4-E2B-it --out e2b-q4\n"
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

void import_gguf_file(const fs::path& path, const std::string& like, const fs::path& out) {
  if (like.empty()) {
    fail_usage(
        "--like is missing: a GGUF file has no config.json; name a model folder of the same architecture\n  usage: ",
        kHelp.usage);
  }
  if (!fs::exists(fs::path(like) / "config.json")) fail_usage("--like ", like, ": is no folder with a config.json");
  if (fs::exists(out) && fs::equivalent(like, out)) fail_usage("--out ", out.string(), ": is the folder of --like");
  std::printf("%s", describe_import(import_gguf(path, like, out, write_witness)).c_str());
}

}  // namespace

int command_import(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("like", "GGUF: model folder with the config.json and tokenizer of the same architecture",
                              cxxopts::value<std::string>()->default_value(""))(
            "out", "checkpoint folder to write", cxxopts::value<std::string>())("force", "replace it if it is there");
      },
      1, 1);
  if (parsed.helped) return 0;
  if (parsed.options.count("out") == 0) fail_usage("--out is missing\n  usage: ", kHelp.usage);
  const fs::path out = parsed.options["out"].as<std::string>();
  if (fs::exists(out) && parsed.options.count("force") == 0)
    fail_usage(out.string(), ": is there already; --force replaces it");
  const fs::path path = parsed.positional[0];
  if (!fs::exists(path)) fail_usage(path.string(), ": does not exist");
  const auto like = parsed.options["like"].as<std::string>();
  const bool is_file = fs::is_regular_file(path);
  if (!like.empty() && !is_file) fail_usage("--like: is for GGUF files, and ", path.string(), " is none");
  if (is_file) {
    import_gguf_file(path, like, out);
  } else if (MobileFolder::is_one(path)) {
    import_mobile_folder(MobileFolder(path), out, write_witness);
  } else if (PackedFolder::is_one(path)) {
    import_packed(path, out);
  } else {
    fail(path.string(),
         ": is no GGUF file and no quantized folder: its config.json has no quantization_config with quant_method "
         "\"gemma\" or \"compressed-tensors\"; what was trained for 4 bits and saved in BF16: quantize --method "
         "recover");
  }
  std::printf("wrote %s\n", out.c_str());
  return 0;
}

}  // namespace qat
