// Which codes of quantized weights change from one evaluation to the next, and which of those only go back
// (oscillation, qat_methods.md 3.4). Part of a run's state.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace qat {

struct CodeChanges {
  int64_t compared = 0;
  int64_t changed = 0;
  int64_t returned = 0;  // of the changed ones: to the code that they had before their last change

  CodeChanges& operator+=(const CodeChanges& more);
  double changed_share() const { return share(changed); }
  double returned_share() const { return share(returned); }

 private:
  double share(int64_t count) const {
    return compared > 0 ? static_cast<double>(count) / static_cast<double>(compared) : 0;
  }
};

class CodeHistory {
 public:
  // The codes of one weight's sample.
  struct Sample {
    std::vector<int8_t> now;
    std::vector<int8_t> before;  // each code's value before its last change; the present one if it never changed
  };

  // Compares with the codes of the last time and keeps these. Nothing is compared the first time.
  CodeChanges update(const std::string& weight, std::span<const int8_t> codes);

  std::map<std::string, Sample>& samples() { return samples_; }
  const std::map<std::string, Sample>& samples() const { return samples_; }

 private:
  std::map<std::string, Sample> samples_;
};

}  // namespace qat
