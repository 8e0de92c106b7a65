// Another seed in every run, for property tests, which print it where they fail.
#pragma once

#include <chrono>
#include <cstdint>

namespace qat::testing {

inline uint64_t fresh_seed() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

}  // namespace qat::testing
