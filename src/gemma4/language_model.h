// What both models (LibTorch's and the reference) offer to whoever generates or measures.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

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

// A sequence of a batch, and where in it somebody wants to know what comes next.
struct BatchSequence {
  std::vector<int32_t> tokens;      // at least one
  std::vector<int64_t> wanted;      // positions among `tokens`, ascending; may be empty
  std::optional<size_t> continues;  // one before it in the batch whose tokens come before these; it continues none
};

class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  virtual int64_t vocabulary_size() const = 0;
  // Logits at every position from `first_position` on of one sequence, in chunks of rows: never all at once.
  virtual void evaluate(std::span<const int32_t> tokens, int64_t first_position, const LogitsSink& sink) = 0;
  // The same in two steps, for many sequences at a time. First, the values after the final norm at all wanted positions
  // of all sequences, in their order: [positions, hidden_size()]. What several sequences continue is computed once.
  virtual int64_t hidden_size() const = 0;
  virtual std::vector<float> hidden_rows(std::span<const BatchSequence> batch) = 0;
  // Second, the logits of some of those rows: [rows, vocabulary]. Valid until the next call.
  virtual std::span<const float> logits(std::span<const float> rows) = 0;
  virtual std::unique_ptr<DecodingSession> start() = 0;
};

}  // namespace qat
