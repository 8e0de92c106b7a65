#include "data/tokenizer.h"

#include <algorithm>
#include <queue>

#include "core/error.h"
#include "data/tokenizer_tables.h"
#include "data/utf8.h"

namespace qat {

void LiteralMatcher::add(std::string_view literal, int32_t value) {
  int32_t node = 0;
  first_bytes_[static_cast<uint8_t>(literal.front())] = true;
  for (const char c : literal) {
    const auto byte = static_cast<uint8_t>(c);
    if (const int32_t* next = child(node, byte)) {
      node = *next;
      continue;
    }
    const auto added = static_cast<int32_t>(nodes_.size());
    auto& children = nodes_[static_cast<size_t>(node)].children;
    children.insert(std::lower_bound(children.begin(), children.end(), std::pair{byte, int32_t{0}}), {byte, added});
    nodes_.emplace_back();
    node = added;
  }
  nodes_[static_cast<size_t>(node)].value = value;
}

const int32_t* LiteralMatcher::child(int32_t node, uint8_t byte) const {
  const auto& children = nodes_[static_cast<size_t>(node)].children;
  const auto found = std::lower_bound(children.begin(), children.end(), std::pair{byte, int32_t{0}});
  return found != children.end() && found->first == byte ? &found->second : nullptr;
}

std::optional<LiteralMatcher::Match> LiteralMatcher::next(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!first_bytes_[static_cast<uint8_t>(text[begin])]) continue;
    std::optional<Match> longest;
    int32_t node = 0;
    for (size_t end = begin; end < text.size();) {
      const int32_t* next = child(node, static_cast<uint8_t>(text[end]));
      if (next == nullptr) break;
      node = *next;
      ++end;
      const int32_t value = nodes_[static_cast<size_t>(node)].value;
      if (value >= 0) longest = Match{begin, end, value};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

std::string Tokenizer::Tables::normalize(std::string_view text) const {
  std::string current(text);
  for (const NormalizerStep& step : normalizer) {
    if (step.from.empty()) {
      if (!current.empty()) current.insert(0, step.to);
      continue;
    }
    std::string replaced;
    replaced.reserve(current.size() + current.size() / 4);
    size_t done = 0;
    for (size_t hit = current.find(step.from); hit != std::string::npos; hit = current.find(step.from, done)) {
      replaced.append(current, done, hit - done).append(step.to);
      done = hit + step.from.size();
    }
    current = replaced.append(current, done);
  }
  return current;
}

namespace {

// Byte-pair encoding of one section of normalized text.
class SectionEncoder {
 public:
  SectionEncoder(const Tokenizer::Tables& tables, std::vector<int32_t>& out) : tables_(tables), out_(out) {}

  void encode(std::string_view text) {
    char32_t before = 0;
    for (size_t i = 0; i < text.size();) {
      const CodePoint point = code_point_at(text, i);
      if (i > 0 && tables_.may_cut && !may_join(before, point.value)) merge_chunk();
      const int32_t id =
          point.value < tables_.code_point_ids.size() ? tables_.code_point_ids[static_cast<size_t>(point.value)] : -1;
      if (id >= 0) {
        symbols_.push_back({id, 0, 0});
      } else {
        for (const char c : text.substr(i, point.length)) {
          symbols_.push_back({tables_.byte_ids[static_cast<uint8_t>(c)], 0, 0});
        }
      }
      before = point.value;
      i += point.length;
    }
    merge_chunk();
  }

 private:
  static constexpr int32_t kNone = -1;
  struct Symbol {
    int32_t id;  // kNone once it is part of its left neighbour
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    int32_t rank;
    int32_t position;
    int32_t left;
    int32_t right;
    int32_t result;
    // std::priority_queue gives the largest: lowest rank first, then leftmost.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };

  bool may_join(char32_t left, char32_t right) const {
    if (left < 128 && right < 128) return tables_.ascii_junctions[left][right];
    return tables_.junctions.find(pair_key(left, right)) != nullptr;
  }

  void propose(int32_t position) {
    const Symbol& left = symbols_[static_cast<size_t>(position)];
    if (left.next == kNone) return;
    const Symbol& right = symbols_[static_cast<size_t>(left.next)];
    const auto key = pair_key(static_cast<uint32_t>(left.id), static_cast<uint32_t>(right.id));
    if (const MergeResult* merge = tables_.merge_results.find(key)) {
      candidates_.push({merge->rank, position, left.id, right.id, merge->id});
    }
  }

  void merge_chunk() {
    const auto count = static_cast<int32_t>(symbols_.size());
    for (int32_t i = 0; i < count; ++i) {
      symbols_[static_cast<size_t>(i)].previous = i - 1;
      symbols_[static_cast<size_t>(i)].next = i + 1 < count ? i + 1 : kNone;
    }
    for (int32_t i = 0; i + 1 < count; ++i) propose(i);
    while (!candidates_.empty()) {
      const Candidate best = candidates_.top();
      candidates_.pop();
      apply(best);
    }
    for (const Symbol& symbol : symbols_) {
      if (symbol.id != kNone) out_.push_back(symbol.id);
    }
    symbols_.clear();
  }

  void apply(const Candidate& candidate) {
    Symbol& left = symbols_[static_cast<size_t>(candidate.position)];
    // Outdated if either side has been merged since.
    if (left.id != candidate.left || left.next == kNone) return;
    Symbol& right = symbols_[static_cast<size_t>(left.next)];
    if (right.id != candidate.right) return;
    left.id = candidate.result;
    right.id = kNone;
    left.next = right.next;
    if (left.next != kNone) symbols_[static_cast<size_t>(left.next)].previous = candidate.position;
    if (left.previous != kNone) propose(left.previous);
    propose(candidate.position);
  }

  const Tokenizer::Tables& tables_;
  std::vector<int32_t>& out_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate> candidates_;
};

// Calls `section` for the text between matches and `match` for each match.
template <class Section, class OnMatch>
void split_at_literals(std::string_view text, const LiteralMatcher& matcher, const std::vector<uint8_t>& special,
                       bool parse_special, Section section, OnMatch on_match) {
  size_t done = 0;
  if (!matcher.empty()) {
    for (size_t from = 0; const auto match = matcher.next(text, from);) {
      from = match->end;
      if (!parse_special && special[static_cast<size_t>(match->value)] != 0) continue;
      if (match->begin > done) section(text.substr(done, match->begin - done));
      on_match(match->value);
      done = match->end;
    }
  }
  if (done < text.size()) section(text.substr(done));
}

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool parse_special) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    repaired = repair_utf8(text);
    text = repaired;
  }
  std::vector<int32_t> out;
  out.reserve(text.size() / 3 + 4);
  SectionEncoder encoder(*tables_, out);
  const auto take_id = [&](int32_t id) { out.push_back(id); };
  const auto normalized_section = [&](std::string_view part) { encoder.encode(part); };
  const auto raw_section = [&](std::string_view part) {
    const std::string normalized = tables_->normalize(part);
    split_at_literals(normalized, tables_->normalized_literals, tables_->special, parse_special, normalized_section,
                      take_id);
  };
  split_at_literals(text, tables_->raw_literals, tables_->special, parse_special, raw_section, take_id);
  return out;
}

namespace {

// <0x41> -> 0x41.
std::optional<char> byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'A' && c <= 'F') && !(c >= 'a' && c <= 'f')) return std::nullopt;
    value = value * 16 + (digit ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return static_cast<char>(static_cast<uint8_t>(value));
}

