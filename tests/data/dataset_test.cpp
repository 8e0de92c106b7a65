#include "data/dataset.h"

#include <gtest/gtest.h>

#include "core/output_file.h"
#include "data/question.h"
#include "data/small_tokenizer.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::small_tokenizer;

constexpr ChatTemplate kSmall = {ChatTemplateKind::Gemma4Small, true};
constexpr ChatTemplate kLarge = {ChatTemplateKind::Gemma4Large, true};

class DatasetTest : public ::testing::Test {
 protected:
  std::filesystem::path file(const std::string& content, const char* name = "data.jsonl") {
    write_file(folder_ / name, content);
    return folder_ / name;
  }
  std::vector<Example> load(const std::string& content, const DatasetOptions& options = {},
                            const char* name = "data.jsonl") {
    return load_examples(file(content, name), small_tokenizer(), options);
  }
  static std::string text(const Example& example, bool only_trained = false) {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < example.tokens.size(); ++i) {
      if (!only_trained || example.trained[i] != 0) ids.push_back(example.tokens[i]);
    }
    return small_tokenizer().decode(ids);
  }
  static int64_t count_bos(const Example& example) {
    return std::count(example.tokens.begin(), example.tokens.end(), small_tokenizer().require_id("<bos>"));
  }
  static DatasetOptions chat(const ChatTemplate& chat_template) {
    return training_dataset_options(chat_template, false, 0);
  }

  testing::TemporaryFolder folder_;
};

TEST_F(DatasetTest, TextIsTrainedWholeBetweenBosAndEos) {
  const auto examples = load("{\"text\": \"one two\"}\n\n{\"text\": \"three\"}");
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(text(examples[0]), "<bos>one two<eos>");
  EXPECT_EQ(text(examples[0], true), "one two<eos>");
  EXPECT_EQ(examples[0].line, 1);
  EXPECT_EQ(examples[1].line, 3);
}

TEST_F(DatasetTest, ExactlyOneBosAndEos) {
  for (const Example& example :
       load("{\"text\": \"<bos><bos>x<eos>\"}\n{\"prompt\": \"<bos>a\", \"completion\": \"b<eos>\"}\n")) {
    EXPECT_EQ(example.tokens[0], small_tokenizer().require_id("<bos>"));
    EXPECT_EQ(count_bos(example), 1);
    EXPECT_EQ(std::count(example.tokens.begin(), example.tokens.end(), small_tokenizer().require_id("<eos>")), 1);
    EXPECT_EQ(example.trained[0], 0);
  }
  const auto talk = load("{\"prompt\": \"a\", \"completion\": \"b\"}\n", chat(kSmall));
  EXPECT_EQ(count_bos(talk[0]), 1);
}

TEST_F(DatasetTest, PromptIsNotTrained) {
  const auto plain =
      load("{\"prompt\": \"ask: \", \"completion\": \"yes\"}\n{\"question\": \"why?\", \"answer\": \"so\"}\n");
  EXPECT_EQ(text(plain[0]), "<bos>ask: yes<eos>");
  EXPECT_EQ(text(plain[0], true), "yes<eos>");
  EXPECT_EQ(text(plain[1]), "<bos>why?\nso<eos>");
  EXPECT_EQ(text(plain[1], true), "so<eos>");
}

TEST_F(DatasetTest, PromptsGoThroughTheChatTemplateOfTheModel) {
  const auto small =
      load("{\"instruction\": \"i\", \"input\": \"x\", \"output\": \"o\", \"system\": \"s\"}\n", chat(kSmall));
  EXPECT_EQ(text(small[0]), "<bos><|turn>system\ns<turn|>\n<|turn>user\ni\n\nx<turn|>\n<|turn>model\no<turn|>\n");
  EXPECT_EQ(text(small[0], true), "o<turn|>");
  const auto large = load("{\"prompt\": \"p\", \"completion\": \"c\"}\n", chat(kLarge));
  EXPECT_EQ(text(large[0]), "<bos><|turn>user\np<turn|>\n<|turn>model\n<|channel>thought\n<channel|>c<turn|>\n");
  EXPECT_EQ(text(large[0], true), "c<turn|>");
}

