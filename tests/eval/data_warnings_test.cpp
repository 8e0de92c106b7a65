#include "eval/data_warnings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/output_file.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using ::testing::HasSubstr;
using testing::TemporaryFolder;

// Words w<first> … w<last>.
std::string words(int first, int last, const std::string& separator = " ") {
  std::string text;
  for (int i = first; i <= last; ++i) text += (text.empty() ? "w" : separator + "w") + std::to_string(i);
  return text;
}

std::string line(const std::string& text) { return "{\"text\": \"" + text + "\"}\n"; }

class Contaminated : public ::testing::Test {
 protected:
  std::vector<int64_t> lines(const std::string& data, const std::string& training) {
    write_file(folder_ / "data.jsonl", data);
    write_file(folder_ / "training.jsonl", training);
    return find_contamination(folder_ / "data.jsonl", folder_ / "training.jsonl").lines;
  }
  TemporaryFolder folder_;
};

TEST_F(Contaminated, ThirteenWordsInARowAreTooMany) {
  EXPECT_THAT(lines(line(words(1, 30)) + line(words(40, 60)), line("x " + words(10, 22) + " y")), ElementsAre(1));
  EXPECT_THAT(lines(line(words(1, 30)), line("x " + words(10, 21) + " y")), ElementsAre());
  EXPECT_THAT(lines(line(words(1, 30)), line(words(10, 16) + " x " + words(17, 30))), ElementsAre(1));
  EXPECT_THAT(lines(line(words(1, 30)), line(words(1, 12) + " x " + words(13, 24))), ElementsAre());
}

TEST_F(Contaminated, CaseAndPunctuationHideNothing) {
  EXPECT_THAT(lines(line(words(1, 13)), line("W1, " + words(2, 13, " — ") + "!")), ElementsAre(1));
  EXPECT_THAT(lines(line(words(1, 13)), line("W1, " + words(2, 13, "-") + "!")), ElementsAre(1));
}

TEST_F(Contaminated, ShortDocumentsMustBeEqual) {
  EXPECT_THAT(lines(line("Two words.") + line("other words"), line("two WORDS")), ElementsAre(1));
  EXPECT_THAT(lines(line("two words"), line("two words more")), ElementsAre());
  EXPECT_THAT(lines(line("..."), line("!!!")), ElementsAre());
}

TEST_F(Contaminated, TheSameFileIsFoundWhole) {
  write_file(folder_ / "data.jsonl", line(words(1, 20)) + line("short one"));
  const std::vector<std::string> training{(folder_ / "data.jsonl").string()};
  const auto warnings = contamination_warnings(folder_ / "data.jsonl", training);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0].name, "contamination");
  EXPECT_THAT(warnings[0].text, HasSubstr("2 of 2 documents"));
  EXPECT_THAT(warnings[0].text, HasSubstr("the first in line 1"));
  write_file(folder_ / "clean.jsonl", line("nothing of it"));
  EXPECT_TRUE(contamination_warnings(folder_ / "data.jsonl", std::vector{(folder_ / "clean.jsonl").string()}).empty());
  expect_error([&] { find_contamination(folder_ / "data.jsonl", folder_ / "missing.jsonl"); }, {"missing.jsonl"});
}

TEST(DataWarnings, DuplicatesAreCounted) {
  const TemporaryFolder folder;
  write_file(folder / "data.jsonl", line("a") + line("b") + line("a") + line("a"));
  const auto warnings = duplicate_warnings(folder / "data.jsonl");
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0].name, "duplicate-items");
  EXPECT_THAT(warnings[0].text, HasSubstr("2 documents"));
  EXPECT_THAT(warnings[0].text, HasSubstr("the first in line 3"));
  write_file(folder / "data.jsonl", line("a") + line("b"));
  EXPECT_TRUE(duplicate_warnings(folder / "data.jsonl").empty());
}

TEST(DataWarnings, OneClassOnly) {
  MultipleChoiceQuestion question;
  question.choices = {"no", "yes"};
  question.answer = 1;
  std::vector<MultipleChoiceQuestion> questions(3, question);
  const auto warnings = answer_warnings(questions);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0].name, "one-class");
  EXPECT_THAT(warnings[0].text, HasSubstr("choice 2"));
  questions[1].answer = 0;
  EXPECT_TRUE(answer_warnings(questions).empty());
  EXPECT_TRUE(answer_warnings(std::span(questions).first(1)).empty());
}

TEST(DataWarnings, FewDocuments) {
  TextMeasures measures;
  measures.documents.assign(60, {.tokens = 0});
  for (size_t i = 0; i < 29; ++i) measures.documents[i].tokens = 5;
  const auto warnings = document_warnings(measures);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0].name, "few-documents");
  EXPECT_THAT(warnings[0].text, HasSubstr("29 documents"));
  measures.documents[29].tokens = 5;
  EXPECT_TRUE(document_warnings(measures).empty());
}

}  // namespace
}  // namespace qat
