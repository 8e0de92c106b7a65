// Training and evaluation data from JSONL (or .txt) files. Every kind of line that users bring is recognised by its
// fields: messages, conversations (ShareGPT), instruction/input/output (Alpaca), prompt/completion, input/output,
// question/answer, text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/chat_template.h"
#include "data/tokenizer.h"

namespace qat {

// One tokenized document. It starts with exactly one BOS.
struct Example {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;  // trained[i]: token i is a target of the loss
  int64_t line = 0;              // in the file, from 1
};

struct DatasetOptions {
  // Without one, messages and conversations are an error, and prompt/completion is plain text.
  std::optional<ChatTemplate> chat_template;
  RenderOptions render;
  // Rows of the model's embedding table; a token beyond is an error. 0: not checked.
  int64_t model_vocabulary_size = 0;
};

// Options for training a model folder's template: Gemma4Large without thinking gets its empty thought channel.
DatasetOptions training_dataset_options(const std::optional<ChatTemplate>& chat_template, bool enable_thinking,
                                        int64_t model_vocabulary_size);

// Calls `take` for each example in the order of the file; one line is in memory at a time. A .txt file is documents
// separated by blank lines; anything else is JSONL. Throws Error with file and line for a bad line, and for a file
// without any example.
void for_each_example(const std::filesystem::path& path, const Tokenizer& tokenizer, const DatasetOptions& options,
                      const std::function<void(Example)>& take);
std::vector<Example> load_examples(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                   const DatasetOptions& options);

// A prompt as generation sees it: BOS, then the text, or one user turn with the generation prompt.
std::vector<int32_t> tokenize_prompt(const Tokenizer& tokenizer, const std::string& prompt,
                                     const std::optional<ChatTemplate>& chat_template, const RenderOptions& render);

}  // namespace qat
