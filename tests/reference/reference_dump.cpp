// Prints the log-probabilities of a GGUF model's reference inference along given tokens, for comparison with real
// clients.
//
//   qat_reference_dump FILE.gguf float|device f32|f16|q8_0 [ADAPTER.gguf] < requests
//
// Each line of standard input holds a request: the number of prompt tokens, then all token ids. Each line of the output
// is a JSON list with one entry per token after the prompt, for the step that chose it: the best 100 tokens as [id,
// log-probability].
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <numeric>
#include <optional>
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

constexpr size_t kListed = 100;

// Normalised as llama.cpp's server does it: probabilities are summed in fp32, in falling order. For a vocabulary of
// 262,144 that is up to 1e-3 off the true log-probability, which is no business of the model.
void print_best(std::span<const float> logits) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  const float largest = logits[order.front()];
  float sum = 0;
  for (const size_t token : order) sum += std::exp(logits[token] - largest);
  for (size_t i = 0; i < std::min(kListed, order.size()); ++i) {
    const float probability = std::exp(logits[order[i]] - largest) / sum;
    std::printf("%s[%zu,%.8g]", i == 0 ? "[" : ",", order[i], static_cast<double>(std::log(probability)));
  }
  std::printf("]");
}

void answer(LanguageModel& model, const std::string& line) {
  std::istringstream numbers(line);
  size_t prompt = 0;
  numbers >> prompt;
  std::vector<int32_t> tokens;
  for (int32_t token = 0; numbers >> token;) tokens.push_back(token);
  if (prompt == 0 || prompt > tokens.size())
    fail_usage("request \"", line, "\": wanted the prompt's length, then the tokens");
  const auto session = model.start();
  const std::span<const int32_t> all(tokens);
  std::span<const float> logits = session->append(all.first(prompt));
  std::printf("[");
  for (size_t i = prompt; i < tokens.size(); ++i) {
    if (i > prompt) {
      std::printf(",");
      logits = session->append(all.subspan(i - 1, 1));
    }
    print_best(logits);
  }
  std::printf("]\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 4 || argc > 5) {
      fail_usage("usage: qat_reference_dump FILE.gguf float|device f32|f16|q8_0 [ADAPTER.gguf]");
    }
    const GgufFile file{std::filesystem::path(argv[1])};
    ReferenceOptions options = parse_options(argv[2], argv[3]);
    std::optional<GgufAdapter> adapter;
    if (argc == 5) options.adapter = &adapter.emplace(std::filesystem::path(argv[4]));
    const auto model = make_reference_model(file, options);
    for (std::string line; std::getline(std::cin, line);) answer(*model, line);
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
