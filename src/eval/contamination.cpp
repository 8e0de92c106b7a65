#include <algorithm>
#include <utility>

#include "core/error.h"
#include "data/plain_text.h"
#include "data/utf8.h"
#include "eval/data_warnings.h"
#include "eval/table.h"

namespace qat {
namespace {

// As FNV-1a.
constexpr uint64_t kHashStart = 0xcbf29ce484222325u;
constexpr uint64_t kHashFactor = 0x100000001b3u;

// Letters and digits, of ASCII in lower case; 0 for what separates words: the rest of ASCII, and the punctuation and
// spaces of Unicode's blocks Latin-1 Supplement, General Punctuation, and CJK Symbols and Punctuation.
char32_t word_character(char32_t c) {
  if (c >= 'A' && c <= 'Z') return c - 'A' + 'a';
  if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) return c;
  const bool separates = c < 0xc0 || (c >= 0x2000 && c <= 0x206f) || (c >= 0x3000 && c <= 0x303f);
  return separates ? 0 : c;
}

std::vector<uint64_t> word_hashes(const std::string& text) {
  std::vector<uint64_t> words;
  bool in_word = false;
  for (size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    const char32_t character = word_character(point.value);
    if (character != 0 && !in_word) words.push_back(kHashStart);
    if (character != 0) words.back() = (words.back() ^ character) * kHashFactor;
    in_word = character != 0;
    i += point.length;
  }
  return words;
}

// One hash per run of kContaminationWords words, or one for all words where there are fewer.
std::vector<uint64_t> run_hashes(const std::string& text) {
  const std::vector<uint64_t> words = word_hashes(text);
  std::vector<uint64_t> runs;
  if (words.empty()) return runs;
  const size_t length = std::min(words.size(), kContaminationWords);
  for (size_t begin = 0; begin + length <= words.size(); ++begin) {
    uint64_t hash = length;
    for (size_t i = begin; i < begin + length; ++i) hash = (hash ^ words[i]) * kHashFactor ^ (hash >> 29);
    runs.push_back(hash);
  }
  return runs;
}

}  // namespace

Contamination find_contamination(const std::filesystem::path& data, const std::filesystem::path& training_data) {
  Contamination result;
  std::vector<int64_t> lines;
  std::vector<std::pair<uint64_t, size_t>> runs;  // with the document they stand in
  for_each_text(data, [&](const std::string& text, int64_t line) {
    for (const uint64_t hash : run_hashes(text)) runs.emplace_back(hash, lines.size());
    lines.push_back(line);
  });
  std::ranges::sort(runs);
  std::vector<bool> found(lines.size(), false);
  for_each_text(training_data, [&](const std::string& text, int64_t) {
    for (const uint64_t hash : run_hashes(text)) {
      const auto begin = std::ranges::lower_bound(runs, std::pair<uint64_t, size_t>(hash, 0));
      for (auto run = begin; run != runs.end() && run->first == hash; ++run) found[run->second] = true;
    }
  });
  result.documents = static_cast<int64_t>(lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    if (found[i]) result.lines.push_back(lines[i]);
  }
  return result;
}

std::vector<DataWarning> contamination_warnings(const std::filesystem::path& data,
                                                std::span<const std::string> training_data) {
  std::vector<DataWarning> warnings;
  for (const std::string& training : training_data) {
    const Contamination found = find_contamination(data, training);
    if (found.lines.empty()) continue;
    const double share = static_cast<double>(found.lines.size()) / static_cast<double>(found.documents);
    warnings.push_back(
        {"contamination",
         join(found.lines.size(), " of ", found.documents, " documents of ", data.string(), " (",
              format_percent(share, 1), ", the first in line ", found.lines.front(), ") share ", kContaminationWords,
              " words in a row with ", training, " or equal a document of it: what is measured there may be memory")});
  }
  return warnings;
}

}  // namespace qat
