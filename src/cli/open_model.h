// MODEL arguments: a Hugging Face folder, a checkpoint (run with its fake quantization) or a GGUF file, opened behind one interface.
#pragma once

#include <cxxopts.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/chat_template.h"
#include "data/dataset.h"
#include "data/tokenizer.h"
#include "gemma4/config.h"
#include "gemma4/language_model.h"

namespace qat {

struct ModelOptions {
  bool plain = false;               // checkpoints: compute with the masters, without fake quantization
  std::string dtype = "float32";    // folders and checkpoints: bfloat16 or float32
  std::string arithmetic = "float"; // exported files: float (what training computed) or device (the client's kernels)
  std::string kv_cache = "default"; // exported files: f32, float, f16, q8_0, int8
  std::string chat_template;        // override; "" = the model's own
  std::string tokenizer;            // GGUF: folder with the tokenizer.json to use instead of the file's own
  std::string adapter;              // GGUF: file of export-adapter that is added; "" = none
  int threads = 0;                  // 0 = all cores
};

// Declares the options above in a verb, and reads them back.
void describe_model_options(cxxopts::Options& options);
// Of verbs that run one model: --adapter.
void describe_adapter_option(cxxopts::Options& options);
ModelOptions read_model_options(const cxxopts::ParseResult& parsed);

struct OpenedModel {
  Gemma4Config config;
  std::optional<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::unique_ptr<LanguageModel> model;
  std::vector<int32_t> stop_tokens;
  uint64_t weight_bytes = 0;  // what the weights take as stored, under the plan for checkpoints
  double bits_per_weight = 16;
  std::shared_ptr<void> owner;  // keeps what `model` refers to

  const Tokenizer& require_tokenizer(const std::string& path) const;
  DatasetOptions dataset_options() const;
};

// Throws Error naming what is missing.
OpenedModel open_model(const std::filesystem::path& path, const ModelOptions& options);

}  // namespace qat
