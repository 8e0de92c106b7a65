#include "core/terminal.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>

namespace qat {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

template <class... Args>
std::string formatted(const char* format, Args... args) {
  std::array<char, 128> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, args...);
  return buffer.data();
}

}  // namespace

Progress::Progress(std::string label, int64_t total, std::string unit)
    : label_(std::move(label)),
      total_(total),
      unit_(std::move(unit)),
      visible_(::isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      last_draw_(start_) {}

Progress::~Progress() {
  if (drawn_) std::fputs("\r\033[K", stderr);
}

void Progress::advance(int64_t count) {
  done_ += count;
  const auto now = Clock::now();
  const double elapsed = seconds_between(start_, now);
  if (!visible_ || elapsed < 0.5 || (drawn_ && seconds_between(last_draw_, now) < 0.1)) return;
  const double rate = static_cast<double>(done_) / elapsed;
  const bool bytes = unit_ == "B";
  std::string text = label_;
  if (total_ > 0) text += formatted("  %3.0f%%", 100.0 * static_cast<double>(done_) / static_cast<double>(total_));
  text += "  " + (bytes ? format_bytes(rate) : format_count(rate) + " " + unit_) + "/s";
  if (total_ > done_ && rate > 0) text += "  left " + format_duration(static_cast<double>(total_ - done_) / rate);
  draw(text);
}

void Progress::show(const std::string& text) {
  if (visible_) draw(text);
}

void Progress::draw(const std::string& text) {
  std::fprintf(stderr, "\r\033[K%s", text.c_str());
  std::fflush(stderr);
  drawn_ = true;
  last_draw_ = Clock::now();
}

std::string format_bytes(double bytes) {
  static constexpr std::array kUnits{"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < kUnits.size()) {
    bytes /= 1000;
    ++unit;
  }
  return formatted(unit == 0 || bytes >= 99.5 ? "%.0f %s" : "%.1f %s", bytes, kUnits[unit]);
}

std::string format_count(double count) {
  static constexpr std::array kUnits{"", "k", "M", "G", "T"};
  size_t unit = 0;
  while (std::abs(count) >= 999.5 && unit + 1 < kUnits.size()) {
    count /= 1000;
    ++unit;
  }
  return formatted(unit == 0 || count >= 99.5 ? "%.0f%s" : "%.1f%s", count, kUnits[unit]);
}

std::string format_duration(double seconds) {
  const auto total = static_cast<long long>(std::llround(seconds));
  if (total >= 3600) return formatted("%lldh%02lldm", total / 3600, total / 60 % 60);
  if (total >= 60) return formatted("%lldm%02llds", total / 60, total % 60);
  return formatted("%llds", total);
}

namespace {
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "used in a signal handler");

void on_interrupt(int signal) {
  if (interrupted.exchange(true)) std::_Exit(128 + signal);
}
}  // namespace

void install_interrupt_handler() {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
}

bool interrupt_requested() { return interrupted.load(); }

}  // namespace qat