void append_bytes(std::vector<std::string>& parts, std::string& bytes) {
  if (bytes.empty()) return;
  if (is_valid_utf8(bytes)) {
    parts.push_back(bytes);
  } else {
    for (size_t i = 0; i < bytes.size(); ++i) parts.emplace_back("\xef\xbf\xbd");
  }
  bytes.clear();
}

std::vector<std::string> decode_bytes(const std::vector<std::string>& parts) {
  std::vector<std::string> decoded;
  std::string bytes;
  for (const std::string& part : parts) {
    if (const auto byte = byte_of_piece(part)) {
      bytes += *byte;
      continue;
    }
    append_bytes(decoded, bytes);
    decoded.push_back(part);
  }
  append_bytes(decoded, bytes);
  return decoded;
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (size_t hit = text.find(from); hit != std::string::npos; hit = text.find(from, hit + to.size())) {
    text.replace(hit, from.size(), to);
  }
}

void strip(std::string& text, const DecoderStep& step) {
  const size_t size = step.from.size();
  for (int64_t i = 0; i < step.start && text.starts_with(step.from); ++i) text.erase(0, size);
  for (int64_t i = 0; i < step.stop && text.ends_with(step.from); ++i) text.erase(text.size() - size);
}

std::string concatenate(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += part;
  return text;
}

}  // namespace

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<std::string> parts;
  for (const int32_t id : ids) {
    const std::string& text = piece(id);
    if (!skip_special || !is_special(id)) parts.push_back(text);
  }
  for (const DecoderStep& step : tables_->decoder) {
    switch (step.kind) {
      case DecoderStep::Kind::Replace:
        for (std::string& part : parts) replace_all(part, step.from, step.to);
        break;
      case DecoderStep::Kind::ByteFallback:
        parts = decode_bytes(parts);
        break;
      case DecoderStep::Kind::Fuse:
        parts = {concatenate(parts)};
        break;
      case DecoderStep::Kind::Strip:
        for (std::string& part : parts) strip(part, step);
        break;
    }
  }
  return concatenate(parts);
}

int64_t Tokenizer::vocabulary_size() const { return static_cast<int64_t>(tables_->pieces.size()); }

const std::string& Tokenizer::piece(int32_t id) const {
  if (id < 0 || id >= vocabulary_size()) {
    fail(tables_->where, ": token id ", id, " is outside the vocabulary of ", vocabulary_size(), " pieces");
  }
  return tables_->pieces[static_cast<size_t>(id)];
}

std::span<const std::string> Tokenizer::pieces() const { return tables_->pieces; }

std::optional<int32_t> Tokenizer::id_of(std::string_view piece) const {
  return tables_->ids.find(piece, tables_->pieces);
}

int32_t Tokenizer::require_id(std::string_view piece) const {
  const auto id = id_of(piece);
  if (!id) fail(tables_->where, ": the vocabulary has no piece ", piece, "; is this a tokenizer of Gemma 3 or 4?");
  return *id;
}

std::span<const Merge> Tokenizer::merges() const { return tables_->merges; }
std::span<const AddedToken> Tokenizer::added_tokens() const { return tables_->added_tokens; }
bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocabulary_size() && tables_->special[static_cast<size_t>(id)] != 0;
}
std::span<const int32_t> Tokenizer::byte_ids() const { return tables_->byte_ids; }
const std::string& Tokenizer::where() const { return tables_->where; }

}  // namespace qat
