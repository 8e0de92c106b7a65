// The small golden tokenizer, for tests that need one.
#pragma once

#include <filesystem>

#include "data/tokenizer.h"

namespace qat::testing {

inline std::filesystem::path golden_data(const char* name) {
  return std::filesystem::path(QAT_SOURCE_DIR) / "tests/golden/data" / name;
}

inline const Tokenizer& small_tokenizer() {
  static const Tokenizer kTokenizer = Tokenizer::load(golden_data("tokenizer.json"));
  return kTokenizer;
}

}  // namespace qat::testing
