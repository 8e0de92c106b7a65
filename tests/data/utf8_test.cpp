#include "data/utf8.h"

#include <gtest/gtest.h>

namespace qat {
namespace {

TEST(Utf8, EveryCodePointSurvives) {
  for (char32_t value = 0; value <= 0x10ffff; ++value) {
    if (value >= 0xd800 && value <= 0xdfff) continue;
    std::string text;
    append_utf8(text, value);
    bool valid = true;
    const CodePoint point = code_point_at(text, 0, &valid);
    ASSERT_TRUE(valid);
    ASSERT_EQ(point.value, value);
    ASSERT_EQ(point.length, text.size());
  }
}

TEST(Utf8, SurrogatesAreInvalid) {
  std::string text;
  append_utf8(text, 0xd800);
  EXPECT_FALSE(is_valid_utf8(text));
}

TEST(Utf8, CutsBetweenCodePoints) {
  EXPECT_EQ(first_characters("aé\u4f60b", 3), "aé\u4f60");
  EXPECT_EQ(last_characters("aé\u4f60b", 3), "é\u4f60b");
  EXPECT_EQ(first_characters("aé", 5), "aé");
  EXPECT_EQ(last_characters("aé", 5), "aé");
  EXPECT_EQ(first_characters("é", 0), "");
  EXPECT_EQ(last_characters("é", 0), "");
}

// Python: len(text.split()).
TEST(Utf8, CountsWordsAsPython) {
  EXPECT_EQ(count_words(""), 0);
  EXPECT_EQ(count_words(" \n "), 0);
  EXPECT_EQ(count_words("one"), 1);
  EXPECT_EQ(count_words("  a\tb \u00a0c\u3000\u4f60\u597d\u2028d\u200be "), 5);
}

TEST(Utf8, TrimTakesUnicodeWhiteSpace) {
  EXPECT_EQ(trim_white_space("\u00a0\u3000\n a b \x1f\u2028\u0085"), "a b");
  EXPECT_EQ(trim_white_space("\u200b"), "\u200b");  // a zero-width space is none to Python either
  EXPECT_EQ(trim_white_space(" \t\n"), "");
  EXPECT_EQ(trim_white_space("é"), "é");
}

}  // namespace
}  // namespace qat
