// The device arithmetic against what llama.cpp computed (scripts/golden/make_llama_goldens.py), teacher-forced on its
// greedy tokens.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/json.h"
#include "reference/reference_model.h"

namespace qat {
namespace {

const std::filesystem::path kGoldens = std::filesystem::path(QAT_SOURCE_DIR) / "tests/golden/reference";

double log_sum_exp(std::span<const float> logits) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  return std::log(sum);
}

void compare_answer(LanguageModel& model, const nlohmann::json& answer, double tolerance) {
  const auto prompt = answer["prompt"].get<std::vector<int32_t>>();
  const auto session = model.start();
  std::span<const float> logits = session->append(prompt);
  for (const nlohmann::json& step : answer["steps"]) {
    const double log_sum = log_sum_exp(logits);
    for (const nlohmann::json& best : step["top"]) {
      const double ours = static_cast<double>(logits[best[0].get<size_t>()]) - log_sum;
      EXPECT_NEAR(ours, best[1].get<double>(), tolerance) << "prompt of " << prompt.size();
    }
    const auto token = step["token"].get<int32_t>();
    logits = session->append({&token, 1});
  }
}

class LlamaGolden : public ::testing::TestWithParam<std::pair<const char*, CacheType>> {};

// Equal to the printed digits, which the server rounds: its probabilities are fp32 with an fp32 sum.
TEST_P(LlamaGolden, DeviceArithmeticIsLlamas) {
  const GgufFile file(kGoldens / "tiny_gemma4.gguf");
  const auto [name, cache] = GetParam();
  const nlohmann::json goldens = load_json(kGoldens / "llama_log_probabilities.json");
  const auto model = make_reference_model(file, {ArithmeticKind::Device, cache, 2});
  for (const nlohmann::json& answer : goldens[name]) compare_answer(*model, answer, 5e-6);
}

INSTANTIATE_TEST_SUITE_P(Caches, LlamaGolden,
                         ::testing::Values(std::pair{"f16", CacheType::F16}, std::pair{"q8_0", CacheType::Q8_0}),
                         [](const auto& cache) { return std::string(cache.param.first); });

}  // namespace
}  // namespace qat
