#include <cstdio>

#include "cli/command.h"
#include "core/error.h"
#include "core/terminal.h"
#include "exporters/export_checkpoint.h"
#include "exporters/mobile_exporter.h"

namespace qat {

namespace {
const CommandHelp kHelp{
    "gemma-qat export CHECKPOINT --format gguf|mobile-hf --out PATH",
    "gguf: a checkpoint (or a plain model folder, as BF16) as one GGUF file with metadata, tokenizer and chat template, and an "
    "Ollama Modelfile beside it.\nmobile-hf: a checkpoint of a mobile plan as a folder that transformers loads "
    "(quant_method gemma): packed codes, scales of rows, activations and caches.\n"
    "All stream: memory stays bounded whatever the model's size.",
    "  gemma-qat export runs/e2b/checkpoint --format gguf --out e2b.gguf\n"
    "  gemma-qat export runs/e2b/checkpoint --format gguf --out e2b.gguf --force --threads 4\n"
    "  gemma-qat export runs/e2b/checkpoint --format mobile-hf --out e2b-mobile"};
}  // namespace

int command_export(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("format", "gguf or mobile-hf", cxxopts::value<std::string>()->default_value("gguf"))(
            "out", "file or folder to write", cxxopts::value<std::string>())("force", "replace it if it is there")(
            "name", "general.name in the file (default: the folder's name)", cxxopts::value<std::string>())(
            "threads", "encoding threads, 0 = all cores", cxxopts::value<int>()->default_value("0"));
      },
      1, 1);
  if (parsed.helped) return 0;
  if (parsed.options.count("out") == 0) fail_usage("--out is missing\n  usage: ", kHelp.usage);
  const auto format = parsed.options["format"].as<std::string>();
  if (format != "gguf" && format != "mobile-hf") {
    fail_usage("--format ", format, ": no such format (known: gguf, mobile-hf)");
  }
  const std::filesystem::path out = parsed.options["out"].as<std::string>();
  if (std::filesystem::exists(out) && parsed.options.count("force") == 0) {
    fail_usage(out.string(), ": is there already; --force replaces it");
  }
  const ModelFolder checkpoint(parsed.positional[0]);
  if (format == "mobile-hf") {
    const auto figures = export_mobile_folder(MobileCheckpoint(checkpoint), out);
    std::printf("wrote %s (%s)\n", out.c_str(), format_bytes(static_cast<double>(figures.file_bytes)).c_str());
    return 0;
  }
  ExportOptions options;
  options.threads = parsed.options["threads"].as<int>();
  if (parsed.options.count("name") > 0) options.name = parsed.options["name"].as<std::string>();
  export_checkpoint(checkpoint, out, options);
  std::printf("wrote %s and %s\n", out.c_str(), modelfile_path(out).c_str());
  return 0;
}

}  // namespace qat
