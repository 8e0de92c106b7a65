// The parts of a tokenizer.json, read in one pass: its vocabulary and merges are too large to build as JSON values.
// Private to the tokenizer's own sources.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qat {

struct TokenizerJson {
  std::vector<std::pair<std::string, int64_t>> vocabulary;  // piece, id
  std::vector<std::pair<std::string, std::string>> merges;  // left, right
  bool has_vocabulary = false;
  bool has_merges = false;
};

// Fills `parts` from model.vocab and model.merges, and returns all the rest. Throws Error for a syntax error and for an
// entry of the wrong type; `where` names the file.
nlohmann::json read_tokenizer_json(std::string_view text, const std::string& where, TokenizerJson& parts);

}  // namespace qat
