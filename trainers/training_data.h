// The data of a run: packed batches to train on, held-out batches, and prompts for the witness.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "data/batcher.h"
#include "gemma4/config.h"
#include "model/gemma4_model.h"
#include "trainers/distributed.h"
#include "trainers/train_config.h"

namespace qat {

// Packed rows joined for one forward pass.
struct TrainingBatch {
  PackedTokens input;
  at::Tensor targets;  // int64 [T]: the next token, negative where the loss does not count
  int64_t trained_tokens = 0;
  std::vector<int64_t> documents;  // which examples of the source they are, in order

  int64_t tokens() const { return input.tokens.numel(); }
  // int64 [trained_tokens]: where the loss counts.
  at::Tensor trained_positions() const;
  TrainingBatch to(at::Device device) const;
};

// Rows one after another; documents stay apart. On the CPU.
TrainingBatch join_rows(std::span<const Batch> rows);

class TrainingData {
 public:
  // Reads and tokenizes all files; batches lie on config.device. Throws Error with file and line for a bad one, and for
  // data without a trained token.
  TrainingData(const TrainConfig& config, const Gemma4Config& model, const ProcessGroup& group = {});

  // The next micro_batch_sequences rows of this process; those of all processes follow each other in the order of
  // ranks, and the position is behind the last of them: it does not depend on how many there are.
  TrainingBatch next();
  BatchPosition position() const { return source_->position(); }
  void seek(BatchPosition position) { source_->seek(position); }
  const BatchSource& source() const { return *source_; }

  // The first `count` rows of the run (of one epoch at most), each a batch of its own. The position stays where it is.
  std::vector<TrainingBatch> first_rows(int64_t count);

  // This process's share; empty without data.eval.
  const std::vector<TrainingBatch>& held_out() const { return held_out_; }
  // First tokens of held-out documents, of training documents where there are none.
  const std::vector<std::vector<int32_t>>& witness_prompts() const { return witness_prompts_; }

 private:
  int64_t micro_batch_sequences_;
  int64_t rank_, processes_;
  at::Device device_;
  std::unique_ptr<BatchSource> source_;
  std::vector<TrainingBatch> held_out_;
  std::vector<std::vector<int32_t>> witness_prompts_;
};

}  // namespace qat
