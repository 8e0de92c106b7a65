#include "trainers/training_data.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/nonzero.h>

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "data/chat_template.h"
#include "data/dataset.h"
#include "data/tokenizer.h"
#include "gemma4/witness.h"
#include "trainers/compute_settings.h"

namespace qat {

namespace {

// At most `limit` examples of the files in their order; 0 means all.
std::vector<Example> load_files(const std::vector<std::string>& files, const Tokenizer& tokenizer,
                                const DatasetOptions& options, int64_t limit) {
  std::vector<Example> examples;
  for (const std::string& file : files) {
    for_each_example(file, tokenizer, options, [&](Example example) {
      if (limit == 0 || std::ssize(examples) < limit) examples.push_back(std::move(example));
    });
  }
  return examples;
}

std::vector<TrainingBatch> all_rows(const std::vector<Example>& examples, int64_t sequence_length, at::Device device) {
  BatcherOptions options;
  options.sequence_length = sequence_length;
  options.shuffle = false;
  BatchSource source(examples, options);
  std::vector<TrainingBatch> rows;
  for (int64_t left = source.rows_in_epoch(); left > 0; --left) {
    const Batch row = source.next();
    rows.push_back(join_rows({&row, 1}).to(device));
  }
  return rows;
}

std::vector<TrainingBatch> share_of(std::vector<TrainingBatch> rows, const ProcessGroup& group) {
  std::vector<TrainingBatch> share;
  for (auto i = static_cast<size_t>(group.rank()); i < rows.size(); i += static_cast<size_t>(group.size())) {
    share.push_back(std::move(rows[i]));
  }
  return share;
}

std::vector<std::vector<int32_t>> first_tokens(const std::vector<Example>& examples, int64_t count) {
  std::vector<std::vector<int32_t>> prompts;
  for (const Example& example : examples) {
    if (std::ssize(prompts) == count) break;
    const int64_t length = std::min<int64_t>(std::ssize(example.tokens), kWitnessPositions);
    prompts.emplace_back(example.tokens.begin(), example.tokens.begin() + length);
  }
  return prompts;
}

}  // namespace

at::Tensor TrainingBatch::trained_positions() const { return at::nonzero(targets >= 0).flatten(); }

TrainingBatch TrainingBatch::to(at::Device device) const {
  TrainingBatch moved = *this;
  moved.input.tokens = input.tokens.to(device);
  moved.targets = targets.to(device);
  return moved;
}

TrainingBatch join_rows(std::span<const Batch> rows) {
  int64_t total = 0;
  for (const Batch& row : rows) total += std::ssize(row.tokens);
  TrainingBatch joined;
  joined.input.tokens = at::empty({total}, at::kLong);
  joined.targets = at::empty({total}, at::kLong);
  auto* tokens = joined.input.tokens.mutable_data_ptr<int64_t>();
  auto* targets = joined.targets.mutable_data_ptr<int64_t>();
  int64_t offset = 0;
  for (const Batch& row : rows) {
    std::copy(row.tokens.begin(), row.tokens.end(), tokens + offset);
    std::copy(row.targets.begin(), row.targets.end(), targets + offset);
    for (size_t i = 0; i + 1 < row.document_starts.size(); ++i) {
      joined.input.document_starts.push_back(offset + row.document_starts[i]);
    }
    joined.documents.insert(joined.documents.end(), row.documents.begin(), row.documents.end());
    offset += std::ssize(row.tokens);
    joined.trained_tokens += row.trained_tokens;
  }
  joined.input.document_starts.push_back(total);
  return joined;
}

TrainingData::TrainingData(const TrainConfig& config, const Gemma4Config& model, const ProcessGroup& group)
    : micro_batch_sequences_(config.micro_batch_sequences),
      rank_(group.rank()),
      processes_(group.size()),
      device_(compute_device(config)) {
  const std::filesystem::path folder(config.model);
  const Tokenizer tokenizer = Tokenizer::load(folder / "tokenizer.json");
  const auto chat_template = load_chat_template(folder, config.data.chat_template);
  DatasetOptions options = training_dataset_options(chat_template, config.data.enable_thinking, model.vocabulary_size);
  options.render.parse_special_in_content = config.data.parse_special_in_content;

  std::vector<Example> train = load_files(config.data.train, tokenizer, options, 0);
  const std::vector<Example> eval = load_files(config.data.eval, tokenizer, options, config.eval.documents);
  witness_prompts_ = first_tokens(eval.empty() ? train : eval, config.checkpoint.witness_prompts);
  if (!eval.empty()) held_out_ = share_of(all_rows(eval, config.sequence_length, device_), group);

  BatcherOptions batcher;
  batcher.sequence_length = config.sequence_length;
  batcher.seed = static_cast<uint64_t>(config.seed);
  batcher.shuffle = config.data.shuffle;
  source_ = std::make_unique<BatchSource>(std::move(train), batcher);
}

TrainingBatch TrainingData::next() {
  std::vector<Batch> rows;
  for (int64_t rank = 0; rank < processes_; ++rank) {
    for (int64_t i = 0; i < micro_batch_sequences_; ++i) {
      Batch row = source_->next();
      if (rank == rank_) rows.push_back(std::move(row));
    }
  }
  return join_rows(rows).to(device_);
}

std::vector<TrainingBatch> TrainingData::first_rows(int64_t count) {
  const BatchPosition before = source_->position();
  source_->seek({});
  std::vector<TrainingBatch> rows;
  for (int64_t left = std::min(count, source_->rows_in_epoch()); left > 0; --left) {
    const Batch row = source_->next();
    rows.push_back(join_rows({&row, 1}).to(device_));
  }
  source_->seek(before);
  return rows;
}

}  // namespace qat
