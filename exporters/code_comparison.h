// Counts int8 codes that differ from training's by a step, and remembers the first that differs by more.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace qat {

class CodeComparison {
 public:
  // Share of codes that may lie one step aside, and the verb of messages: training "cached" them, "used" them.
  CodeComparison(double largest_share, std::string verb) : largest_share_(largest_share), verb_(std::move(verb)) {}

  // Both of the same size; `what` names them in messages.
  void compare(const std::string& what, std::span<const int8_t> expected, std::span<const int8_t> found);
  // What else is wrong; the first fault counts.
  void add_fault(const std::string& fault);

  int64_t codes() const { return codes_; }
  int64_t codes_aside() const { return codes_aside_; }
  // What differs by more than rounding explains; empty if nothing does.
  std::string fault() const;

 private:
  double largest_share_;
  std::string verb_;
  int64_t codes_ = 0;
  int64_t codes_aside_ = 0;
  std::string fault_;
};

}  // namespace qat
