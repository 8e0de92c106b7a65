#include "data/batcher.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/random.h"

namespace qat {

namespace {

// Rows that are being filled at the same time: enough to fill the gaps that long examples leave, few enough that rows
// leave in nearly the order of the shuffle.
constexpr size_t kOpenRows = 32;

std::vector<size_t> epoch_order(size_t count, const BatcherOptions& options, int64_t epoch) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  if (!options.shuffle) return order;
  const uint64_t base = SplitMix64(options.seed).next();
  SplitMix64 random(base + static_cast<uint64_t>(epoch));
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return order;
}

struct OpenRow {
  std::vector<const Example*> examples;
  int64_t tokens = 0;
};

// First fit over the open rows; the fullest leaves when a new one is needed.
std::vector<std::vector<const Example*>> pack(const std::vector<Example>& examples, const std::vector<size_t>& order,
                                              int64_t sequence_length) {
  std::vector<std::vector<const Example*>> rows;
  std::vector<OpenRow> open;
  for (const size_t index : order) {
    const Example& example = examples[index];
    const auto size = static_cast<int64_t>(example.tokens.size());
    auto row = std::find_if(open.begin(), open.end(),
                            [&](const OpenRow& candidate) { return candidate.tokens + size <= sequence_length; });
    if (row == open.end()) {
      if (open.size() == kOpenRows) {
        const auto fullest = std::max_element(open.begin(), open.end(),
                                              [](const OpenRow& a, const OpenRow& b) { return a.tokens < b.tokens; });
        rows.push_back(std::move(fullest->examples));
        open.erase(fullest);
      }
      row = open.insert(open.end(), OpenRow{});
    }
    row->examples.push_back(&example);
    row->tokens += size;
  }
  for (OpenRow& row : open) rows.push_back(std::move(row.examples));
  return rows;
}

}  // namespace

int64_t trained_targets(const Example& example) {
  return std::count(example.trained.begin() + 1, example.trained.end(), uint8_t{1});
}

Batch pack_row(std::span<const Example* const> examples) {
  Batch batch;
  batch.document_starts.push_back(0);
  for (const Example* example : examples) {
    QAT_CHECK(!example->tokens.empty() && example->tokens.size() == example->trained.size());
    const size_t size = example->tokens.size();
    batch.tokens.insert(batch.tokens.end(), example->tokens.begin(), example->tokens.end());
    for (size_t i = 0; i < size; ++i) {
      const bool is_target = i + 1 < size && example->trained[i + 1] != 0;
      batch.targets.push_back(is_target ? example->tokens[i + 1] : kIgnoredTarget);
      batch.trained_tokens += is_target ? 1 : 0;
    }
    batch.document_starts.push_back(static_cast<int64_t>(batch.tokens.size()));
  }
  return batch;
}

BatchSource::BatchSource(std::vector<Example> examples, const BatcherOptions& options) : options_(options) {
  if (options.sequence_length < 2)
    fail_usage("the sequence length is ", options.sequence_length, ", 2 or more is wanted");
  for (Example& example : examples) {
    if (static_cast<int64_t>(example.tokens.size()) > options.sequence_length) {
      example.tokens.resize(static_cast<size_t>(options.sequence_length));
      example.trained.resize(static_cast<size_t>(options.sequence_length));
      ++cut_examples_;
    }
    const int64_t targets = example.tokens.empty() ? 0 : trained_targets(example);
    if (targets == 0) {
      ++untrained_examples_;
      continue;
    }
    trained_tokens_ += targets;
    examples_.push_back(std::move(example));
  }
  if (examples_.empty()) {
    fail("the data have no token to train on: ", untrained_examples_, " examples, ", cut_examples_, " of them cut at ",
         options.sequence_length, " tokens; is the sequence length too small?");
  }
  pack_epoch(0);
}

void BatchSource::pack_epoch(int64_t epoch) {
  rows_ = pack(examples_, epoch_order(examples_.size(), options_, epoch), options_.sequence_length);
  position_ = {epoch, 0};
}

Batch BatchSource::next() {
  if (position_.row == rows_in_epoch()) pack_epoch(position_.epoch + 1);
  const std::vector<const Example*>& row = rows_[static_cast<size_t>(position_.row++)];
  Batch batch = pack_row(row);
  for (const Example* example : row) batch.documents.push_back(example - examples_.data());
  return batch;
}

void BatchSource::seek(BatchPosition position) {
  if (position.epoch < 0 || position.row < 0)
    fail("the data position ", position.epoch, "/", position.row, " is negative");
  if (position.epoch != position_.epoch) pack_epoch(position.epoch);
  if (position.row > rows_in_epoch()) {
    fail("the data position is row ", position.row, " of epoch ", position.epoch, ", but that epoch has ",
         rows_in_epoch(), " rows; the data or the sequence length differ from the run that is resumed");
  }
  position_ = position;
}

}  // namespace qat
