#include "eval/logit_rows.h"

#include <algorithm>
#include <thread>
#include <vector>

namespace qat {

size_t rows_at_once(int64_t vocabulary, int64_t logits_bytes) {
  const int64_t bytes_per_row = vocabulary * static_cast<int64_t>(sizeof(float));
  return static_cast<size_t>(std::max<int64_t>(logits_bytes / bytes_per_row, 1));
}

void visit_logits(LanguageModel& model, std::span<const float> hidden_rows,
                  const std::function<void(size_t first, std::span<const float> logits)>& visit) {
  const auto width = static_cast<size_t>(model.hidden_size());
  const size_t rows = hidden_rows.size() / width;
  const size_t step = rows_at_once(model.vocabulary_size());
  for (size_t first = 0; first < rows; first += step) {
    visit(first, model.logits(hidden_rows.subspan(first * width, std::min(step, rows - first) * width)));
  }
}

void for_each_row(size_t count, size_t vocabulary, int threads, const std::function<void(size_t)>& work) {
  constexpr size_t kLogitsPerThread = size_t{1} << 20;  // less is not worth starting a thread
  const auto available =
      static_cast<size_t>(threads > 0 ? threads : static_cast<int>(std::thread::hardware_concurrency()));
  const size_t used = std::clamp<size_t>(count * vocabulary / kLogitsPerThread, 1, std::max<size_t>(available, 1));
  std::vector<std::jthread> others;
  for (size_t thread = 1; thread < used; ++thread) {
    others.emplace_back([=, &work] {
      for (size_t i = thread; i < count; i += used) work(i);
    });
  }
  for (size_t i = 0; i < count; i += used) work(i);
}

}  // namespace qat
