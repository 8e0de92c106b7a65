#include "model/branched_attention.h"

#include <ATen/ops/cat.h>

#include <vector>

#include "core/error.h"

namespace qat {

at::Tensor attention_of_branches(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                 const AttentionReach& reach, std::span<const std::optional<size_t>> continued,
                                 double scale) {
  const auto& starts = reach.document_starts;
  QAT_CHECK(reach.past == 0 && continued.size() + 1 == starts.size());
  const auto of_document = [&](const at::Tensor& x, size_t document) {
    return x.narrow(0, starts[document], starts[document + 1] - starts[document]);
  };
  std::vector<at::Tensor> outputs;
  for (size_t document = 0; document < continued.size(); ++document) {
    const auto with_past = [&](const at::Tensor& x) {
      const at::Tensor own = of_document(x, document);
      return continued[document] ? at::cat({of_document(x, *continued[document]), own}) : own;
    };
    const at::Tensor own = of_document(query, document);
    const at::Tensor keys = with_past(key);
    const int64_t length = own.size(0);
    outputs.push_back(
        attention(own, keys, with_past(value), {{0, length}, reach.window, keys.size(0) - length}, scale));
  }
  return at::cat(outputs);
}

}  // namespace qat
