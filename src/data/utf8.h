// UTF-8: checking, repairing, walking, and trimming as Python does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace qat {

struct CodePoint {
  char32_t value = 0;
  size_t length = 0;  // bytes
};

// The code point at `offset` (< text.size()). For bytes that are no UTF-8: U+FFFD with the length of the maximal
// invalid part (Unicode chapter 3, "substitution of maximal subparts"), and `valid`, if given, becomes false.
CodePoint code_point_at(std::string_view text, size_t offset, bool* valid = nullptr);

bool is_valid_utf8(std::string_view text);

// The text with U+FFFD for each maximal invalid part, as Python's bytes.decode(errors="replace") gives.
std::string repair_utf8(std::string_view text);

void append_utf8(std::string& text, char32_t value);

// Without leading and trailing white space, as Python's str.strip().
std::string_view trim_white_space(std::string_view text);

// At most so many code points at the beginning or the end of valid UTF-8.
std::string_view first_characters(std::string_view text, size_t count);
std::string_view last_characters(std::string_view text, size_t count);

// Words between white space, as many as Python's str.split() gives.
int64_t count_words(std::string_view text);

}  // namespace qat
