#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "core/checked_math.h"
#include "core/folder_lock.h"
#include "core/mapped_file.h"
#include "core/output_file.h"
#include "core/scratch_file.h"
#include "core/sha256.h"
#include "core/terminal.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace qat {
namespace {

using testing::expect_error;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(OutputFile, AppearsOnlyWhenCommitted) {
  TemporaryFolder folder;
  {
    OutputFile file(folder / "x");
    file.write("half");
  }
  EXPECT_EQ(entries(folder.path()), 0U);
  OutputFile file(folder / "x");
  file.write("whole");
  EXPECT_FALSE(fs::exists(folder / "x"));
  file.pad_to(16);
  file.commit();
  EXPECT_EQ(read_text_file(folder / "x"), std::string("whole") + std::string(11, '\0'));
  EXPECT_EQ(entries(folder.path()), 1U);
}

TEST(OutputFile, AFullDiskIsAnErrorThatLeavesTheOldFile) {
  TemporaryFolder folder;
  write_file(folder / "x", "old");
  // A file-size limit makes write() fail as a full disk does.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit limit{4096, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  expect_error([&] { write_file(folder / "x", std::string(100'000, 'y')); }, {"x", "cannot be written"});
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(read_text_file(folder / "x"), "old");
  EXPECT_EQ(entries(folder.path()), 1U);
}

TEST(FolderLock, KeepsASecondHolderOutUntilTheFirstIsGone) {
  TemporaryFolder folder;
  {
    const FolderLock first(folder.path());
    expect_error([&] { FolderLock second(folder.path()); },
                 {folder.path().string(), "another process is writing here"});
  }
  const FolderLock next(folder.path());
  EXPECT_EQ(entries(folder.path()), 0U);
}

TEST(FolderLock, AMissingFolderIsAnError) {
  TemporaryFolder folder;
  expect_error([&] { FolderLock lock(folder / "no"); }, {"no", "cannot be opened"});
}

TEST(OutputFile, AMissingFolderIsAnError) {
  TemporaryFolder folder;
  expect_error([&] { OutputFile file(folder / "no" / "x"); }, {"no/x", "cannot be created"});
}

TEST(OutputFolder, ReplacesAsAWhole) {
  TemporaryFolder folder;
  for (const char* content : {"first", "second"}) {
    OutputFolder output(folder / "checkpoint");
    write_file(output.working_path() / "a", content);
    output.commit();
    EXPECT_EQ(read_text_file(folder / "checkpoint" / "a"), content);
  }
  { OutputFolder abandoned(folder / "checkpoint"); }
  EXPECT_EQ(entries(folder.path()), 1U);
}

TEST(OutputFolder, ACommitThatWasCutOffIsFinished) {
  TemporaryFolder folder;
  fs::create_directory(folder / "checkpoint.previous");
  write_file(folder / "checkpoint.previous" / "a", "old");
  fs::create_directory(folder / "checkpoint.partial");
  recover_output_folder(folder / "checkpoint");
  EXPECT_EQ(read_text_file(folder / "checkpoint" / "a"), "old");
  EXPECT_EQ(entries(folder.path()), 1U);
}

TEST(MappedFile, ErrorsNameTheFile) {
  TemporaryFolder folder;
  expect_error([&] { MappedFile file(folder / "absent"); }, {"absent", "cannot be opened"});
  expect_error([&] { MappedFile file(folder.path()); }, {"not a regular file"});
  write_file(folder / "empty", "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

TEST(ScratchFile, HoldsBytesUnderNoName) {
  TemporaryFolder folder;
  const ScratchFile file(folder.path(), 10000);
  ASSERT_EQ(file.bytes().size(), 10000U);
  EXPECT_EQ(file.bytes()[9999], std::byte{0});
  file.bytes()[9999] = std::byte{7};
  EXPECT_EQ(file.bytes()[9999], std::byte{7});
  EXPECT_EQ(entries(folder.path()), 0U);
  EXPECT_TRUE(ScratchFile(folder.path(), 0).bytes().empty());
}

TEST(ScratchFile, ErrorsNameTheFolderAndTheSize) {
  TemporaryFolder folder;
  expect_error([&] { ScratchFile(folder / "none", 1); }, {"none", "No such file"});
  expect_error([&] { ScratchFile(folder.path(), size_t{1} << 62); },
               {folder.path().string().c_str(), "4611686018427387904 bytes"});
  EXPECT_EQ(entries(folder.path()), 0U);
}

TEST(ByteReader, RefusesToReadPastTheEnd) {
  const std::array<std::byte, 6> bytes{std::byte{1}, std::byte{2}};
  ByteReader reader(bytes, "file");
  EXPECT_EQ(reader.read<uint32_t>(), 0x201U);
  expect_error([&] { reader.read<uint32_t>(); }, {"file", "truncated", "offset 4"});
  expect_error([&] { reader.take(UINT64_MAX); }, {"truncated"});
  EXPECT_EQ(reader.remaining(), 2U);
}

TEST(CheckedMath, SaysWhenItDoesNotFit) {
  EXPECT_EQ(checked_multiply(3, 5), 15U);
  EXPECT_EQ(checked_multiply(uint64_t{1} << 33, uint64_t{1} << 31), std::nullopt);
  EXPECT_EQ(checked_add(UINT64_MAX, 1), std::nullopt);
  EXPECT_EQ(element_count(std::vector<int64_t>{4, 0, 3}), 0);
  EXPECT_EQ(element_count(std::vector<int64_t>{}), 1);
  EXPECT_EQ(element_count(std::vector<int64_t>{-1}), std::nullopt);
  EXPECT_EQ(element_count(std::vector<int64_t>{int64_t{1} << 40, int64_t{1} << 40}), std::nullopt);
}

// FIPS 180-2, appendix B.1.
TEST(Sha256, GivesThePublishedDigest) {
  Sha256 sha;
  sha.update(std::as_bytes(std::span("a", 1)));
  sha.update(std::as_bytes(std::span("bc", 2)));
  EXPECT_EQ(sha.finish(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Formatting, IsShort) {
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1.234e9), "1.2 GB");
  EXPECT_EQ(format_count(1834), "1.8k");
  EXPECT_EQ(format_duration(8045), "2h14m");
  EXPECT_EQ(format_duration(12.2), "12s");
}

}  // namespace
}  // namespace qat
