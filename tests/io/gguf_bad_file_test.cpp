// GGUF files with one fault each, and random damage: always a clear Error, never a crash or a huge allocation.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>

#include "core/error.h"
#include "core/random.h"
#include "gguf_bytes.h"
#include "io/gguf.h"

namespace qat {
namespace {

using test::GgufBytes;
using test::TemporaryFile;

struct Fault {
  std::string name;
  std::function<void(GgufBytes&)> fill;
  std::string message;  // part of what the Error must say
};

constexpr uint64_t kHuge = uint64_t{1} << 60;

const std::vector<Fault>& faults() {
  static const std::vector<Fault> kFaults{
      {"Empty", [](GgufBytes&) {}, "no GGUF file"},
      {"WrongMagic", [](GgufBytes& f) { f.raw("GGML").number<uint32_t>(3).pad(64); }, "no GGUF file"},
      {"WrongVersion", [](GgufBytes& f) { f.header(0, 0, 4); }, "version 4"},
      {"ForeignEndianness", [](GgufBytes& f) { f.header(0, 0, 0x03000000); }, "version"},
      {"HeaderTruncated", [](GgufBytes& f) { f.raw("GGUF").number<uint32_t>(3); }, "truncated"},
      {"HugeTensorCount", [](GgufBytes& f) { f.header(kHuge, 0).pad(64); }, "tensors"},
      {"HugeKeyCount", [](GgufBytes& f) { f.header(0, kHuge).pad(64); }, "metadata entries"},
      {"HugeKeyLength", [](GgufBytes& f) { f.header(0, 1).number<uint64_t>(~uint64_t{0}).pad(64); }, "truncated"},
      {"EmptyKey", [](GgufBytes& f) { f.header(0, 1).text("").number<uint32_t>(7).raw({1}).pad(64); }, "empty key"},
      {"DuplicateKey",
       [](GgufBytes& f) {
         f.header(0, 2).text("k").number<uint32_t>(7).raw({1}).text("k").number<uint32_t>(7).raw({1});
       },
       "\"k\" comes twice"},
      {"UnknownValueType", [](GgufBytes& f) { f.header(0, 1).text("k").number<uint32_t>(13).pad(64); },
       "unknown type 13"},
      {"BoolOfTwo", [](GgufBytes& f) { f.header(0, 1).text("k").number<uint32_t>(7).raw({2}); }, "bool of value 2"},
      {"HugeText", [](GgufBytes& f) { f.header(0, 1).text("k").number<uint32_t>(8).number<uint64_t>(kHuge); },
       "truncated"},
      {"ArrayOfArrays",
       [](GgufBytes& f) {
         f.header(0, 1).text("k").number<uint32_t>(9).number<uint32_t>(9).number<uint64_t>(1).pad(64);
       },
       "array of arrays"},
      {"UnknownElementType",
       [](GgufBytes& f) {
         f.header(0, 1).text("k").number<uint32_t>(9).number<uint32_t>(99).number<uint64_t>(1).pad(64);
       },
       "unknown type 99"},
      {"HugeArray",
       [](GgufBytes& f) {
         f.header(0, 1).text("k").number<uint32_t>(9).number<uint32_t>(8).number<uint64_t>(kHuge).pad(64);
       },
       "entries in \"k\""},
      {"OverflowingArray",
       [](GgufBytes& f) {
         f.header(0, 1)
             .text("k")
             .number<uint32_t>(9)
             .number<uint32_t>(12)
             .number<uint64_t>((uint64_t{1} << 61) + 1)
             .pad(64);
       },
       "entries in \"k\""},
      {"AlignmentZero",
       [](GgufBytes& f) { f.header(0, 1).text("general.alignment").number<uint32_t>(4).number<uint32_t>(0); },
       "power of two"},
      {"AlignmentOdd",
       [](GgufBytes& f) { f.header(0, 1).text("general.alignment").number<uint32_t>(4).number<uint32_t>(48); },
       "power of two"},
      {"AlignmentOfAnotherType",
       [](GgufBytes& f) { f.header(0, 1).text("general.alignment").number<uint32_t>(10).number<uint64_t>(32); }, "u32"},
      {"EmptyTensorName", [](GgufBytes& f) { f.header(1, 0).tensor("", 1, 0, 0).pad().raw("1234"); },
       "name has 0 bytes"},
      {"LongTensorName", [](GgufBytes& f) { f.header(1, 0).tensor(std::string(64, 'x'), 1, 0, 0).pad().raw("1234"); },
       "name has 64 bytes"},
      {"DuplicateTensor",
       [](GgufBytes& f) { f.header(2, 0).tensor("t", 1, 0, 0).tensor("t", 1, 0, 32).pad().raw(std::string(64, 'x')); },
       "\"t\" comes twice"},
      {"NoDimensions",
       [](GgufBytes& f) {
         f.header(1, 0).text("t").number<uint32_t>(0).number<uint32_t>(0).number<uint64_t>(0).pad(128);
       },
       "0 dimensions"},
      {"FiveDimensions",
       [](GgufBytes& f) {
         f.header(1, 0).text("t").number<uint32_t>(5);
         for (int i = 0; i < 5; ++i) f.number<int64_t>(1);
         f.number<uint32_t>(0).number<uint64_t>(0).pad(128);
       },
       "5 dimensions"},
      {"NegativeDimension", [](GgufBytes& f) { f.header(1, 0).tensor("t", -1, 0, 0).pad(64); }, "negative"},
      {"ZeroDimension", [](GgufBytes& f) { f.header(1, 0).tensor("t", 0, 0, 0).pad(64); }, "zero"},
      {"OverflowingShape",
       [](GgufBytes& f) {
         f.header(1, 0).text("t").number<uint32_t>(2).number<int64_t>(INT64_MAX).number<int64_t>(3);
         f.number<uint32_t>(0).number<uint64_t>(0).pad(64);
       },
       "overflows"},
      {"OverflowingBytes", [](GgufBytes& f) { f.header(1, 0).tensor("t", INT64_MAX, 0, 0).pad(64); }, "overflows"},
      {"UnknownTensorType", [](GgufBytes& f) { f.header(1, 0).tensor("t", 256, 12, 0).pad(256); }, "type 12"},
      {"PartOfABlock", [](GgufBytes& f) { f.header(1, 0).tensor("t", 33, 2, 0).pad(256); }, "no whole blocks"},
      {"HoleBeforeTensor", [](GgufBytes& f) { f.header(1, 0).tensor("t", 1, 0, 32).pad().raw(std::string(64, 'x')); },
       "wanted is 0"},
      {"OverlappingTensors",
       [](GgufBytes& f) { f.header(2, 0).tensor("a", 1, 0, 0).tensor("b", 1, 0, 0).pad().raw(std::string(64, 'x')); },
       "\"b\": starts at offset 0"},
      {"TensorsOutOfOrder",
       [](GgufBytes& f) { f.header(2, 0).tensor("a", 1, 0, 32).tensor("b", 1, 0, 0).pad().raw(std::string(64, 'x')); },
       "\"a\": starts at offset 32"},
      {"UnalignedOffset",
       [](GgufBytes& f) { f.header(2, 0).tensor("a", 1, 0, 0).tensor("b", 1, 0, 4).pad().raw(std::string(64, 'x')); },
       "\"b\": starts at offset 4"},
      {"DataTruncated", [](GgufBytes& f) { f.header(1, 0).tensor("t", 64, 0, 0).pad().raw(std::string(255, 'x')); },
       "outside the file's 255 bytes"},
      {"NoData", [](GgufBytes& f) { f.header(1, 0).tensor("t", 1, 0, 0); }, "outside the file's 0 bytes"},
      {"HugeTensor", [](GgufBytes& f) { f.header(1, 0).tensor("t", int64_t{1} << 60, 0, 0).pad(256); },
       "outside the file"},
  };
  return kFaults;
}

class BadGguf : public ::testing::TestWithParam<size_t> {};

TEST_P(BadGguf, IsRefusedNamingTheFileAndTheFault) {
  const Fault& fault = faults()[GetParam()];
  GgufBytes bytes;
  fault.fill(bytes);
  const TemporaryFile path("bad.gguf");
  path.fill(bytes.bytes());
  try {
    const GgufFile file(path.path());
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(fault.message), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(path.path().string()), std::string::npos) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(OneFault, BadGguf, ::testing::Range(size_t{0}, faults().size()),
                         [](const auto& test) { return faults()[test.param].name; });

std::string valid_file() {
  GgufBytes f;
  f.header(3, 3).text("general.architecture").number<uint32_t>(8).text("gemma4");
  f.text("list").number<uint32_t>(9).number<uint32_t>(8).number<uint64_t>(3).text("a").text("").text("ccc");
  f.text("numbers").number<uint32_t>(9).number<uint32_t>(5).number<uint64_t>(4).raw(std::string(16, '\1'));
  f.tensor("a", 5, 0, 0).tensor("b", 64, 2, 32);
  f.text("c").number<uint32_t>(3).number<int64_t>(32).number<int64_t>(2).number<int64_t>(2);
  f.number<uint32_t>(8).number<uint64_t>(96).pad();
  return f.raw(std::string(20, 'a')).pad().raw(std::string(36, 'b')).pad().raw(std::string(136, 'c')).pad().bytes();
}

// Touches everything that a successful parse promises to be there.
uint64_t walk(const GgufFile& file) {
  uint64_t sum = 0;
  for (const auto& [key, value] : file.metadata().entries()) sum += key.size() + value.index();
  for (const GgufTensor& tensor : file.tensors()) {
    for (const std::byte byte : tensor.bytes) sum += std::to_integer<uint64_t>(byte);
    EXPECT_EQ(static_cast<int64_t>(tensor.bytes.size()),
              tensor.elements() / scheme(tensor.scheme).block_size * scheme(tensor.scheme).block_bytes);
  }
  return sum;
}

TEST(DamagedGguf, RandomDamageGivesAnErrorOrAValidParse) {
  const auto seed = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  SCOPED_TRACE("seed " + std::to_string(seed));
  SplitMix64 random(seed);
  const std::string valid = valid_file();
  const TemporaryFile path("damaged.gguf");
  path.fill(valid);
  ASSERT_GT(walk(GgufFile(path.path())), 0u);
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = valid;
    if (random.below(4) == 0) bytes.resize(random.below(bytes.size()));
    for (uint64_t flips = random.below(4); flips > 0 && !bytes.empty(); --flips) {
      char& byte = bytes[random.below(bytes.size())];
      byte = random.below(2) == 0 ? static_cast<char>(random.next()) : static_cast<char>(byte ^ (1 << random.below(8)));
    }
    path.fill(bytes);
    try {
      walk(GgufFile(path.path()));
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
  EXPECT_LT(refused, 2000);
}

}  // namespace
}  // namespace qat
