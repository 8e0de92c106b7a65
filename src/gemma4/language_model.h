// What both models (LibTorch's and the reference) offer to whoever generates or measures.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace qat {

// A decoding session: a growing sequence with its KV cache.
class DecodingSession {
 public:
  virtual ~DecodingSession() = default;
  // Appends tokens (at least one) and returns the logits [vocabulary] that follow the last of them. The span is valid until
  // the next call.
  virtual std::span<const float> append(std::span<const int32_t> tokens) = 0;
};

// Receives rows of logits in position order: `logits` holds consecutive rows [positions, vocabulary], the first of which
// follows token `first_position`.
using LogitsSink = std::function<void(int64_t first_position, std::span<const float> logits)>;

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  virtual int64_t vocabulary_size() const = 0;
  // Logits at every position from `first_position` on of one sequence, in chunks of rows: never all at once.
  virtual void evaluate(std::span<const int32_t> tokens, int64_t first_position, const LogitsSink& sink) = 0;
  virtual std::unique_ptr<DecodingSession> start() = 0;
};

}  // namespace qat
