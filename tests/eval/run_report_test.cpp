#include "eval/run_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/mapped_file.h"
#include "core/output_file.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TemporaryFolder;

const char* const kConfiguration = R"({"about": "A <tiny> run.", "model": "base", "out": "runs/e2b/", "plan": "q4_0",
  "objective": "forward_kl", "teacher": "", "steps": 6, "lora": {"rank": 4}, "optimizer": {"clip_norm": 1.0}, "freeze": []})";

// Four of six steps: gradient norms 0.5, 1.5, 0.5, 1.5, a second each.
std::string four_steps() {
  std::string lines =
      nlohmann::json{{"kind", "eval"}, {"step", 0}, {"loss", 4.0}, {"kl", 0.9}, {"best", false}}.dump() + "\n";
  const nlohmann::json first = {{"layers.0.mlp.up_proj.weight", {{"clipping_rate", 0.01}, {"signal_to_noise_db", 18}}}};
  lines += nlohmann::json{{"kind", "quantization"}, {"step", 0}, {"quantizers", first}}.dump() + "\n";
  for (int step = 1; step <= 4; ++step) {
    const nlohmann::json line = {{"kind", "step"},
                                 {"step", step},
                                 {"loss", 5.0 - step},
                                 {"learning_rate", 0.1},
                                 {"gradient_norm", step % 2 == 0 ? 1.5 : 0.5},
                                 {"tokens", 1000},
                                 {"trained_tokens", 600},
                                 {"tokens_per_second", 1000},
                                 {"seconds", 1.0},
                                 {"peak_memory", 3'000'000'000}};
    lines += line.dump() + "\n";
  }
  const nlohmann::json quantizers = {
      {"layers.0.mlp.up_proj.weight",
       {{"clipping_rate", 0.02}, {"signal_to_noise_db", 17.5}, {"codes_changed", 0.125}}},
      {"layers.1.mlp.up_proj.weight", {{"clipping_rate", 0}, {"signal_to_noise_db", 21}, {"codes_changed", 0.5}}},
      {"layers.1.mlp.input", {{"clipping_rate", 0.001}, {"signal_to_noise_db", 30}}},
      {"embed_tokens.weight", {{"clipping_rate", 0}, {"signal_to_noise_db", 12.25}}}};
  lines += nlohmann::json{{"kind", "eval"}, {"step", 4}, {"loss", 2.0}, {"kl", 0.25}, {"best", true}}.dump() + "\n";
  lines += nlohmann::json{{"kind", "quantization"},
                          {"step", 4},
                          {"codes_changed", 0.25},
                          {"codes_returned", 0.0625},
                          {"quantizers", quantizers}}
               .dump();
  return lines + "\n";
}

class RunReportTest : public ::testing::Test {
 protected:
  std::string report_of(const std::string& metrics, const std::string& configuration = kConfiguration) {
    write_file(folder_ / "metrics.jsonl", metrics);
    write_file(folder_ / "config.json", configuration);
    write_run_report(folder_ / "metrics.jsonl", folder_ / "config.json", folder_ / "report.html");
    return read_text_file(folder_ / "report.html");
  }
  TemporaryFolder folder_;
};

TEST_F(RunReportTest, FiguresAreThoseOfTheLines) {
  write_file(folder_ / "metrics.jsonl", four_steps());
  const RunFigures figures = read_run_figures(folder_ / "metrics.jsonl");
  EXPECT_EQ(figures.step, 4);
  EXPECT_EQ(figures.best_step, 4);
  EXPECT_THAT(figures.loss.y, ElementsAre(4, 3, 2, 1));
  EXPECT_THAT(figures.held_out_loss.y, ElementsAre(4, 2));
  EXPECT_THAT(figures.kl.x, ElementsAre(0, 4));
  EXPECT_THAT(figures.codes_returned.y, ElementsAre(0.0625));
  const QuantizerFigures& up = figures.quantizers.at("layers.0.mlp.up_proj.weight");
  EXPECT_EQ(up.first_signal_to_noise, 18);
  EXPECT_EQ(up.signal_to_noise, 17.5);
  EXPECT_EQ(up.codes_changed, 0.125);
  EXPECT_TRUE(std::isnan(figures.quantizers.at("embed_tokens.weight").codes_changed));
}

TEST_F(RunReportTest, SaysWhatTheRunIsAndWhereItStands) {
  const std::string html = report_of(four_steps());
  for (const char* part :
       {"<title>Training run e2b</title>", "A &lt;tiny&gt; run.",
        "the plan q4_0, LoRA adapters of rank 4, distilled (forward_kl)", "Step 4 of 6; about 2s of steps left.",
        "4 at step 0, 2 at step 4", ">50.0 %<", ">3.0 GB<", "2.4k trained on", "clipped above",
        "Codes that changed between evaluations", "Signal to noise: weights of MLPs",
        "Signal to noise: inputs of linears", ">12.25 dB<", "optimizer.clip_norm"}) {
    EXPECT_THAT(html, HasSubstr(part)) << part;
  }
  for (const char* external : {"http:", "https:", "<script", "<link", "<img", "nan"}) {
    EXPECT_THAT(html, Not(HasSubstr(external)));
  }
}

// The one with the largest error comes first.
TEST_F(RunReportTest, NamesTheWorstQuantizersFirst) {
  const std::string html = report_of(four_steps());
  const size_t table = html.find("largest errors");
  ASSERT_NE(table, std::string::npos);
  EXPECT_LT(html.find("embed_tokens.weight", table), html.find("layers.0.mlp.up_proj.weight", table));
}

TEST_F(RunReportTest, ALongRunHasNoLargerReportThanAShortOne) {
  std::string lines;
  for (int step = 1; step <= 100'000; ++step) {
    lines += nlohmann::json{{"kind", "step"},
                            {"step", step},
                            {"loss", 2 + std::sin(step)},
                            {"learning_rate", 1e-4},
                            {"gradient_norm", 1 + 0.5 * std::cos(step)},
                            {"tokens", 8192},
                            {"trained_tokens", 8192},
                            {"tokens_per_second", 900 + step % 100},
                            {"seconds", 9.1},
                            {"peak_memory", 5e9}}
                 .dump() +
             "\n";
  }
  const std::string html = report_of(lines);
  EXPECT_LT(html.size(), 200'000U);
  EXPECT_THAT(html, HasSubstr("Step 100000 of 6: complete."));
}

TEST_F(RunReportTest, OfARunThatHasJustBegunHasNoEmptyPlots) {
  const std::string html = report_of("");
  EXPECT_THAT(html, HasSubstr("Step 0 of 6."));
  EXPECT_THAT(html, Not(HasSubstr("<svg")));
  EXPECT_THAT(html, HasSubstr("optimizer.clip_norm"));
  // Nor does a configuration with other types than a run's end it.
  EXPECT_THAT(report_of(four_steps(), R"({"steps": "many", "out": 3})"), HasSubstr("held-out loss"));
}

TEST_F(RunReportTest, DamagedFilesAreNamedAndLeaveTheOldReport) {
  const std::string before = report_of(four_steps());
  expect_error([&] { report_of("{\"kind\":\n" + four_steps()); }, {"metrics.jsonl line 1"});
  expect_error([&] { report_of(four_steps(), "{"); }, {"config.json", "is not valid JSON"});
  EXPECT_EQ(read_text_file(folder_ / "report.html"), before);
  EXPECT_NO_THROW(report_of(four_steps() + "{\"kind\": \"st"));  // a run that was killed while it wrote
}

}  // namespace
}  // namespace qat
