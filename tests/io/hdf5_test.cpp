#include "io/hdf5.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <fstream>
#include <functional>
#include <numeric>
#include <random>
#include <thread>

#include "core/error.h"
#include "core/mapped_file.h"
#include "core/random.h"

namespace qat {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Hdf5Test : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() /
              join("qat_hdf5_", ::getpid(), "_", ::testing::UnitTest::GetInstance()->random_seed());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path file(const char* name) const { return folder_ / name; }

  // Two and a half chunks of floats, so that chunk borders and a partial chunk are covered.
  static std::vector<float> many_floats() {
    std::vector<float> values((size_t{5} << 20) / 2 + 3);
    std::iota(values.begin(), values.end(), -17.25F);
    return values;
  }
  static void write_sample(const fs::path& path) {
    Hdf5Writer writer(path);
    const std::vector<float> values = many_floats();
    const std::vector<int64_t> numbers{-1, INT64_MAX, INT64_MIN};
    writer.write("masters/layers.0.weight", values);
    writer.write("numbers", numbers);
    writer.write("masters/none", std::span<const float>());
    writer.write_text("config", "{\"a\": 1}\n");
    writer.commit();
  }
  static std::string message_of(const std::function<void()>& action) {
    try {
      action();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  int entries() const {
    return static_cast<int>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_;
};

TEST_F(Hdf5Test, ReadsBackWhatWasWritten) {
  write_sample(file("a.h5"));
  const Hdf5Reader reader(file("a.h5"));
  std::vector<float> values(many_floats().size());
  reader.read("masters/layers.0.weight", std::span<float>(values));
  EXPECT_EQ(values, many_floats());
  std::vector<int64_t> numbers(3);
  reader.read("numbers", std::span<int64_t>(numbers));
  EXPECT_THAT(numbers, ElementsAre(-1, INT64_MAX, INT64_MIN));
  EXPECT_EQ(reader.read_text("config"), "{\"a\": 1}\n");
  EXPECT_THAT(reader.names_in("masters"), ElementsAre("layers.0.weight", "none"));
  EXPECT_THAT(reader.names_in("absent"), ElementsAre());
  EXPECT_TRUE(reader.has("masters/none"));
  EXPECT_FALSE(reader.has("absent/none"));
}

// Three chunks of 16-bit elements, and a part of one, whose parts arrive in any order and cross chunks.
class Hdf5PartsTest : public Hdf5Test {
 protected:
  static constexpr size_t kElements = (size_t{3} << 17) + 1001;

  static std::vector<uint16_t> many_bits() {
    std::vector<uint16_t> bits(kElements);
    std::iota(bits.begin(), bits.end(), uint16_t{7});
    return bits;
  }
  static void write_parts(const fs::path& path, size_t step, uint64_t seed) {
    const std::vector<uint16_t> bits = many_bits();
    std::vector<size_t> firsts;
    for (size_t first = 0; first < bits.size(); first += step) firsts.push_back(first);
    SplitMix64 random(seed);
    for (size_t i = firsts.size(); i > 1; --i) std::swap(firsts[i - 1], firsts[random.below(i)]);
    Hdf5Writer writer(path);
    writer.declare("teacher/states", ElementType::BF16, bits.size());
    for (const size_t first : firsts) {
      writer.write_part(first, std::as_bytes(std::span(bits).subspan(first, std::min(step, bits.size() - first))));
    }
    writer.write_text("config", "after the parts");
    writer.commit();
  }
  static std::vector<uint16_t> read_part(const Hdf5Reader& reader, size_t first, size_t count) {
    std::vector<uint16_t> bits(count);
    reader.read_part("teacher/states", ElementType::BF16, first, std::as_writable_bytes(std::span(bits)));
    return bits;
  }
};

TEST_F(Hdf5PartsTest, ReadsBackAnyPartOfWhatWasWrittenInAnyOrder) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  write_parts(file("a.h5"), 999, seed);
  const Hdf5Reader reader(file("a.h5"));
  EXPECT_EQ(reader.elements("teacher/states"), kElements);
  const std::vector<uint16_t> all = many_bits();
  EXPECT_EQ(read_part(reader, 0, kElements), all);
  SplitMix64 random(seed + 1);
  for (int i = 0; i < 50; ++i) {
    const size_t first = random.below(kElements + 1);
    const size_t count = random.below(kElements - first + 1);
    const auto from = all.begin() + static_cast<std::ptrdiff_t>(first);
    EXPECT_EQ(read_part(reader, first, count), std::vector<uint16_t>(from, from + static_cast<std::ptrdiff_t>(count)))
        << first << " " << count;
  }
  EXPECT_EQ(reader.read_text("config"), "after the parts");
}

TEST_F(Hdf5PartsTest, FloatsKeepTheirBitsAndWhatIsNotWrittenIsZero) {
  const std::vector<float> values{1.5F, -0.0F, 3e-42F};
  Hdf5Writer writer(file("a.h5"));
  writer.declare("states", ElementType::F32, 5);
  writer.write_part(1, std::as_bytes(std::span(values)));
  writer.write_part(5, {});
  writer.commit();
  std::vector<float> found(5);
  Hdf5Reader(file("a.h5")).read("states", std::span<float>(found));
  EXPECT_THAT(found, ElementsAre(0, 1.5F, -0.0F, 3e-42F, 0));
  EXPECT_TRUE(std::signbit(found[2]));
}

TEST_F(Hdf5PartsTest, SamePartsGiveSameBytes) {
  write_parts(file("a.h5"), 5000, 1);
  write_parts(file("b.h5"), 5000, 1);
  EXPECT_TRUE(read_text_file(file("a.h5")) == read_text_file(file("b.h5")));
}

TEST_F(Hdf5PartsTest, PartsThatAreNotThereAreNamed) {
  write_parts(file("a.h5"), 5000, 1);
  const Hdf5Reader reader(file("a.h5"));
  EXPECT_THAT(message_of([&] { read_part(reader, kElements - 1, 2); }),
              HasSubstr("teacher/states: 394217 elements, wanted 2 from element 394216 on"));
  EXPECT_THAT(message_of([&] { read_part(reader, kElements + 1, 0); }), HasSubstr("wanted 0 from element"));
  std::vector<float> floats(2);
  EXPECT_THAT(message_of([&] {
                reader.read_part("teacher/states", ElementType::F32, 0, std::as_writable_bytes(std::span(floats)));
              }),
              HasSubstr("teacher/states: is no array of 32-bit floats"));
}

TEST_F(Hdf5PartsTest, DamageInAPartIsFoundWhereItIsRead) {
  write_parts(file("a.h5"), 5000, 1);
  std::string bytes = read_text_file(file("a.h5"));
  // Wherever these elements are, they are states: nothing else counts upwards for so long.
  const std::vector<uint16_t> all = many_bits();
  const std::string pattern(reinterpret_cast<const char*>(all.data() + (size_t{1} << 17)), 4096);
  const size_t found = bytes.rfind(pattern);
  ASSERT_NE(found, std::string::npos);
  bytes[found + 17] = static_cast<char>(bytes[found + 17] ^ 0x01);
  std::ofstream(file("flipped.h5"), std::ios::binary) << bytes;
  const Hdf5Reader reader(file("flipped.h5"));
  EXPECT_THAT(message_of([&] { read_part(reader, 0, kElements); }),
              HasSubstr("teacher/states: cannot be read, the file is damaged"));
}

TEST_F(Hdf5PartsTest, NothingRemainsOfPartsWithoutCommit) {
  {
    Hdf5Writer writer(file("a.h5"));
    writer.declare("states", ElementType::F32, 1000);
    const std::array values{1.0F, 2.0F};
    writer.write_part(0, std::as_bytes(std::span(values)));
  }
  EXPECT_EQ(entries(), 0);
}

TEST_F(Hdf5Test, SameContentGivesSameBytesAtAnotherTime) {
  write_sample(file("a.h5"));
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  write_sample(file("b.h5"));
  EXPECT_TRUE(read_text_file(file("a.h5")) == read_text_file(file("b.h5")));
}

TEST_F(Hdf5Test, WrongTypeSizeOrNameIsNamed) {
  write_sample(file("a.h5"));
  const Hdf5Reader reader(file("a.h5"));
  std::vector<float> floats(2);
  std::vector<int64_t> numbers(2);
  EXPECT_THAT(message_of([&] { reader.read("numbers", std::span<float>(floats)); }),
              HasSubstr("numbers: is no array of 32-bit floats"));
  EXPECT_THAT(message_of([&] { reader.read("numbers", std::span<int64_t>(numbers)); }),
              HasSubstr("numbers: 3 elements, wanted 2"));
  EXPECT_THAT(message_of([&] { reader.read("nombers", std::span<int64_t>(numbers)); }), HasSubstr("has no nombers"));
}

TEST_F(Hdf5Test, DamageIsFound) {
  write_sample(file("a.h5"));
  const std::string whole = read_text_file(file("a.h5"));
  for (const size_t kept : {size_t{0}, size_t{20}, whole.size() / 2, whole.size() - 1}) {
    std::ofstream(file("cut.h5"), std::ios::binary) << whole.substr(0, kept);
    EXPECT_THAT(message_of([&] { Hdf5Reader reader(file("cut.h5")); }), HasSubstr("damaged, truncated or no HDF5 file"))
        << kept;
  }
  std::string flipped = whole;
  flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 0x10);
  std::ofstream(file("flipped.h5"), std::ios::binary) << flipped;
  const Hdf5Reader reader(file("flipped.h5"));
  std::vector<float> values(many_floats().size());
  EXPECT_THAT(message_of([&] { reader.read("masters/layers.0.weight", std::span<float>(values)); }),
              HasSubstr("layers.0.weight: cannot be read, the file is damaged"));
  EXPECT_THAT(message_of([&] { Hdf5Reader absent(file("absent.h5")); }), HasSubstr("no such file"));
}

TEST_F(Hdf5Test, NothingRemainsWithoutCommit) {
  write_sample(file("a.h5"));
  {
    Hdf5Writer writer(file("a.h5"));
    writer.write_text("config", "other");
  }
  EXPECT_EQ(Hdf5Reader(file("a.h5")).read_text("config"), "{\"a\": 1}\n");
  EXPECT_EQ(entries(), 1);
  EXPECT_THAT(message_of([&] { Hdf5Writer writer(folder_ / "absent" / "a.h5"); }), HasSubstr("cannot be created"));
}

// A limit on the file size stands for a full disk.
TEST_F(Hdf5Test, FullDiskIsAnErrorAndKeepsTheOldFile) {
  {
    Hdf5Writer writer(file("a.h5"));
    writer.write_text("config", "old");
    writer.commit();
  }
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 1 << 20;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = message_of([&] { write_sample(file("a.h5")); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(message, HasSubstr("a.h5"));
  EXPECT_THAT(message, HasSubstr("cannot be written"));
  EXPECT_EQ(Hdf5Reader(file("a.h5")).read_text("config"), "old");
  EXPECT_EQ(entries(), 1);
}

}  // namespace
}  // namespace qat
