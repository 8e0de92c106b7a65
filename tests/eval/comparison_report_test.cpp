#include "eval/comparison_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/random.h"
#include "eval/comparison_items.h"
#include "eval/comparison_plots.h"
#include "eval/measured_models.h"
#include "support/fresh_seed.h"

namespace qat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::measured_model;
using ::testing::Not;

std::vector<MultipleChoiceQuestion> questions(size_t count) {
  std::vector<MultipleChoiceQuestion> all;
  for (size_t i = 0; i < count; ++i) {
    MultipleChoiceQuestion question;
    question.question = "Question " + std::to_string(i);
    question.choices = {"wrong", "right"};
    question.answer = 1;
    question.line = static_cast<int64_t>(i) + 1;
    all.push_back(question);
  }
  return all;
}

// BF16, a baseline and two seeds of QAT, on 40 documents and 40 questions.
std::vector<MeasuredModel> four_models() {
  std::vector<MeasuredModel> models{
      measured_model("BF16", 2.0, 0, 40, 40), measured_model("GPTQ", 2.3, 0.2, 40, 40, 12),
      measured_model("QAT-1", 2.1, 0.05, 40, 40, 2), measured_model("QAT-2", 2.12, 0.06, 40, 40)};
  for (MeasuredModel& model : models) model.files = {{"chats.jsonl", 30}, {"code.jsonl", 10}};
  return models;
}

ComparisonFacts facts_of_four() {
  ComparisonFacts facts;
  facts.questions = questions(40);
  facts.origin = {{"QAT-1", "QAT-2"}, 3, {"choose.jsonl"}, {}};
  return facts;
}

// Removes the documents that speak most for the difference one by one.
int64_t removed_by_hand(std::vector<double> values) {
  double total = 0;
  for (const double value : values) total += value;
  const double sign = total < 0 ? -1 : 1;
  for (int64_t removed = 0;; ++removed) {
    if (sign * total <= 0 || values.empty()) return removed;
    const auto most = std::ranges::max_element(values, {}, [&](double value) { return sign * value; });
    total -= *most;
    values.erase(most);
  }
}

TEST(ClaimLimits, CountTheDocumentsThatAClaimHangsOn) {
  const uint64_t seed = testing::fresh_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  SplitMix64 random(seed);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<MeasuredModel> models{measured_model("A", 2, 0), measured_model("B", 2, 0.2),
                                      measured_model("C", 2, 0.2)};
    std::vector<double> differences;
    for (size_t i = 0; i < 40; ++i) {
      const double difference = static_cast<double>(random.below(9)) - 3;
      models[2].text.documents[i].divergence = models[1].text.documents[i].divergence + difference;
      differences.push_back(models[2].text.documents[i].divergence - models[1].text.documents[i].divergence);
    }
    const std::vector<Judgement> judgements = judge_models(models);
    ASSERT_EQ(judgements.front().measure, "KL");
    EXPECT_EQ(claim_limits(models, judgements).front().breaks_without, removed_by_hand(differences));
  }
}

TEST(ClaimLimits, SayWhatAClaimRestsOnAndWhatIsNotKnown) {
  const auto models = four_models();
  const auto limits = claim_limits(models, judge_models(models));
  ASSERT_EQ(limits.front().judgement.verdict.finding, Finding::Better);
  EXPECT_LT(limits.front().nearest_end, 0);
  EXPECT_EQ(limits.front().breaks_without, 40);  // every document is better
  const auto row = claims_table(limits).rows.front();
  EXPECT_EQ(row[0], "QAT-1 is better than GPTQ in KL");
  EXPECT_THAT(row[1], HasSubstr("over 40 documents (bootstrap), p "));
  EXPECT_THAT(row[2], HasSubstr("lack the 40 documents"));
  // Of 40 questions QAT-1 answers two wrong that are no fourth ones, GPTQ nine: of the seven between them all must go.
  EXPECT_EQ(limits[2].judgement.measure, "accuracy");
  EXPECT_EQ(limits[2].breaks_without, 7);

  const auto known = origin_sentences(models, facts_of_four().origin);
  EXPECT_THAT(known[0],
              HasSubstr("2 trained QAT models, with a KL of 0.0471 to 0.0565; that of GPTQ is 0.188. Every seed"));
  EXPECT_THAT(known[1], HasSubstr("least KL of 3 methods without training on choose.jsonl"));
  EXPECT_THAT(origin_sentences(models, {{"QAT-1"}, 1, {}, {}})[0], HasSubstr("Seeds: one."));
  EXPECT_THAT(origin_sentences(models, {})[0], HasSubstr("is not known"));
}

