#include <flatbuffers/flatbuffers.h>
#include <strings.h>
#include <zlib.h>

#include <algorithm>

#include "core/error.h"
#include "io/litertlm.h"
#include "io/litertlm_header_generated.h"

namespace qat {

namespace {

namespace fbs = litertlm_schema;

constexpr uint64_t kSectionAlignment = 16384;
constexpr uint64_t kHeaderBegin = 32;
constexpr uint64_t kMostTokenizerBytes = uint64_t{1} << 30;

LitertlmItems read_items(const flatbuffers::Vector<flatbuffers::Offset<fbs::KeyValuePair>>* pairs) {
  LitertlmItems items;
  if (pairs == nullptr) return items;
  for (const fbs::KeyValuePair* pair : *pairs) {
    const fbs::StringValue* text = pair->value_as_StringValue();
    if (pair->key() != nullptr && text != nullptr && text->value() != nullptr) {
      items.emplace(pair->key()->str(), text->value()->str());
    }
  }
  return items;
}

bool equal_in_any_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace

LitertlmFile::LitertlmFile(const std::filesystem::path& path) : file_(path) { read_sections(); }

void LitertlmFile::read_sections() {
  ByteReader reader(file_.bytes(), where());
  if (file_.bytes().size() < kHeaderBegin || reader.take_text(8) != "LITERTLM") fail(where(), ": no .litertlm file");
  const auto major = reader.read<uint32_t>();
  if (major != 1) fail(where(), ": version ", major, " of the .litertlm format, this program reads version 1");
  reader.take(12);
  const auto header_end = reader.read<uint64_t>();
  if (header_end <= kHeaderBegin || header_end > std::min<uint64_t>(kSectionAlignment, file_.bytes().size())) {
    fail(where(), ": the header ends at ", header_end, ", wanted ", kHeaderBegin + 1, " to ", kSectionAlignment,
         " and inside the file of ", file_.bytes().size(), " bytes");
  }
  const auto header = reader.take(header_end - kHeaderBegin);
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(header.data()), header.size());
  if (!verifier.VerifyBuffer<fbs::LiteRTLMMetaData>()) fail(where(), ": the header is damaged");
  const auto* root = flatbuffers::GetRoot<fbs::LiteRTLMMetaData>(header.data());
  if (root->system_metadata() != nullptr) facts_ = read_items(root->system_metadata()->entries());
  if (root->section_metadata() == nullptr || root->section_metadata()->objects() == nullptr) {
    fail(where(), ": the header names no sections");
  }
  for (const fbs::SectionObject* object : *root->section_metadata()->objects()) {
    const uint64_t begin = object->begin_offset(), end = object->end_offset();
    if (begin % kSectionAlignment != 0 || begin < kSectionAlignment || end < begin) {
      fail(where(), ": section ", sections_.size(), " from ", begin, " to ", end, ": sections begin at multiples of ",
           kSectionAlignment, " after the header");
    }
    if (end > file_.bytes().size()) {
      fail(where(), ": section ", sections_.size(), " ends at ", end, ", the file has ", file_.bytes().size(),
           " bytes: it is cut");
    }
    for (const LitertlmSectionView& other : sections_) {
      if (begin < other.begin + other.bytes.size() && other.begin < end) fail(where(), ": sections overlap at ", begin);
    }
    sections_.push_back({static_cast<LitertlmSectionType>(object->data_type()), read_items(object->items()), begin,
                         file_.bytes().subspan(begin, end - begin)});
  }
}

const LitertlmSectionView* LitertlmFile::find(LitertlmSectionType type, std::string_view key,
                                              std::string_view value) const {
  const LitertlmSectionView* result = nullptr;
  for (const LitertlmSectionView& section : sections_) {
    if (section.type != type) continue;
    if (!key.empty()) {
      const auto item = section.items.find(key);
      if (item == section.items.end() || !equal_in_any_case(item->second, value)) continue;
    }
    if (result != nullptr) {
      fail(where(), ": two sections of type ", static_cast<int>(type), key.empty() ? "" : " and ", value);
    }
    result = &section;
  }
  return result;
}

std::string decompress_tokenizer(std::span<const std::byte> section, const std::string& where) {
  ByteReader reader(section, where);
  const auto size = reader.read<uint64_t>();
  if (size > kMostTokenizerBytes) fail(where, ": a tokenizer of ", size, " bytes is more than ", kMostTokenizerBytes);
  const auto stream = reader.take(reader.remaining());
  std::string text(size, '\0');
  uLongf written = size;
  const int result = uncompress(reinterpret_cast<Bytef*>(text.data()), &written,
                                reinterpret_cast<const Bytef*>(stream.data()), stream.size());
  if (result != Z_OK || written != size) fail(where, ": the compressed tokenizer is cut or damaged");
  return text;
}

}  // namespace qat
