#include "eval/measure_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "eval/measured_models.h"

namespace qat {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;
using testing::measured_model;
using ::testing::Not;

TEST(MeasureReport, TextHasEveryMeasure) {
  const MeasuredModel model = measured_model("QAT", 2, 0.1);
  const ordered_json json = text_json(model.text);
  EXPECT_EQ(json["documents"], 40);
  EXPECT_EQ(json["tokens"], 400);
  EXPECT_EQ(json["words"], 120);
  EXPECT_EQ(json["bytes"], 800);
  const auto loss = json["loss"].get<double>();
  EXPECT_NEAR(loss, 2, 0.1);
  EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(loss), 1e-9);
  EXPECT_NEAR(json["bits_per_byte"].get<double>(), loss / 2 / std::log(2.0), 1e-9);
  EXPECT_LT(json["loss_interval"][0].get<double>(), loss);
  EXPECT_GT(json["loss_interval"][1].get<double>(), loss);
  EXPECT_NEAR(json["reverse_kl"]["mean"].get<double>(), 2 * json["kl"]["mean"].get<double>(), 1e-9);
  EXPECT_NEAR(json["kl"]["same_top"].get<double>(), 0.9, 1e-12);
  EXPECT_LE(json["kl"]["median"].get<double>(), json["kl"]["percentile_99_9"].get<double>());
  EXPECT_EQ(json["probability_change"]["median"], -0.01);

  const std::string lines = text_lines(model.text);
  for (const char* part : {"40 documents, 400 tokens", "per word (120)", "per byte (800)", "KL  ", "reverse KL  ",
                           "same top    90.00 %", "99.9 %", "median -1.000 %"}) {
    EXPECT_THAT(lines, HasSubstr(part));
  }
}

TEST(MeasureReport, LeavesOutWhatWasNotMeasured) {
  MeasuredModel model = measured_model("QAT", 2, 0.1);
  model.text.divergences = {};
  for (DocumentMeasures& document : model.text.documents) document.words = document.bytes = 0;
  EXPECT_FALSE(text_json(model.text).contains("kl"));
  EXPECT_FALSE(text_json(model.text).contains("words"));
  EXPECT_THAT(text_lines(model.text), Not(HasSubstr("KL")));
  EXPECT_FALSE(
      ordered_json::parse(document_items(model.text, "f").substr(0, document_items(model.text, "f").find('\n')))
          .contains("kl"));
}

TEST(MeasureReport, AnInfiniteDivergenceIsNull) {
  MeasuredModel model = measured_model("QAT", 2, 0.1);
  model.text.documents[3].reverse_divergence = INFINITY;
  model.text.reverse_divergences.add(INFINITY);
  EXPECT_TRUE(ordered_json::parse(text_json(model.text).dump())["reverse_kl"]["mean"].is_null());
  EXPECT_THAT(text_lines(model.text), HasSubstr("reverse KL  inf"));
}

TEST(MeasureReport, AnswersAreCountedWithIntervals) {
  const MeasuredModel model = measured_model("QAT", 2, 0.1, 1, 1000, 0);
  const ordered_json json = choice_json(model.choices);
  EXPECT_EQ(json["accuracy"]["correct"], 750);
  EXPECT_EQ(json["accuracy"]["items"], 1000);
  EXPECT_EQ(json["accuracy_by_bytes"]["correct"], 0);
  EXPECT_THAT(choice_lines(model.choices),
              HasSubstr("acc        75.0 % (750 of 1000, 95 % interval 72.2 % to 77.6 %)"));

  std::vector<ProblemResult> problems(10);
  for (size_t i = 0; i < 5; ++i) problems[i].correct_flexible = true;
  EXPECT_EQ(problem_json(problems)["flexible_extract"]["correct"], 5);
  EXPECT_EQ(problem_json(problems)["strict_match"]["correct"], 0);
  EXPECT_THAT(problem_lines(problems), HasSubstr("flexible-extract 50.0 % (5 of 10, 95 % interval 23.7 % to 76.3 %)"));
}

TEST(MeasureReport, ItemsAreALineEach) {
  const MeasuredModel model = measured_model("QAT", 2, 0.1, 3, 2, 1);
  const auto parse = [](const std::string& text) {
    std::vector<ordered_json> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(ordered_json::parse(line));
    return lines;
  };
  const auto documents = parse(document_items(model.text, "a.jsonl"));
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_EQ(documents[2]["file"], "a.jsonl");
  EXPECT_EQ(documents[2]["line"], 3);
  EXPECT_NEAR(documents[2]["loss"].get<double>(), model.text.documents[2].negative_log_likelihood / 10, 1e-12);
  EXPECT_EQ(documents[2]["same_top"], 0.9);
  const auto answers = parse(choice_items(model.choices, "q.jsonl"));
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0]["answer"], 1);
  EXPECT_EQ(answers[0]["acc"]["choice"], 0);
  EXPECT_EQ(answers[0]["acc"]["correct"], false);
  EXPECT_EQ(answers[1]["acc"]["correct"], true);
  EXPECT_EQ(answers[1]["log_likelihoods"][0], -2);
  ProblemResult problem;
  problem.text = "so \"4\"\n";
  problem.strict = "4";
  EXPECT_EQ(parse(problem_items(std::span(&problem, 1), "p"))[0]["text"], problem.text);
}

}  // namespace
}  // namespace qat
