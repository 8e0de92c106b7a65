#include "exporters/witness_edges.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "quant/row_codec.h"

namespace qat {

void WitnessEdges::start_prompt(int64_t position) {
  prompt_start_ = position;
  rows_seen_.clear();
}

void WitnessEdges::entering(std::string_view weight, Matrix& input) {
  const float scale = artifact_.weight(weight).edges.input;
  if (scale == 0) return;
  const WeightSpec* spec = table_.find(weight);
  QAT_CHECK(spec != nullptr);
  compare_values(spec->input_name() + ".input", weight, scale, input);
}

void WitnessEdges::computed(std::string_view weight, const Matrix&, Matrix& output) {
  const float scale = artifact_.weight(weight).edges.output;
  if (scale == 0) return;
  const WeightSpec* spec = table_.find(weight);
  QAT_CHECK(spec != nullptr);
  compare_values(spec->module_name() + ".output", weight, scale, output);
}

void WitnessEdges::compare_values(const std::string& edge, std::string_view weight, float scale, Matrix& values) {
  const std::span<float> all(values.data(), static_cast<size_t>(values.size()));
  int64_t& seen = rows_seen_[edge + " " + std::string(weight)];
  const auto expected = expected_codes(edge, seen, all.size(), static_cast<size_t>(values.cols()));
  seen += values.rows();
  if (expected.empty()) return;
  std::vector<int8_t> found(all.size());
  encode_groups(Scheme::Int8, all, {&scale, 1}, values.size(), found);
  comparison_.compare(edge, expected, found);
  decode_groups(expected, {&scale, 1}, values.size(), all);
}

void WitnessEdges::appended(int64_t layer, int64_t first_position, int64_t positions, std::span<std::byte> keys,
                            std::span<std::byte> values) {
  const auto compare = [&](const char* name, std::span<std::byte> bytes) {
    const std::string edge = join("layers.", layer, ".self_attn.", name);
    const auto expected =
        expected_codes(edge, first_position, bytes.size(), bytes.size() / static_cast<size_t>(positions));
    if (expected.empty()) return;
    comparison_.compare(edge, expected, {reinterpret_cast<const int8_t*>(bytes.data()), bytes.size()});
    std::ranges::copy(std::as_bytes(expected), bytes.begin());
  };
  compare("key_cache", keys);
  compare("value_cache", values);
}

std::span<const int8_t> WitnessEdges::expected_codes(const std::string& edge, int64_t first_position, size_t count,
                                                     size_t width) {
  const auto found = witness_.edges.find(edge);
  const size_t offset = static_cast<size_t>(prompt_start_ + first_position) * width;
  if (found != witness_.edges.end() && offset + count <= found->second.size()) {
    return std::span(found->second).subspan(offset, count);
  }
  comparison_.add_fault("the witness lacks the codes of " + edge + "; train or quantize again");
  return {};
}

}  // namespace qat
