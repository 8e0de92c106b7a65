// The keys and values that training cached for the witness prompts, held against those of the reference inference.
#pragma once

#include <cstdint>
#include <string>

#include "exporters/code_comparison.h"
#include "gemma4/witness.h"
#include "reference/key_value_cache.h"

namespace qat {

// Share of codes that may lie one step aside. Sums in another order move a value by about 1e-6 of its block's largest,
// so about one code in 1e4 falls to the other side of a rounding edge; another rule moves a tenth of them or more.
inline constexpr double kLargestEdgeShare = 0.01;

// Compares every code that the reference caches, and lets it go on with what training cached: one code on the other
// side of a rounding edge can move later logits by far more than fp32 sums do.
class WitnessCaches final : public CacheObserver {
 public:
  // `witness` must outlive this.
  explicit WitnessCaches(const Witness& witness) : witness_(witness) {}

  // Positions of the witness before this prompt.
  void start_prompt(int64_t position) { prompt_start_ = position; }
  void appended(int64_t layer, int64_t first_position, int64_t positions, std::span<std::byte> keys,
                std::span<std::byte> values) override;

  const CodeComparison& comparison() const { return comparison_; }

 private:
  void compare(const std::string& what, int64_t first_position, int64_t positions, std::span<const std::byte> witness,
               std::span<std::byte> rows);
  void compare_block(const std::string& what, std::span<const std::byte> expected, std::span<const std::byte> found);

  const Witness& witness_;
  int64_t prompt_start_ = 0;
  CodeComparison comparison_{kLargestEdgeShare, "cached"};
};

}  // namespace qat
