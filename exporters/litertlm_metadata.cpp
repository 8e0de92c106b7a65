#include "exporters/litertlm_metadata.h"

#include "io/protobuf_message.h"

namespace qat {

namespace {

// TokenUnion { token_ids { ids } }
ProtobufMessage token(int64_t id) { return ProtobufMessage().message(1, ProtobufMessage().integer(1, id)); }

// Top-p by name: the runtime has no greedy sampler. Defaults of Gemma 4's generation_config.json.
ProtobufMessage sampler(const SamplingDefaults& sampling) {
  constexpr int64_t kTopP = 2;
  return ProtobufMessage()
      .integer(1, kTopP)
      .integer(2, sampling.top_k.value_or(64))
      .number(3, sampling.top_p.value_or(0.95f))
      .number(4, sampling.temperature.value_or(1.0f));
}

}  // namespace

std::string write_llm_metadata(const LitertlmMetadata& metadata) {
  ProtobufMessage message;
  message.message(1, token(metadata.start_token));
  for (const int64_t id : metadata.stop_tokens) message.message(2, token(id));
  message.message(4, sampler(metadata.sampling));
  message.integer(5, metadata.context);
  constexpr uint32_t kGemma4 = 8;
  message.message(6, ProtobufMessage().message(kGemma4, {}));
  if (metadata.chat_template.empty()) return message.bytes();
  message.text(7, metadata.chat_template);
  message.message(8, ProtobufMessage()
                         .text(1, "thought")
                         .text(2, "<|channel>thought\n")
                         .text(3, "<channel|>")
                         .integer(4, 1));  // is_reasoning_channel
  message.integer(11, 1);                  // supports_thinking
  message.integer(12, 1);                  // supports_function_calling
  return message.bytes();
}

}  // namespace qat
