#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "cli/command.h"
#include "core/error.h"
#include "exporters/verify.h"

namespace qat {

namespace {
const CommandHelp kHelp{"gemma-qat verify ARTIFACT --checkpoint CHECKPOINT",
                        "Proves on the bytes of an export (GGUF file, mobile folder, .litertlm file) that it holds "
                        "what was trained: codes, scales "
                        "and the matrices that the forward pass read (SHA-256), static scales, every unquantized "
                        "weight, the tokenizer, and the "
                        "activation codes and logits of the built-in reference inference on the checkpoint's witness "
                        "prompts.\nExit code 0: equal; 3: different, with the tensor's name.",
                        "  gemma-qat verify e2b.gguf --checkpoint runs/e2b/checkpoint\n"
                        "  gemma-qat verify e2b.gguf --checkpoint runs/e2b/checkpoint --no-run\n"
                        "  gemma-qat verify e2b.litertlm --checkpoint runs/e2b/checkpoint\n"
                        "  gemma-qat verify e2b.gguf --checkpoint runs/e2b-lora/checkpoint --adapter e2b-lora.gguf"};
VerifyReport verify(const std::filesystem::path& artifact, const ModelFolder& checkpoint, const VerifyOptions& options) {
  if (std::filesystem::is_directory(artifact)) return verify_mobile_folder(artifact, checkpoint, options);
  if (artifact.extension() == ".litertlm") return verify_litertlm(artifact, checkpoint, options);
  return verify_gguf(artifact, checkpoint, options);
}

}  // namespace

int command_verify(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("checkpoint", "the checkpoint folder it was exported from",
                              cxxopts::value<std::string>())("no-run",
                                                             "compare bytes only, do not run the reference inference")(
            "adapter", "GGUF: the run's adapter (export-adapter), where it was trained beside the weights",
            cxxopts::value<std::string>())("threads", "threads of the reference inference, 0 = all cores",
                                           cxxopts::value<int>()->default_value("0"));
      },
      1, 1);
  if (parsed.helped) return 0;
  if (parsed.options.count("checkpoint") == 0) fail_usage("--checkpoint is missing\n  usage: ", kHelp.usage);

  const std::string& artifact = parsed.positional[0];
  const auto folder = parsed.options["checkpoint"].as<std::string>();
  const ModelFolder checkpoint(folder);
  VerifyOptions options;
  options.run_model = parsed.options.count("no-run") == 0;
  options.threads = parsed.options["threads"].as<int>();
  if (parsed.options.count("adapter") > 0) {
    options.adapter = parsed.options["adapter"].as<std::string>();
    if (std::filesystem::is_directory(artifact) || std::filesystem::path(artifact).extension() == ".litertlm") {
      fail_usage("--adapter: is for GGUF files, and ", artifact, " is none");
    }
  }
  const VerifyReport report = verify(artifact, checkpoint, options);

  std::printf("%s %s %s\n", artifact.c_str(), report.equal() ? "equals" : "differs from", folder.c_str());
  std::printf("  quantized weights    %" PRId64 " compared (%" PRId64 " blocks: codes, scales, matrices)\n",
              report.quantized_weights, report.blocks);
  std::printf("  unquantized weights  %" PRId64 " compared\n", report.unquantized_weights);
  if (report.witness_positions > 0) {
    std::printf("  witness              %" PRId64 " positions, largest logit difference %.2e\n",
                report.witness_positions, report.largest_logit_difference);
  }
  if (report.cached_codes > 0) {
    std::printf("  key-value cache      %" PRId64 " codes compared, %" PRId64 " on a rounding edge\n",
                report.cached_codes, report.cached_codes_aside);
  }
  if (report.edge_codes > 0) {
    std::printf("  static int8           %" PRId64 " codes compared, %" PRId64 " on a rounding edge\n", report.edge_codes,
                report.edge_codes_aside);
  }
  for (const std::string& weight : report.inexact) std::printf("  not exact by format: %s\n", weight.c_str());
  constexpr size_t kMostLines = 20;
  for (size_t i = 0; i < std::min(report.differences.size(), kMostLines); ++i) {
    std::printf("  different: %s\n", report.differences[i].c_str());
  }
  if (report.differences.size() > kMostLines) {
    std::printf("  and %zu more differences\n", report.differences.size() - kMostLines);
  }
  return static_cast<int>(report.equal() ? ExitCode::Done : ExitCode::Different);
}

}  // namespace qat
