#include "data/dataset.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/data_lines.h"
#include "data/record.h"

namespace qat {

namespace {

class ExampleMaker {
 public:
  ExampleMaker(const Tokenizer& tokenizer, const DatasetOptions& options)
      : tokenizer_(tokenizer),
        options_(options),
        bos_(tokenizer.require_id("<bos>")),
        eos_(tokenizer.require_id("<eos>")) {}

  Example make(const Record& record) const {
    Example example = std::visit([this](const auto& kind) { return from(kind); }, record);
    if (options_.model_vocabulary_size > 0) check_ids(example);
    return example;
  }

 private:
  Example from(const Conversation& conversation) const {
    if (!options_.chat_template) {
      fail(
          "is a conversation, but the model brings no chat template; set data.chat_template to gemma4, gemma4-large or "
          "gemma3");
    }
    TokenizedChat chat = tokenize_chat(tokenizer_, *options_.chat_template, conversation, options_.render);
    return {std::move(chat.tokens), std::move(chat.trained), 0};
  }

  Example from(const PromptRecord& record) const {
    if (options_.chat_template) {
      Conversation conversation;
      if (!record.system.empty()) conversation.messages.push_back(text_message("system", record.system));
      conversation.messages.push_back(text_message("user", record.prompt));
      conversation.messages.push_back(text_message("assistant", record.completion));
      return from(conversation);
    }
    Example example = start();
    append(example,
           encode_after_bos((record.system.empty() ? "" : record.system + "\n") + record.prompt +
                            (record.newline_after_prompt ? "\n" : "")),
           0);
    append(example, encode(record.completion), 1);
    end(example);
    return example;
  }

  Example from(const TextRecord& record) const {
    Example example = start();
    append(example, encode_after_bos(record.text), 1);
    end(example);
    return example;
  }

  std::vector<int32_t> encode(const std::string& text) const {
    return tokenizer_.encode(text, options_.render.parse_special_in_content);
  }

  // Text may bring its own <bos>; the example has one already.
  std::vector<int32_t> encode_after_bos(const std::string& text) const {
    std::vector<int32_t> ids = encode(text);
    size_t count = 0;
    while (count < ids.size() && ids[count] == bos_) ++count;
    ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
    return ids;
  }

  Example start() const { return {{bos_}, {0}, 0}; }

  static void append(Example& example, const std::vector<int32_t>& ids, uint8_t trained) {
    example.tokens.insert(example.tokens.end(), ids.begin(), ids.end());
    example.trained.insert(example.trained.end(), ids.size(), trained);
  }

  void end(Example& example) const {
    if (example.tokens.back() == eos_) return;
    example.tokens.push_back(eos_);
    example.trained.push_back(1);
  }

  void check_ids(const Example& example) const {
    for (const int32_t id : example.tokens) {
      if (id >= options_.model_vocabulary_size) {
        fail("has the token \"", tokenizer_.piece(id), "\" with id ", id, ", but the model has ",
             options_.model_vocabulary_size, " rows; does the tokenizer belong to the model?");
      }
    }
  }

  const Tokenizer& tokenizer_;
  const DatasetOptions& options_;
  int32_t bos_;
  int32_t eos_;
};

}  // namespace

DatasetOptions training_dataset_options(const std::optional<ChatTemplate>& chat_template, bool enable_thinking,
                                        int64_t model_vocabulary_size) {
  DatasetOptions options;
  options.chat_template = chat_template;
  options.render.enable_thinking = enable_thinking;
  options.render.empty_thought_before_answer =
      chat_template && chat_template->kind == ChatTemplateKind::Gemma4Large && !enable_thinking;
  options.model_vocabulary_size = model_vocabulary_size;
  return options;
}

void for_each_example(const std::filesystem::path& path, const Tokenizer& tokenizer, const DatasetOptions& options,
                      const std::function<void(Example)>& take) {
  const ExampleMaker maker(tokenizer, options);
  bool any = false;
  const auto take_record = [&](const Record& record, int64_t line) {
    Example example = maker.make(record);
    example.line = line;
    any = true;
    take(std::move(example));
  };
  if (path.extension() == ".txt") {
    for_each_paragraph(path, [&](const std::string& text, int64_t line) { take_record(TextRecord{text}, line); });
  } else {
    for_each_line(path,
                  [&](const std::string& text, int64_t line) { take_record(read_record(parse_line(text)), line); });
  }
  if (!any) fail(path.string(), ": has no examples; one JSON object per line is wanted");
}

std::vector<Example> load_examples(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                   const DatasetOptions& options) {
  std::vector<Example> examples;
  for_each_example(path, tokenizer, options, [&](Example example) { examples.push_back(std::move(example)); });
  return examples;
}

std::vector<int32_t> tokenize_prompt(const Tokenizer& tokenizer, const std::string& prompt,
                                     const std::optional<ChatTemplate>& chat_template, const RenderOptions& render) {
  if (chat_template) {
    Conversation conversation;
    conversation.messages.push_back(text_message("user", prompt));
    RenderOptions options = render;
    options.add_generation_prompt = true;
    return tokenize_chat(tokenizer, *chat_template, conversation, options).tokens;
  }
  std::vector<int32_t> ids = tokenizer.encode(prompt, render.parse_special_in_content);
  const int32_t bos = tokenizer.require_id("<bos>");
  if (ids.empty() || ids.front() != bos) ids.insert(ids.begin(), bos);
  return ids;
}

}  // namespace qat
