#include <cinttypes>
#include <cstdio>

#include "cli/command.h"
#include "core/error.h"
#include "core/terminal.h"
#include "exporters/export_checkpoint.h"
#include "exporters/litertlm_exporter.h"
#include "exporters/litertlm_splice.h"
#include "exporters/mobile_checkpoint.h"
#include "exporters/mobile_exporter.h"

namespace qat {

namespace {
const CommandHelp kHelp{
    "gemma-qat export CHECKPOINT --format gguf|mobile-hf|litertlm --out PATH",
    "gguf: a checkpoint (or a plain model folder, as BF16) as one GGUF file with metadata, tokenizer and chat "
    "template, and an "
    "Ollama Modelfile beside it.\nmobile-hf: a checkpoint of a mobile plan as a folder that transformers loads "
    "(quant_method gemma): packed codes, scales of rows, activations and caches.\n"
    "litertlm: the same as one file that LiteRT-LM runs on phones: graphs, tokenizer, metadata, chat template. With "
    "--template "
    "the codes and scales go into an existing .litertlm file of the same architecture, and all else of it stays.\n"
    "All stream: memory stays bounded whatever the model's size.",
    "  gemma-qat export runs/e2b/checkpoint --format gguf --out e2b.gguf\n"
    "  gemma-qat export runs/e2b/checkpoint --format gguf --out e2b.gguf --force --threads 4\n"
    "  gemma-qat export runs/e2b/checkpoint --format mobile-hf --out e2b-mobile\n"
    "  gemma-qat export runs/e2b/checkpoint --format litertlm --out e2b.litertlm --context 8192"};
void write_litertlm(const ModelFolder& folder, const std::filesystem::path& out, const cxxopts::ParseResult& options) {
  const MobileCheckpoint checkpoint(folder);
  if (options.count("template") > 0) {
    const auto figures = splice_litertlm(checkpoint, options["template"].as<std::string>(), out);
    std::printf("wrote %s (%" PRId64 " constants and %" PRId64 " scales replaced)\n", out.c_str(), figures.constants,
                figures.scales);
    return;
  }
  LitertlmExportInputs inputs;
  inputs.weights = &checkpoint;
  inputs.model_folder = folder.path();
  inputs.output = out;
  inputs.context = options["context"].as<int64_t>();
  if (options.count("prefill") > 0) inputs.prefill_lengths = options["prefill"].as<std::vector<int64_t>>();
  const auto embedder = options["embedder"].as<std::string>();
  if (embedder != "separate" && embedder != "shared")
    fail_usage("--embedder ", embedder, ": wanted separate or shared");
  inputs.embedder = embedder == "shared" ? EmbedderLayout::Shared : EmbedderLayout::Separate;
  const auto figures = export_litertlm(inputs);
  std::printf("wrote %s (%s, context %" PRId64 ")\n", out.c_str(),
              format_bytes(static_cast<double>(figures.file_bytes)).c_str(), figures.context);
}

}  // namespace

int command_export(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("format", "gguf, mobile-hf or litertlm",
                              cxxopts::value<std::string>()->default_value("gguf"))(
            "out", "file or folder to write", cxxopts::value<std::string>())("force", "replace it if it is there")(
            "name", "general.name in the file (default: the folder's name)", cxxopts::value<std::string>())(
            "context", "litertlm: positions (default: 4096, or the model's limit)",
            cxxopts::value<int64_t>()->default_value("0"))(
            "prefill", "litertlm: lengths of prefill signatures (default: 8,32,128,512)",
            cxxopts::value<std::vector<int64_t>>())(
            "embedder", "litertlm: separate (as Google's files) or shared (one table for embedding and head)",
            cxxopts::value<std::string>()->default_value("separate"))(
            "template", "litertlm: file to put codes and scales into", cxxopts::value<std::string>())(
            "threads", "gguf: encoding threads, 0 = all cores", cxxopts::value<int>()->default_value("0"));
      },
      1, 1);
  if (parsed.helped) return 0;
  if (parsed.options.count("out") == 0) fail_usage("--out is missing\n  usage: ", kHelp.usage);
  const auto format = parsed.options["format"].as<std::string>();
  if (format != "gguf" && format != "mobile-hf" && format != "litertlm") {
    fail_usage("--format ", format, ": no such format (known: gguf, mobile-hf, litertlm)");
  }
  for (const char* name : {"context", "prefill", "embedder", "template"}) {
    if (format != "litertlm" && parsed.options.count(name) > 0) fail_usage("--", name, ": is for --format litertlm");
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
  if (format == "litertlm") {
    write_litertlm(checkpoint, out, parsed.options);
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
