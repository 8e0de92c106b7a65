#include "exporters/code_comparison.h"

#include <cstdlib>

#include "core/error.h"

namespace qat {

void CodeComparison::compare(const std::string& what, std::span<const int8_t> expected, std::span<const int8_t> found) {
  QAT_CHECK(expected.size() == found.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const int difference = std::abs(found[i] - expected[i]);
    codes_aside_ += difference > 0 ? 1 : 0;
    if (difference > 1 && fault_.empty()) {
      fault_ = join(what, ": a code is ", static_cast<int>(found[i]), ", training ", verb_, " ",
                    static_cast<int>(expected[i]));
    }
  }
  codes_ += static_cast<int64_t>(expected.size());
}

void CodeComparison::add_fault(const std::string& fault) {
  if (fault_.empty()) fault_ = fault;
}

std::string CodeComparison::fault() const {
  if (!fault_.empty()) return fault_;
  if (static_cast<double>(codes_aside_) <= largest_share_ * static_cast<double>(codes_)) return "";
  return join(codes_aside_, " of ", codes_, " codes are one step beside those that training ", verb_,
              "; training used another rule");
}

}  // namespace qat
