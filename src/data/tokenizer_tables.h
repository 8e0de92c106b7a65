// What a Tokenizer holds after loading: lookup tables for encoding and the steps of normalizer and decoder.
// Private to the tokenizer's own sources.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/tokenizer.h"

namespace qat {

// Open-addressing map from 64-bit keys to values; built once.
template <class Value>
class FlatMap {
 public:
  void reserve(size_t count) {
    size_t capacity = 16;
    while (capacity < 2 * count) capacity *= 2;
    entries_.assign(capacity, Entry{kEmpty, Value{}});
    mask_ = capacity - 1;
  }
  // Replaces the value of a key that is already there.
  void put(uint64_t key, Value value) { entries_[slot(key)] = {key, value}; }
  const Value* find(uint64_t key) const {
    const Entry& entry = entries_[slot(key)];
    return entry.key == key ? &entry.value : nullptr;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Entry {
    uint64_t key;
    Value value;
  };
  size_t slot(uint64_t key) const {
    uint64_t hash = key * 0x9e3779b97f4a7c15u;
    size_t i = (hash ^ (hash >> 32)) & mask_;
    while (entries_[i].key != kEmpty && entries_[i].key != key) i = (i + 1) & mask_;
    return i;
  }
  std::vector<Entry> entries_{16, Entry{kEmpty, Value{}}};
  size_t mask_ = 15;
};

inline uint64_t pair_key(uint32_t left, uint32_t right) { return (static_cast<uint64_t>(left) << 32) | right; }

// Ids by piece: open addressing over hashes, with the pieces themselves kept elsewhere.
class PieceIndex {
 public:
  // Empties the index and makes room.
  void reserve(size_t count) {
    size_t capacity = 16;
    while (capacity < 2 * count) capacity *= 2;
    entries_.assign(capacity, Entry{});
  }
  void put(int32_t id, const std::vector<std::string>& pieces) {
    const size_t hash = std::hash<std::string_view>{}(pieces[static_cast<size_t>(id)]);
    size_t i = hash & (entries_.size() - 1);
    while (entries_[i].id >= 0) i = (i + 1) & (entries_.size() - 1);
    entries_[i] = {static_cast<uint32_t>(hash >> 32), id};
  }
  std::optional<int32_t> find(std::string_view piece, const std::vector<std::string>& pieces) const {
    const size_t hash = std::hash<std::string_view>{}(piece);
    for (size_t i = hash & (entries_.size() - 1); entries_[i].id >= 0; i = (i + 1) & (entries_.size() - 1)) {
      const Entry& entry = entries_[i];
      if (entry.hash == static_cast<uint32_t>(hash >> 32) && pieces[static_cast<size_t>(entry.id)] == piece) {
        return entry.id;
      }
    }
    return std::nullopt;
  }

 private:
  struct Entry {
    uint32_t hash = 0;
    int32_t id = -1;
  };
  std::vector<Entry> entries_{16, Entry{}};
};

// Finds literal strings: leftmost, and of those the longest.
class LiteralMatcher {
 public:
  void add(std::string_view literal, int32_t value);
  bool empty() const { return nodes_.size() == 1; }

  struct Match {
    size_t begin;
    size_t end;
    int32_t value;
  };
  std::optional<Match> next(std::string_view text, size_t from) const;

 private:
  struct Node {
    std::vector<std::pair<uint8_t, int32_t>> children;
    int32_t value = -1;
  };
  const int32_t* child(int32_t node, uint8_t byte) const;
  std::vector<Node> nodes_{1};
  std::array<bool, 256> first_bytes_{};
};

// Replace (from -> to) or, with an empty `from`, Prepend.
struct NormalizerStep {
  std::string from;
  std::string to;
};

struct DecoderStep {
  enum class Kind { Replace, ByteFallback, Fuse, Strip } kind;
  std::string from;   // Replace; the character that Strip removes
  std::string to;     // Replace
  int64_t start = 0;  // Strip: at most so many at either end
  int64_t stop = 0;
};

struct MergeResult {
  int32_t rank = 0;
  int32_t id = 0;
};

struct Tokenizer::Tables {
  std::string where;
  std::vector<std::string> pieces;
  PieceIndex ids;
  std::vector<Merge> merges;
  std::vector<AddedToken> added_tokens;
  std::vector<uint8_t> special;  // by id
  std::array<int32_t, 256> byte_ids{};
  std::vector<NormalizerStep> normalizer;
  std::vector<DecoderStep> decoder;

  FlatMap<MergeResult> merge_results;   // by (left, right)
  std::vector<int32_t> code_point_ids;  // id of a one-character piece, -1 without
  LiteralMatcher raw_literals;          // added tokens looked for in the text
  LiteralMatcher normalized_literals;   // added tokens looked for in the normalized text
  // Pairs (last character of a merge's left piece, first of its right piece). Two neighbours that are no such pair can
  // never be joined, so the text may be cut between them without changing any id.
  FlatMap<uint8_t> junctions;
  std::array<std::array<bool, 128>, 128> ascii_junctions{};
  bool may_cut = true;  // false if a merge uses a byte piece, whose characters say nothing about the text

  std::string normalize(std::string_view text) const;
};

}  // namespace qat
