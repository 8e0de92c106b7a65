#include <flatbuffers/flatbuffers.h>
#include <zlib.h>

#include <array>
#include <cstring>

#include "core/checked_math.h"
#include "core/error.h"
#include "io/litertlm.h"
#include "io/litertlm_header_generated.h"

namespace qat {

namespace {

namespace fbs = litertlm_schema;
using flatbuffers::Offset;

constexpr uint64_t kSectionAlignment = 16384;
constexpr size_t kHeaderBegin = 32;
// What litert-lm-builder 0.18.1 writes.
constexpr std::array<uint32_t, 4> kVersion{1, 7, 0, 0};

using Pairs = flatbuffers::Vector<Offset<fbs::KeyValuePair>>;

Offset<Pairs> write_items(flatbuffers::FlatBufferBuilder& builder, const LitertlmItems& items) {
  std::vector<Offset<fbs::KeyValuePair>> pairs;
  for (const auto& [key, value] : items) {
    const auto text = fbs::CreateStringValue(builder, builder.CreateString(value));
    pairs.push_back(fbs::CreateKeyValuePair(builder, builder.CreateString(key), fbs::VData::StringValue, text.Union()));
  }
  return builder.CreateVector(pairs);
}

template <class T>
void put(std::vector<std::byte>& bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

}  // namespace

LitertlmWriter::LitertlmWriter(const std::filesystem::path& path, const LitertlmItems& facts,
                               const std::vector<LitertlmSection>& sections)
    : file_(path) {
  flatbuffers::FlatBufferBuilder builder;
  std::vector<Offset<fbs::SectionObject>> objects;
  uint64_t begin = kSectionAlignment;
  for (const LitertlmSection& section : sections) {
    places_.push_back({begin, begin + section.bytes});
    const auto items = write_items(builder, section.items);
    objects.push_back(
        fbs::CreateSectionObject(builder, items, begin, begin + section.bytes, static_cast<uint8_t>(section.type)));
    begin = align_up(begin + section.bytes, kSectionAlignment);
  }
  file_bytes_ = begin;
  const auto system = fbs::CreateSystemMetadata(builder, write_items(builder, facts));
  const auto table = fbs::CreateSectionMetadata(builder, builder.CreateVector(objects));
  builder.Finish(fbs::CreateLiteRTLMMetaData(builder, system, table));

  std::vector<std::byte> header(kHeaderBegin + builder.GetSize());
  if (header.size() > kSectionAlignment)
    fail(path.string(), ": the description of ", sections.size(), " sections is too large");
  std::memcpy(header.data(), "LITERTLM", 8);
  for (size_t i = 0; i < kVersion.size(); ++i) put(header, 8 + 4 * i, kVersion[i]);
  put(header, 24, static_cast<uint64_t>(header.size()));
  std::memcpy(header.data() + kHeaderBegin, builder.GetBufferPointer(), builder.GetSize());
  file_.write_at(0, header);
  file_.write_at(file_bytes_ - 1, std::array{std::byte{0}});  // the last section is padded too
}

void LitertlmWriter::write(size_t section, uint64_t offset, std::span<const std::byte> bytes) {
  const Place& place = places_.at(section);
  QAT_CHECK(offset <= place.end - place.begin && bytes.size() <= place.end - place.begin - offset);
  file_.write_at(place.begin + offset, bytes);
}

std::vector<std::byte> compress_tokenizer(std::string_view tokenizer_json) {
  uLongf size = compressBound(tokenizer_json.size());
  std::vector<std::byte> section(sizeof(uint64_t) + size);
  put(section, 0, static_cast<uint64_t>(tokenizer_json.size()));
  const int result = compress2(reinterpret_cast<Bytef*>(section.data() + sizeof(uint64_t)), &size,
                               reinterpret_cast<const Bytef*>(tokenizer_json.data()), tokenizer_json.size(), 9);
  QAT_CHECK(result == Z_OK);
  section.resize(sizeof(uint64_t) + size);
  return section;
}

}  // namespace qat
