#include "io/tfrecord.h"

#include <gtest/gtest.h>

namespace qat {
namespace {

TEST(TfRecord, ChecksumsAreThoseOfTheStandard) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  // RFC 3720, B.4.
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43U);
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(TfRecord, RecordsComeBackOneAfterAnother) {
  const std::string bytes = make_tfrecord("first") + make_tfrecord("") + make_tfrecord(std::string(1000, 'x'));
  std::string_view rest = bytes;
  EXPECT_EQ(take_tfrecord(rest), "first");
  EXPECT_EQ(take_tfrecord(rest), "");
  EXPECT_EQ(take_tfrecord(rest), std::string(1000, 'x'));
  EXPECT_EQ(take_tfrecord(rest), std::nullopt);
}

TEST(TfRecord, NoCutOrChangedRecordIsTaken) {
  const std::string record = make_tfrecord("a message");
  for (size_t kept = 0; kept < record.size(); ++kept) {
    std::string_view cut = std::string_view(record).substr(0, kept);
    EXPECT_EQ(take_tfrecord(cut), std::nullopt) << kept;
    EXPECT_EQ(cut.size(), kept);
  }
  for (size_t at = 0; at < record.size(); ++at) {
    std::string changed = record;
    changed[at] = static_cast<char>(changed[at] ^ 0x40);
    std::string_view rest = changed;
    EXPECT_EQ(take_tfrecord(rest), std::nullopt) << at;
  }
}

}  // namespace
}  // namespace qat
