#include "trainers/teacher_cache.h"

#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "fake_quant/tensor_values.h"
#include "trainers/teacher_identity.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

constexpr const char* kIdentity = "identity";
constexpr const char* kStates = "states";

ElementType element_type(at::ScalarType dtype) {
  QAT_CHECK(dtype == at::kFloat || dtype == at::kBFloat16);
  return dtype == at::kFloat ? ElementType::F32 : ElementType::BF16;
}

void check_identity(const fs::path& path, const std::string& text, const nlohmann::ordered_json& wanted) {
  const auto found = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!found.is_object()) fail(path.string(), ": ", kIdentity, ": is no JSON object: the file is damaged");
  const std::string differences = identity_differences(found, wanted);
  if (differences.empty()) return;
  fail_usage(path.string(), ": these teacher states belong to something else:", differences,
             "\n  undo the change, or write the cache anew (gemma-qat cache-teacher CONFIG --force), or name another "
             "one (distillation.cache=FILE)");
}

}  // namespace

std::vector<int64_t> trained_starts(const BatchSource& source) {
  std::vector<int64_t> starts{0};
  for (const Example& document : source.examples()) starts.push_back(starts.back() + trained_targets(document));
  return starts;
}

TeacherCacheWriter::TeacherCacheWriter(const fs::path& path, const nlohmann::ordered_json& identity,
                                       const BatchSource& source, int64_t hidden_size, at::ScalarType dtype)
    : file_(path),
      starts_(trained_starts(source)),
      is_stored_(starts_.size() - 1),
      missing_documents_(source.example_count()) {
  file_.write_text(kIdentity, identity.dump(1));
  file_.declare(kStates, element_type(dtype), static_cast<uint64_t>(starts_.back() * hidden_size));
}

int64_t TeacherCacheWriter::add(const TrainingBatch& batch, const at::Tensor& states) {
  int64_t row = 0;
  int64_t added = 0;
  for (const int64_t document : batch.documents) {
    const auto index = static_cast<size_t>(document);
    const int64_t count = starts_[index + 1] - starts_[index];
    const at::Tensor rows = on_cpu(states.narrow(0, row, count));
    row += count;
    if (is_stored_[index] != 0) continue;
    file_.write_part(static_cast<uint64_t>(starts_[index] * states.size(1)), bytes_of(rows));
    is_stored_[index] = 1;
    --missing_documents_;
    added += count;
  }
  QAT_CHECK(row == states.size(0));
  return added;
}

void TeacherCacheWriter::commit() {
  QAT_CHECK(is_complete());
  file_.commit();
}

TeacherCache::TeacherCache(const fs::path& path, const nlohmann::ordered_json& identity, const BatchSource& source,
                           int64_t hidden_size, at::ScalarType dtype)
    : file_(path), starts_(trained_starts(source)), hidden_size_(hidden_size), dtype_(dtype) {
  check_identity(path, file_.read_text(kIdentity), identity);
  const auto wanted = static_cast<uint64_t>(starts_.back() * hidden_size_);
  const uint64_t found = file_.elements(kStates);
  if (found != wanted) {
    fail(path.string(), ": ", kStates, ": ", found, " elements, wanted ", wanted, ": the file is damaged");
  }
}

at::Tensor TeacherCache::states(const TrainingBatch& batch) const {
  const at::Tensor states = at::empty({batch.trained_tokens, hidden_size_}, at::TensorOptions(dtype_));
  int64_t row = 0;
  for (const int64_t document : batch.documents) {
    const auto index = static_cast<size_t>(document);
    const int64_t count = starts_[index + 1] - starts_[index];
    file_.read_part(kStates, element_type(dtype_), static_cast<uint64_t>(starts_[index] * hidden_size_),
                    bytes_of(states.narrow(0, row, count)));
    row += count;
  }
  QAT_CHECK(row == batch.trained_tokens);
  return states.to(batch.targets.device());
}

}  // namespace qat
