#include "data/question.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/output_file.h"
#include "data/plain_text.h"
#include "data/record_fields.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;

MultipleChoiceQuestion read(const char* line) { return read_multiple_choice(parse_line(line)); }

TEST(Question, AnswersInEverySpelling) {
  EXPECT_EQ(read(R"({"question": "q", "choices": ["a", "b", "c"], "answer": 2})").answer, 2);
  EXPECT_EQ(read(R"({"query": "q", "choices": ["a", "b", "c"], "gold": "B"})").answer, 1);
  EXPECT_EQ(read(R"({"ctx": "q", "endings": ["a", "b", "c"], "label": "2"})").answer, 2);
  EXPECT_EQ(read(R"({"ctx": "q", "endings": ["a", "b", "c"], "label": " c "})").answer, 2);
}

// HellaSwag's second part, as Python's str.capitalize() has it.
TEST(Question, CapitalsAreThoseOfEveryAlphabet) {
  const auto question = read(
      R"({"activity_label": "l", "ctx_a": "a.", "ctx_b": "\u00e9T\u00c9 \u0416\u0401 B", "endings": ["a", "b"], "label": 0})");
  EXPECT_EQ(question.question, "l: a. \u00c9t\u00e9 \u0436\u0451 b");
  EXPECT_EQ(read(R"({"activity_label": "l", "ctx_a": "a", "ctx_b": "", "endings": ["a", "b"], "label": 0})").question,
            "l: a");
}

TEST(Question, FaultsAreNamed) {
  const std::vector<std::pair<const char*, std::vector<std::string>>> lines = {
      {R"({"choices": ["a", "b"], "answer": 0})", {"question, query, ctx"}},
      {R"({"question": "q", "answer": 0})", {"choices, endings"}},
      {R"({"question": "q", "choices": ["a", "b"]})", {"answer, label, gold"}},
      {R"({"question": "q", "choices": ["a"], "answer": 0})", {"two or more"}},
      {R"({"question": "q", "choices": ["a", 3], "answer": 0})", {"choices has 3"}},
      {R"({"question": "q", "choices": ["a", "b"], "answer": 2})", {"the answer is 2", "0 to 1"}},
      {R"({"question": "q", "choices": ["a", "b"], "answer": -1})", {"the answer is -1"}},
      {R"({"question": "q", "choices": ["a", "b"], "answer": "D"})", {"\"D\""}},
      {R"({"question": "q", "choices": ["a", "b"], "answer": "first"})", {"first"}},
      {R"({"question": "q", "choices": ["a", "b"], "answer": true})", {"true"}},
      {R"({"activity_label": "l", "ctx_a": "a", "ctx_b": "b", "endings": ["a", "b"], "label": "2"})",
       {"the answer is"}},
      {R"({"activity_label": "l", "ctx_a": "a", "endings": ["a", "b"], "label": "1"})", {"ctx_b is missing"}},
      {R"({"activity_label": "l", "ctx_a": "", "ctx_b": "", "endings": ["[x]", "b"], "label": "1"})",
       {"without its marks"}},
      {R"({"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"})",
       {"\"C\"", "labels"}},
      {R"({"question": "q", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"})", {"two or more"}},
      {R"({"question": "q", "choices": ["a", "b"], "answerKey": "A"})", {"choices is array"}},
      {R"({"question": "q", "subject": "s", "choices": ["a", "b"], "answer": 2})", {"the answer is 2"}},
      {R"({"sentence": "no blank", "option1": "a", "option2": "b", "answer": "1"})", {"no blank"}},
      {R"({"sentence": "at the end _", "option1": "a", "option2": "b", "answer": "1"})", {"no text to score"}},
      {R"({"sentence": "a _ b", "option1": "a", "option2": "b", "answer": "0"})", {"\"0\"", "\"1\" or \"2\""}},
      {R"({"sentence": "a _ b", "option1": "a", "option2": "b", "answer": ""})", {"\"1\" or \"2\""}},
      {R"({"goal": "g", "sol1": "a", "sol2": "b", "label": 2})", {"the answer is 2"}},
      {R"({"goal": "g", "sol1": "a", "label": 1})", {"sol2 is missing"}},
  };
  for (const auto& [line, says] : lines) {
    SCOPED_TRACE(line);
    for (const std::string& part : says) expect_error([text = line] { read(text); }, {part});
  }
}

MultipleChoiceQuestion plain(const std::string& question, const std::string& subject = "") {
  MultipleChoiceQuestion result;
  result.question = question;
  result.choices = {"no", "yes"};
  result.answer = 1;
  result.line = 4;
  result.subject = subject;
  return result;
}

TEST(SolvedExamples, AreTheFirstOfTheSubjectThatAskSomethingElse) {
  std::vector<MultipleChoiceQuestion> questions{plain("b", "x")};
  questions[0].preface = "About x.\n\n";
  const std::vector<MultipleChoiceQuestion> examples{plain("a", "y"), plain("b", "x"), plain("c", "x"), plain("d", "x"),
                                                     plain("e", "x")};
  add_solved_examples(questions, examples, 2);
  EXPECT_EQ(questions[0].preface, "About x.\n\nc yes\n\nd yes\n\n");
  expect_error([&] { add_solved_examples(questions, examples, 4); }, {"line 4", "4 solved examples about x", "has 3"});
}

TEST(WorkedProblems, NeedANumberAfterTheMark) {
  const TemporaryFolder folder;
  write_file(folder / "good.jsonl", "{\"question\": \"q\", \"answer\": \"so\\n#### 1,200\"}\n");
  const auto problems = load_worked_problems(folder / "good.jsonl");
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].question, "q");
  EXPECT_EQ(problems[0].line, 1);
  for (const char* answer : {"42", "#### ", "#### none"}) {
    write_file(folder / "bad.jsonl", "\n" + nlohmann::json{{"question", "q"}, {"answer", answer}}.dump() + "\n");
    expect_error([&] { load_worked_problems(folder / "bad.jsonl"); }, {"bad.jsonl:2", "#### number"});
  }
  write_file(folder / "empty.jsonl", "\n\n");
  expect_error([&] { load_worked_problems(folder / "empty.jsonl"); }, {"no problems"});
}

TEST(PlainText, IsWhatEachKindOfLineSays) {
  const TemporaryFolder folder;
  write_file(
      folder / "data.jsonl",
      R"({"text": "once"})"
      "\n\n"
      R"({"prompt": "p", "completion": "c"})"
      "\n"
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]})"
      "\n"
      R"({"question": "q", "choices": ["no", "yes"], "answer": 1})"
      "\n");
  std::vector<std::pair<int64_t, std::string>> texts;
  for_each_text(folder / "data.jsonl", [&](const std::string& text, int64_t line) { texts.emplace_back(line, text); });
  const std::vector<std::pair<int64_t, std::string>> wanted{{1, "once"}, {3, "p\nc"}, {4, "u\na\n"}, {5, "q\nyes "}};
  EXPECT_EQ(texts, wanted);
  write_file(folder / "data.txt", "one\ntwo\n\nthree\n");
  texts.clear();
  for_each_text(folder / "data.txt", [&](const std::string& text, int64_t line) { texts.emplace_back(line, text); });
  EXPECT_EQ(texts.size(), 2u);
}

}  // namespace
}  // namespace qat