TEST(ComparisonItems, AreTheFirmestOfTheFlippedAnswers) {
  auto models = four_models();
  models[1].choices[3].chosen = 1;  // where the reference is wrong
  models[1].choices[3].log_likelihoods = {-4, -1};
  const auto items = flipped_items(models[0], models[1], questions(40));
  // GPTQ's first twelve answers are wrong, the reference's only at 3, 7 and 11.
  ASSERT_EQ(items.size(), 10u);
  EXPECT_EQ(items[0].line, 4);
  EXPECT_EQ(items[0].margin, 3);
  EXPECT_EQ(items[0].choice, "right");
  EXPECT_EQ(items[0].reference_choice, "wrong");
  EXPECT_EQ(items[1].line, 1);
  EXPECT_EQ(items[1].margin, -0.5);
  EXPECT_EQ(items[9].line, 11);
  EXPECT_TRUE(flipped_items(models[0], models[0], questions(40)).empty());
}

TEST(ComparisonItems, KeepTheEndOfALongQuestion) {
  const auto models = four_models();
  auto long_questions = questions(40);
  long_questions[0].question = std::string(50, 'a') + std::string(100, 'b') + "Who?";
  const auto items = flipped_items(models[0], models[1], long_questions);
  EXPECT_EQ(items[0].question, std::string(40, 'a') + " … " + std::string(76, 'b') + "Who?");
  EXPECT_EQ(items[1].question, "Question 1");
}

TEST(ComparisonItems, ShowWhiteSpaceAndWhereATokenIs) {
  auto models = four_models();
  StrayToken token;
  token.document = 33;
  token.divergence = 2.5;
  token.before = "so it is\n";
  token.right = " seven";
  token.reference_probability = 0.75;
  models[2].text.places.keep(token);
  const auto row = worst_tokens_table(models[2], "BF16").rows.front();
  EXPECT_THAT(row, ElementsAre("2.5", "so it is⏎", "␣seven", "75 %", "0 %", "", "", "code.jsonl line 34"));
}

TEST(ComparisonTables, FilesAreMeasuredAlone) {
  const auto models = four_models();
  const FileMeasures second = file_measures(models[1], 1);
  EXPECT_EQ(second.documents, 10);
  EXPECT_EQ(second.tokens, 100);
  double divergence = 0;
  for (size_t i = 30; i < 40; ++i) divergence += models[1].text.documents[i].divergence;
  ASSERT_TRUE(second.divergence);
  EXPECT_DOUBLE_EQ(second.divergence->value, divergence / 100);
  EXPECT_EQ(files_table(models).rows.size(), 8u);
}

TEST(ComparisonPlots, TailsFallFromAllTokensToOne) {
  const auto models = four_models();
  const LinePlot plot = tails_plot(models);
  ASSERT_EQ(plot.series.size(), 3u);
  const Series& tail = plot.series[0];
  EXPECT_EQ(tail.y.front(), 1);
  EXPECT_EQ(tail.x.front(), models[1].text.divergences.minimum());
  EXPECT_GE(tail.y.back(), 1.0 / 400);
  EXPECT_TRUE(std::ranges::is_sorted(tail.x));
  EXPECT_TRUE(std::ranges::is_sorted(tail.y, std::greater<>()));
}

TEST(ComparisonReport, HoldsEverySectionAndTheSameBytes) {
  auto models = four_models();
  StrayToken token;
  token.divergence = 1;
  for (MeasuredModel& model : models) {
    model.text.places.keep(token);
    model.text.places.count(40, 0.5);
  }
  const ComparisonFacts facts = facts_of_four();
  const std::string html = render_html(make_comparison_report(models, facts));
  for (const char* part : {"What can be said", "What would have made the claims fail", "KL over bits per weight",
                           "Accuracy, with 95 % intervals", "How often KL is large", "33 – 128", "code.jsonl",
                           "Flipped answers to read", "Worst tokens to read"}) {
    EXPECT_THAT(html, HasSubstr(part));
  }
  EXPECT_EQ(html, render_html(make_comparison_report(models, facts)));
  const auto json = comparison_report_json(models, facts);
  EXPECT_EQ(json.dump(), comparison_report_json(models, facts).dump());
  EXPECT_EQ(json["origin"]["seeds"].size(), 2u);
  EXPECT_EQ(json["claims"].size(), json["verdicts"].size());
  EXPECT_EQ(json["models"][1]["flipped"].size(), 9u);
  EXPECT_EQ(json["models"][2]["worst_tokens"].size(), 1u);
  EXPECT_EQ(json["models"][1]["files"][1]["documents"], 10);
  EXPECT_EQ(json["models"][1]["kl_by_context"][0]["from"], 33);
  EXPECT_FALSE(json["models"][0].contains("flipped"));
}

TEST(ComparisonReport, OfOneModelClaimsNothing) {
  const std::vector<MeasuredModel> models{measured_model("BF16", 2, 0)};
  const std::string html = render_html(make_comparison_report(models, {}));
  EXPECT_THAT(html, Not(HasSubstr("claims fail")));
}

}  // namespace
}  // namespace qat
