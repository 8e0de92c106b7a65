#include "io/hdf5.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <numeric>
#include <thread>

#include "core/error.h"
#include "core/mapped_file.h"

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
