#include "exporters/litertlm_metadata.h"

#include "core/error.h"
#include "exporters/litertlm_decoder.h"
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

ProtobufMessage cache_buffer(const std::string& name, int64_t type) {
  constexpr int64_t kSequenceAxis = 2;
  ProtobufMessage buffer;
  for (uint32_t field = 1; field <= 4; ++field) buffer.text(field, name);  // input and output, prefill and decode
  return buffer.integer(6, type).integer(7, kSequenceAxis);
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

std::string write_executor_metadata(const Gemma4Config& config) {
  constexpr int64_t kGlobalKeyCache = 1, kGlobalValueCache = 2, kCausal = 1;
  ProtobufMessage executor;
  int64_t window = 0;
  for (const LayerConfig& layer : config.layers) {
    if (layer.window > 0 && window > 0 && layer.window != window) {
      fail("sliding windows of ", window, " and ", layer.window, " positions: a .litertlm file has one");
    }
    if (layer.window > 0) window = layer.window;
    if (layer.key_value_donor) continue;
    executor.message(2, cache_buffer(key_cache_name(layer.index), kGlobalKeyCache));
    executor.message(2, cache_buffer(value_cache_name(layer.index), kGlobalValueCache));
  }
  ProtobufMessage mask;
  mask.integer(1, kCausal);
  if (window > 0) mask.integer(3, window);
  executor.message(3, mask);
  return ProtobufMessage().message(1, executor).bytes();
}

}  // namespace qat
