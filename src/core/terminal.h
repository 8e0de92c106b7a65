// What a person sees while long work runs. Progress goes to stderr, only on a terminal, and never into pipes or logs.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace qat {

// One line that is rewritten in place: "label  42%  1.2 GB/s  left 0m12s". Silent when stderr is not a terminal and for
// the first half second. Throws nothing.
class Progress {
 public:
  // `total` and later counts are in `unit` (for example "tokens", "B"); a total of 0 means unknown.
  Progress(std::string label, int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(int64_t count);
  // Replaces the line by this text, rate and time left not added.
  void show(const std::string& text);

 private:
  void draw(const std::string& text);

  std::string label_;
  int64_t total_;
  int64_t done_ = 0;
  std::string unit_;
  bool visible_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_draw_;
};

// "1.2 GB", "340 kB": decimal units.
std::string format_bytes(double bytes);
// "1.2k", "3.4M".
std::string format_count(double count);
// "2h14m", "3m05s", "12s".
std::string format_duration(double seconds);

// After install_interrupt_handler(), the first Ctrl-C (or SIGTERM) only sets a flag; a second one ends the program.
void install_interrupt_handler();
bool interrupt_requested();

}  // namespace qat
