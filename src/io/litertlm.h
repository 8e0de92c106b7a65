// The .litertlm container: 32 bytes, a flatbuffer that names the sections, sections on 16 KiB boundaries. Writer,
// reader, and the section that holds a tokenizer.json. Format: litertlm_header.fbs (google-ai-edge/LiteRT-LM);
// mobile_format.md 2.4, 9.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/mapped_file.h"
#include "core/output_file.h"

namespace qat {

enum class LitertlmSectionType : uint8_t {
  None = 0,
  GenericBinary = 1,
  TfliteModel = 3,
  SentencePiece = 4,
  LlmMetadata = 5,
  HfTokenizerZlib = 6,
  ExecutorMetadata = 9
};

using LitertlmItems = std::map<std::string, std::string, std::less<>>;

// A section to be written: its size must be known, its bytes come later.
struct LitertlmSection {
  LitertlmSectionType type = LitertlmSectionType::None;
  LitertlmItems items;  // "model_type" of TFLite models, "name" of others
  uint64_t bytes = 0;
};

// Writes one file under a temporary name. Sections may be written in pieces of any size and order; what is not written
// reads as zeros.
class LitertlmWriter {
 public:
  // Throws Error if the description of the sections does not fit in front of the first.
  LitertlmWriter(const std::filesystem::path& path, const LitertlmItems& facts,
                 const std::vector<LitertlmSection>& sections);

  void write(size_t section, uint64_t offset, std::span<const std::byte> bytes);
  void commit() { file_.commit(); }
  uint64_t file_bytes() const { return file_bytes_; }

 private:
  OutputFile file_;
  struct Place {
    uint64_t begin, end;
  };
  std::vector<Place> places_;
  uint64_t file_bytes_ = 0;
};

struct LitertlmSectionView {
  LitertlmSectionType type;  // numbers without a name here may occur
  LitertlmItems items;       // those with a text as value
  uint64_t begin;            // offset in the file
  std::span<const std::byte> bytes;
};

// A mapped file. The constructor throws Error naming the file and the fault if anything about the container is wrong:
// magic, version, header, sections that leave the file, overlap or do not begin on a boundary.
class LitertlmFile {
 public:
  explicit LitertlmFile(const std::filesystem::path& path);

  const LitertlmItems& facts() const { return facts_; }
  const std::vector<LitertlmSectionView>& sections() const { return sections_; }
  // The only section of this type whose item `key` has this value (any case); null if there is none.
  const LitertlmSectionView* find(LitertlmSectionType type, std::string_view key = {},
                                  std::string_view value = {}) const;
  std::span<const std::byte> bytes() const { return file_.bytes(); }
  std::string where() const { return file_.path().string(); }
  void release(std::span<const std::byte> part) const { file_.release(part); }

 private:
  void read_sections();

  MappedFile file_;
  LitertlmItems facts_;
  std::vector<LitertlmSectionView> sections_;
};

// The content of a HfTokenizerZlib section: u64 size of the text, then a zlib stream of it.
std::vector<std::byte> compress_tokenizer(std::string_view tokenizer_json);
// Throws Error naming `where` if the bytes are no such section, or the text is larger than its limit of 1 GiB.
std::string decompress_tokenizer(std::span<const std::byte> section, const std::string& where);

}  // namespace qat
