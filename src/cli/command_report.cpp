#include <cstdio>

#include "cli/command.h"
#include "core/error.h"
#include "eval/run_report.h"
#include "trainers/run_folder.h"

namespace qat {

namespace {
const CommandHelp kHelp{
    "gemma-qat report RUN [--out FILE.html]",
    "Writes the report of a training run as one HTML file: loss, KL, learning rate, gradient norm, throughput, memory, "
    "quantization error and changed codes, and the configuration that ran. Training writes the same report at every "
    "save; this "
    "writes it again, also while a run goes on.",
    "  gemma-qat report runs/e2b\n"
    "  gemma-qat report runs/e2b --out e2b.html"};
}  // namespace

int command_report(const Arguments& arguments) {
  const auto parsed = parse_arguments(
      arguments, kHelp,
      [](cxxopts::Options& options) {
        options.add_options()("out", "HTML file to write (report.html in the run folder)",
                              cxxopts::value<std::string>());
      },
      1, 1);
  if (parsed.helped) return 0;
  const RunFolder run(parsed.positional[0]);
  for (const auto& file : {run.metrics(), run.resolved_config()}) {
    if (!std::filesystem::is_regular_file(file)) {
      fail_usage(run.path().string(), ": is no run folder: there is no ", file.filename().string(),
                 "; give the `out` of a training run");
    }
  }
  const std::filesystem::path out =
      parsed.options.count("out") > 0 ? std::filesystem::path(parsed.options["out"].as<std::string>()) : run.report();
  write_run_report(run.metrics(), run.resolved_config(), out);
  std::printf("report: %s\n", out.c_str());
  return 0;
}

}  // namespace qat
