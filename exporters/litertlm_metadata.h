// The messages in a .litertlm file that tell LiteRT-LM how to run the model: LlmMetadata and ExecutorMetadata.
// Fields: mobile_format.md 2.4, 9.4, 9.5 (google-ai-edge/LiteRT-LM, runtime/proto).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "exporters/gguf_vocabulary.h"
#include "gemma4/config.h"

namespace qat {

struct LitertlmMetadata {
  int64_t context = 0;
  int64_t start_token = 2;
  std::vector<int64_t> stop_tokens;
  SamplingDefaults sampling;   // what is missing gets Gemma 4's value
  std::string chat_template;   // empty: the runtime gets plain text
};

std::string write_llm_metadata(const LitertlmMetadata& metadata);

// Names the caches and the sliding window, so that the runtime fills `local_mask`. Throws Error if layers have different
// windows.
std::string write_executor_metadata(const Gemma4Config& config);

}  // namespace qat
