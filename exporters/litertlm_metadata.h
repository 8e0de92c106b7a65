// LlmMetadata: the message in a .litertlm file that tells LiteRT-LM how to run the model.
// Fields: mobile_format.md 2.4, 9.4 (google-ai-edge/LiteRT-LM, runtime/proto).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "exporters/gguf_vocabulary.h"

namespace qat {

struct LitertlmMetadata {
  int64_t context = 0;
  int64_t start_token = 2;
  std::vector<int64_t> stop_tokens;
  SamplingDefaults sampling;  // what is missing gets Gemma 4's value
  std::string chat_template;  // empty: the runtime gets plain text
};

std::string write_llm_metadata(const LitertlmMetadata& metadata);

}  // namespace qat
