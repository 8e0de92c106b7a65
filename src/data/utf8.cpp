#include "data/utf8.h"

#include <cstdint>

namespace qat {

namespace {

constexpr char32_t kReplacement = 0xfffd;

// Python's str.isspace().
bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

}  // namespace

CodePoint code_point_at(std::string_view text, size_t offset, bool* valid) {
  const auto byte_at = [&](size_t i) -> uint8_t { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0; };
  const uint8_t lead = byte_at(offset);
  if (lead < 0x80) return {lead, 1};
  const auto invalid = [&](size_t length) {
    if (valid != nullptr) *valid = false;
    return CodePoint{kReplacement, length};
  };
  if (lead < 0xc2 || lead > 0xf4) return invalid(1);
  const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and values beyond U+10FFFF.
  const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  char32_t value = lead & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    const uint8_t next = byte_at(offset + i);
    if (next < (i == 1 ? low : 0x80) || next > (i == 1 ? high : 0xbf)) return invalid(i);
    value = (value << 6) | (next & 0x3fu);
  }
  return {value, length};
}

bool is_valid_utf8(std::string_view text) {
  bool valid = true;
  for (size_t i = 0; i < text.size() && valid;) i += code_point_at(text, i, &valid).length;
  return valid;
}

std::string repair_utf8(std::string_view text) {
  std::string repaired;
  repaired.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    bool valid = true;
    const CodePoint point = code_point_at(text, i, &valid);
    if (valid) {
      repaired.append(text.substr(i, point.length));
    } else {
      append_utf8(repaired, kReplacement);
    }
    i += point.length;
  }
  return repaired;
}

void append_utf8(std::string& text, char32_t value) {
  const auto put = [&](char32_t bits) { text += static_cast<char>(static_cast<uint8_t>(bits)); };
  if (value < 0x80) {
    put(value);
  } else if (value < 0x800) {
    put(0xc0 | (value >> 6));
    put(0x80 | (value & 0x3f));
  } else if (value < 0x10000) {
    put(0xe0 | (value >> 12));
    put(0x80 | ((value >> 6) & 0x3f));
    put(0x80 | (value & 0x3f));
  } else {
    put(0xf0 | (value >> 18));
    put(0x80 | ((value >> 12) & 0x3f));
    put(0x80 | ((value >> 6) & 0x3f));
    put(0x80 | (value & 0x3f));
  }
}

std::string_view trim_white_space(std::string_view text) {
  while (!text.empty()) {
    const CodePoint first = code_point_at(text, 0);
    if (!is_white_space(first.value)) break;
    text.remove_prefix(first.length);
  }
  while (!text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xc0) == 0x80) --start;
    if (!is_white_space(code_point_at(text, start).value)) break;
    text = text.substr(0, start);
  }
  return text;
}

std::string_view first_characters(std::string_view text, size_t count) {
  size_t end = 0;
  for (; count > 0 && end < text.size(); --count) end += code_point_at(text, end).length;
  return text.substr(0, end);
}

std::string_view last_characters(std::string_view text, size_t count) {
  size_t begin = text.size();
  for (; count > 0 && begin > 0; --count) {
    do {
      --begin;
    } while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80);
  }
  return text.substr(begin);
}

int64_t count_words(std::string_view text) {
  int64_t words = 0;
  bool in_word = false;
  for (size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    const bool begins = !in_word && !is_white_space(point.value);
    words += begins ? 1 : 0;
    in_word = !is_white_space(point.value);
    i += point.length;
  }
  return words;
}

}  // namespace qat
