#include "reference/reference_weights.h"

#include "core/error.h"

namespace qat {

const WeightView& ReferenceWeights::weight(std::string_view name) const {
  const auto found = weights_.find(name);
  QAT_CHECK(found != weights_.end());
  return found->second;
}

std::vector<float> ReferenceWeights::vector(std::string_view name) const {
  const WeightView& view = weight(name);
  std::vector<float> values(static_cast<size_t>(view.rows() * view.columns()));
  decode_rows(view, 0, view.rows(), values);
  return values;
}

}  // namespace qat
