// Prints the log-probabilities of a GGUF model's reference inference along given tokens, for comparison with real clients.
//
//   qat_reference_dump FILE.gguf float|device f32|f16|q8_0 < requests
//
// Each line of standard input holds a request: the number of prompt tokens, then all token ids. Each line of the output is a JSON
// list with one list of log-probabilities [vocabulary] per token after the prompt: those of the step that chose it.
#include <cmath>
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "reference/reference_model.h"

namespace {

using namespace qat;

ReferenceOptions parse_options(const std::string& arithmetic, const std::string& cache) {
  ReferenceOptions options;
  if (arithmetic != "float" && arithmetic != "device") fail_usage("\"", arithmetic, "\": wanted float or device");
  options.arithmetic = arithmetic == "float" ? ArithmeticKind::Float : ArithmeticKind::Device;
  if (cache == "f32") {
    options.cache = CacheType::F32;
  } else if (cache == "f16") {
    options.cache = CacheType::F16;
  } else if (cache == "q8_0") {
    options.cache = CacheType::Q8_0;
  } else {
    fail_usage("\"", cache, "\": wanted f32, f16 or q8_0");
  }
  return options;
}

void print_log_probabilities(std::span<const float> logits) {
  float largest = logits[0];
  for (const float logit : logits) largest = std::max(largest, logit);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - largest));
  const double log_sum = static_cast<double>(largest) + std::log(sum);
  std::printf("[");
  for (size_t i = 0; i < logits.size(); ++i) std::printf(i == 0 ? "%.7g" : ",%.7g", static_cast<double>(logits[i]) - log_sum);
  std::printf("]");
}

void answer(LanguageModel& model, const std::string& line) {
  std::istringstream numbers(line);
  size_t prompt = 0;
  numbers >> prompt;
  std::vector<int32_t> tokens;
  for (int32_t token = 0; numbers >> token;) tokens.push_back(token);
  if (prompt == 0 || prompt > tokens.size()) fail_usage("request \"", line, "\": wanted the prompt's length, then the tokens");
  const auto session = model.start();
  const std::span<const int32_t> all(tokens);
  std::span<const float> logits = session->append(all.first(prompt));
  std::printf("[");
  for (size_t i = prompt; i < tokens.size(); ++i) {
    if (i > prompt) {
      std::printf(",");
      logits = session->append(all.subspan(i - 1, 1));
    }
    print_log_probabilities(logits);
  }
  std::printf("]\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 4) fail_usage("usage: qat_reference_dump FILE.gguf float|device f32|f16|q8_0");
    const GgufFile file{std::filesystem::path(argv[1])};
    const auto model = make_reference_model(file, parse_options(argv[2], argv[3]));
    for (std::string line; std::getline(std::cin, line);) answer(*model, line);
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
