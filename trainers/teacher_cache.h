// A teacher's final hidden states in an HDF5 file, so that training need not run it: 2 bytes per value and trained
// token in BF16, 3 KB at hidden size 1,536, where its logits would take 524 KB.
//
//   identity   JSON text: what the states belong to (trainers/teacher_identity.h)
//   states     [trained tokens, hidden] in the dtype of the forward pass: BF16, or F32
//
// Rows are packed anew in every epoch, but a document sees only itself, so its states do not depend on the row it is
// in. They stand in the order of the data files, document by document, of each its trained tokens in order.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "io/hdf5.h"
#include "trainers/training_data.h"

namespace qat {

// Where each document's states begin, in trained tokens; the last entry is their number.
std::vector<int64_t> trained_starts(const BatchSource& source);

class TeacherCacheWriter {
 public:
  // Nothing appears at `path` before commit(). `source` must outlive the writer.
  TeacherCacheWriter(const std::filesystem::path& path, const nlohmann::ordered_json& identity,
                     const BatchSource& source, int64_t hidden_size, at::ScalarType dtype);

  // Stores the documents of a batch of the source that are not there yet; `states` are those of its trained tokens.
  // Returns how many tokens were new.
  int64_t add(const TrainingBatch& batch, const at::Tensor& states);
  bool is_complete() const { return missing_documents_ == 0; }
  void commit();

 private:
  Hdf5Writer file_;
  std::vector<int64_t> starts_;
  std::vector<uint8_t> is_stored_;
  int64_t missing_documents_;
};

class TeacherCache {
 public:
  // Throws Error for a file that is no cache or is damaged, and (usage) for one of another identity, naming what
  // differs.
  TeacherCache(const std::filesystem::path& path, const nlohmann::ordered_json& identity, const BatchSource& source,
               int64_t hidden_size, at::ScalarType dtype);

  // Those of the trained tokens of a batch of the source: [trained tokens, hidden].
  at::Tensor states(const TrainingBatch& batch) const;

 private:
  Hdf5Reader file_;
  std::vector<int64_t> starts_;
  int64_t hidden_size_;
  at::ScalarType dtype_;
};

}  // namespace qat
