// Text to token ids and back, as tokenizer.json of Gemma 3 and 4 defines it: byte-pair encoding with byte fallback,
// added tokens, a normalizer. Equal to Hugging Face's `tokenizers` (tests/interop/tokenizer_against_hf.py).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qat {

// A piece that is recognised literally in the text, before byte-pair encoding.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;     // skipped by decode(skip_special), and not recognised by encode(parse_special = false)
  bool normalized = false;  // looked for after the normalizer instead of before it
};

// One merge rule; its rank is its position in merges().
struct Merge {
  int32_t left = 0;
  int32_t right = 0;
};

// Immutable and cheap to copy (copies share the vocabulary); may be used by several threads.
class Tokenizer {
 public:
  // Throws Error for a file that is malformed, inconsistent (ids, merges) or asks for a step this class does not know.
  static Tokenizer load(const std::filesystem::path& path);
  // The same from text; `where` names it in errors.
  static Tokenizer parse(std::string_view json, const std::string& where);

  // No BOS is added. Invalid UTF-8 is read as U+FFFD per maximal invalid part (as Python's errors="replace" does).
  // Without `parse_special`, text that looks like a special token stays text (`encode_special_tokens` of `tokenizers`).
  std::vector<int32_t> encode(std::string_view text, bool parse_special = true) const;
  // Throws Error for an id outside the vocabulary. Bytes of byte-fallback pieces that are no UTF-8 become U+FFFD each.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  // Number of ids: the largest id plus one. The model's table may have more rows.
  int64_t vocabulary_size() const;
  // The piece as the file writes it ("▁the", "<0x0A>"), empty for an id that the file leaves out.
  const std::string& piece(int32_t id) const;
  // All pieces by id.
  std::span<const std::string> pieces() const;
  std::optional<int32_t> id_of(std::string_view piece) const;
  // Throws Error naming the piece if the vocabulary has none such.
  int32_t require_id(std::string_view piece) const;

  std::span<const Merge> merges() const;
  // In the order of the file.
  std::span<const AddedToken> added_tokens() const;
  bool is_special(int32_t id) const;
  // The 256 ids of <0x00> … <0xFF>.
  std::span<const int32_t> byte_ids() const;
  // What the file was read from, for messages.
  const std::string& where() const;

  struct Tables;

 private:
  explicit Tokenizer(std::shared_ptr<const Tables> tables) : tables_(std::move(tables)) {}
  std::shared_ptr<const Tables> tables_;
};

}  // namespace qat
