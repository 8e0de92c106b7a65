// Errors a user can cause (Error) and broken invariants that only we can cause (QAT_CHECK).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace qat {

// Exit codes of the program.
enum class ExitCode : int { Done = 0, Failed = 1, Usage = 2, Different = 3, Interrupted = 130 };

// Wrong input or a failing system. The message says what, where, found and wanted, and the next step.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ExitCode exit_code = ExitCode::Failed)
      : std::runtime_error(message), exit_code_(exit_code) {}
  ExitCode exit_code() const { return exit_code_; }

 private:
  ExitCode exit_code_;
};

template <class... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// Throws Error with the joined parts (exit code 1).
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(join(parts...));
}

// Throws Error for a wrong command line or configuration (exit code 2).
template <class... Parts>
[[noreturn]] void fail_usage(const Parts&... parts) {
  throw Error(join(parts...), ExitCode::Usage);
}

// Reports a broken invariant of this program and aborts.
[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace qat

#define QAT_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::qat::check_failed(#condition, __FILE__, __LINE__))
