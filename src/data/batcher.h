// Packs examples into rows of at most sequence_length tokens, in a seeded order that a position can resume exactly.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/dataset.h"

namespace qat {

// Target of a position that the loss ignores.
inline constexpr int32_t kIgnoredTarget = -100;

// One packed row. Positions restart at 0 in each document, and attention must not cross documents.
struct Batch {
  std::vector<int32_t> tokens;
  std::vector<int32_t> targets;          // the next token of the same document if it is trained, else kIgnoredTarget
  std::vector<int64_t> document_starts;  // offsets into tokens: the first is 0, the last is tokens.size()
  int64_t trained_tokens = 0;            // targets that are not ignored
  std::vector<int64_t> documents;        // which examples of the source they are, in the row's order
};

// Targets of a document: its trained tokens but the first, which nothing predicts.
int64_t trained_targets(const Example& example);

// One row of these examples, in their order, uncut and unshuffled; without their numbers.
Batch pack_row(std::span<const Example* const> examples);

struct BatcherOptions {
  int64_t sequence_length = 1024;
  uint64_t seed = 0;
  bool shuffle = true;  // a new order in every epoch
};

// Where a BatchSource stands: `row` batches of `epoch` have been taken.
struct BatchPosition {
  int64_t epoch = 0;
  int64_t row = 0;
  bool operator==(const BatchPosition&) const = default;
};

// An endless sequence of batches. The same examples, options and position give the same batches on every machine.
class BatchSource {
 public:
  // Examples longer than sequence_length are cut; examples without a trained token (after the cut) are left out.
  // Throws Error if nothing remains.
  BatchSource(std::vector<Example> examples, const BatcherOptions& options);
  // Rows point at the examples: moving keeps them where they are, copying would not.
  BatchSource(BatchSource&&) = default;
  BatchSource& operator=(BatchSource&&) = default;

  // The next batch; the epoch after the last begins by itself.
  Batch next();

  BatchPosition position() const { return position_; }
  // Throws Error for a position that these data do not have (other data).
  void seek(BatchPosition position);

  // Batches of the current epoch. Packing depends on the order, so epochs may differ by a few.
  int64_t rows_in_epoch() const { return static_cast<int64_t>(rows_.size()); }
  // After the cut, in the order of the files: what Batch::documents numbers.
  const std::vector<Example>& examples() const { return examples_; }
  int64_t example_count() const { return static_cast<int64_t>(examples_.size()); }
  // Trained tokens of one epoch.
  int64_t trained_tokens_per_epoch() const { return trained_tokens_; }
  int64_t cut_examples() const { return cut_examples_; }
  int64_t untrained_examples() const { return untrained_examples_; }

 private:
  void pack_epoch(int64_t epoch);

  std::vector<Example> examples_;
  BatcherOptions options_;
  BatchPosition position_;
  std::vector<std::vector<const Example*>> rows_;  // of the current epoch
  int64_t trained_tokens_ = 0;
  int64_t cut_examples_ = 0;
  int64_t untrained_examples_ = 0;
};

}  // namespace qat