TEST_F(DatasetTest, PromptOfGenerationIsThePrefixOfTheExample) {
  const auto example = load("{\"prompt\": \"tell me\", \"completion\": \"no\"}\n", chat(kLarge))[0];
  const auto prompt = tokenize_prompt(small_tokenizer(), "tell me", kLarge, {});
  EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), example.tokens.begin()));
  const auto plain = load("{\"prompt\": \"tell me\", \"completion\": \"no\"}\n")[0];
  const auto plain_prompt = tokenize_prompt(small_tokenizer(), "tell me", std::nullopt, {});
  EXPECT_TRUE(std::equal(plain_prompt.begin(), plain_prompt.end(), plain.tokens.begin()));
  EXPECT_EQ(tokenize_prompt(small_tokenizer(), "<bos>x", std::nullopt, {}),
            tokenize_prompt(small_tokenizer(), "x", std::nullopt, {}));
}

TEST_F(DatasetTest, TextFilesAreDocumentsBetweenBlankLines) {
  const auto examples = load("\nfirst\nstill first\n\n \nsecond", {}, "data.txt");
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(text(examples[0]), "<bos>first\nstill first<eos>");
  EXPECT_EQ(examples[0].line, 2);
  EXPECT_EQ(text(examples[1]), "<bos>second<eos>");
  EXPECT_EQ(examples[1].line, 6);
}

TEST_F(DatasetTest, ErrorsNameFileAndLine) {
  const std::string good = "{\"text\": \"fine\"}\n";
  expect_error([&] { load(good + good + "{\"text\": 3}\n"); }, {"data.jsonl:3:", "text is number"});
  expect_error([&] { load(good + "\n{oops\n"); }, {"data.jsonl:3:", "not valid JSON"});
  expect_error([&] { load(good + "{\"text\": \"\xc3\"}\n"); }, {"data.jsonl:2:", "UTF-8"});
  expect_error([&] { load("fine\n\n\xff\n", {}, "data.txt"); }, {"data.txt:3:", "UTF-8"});
  expect_error(
      [&] {
        load(good + R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})");
      },
      {"data.jsonl:2:", "data.chat_template"});
  const DatasetOptions gemma3 = chat({ChatTemplateKind::Gemma3, false});
  expect_error([&] { load(R"({"messages": [{"role": "assistant", "content": "b"}]})", gemma3); },
               {"data.jsonl:1:", "Gemma 3"});
}

TEST_F(DatasetTest, EmptyAndMissingDataAreErrors) {
  expect_error([&] { load(""); }, {"data.jsonl", "no examples"});
  expect_error([&] { load(" \n\n"); }, {"no examples"});
  expect_error([&] { load("\n\n", {}, "data.txt"); }, {"no examples"});
  expect_error([&] { load_examples(folder_ / "none.jsonl", small_tokenizer(), {}); },
               {"none.jsonl", "cannot be opened"});
  expect_error([&] { load_examples(folder_.path(), small_tokenizer(), {}); }, {"is a folder"});
}

TEST_F(DatasetTest, TokensBeyondTheModelAreErrors) {
  DatasetOptions options;
  options.model_vocabulary_size = small_tokenizer().vocabulary_size();
  EXPECT_EQ(load("{\"text\": \"the </ >\"}\n", options).size(), 1u);
  options.model_vocabulary_size = 20;
  expect_error([&] { load("{\"text\": \"a\"}\n", options); }, {"data.jsonl:1:", "\"a\"", "20 rows"});
}

TEST_F(DatasetTest, ByteOrderMarkAndWindowsLineEndsAreFine) {
  const auto examples = load("\xef\xbb\xbf{\"text\": \"one\"}\r\n{\"text\": \"two\"}\r\n");
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(text(examples[1]), "<bos>two<eos>");
}

TEST_F(DatasetTest, MultipleChoiceFiles) {
  const auto path = file("{\"question\": \"q\", \"choices\": [\"a\", \"b\"], \"answer\": \"B\"}\n");
  EXPECT_TRUE(is_multiple_choice_file(path));
  const auto questions = load_multiple_choice(path);
  ASSERT_EQ(questions.size(), 1u);
  EXPECT_EQ(questions[0].answer, 1);
  EXPECT_EQ(questions[0].line, 1);
  EXPECT_FALSE(is_multiple_choice_file(file("{\"text\": \"choices\"}\n")));
  EXPECT_FALSE(is_multiple_choice_file(file("not json")));
  expect_error([&] { load_multiple_choice(file("{\"question\": \"q\"}\n")); }, {"data.jsonl:1:", "choices"});
  expect_error([&] { load_multiple_choice(file("\n")); }, {"no questions"});
}

}  // namespace
}  // namespace qat
