// The codes of static int8 edges and caches that training used for the witness prompts, held against those of the
// reference inference.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "exporters/code_comparison.h"
#include "gemma4/weight_table.h"
#include "gemma4/witness.h"
#include "reference/key_value_cache.h"
#include "reference/linear_observer.h"
#include "reference/reference_weights.h"

namespace qat {

// Share of codes that may lie one step aside: sums in another order move a value across a rounding edge now and then.
// Another rule or scale moves a tenth of them or more.
inline constexpr double kLargestEdgeCodeShare = 1e-3;

// Compares every code, and lets the reference go on with training's: one code on the other side of a rounding edge can
// move later logits by far more than fp32 sums do.
class WitnessEdges final : public CacheObserver, public LinearObserver {
 public:
  // Both must outlive this.
  WitnessEdges(const Witness& witness, const ReferenceWeights& artifact)
      : witness_(witness), artifact_(artifact), table_(artifact.config()) {}

  // Positions of the witness before this prompt.
  void start_prompt(int64_t position);

  void entering(std::string_view weight, Matrix& input) override;
  void computed(std::string_view weight, const Matrix& input, Matrix& output) override;
  void appended(int64_t layer, int64_t first_position, int64_t positions, std::span<std::byte> keys,
                std::span<std::byte> values) override;

  const CodeComparison& comparison() const { return comparison_; }

 private:
  // Replaces values by what training's codes stand for.
  void compare_values(const std::string& edge, std::string_view weight, float scale, Matrix& values);
  // Training's codes of rows; empty (and a fault) if the witness lacks them.
  std::span<const int8_t> expected_codes(const std::string& edge, int64_t first_position, size_t count, size_t width);

  const Witness& witness_;
  const ReferenceWeights& artifact_;
  WeightTable table_;
  int64_t prompt_start_ = 0;
  std::map<std::string, int64_t> rows_seen_;  // of this prompt, by edge and weight
  CodeComparison comparison_{kLargestEdgeCodeShare, "used"};
};

}  // namespace qat
