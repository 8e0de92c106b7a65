// tokenizer.json -> Tokenizer::Tables: reads, checks and indexes.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/error.h"
#include "core/mapped_file.h"
#include "data/tokenizer.h"
#include "data/tokenizer_json.h"
#include "data/tokenizer_tables.h"
#include "data/utf8.h"

namespace qat {

namespace {

using nlohmann::json;

// Far above any vocabulary, far below what would exhaust memory.
constexpr int64_t kMaximumIds = int64_t{1} << 22;

// Reads the file's parts into the tables. Every error names the file and the field.
class TokenizerFile {
 public:
  TokenizerFile(const json& root, TokenizerJson parts, Tokenizer::Tables& tables)
      : root_(root), parts_(std::move(parts)), tables_(tables) {}

  void read() {
    if (!root_.is_object()) fail(where(), ": is no JSON object, so no tokenizer.json");
    const json& model = member(root_, "model", "");
    check_model(model);
    if (!parts_.has_vocabulary) fail(where(), ": has no object model.vocab");
    if (!parts_.has_merges) fail(where(), ": has no list model.merges");
    read_vocabulary();
    read_merges();
    if (root_.contains("normalizer")) read_normalizer(root_["normalizer"]);
    if (root_.contains("pre_tokenizer")) check_pre_tokenizer(root_["pre_tokenizer"]);
    if (root_.contains("decoder")) read_decoder(root_["decoder"]);
    if (root_.contains("added_tokens")) read_added_tokens(root_["added_tokens"]);
    index_added_tokens();
    index_characters();
  }

 private:
  const std::string& where() const { return tables_.where; }

  const json& member(const json& object, const char* name, const std::string& path) const {
    if (!object.is_object() || !object.contains(name)) fail(where(), ": has no field ", path, name);
    return object[name];
  }

  std::string text(const json& object, const char* name, const std::string& path) const {
    const json& value = member(object, name, path + ".");
    if (!value.is_string()) fail(where(), ": ", path, ".", name, " is ", value.type_name(), ", text is wanted");
    return value.get<std::string>();
  }

  int64_t integer(const json& object, const char* name, const std::string& path) const {
    const json& value = member(object, name, path + ".");
    if (!value.is_number_integer()) {
      fail(where(), ": ", path, ".", name, " is ", value.type_name(), ", an integer is wanted");
    }
    return value.get<int64_t>();
  }

  bool flag(const json& object, const char* name) const {
    return object.contains(name) && object[name].is_boolean() && object[name].get<bool>();
  }

  // The type of a normalizer, pre-tokenizer or decoder.
  std::string kind(const json& step, const char* path) const { return text(step, "type", path); }

  [[noreturn]] void refuse(const char* path, const std::string& what) const {
    fail(where(), ": ", path, " ", what, " is not supported; Gemma's tokenizers do not use it");
  }

  void check_model(const json& model) const {
    if (model.contains("type") && model["type"] != "BPE") refuse("model.type", model["type"].dump());
    if (!flag(model, "byte_fallback")) refuse("model.byte_fallback", "false");
    if (flag(model, "ignore_merges")) refuse("model.ignore_merges", "true");
    for (const char* name : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
      const json value = model.value(name, json());
      if (!value.is_null() && value != "" && value != 0.0) refuse((std::string("model.") + name).c_str(), value.dump());
    }
  }

  void place(std::string piece, int64_t id) {
    if (id < 0 || id >= kMaximumIds) {
      fail(where(), ": piece \"", piece, "\" has id ", id, "; ids from 0 to ", kMaximumIds - 1, " are allowed");
    }
    const auto index = static_cast<size_t>(id);
    if (index >= tables_.pieces.size()) {
      tables_.pieces.resize(index + 1);
      used_.resize(index + 1);
    }
    if (used_[index]) {
      fail(where(), ": id ", id, " belongs to two pieces, \"", tables_.pieces[index], "\" and \"", piece, "\"");
    }
    used_[index] = true;
    tables_.pieces[index] = std::move(piece);
  }

  void read_vocabulary() {
    if (parts_.vocabulary.empty()) fail(where(), ": model.vocab is empty");
    tables_.pieces.reserve(std::min<size_t>(parts_.vocabulary.size(), static_cast<size_t>(kMaximumIds)));
    for (auto& [piece, id] : parts_.vocabulary) place(std::move(piece), id);
    index_pieces();
    char name[8];
    for (unsigned byte = 0; byte < 256; ++byte) {
      std::snprintf(name, sizeof name, "<0x%02X>", byte);
      const auto found = tables_.ids.find(name, tables_.pieces);
      if (!found) fail(where(), ": model.vocab has no piece ", name, ", which byte_fallback needs");
      tables_.byte_ids[byte] = *found;
    }
  }

  void index_pieces() {
    tables_.ids.reserve(tables_.pieces.size());
    for (size_t id = 0; id < tables_.pieces.size(); ++id) {
      if (!used_[id]) continue;
      const auto other = tables_.ids.find(tables_.pieces[id], tables_.pieces);
      if (other) fail(where(), ": piece \"", tables_.pieces[id], "\" has two ids, ", *other, " and ", id);
      tables_.ids.put(static_cast<int32_t>(id), tables_.pieces);
    }
  }

  int32_t merged_piece(const std::string& piece, int64_t rank) const {
    const auto found = tables_.ids.find(piece, tables_.pieces);
    if (!found) {
      fail(where(), ": model.merges[", rank, "] needs the piece \"", piece, "\", which model.vocab does not have");
    }
    return *found;
  }

  void read_merges() {
    tables_.merges.reserve(parts_.merges.size());
    tables_.merge_results.reserve(parts_.merges.size());
    tables_.junctions.reserve(parts_.merges.size());
    std::vector<bool> is_byte(tables_.pieces.size());
    for (const int32_t id : tables_.byte_ids) is_byte[static_cast<size_t>(id)] = true;
    std::string both;
    for (const auto& [left, right] : parts_.merges) {
      const auto rank = static_cast<int32_t>(tables_.merges.size());
      if (left.empty() || right.empty()) fail(where(), ": model.merges[", rank, "] has an empty side");
      const Merge merge{merged_piece(left, rank), merged_piece(right, rank)};
      both.assign(left).append(right);
      const auto key = pair_key(static_cast<uint32_t>(merge.left), static_cast<uint32_t>(merge.right));
      tables_.merge_results.put(key, {rank, merged_piece(both, rank)});
      tables_.merges.push_back(merge);
      if (is_byte[static_cast<size_t>(merge.left)] || is_byte[static_cast<size_t>(merge.right)]) {
        tables_.may_cut = false;
      }
      add_junction(left, right);
    }
  }

  void add_junction(std::string_view left, std::string_view right) {
    size_t start = left.size() - 1;
    while (start > 0 && (static_cast<uint8_t>(left[start]) & 0xc0) == 0x80) --start;
    const char32_t last = code_point_at(left, start).value;
    const char32_t first = code_point_at(right, 0).value;
    if (last < 128 && first < 128) {
      tables_.ascii_junctions[last][first] = true;
    } else {
      tables_.junctions.put(pair_key(last, first), 1);
    }
  }

  std::string pattern(const json& step, const char* path) const {
    const json& value = member(step, "pattern", std::string(path) + ".");
    if (!value.is_object() || !value.contains("String")) refuse(path, "pattern " + value.dump());
    const std::string found = text(value, "String", std::string(path) + ".pattern");
    if (found.empty()) fail(where(), ": ", path, ".pattern is empty");
    return found;
  }

  void read_normalizer(const json& step) {
    if (step.is_null()) return;
    const std::string type = kind(step, "normalizer");
    if (type == "Sequence") {
      for (const json& inner : member(step, "normalizers", "normalizer.")) read_normalizer(inner);
    } else if (type == "Replace") {
      tables_.normalizer.push_back({pattern(step, "normalizer"), text(step, "content", "normalizer")});
    } else if (type == "Prepend") {
      tables_.normalizer.push_back({"", text(step, "prepend", "normalizer")});
    } else {
      refuse("normalizer", type);
    }
  }

  // Only a split that never happens is known: at a text which the normalizer has replaced everywhere.
  void check_pre_tokenizer(const json& step) const {
    if (step.is_null()) return;
    const std::string type = kind(step, "pre_tokenizer");
    if (type == "Sequence") {
      for (const json& inner : member(step, "pretokenizers", "pre_tokenizer.")) check_pre_tokenizer(inner);
      return;
    }
    if (type != "Split") refuse("pre_tokenizer", type);
    const std::string at = pattern(step, "pre_tokenizer");
    bool replaced = false;
    for (const NormalizerStep& normalizer : tables_.normalizer) {
      replaced = (replaced || normalizer.from == at) && normalizer.to.find(at) == std::string::npos;
    }
    if (!replaced) refuse("pre_tokenizer", "Split at \"" + at + "\", which the normalizer does not replace,");
  }

  void read_decoder(const json& step) {
    if (step.is_null()) return;
    const std::string type = kind(step, "decoder");
    if (type == "Sequence") {
      for (const json& inner : member(step, "decoders", "decoder.")) read_decoder(inner);
    } else if (type == "Replace") {
      tables_.decoder.push_back(
          {DecoderStep::Kind::Replace, pattern(step, "decoder"), text(step, "content", "decoder"), 0, 0});
    } else if (type == "ByteFallback") {
      tables_.decoder.push_back({DecoderStep::Kind::ByteFallback, "", "", 0, 0});
    } else if (type == "Fuse") {
      tables_.decoder.push_back({DecoderStep::Kind::Fuse, "", "", 0, 0});
    } else if (type == "Strip") {
      const std::string content = text(step, "content", "decoder");
      if (content.empty()) fail(where(), ": decoder.content of Strip is empty");
      tables_.decoder.push_back(
          {DecoderStep::Kind::Strip, content, "", integer(step, "start", "decoder"), integer(step, "stop", "decoder")});
    } else {
      refuse("decoder", type);
    }
  }

  void read_added_tokens(const json& list) {
    if (!list.is_array()) fail(where(), ": added_tokens is ", list.type_name(), ", a list is wanted");
    std::unordered_map<std::string, int32_t> without_piece;
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string path = join("added_tokens[", i, "]");
      const json& entry = list[i];
      AddedToken token;
      token.content = text(entry, "content", path);
      const int64_t id = integer(entry, "id", path);
      token.special = flag(entry, "special");
      token.normalized = flag(entry, "normalized");
      if (token.content.empty()) fail(where(), ": ", path, ".content is empty");
      for (const char* name : {"single_word", "lstrip", "rstrip"}) {
        if (flag(entry, name)) refuse((path + "." + name).c_str(), "(\"" + token.content + "\")");
      }
      auto known = tables_.ids.find(token.content, tables_.pieces);
      if (const auto earlier = without_piece.find(token.content); earlier != without_piece.end()) {
        known = earlier->second;
      }
      if (!known) {
        place(token.content, id);
        without_piece.emplace(token.content, static_cast<int32_t>(id));
      } else if (*known != id) {
        fail(where(), ": ", path, " gives \"", token.content, "\" id ", id, ", but it has id ", *known, " already");
      }
      token.id = static_cast<int32_t>(id);
      tables_.added_tokens.push_back(std::move(token));
    }
    if (!without_piece.empty()) index_pieces();
  }

  void index_added_tokens() {
    tables_.special.assign(tables_.pieces.size(), 0);
    for (const AddedToken& token : tables_.added_tokens) {
      if (token.special) tables_.special[static_cast<size_t>(token.id)] = 1;
      if (token.normalized) {
        tables_.normalized_literals.add(tables_.normalize(token.content), token.id);
      } else {
        tables_.raw_literals.add(token.content, token.id);
      }
    }
  }

  void index_characters() {
    for (size_t id = 0; id < tables_.pieces.size(); ++id) {
      const std::string& piece = tables_.pieces[id];
      if (piece.empty()) continue;
      const CodePoint point = code_point_at(piece, 0);
      if (point.length != piece.size()) continue;
      const auto value = static_cast<size_t>(point.value);
      if (tables_.code_point_ids.size() <= value) tables_.code_point_ids.resize(value + 1, -1);
      tables_.code_point_ids[value] = static_cast<int32_t>(id);
    }
  }

  const json& root_;
  TokenizerJson parts_;
  Tokenizer::Tables& tables_;
  std::vector<bool> used_;
};

}  // namespace

Tokenizer Tokenizer::parse(std::string_view text, const std::string& where) {
  auto tables = std::make_shared<Tables>();
  tables->where = where;
  TokenizerJson parts;
  const json root = read_tokenizer_json(text, where, parts);
  TokenizerFile(root, std::move(parts), *tables).read();
  return Tokenizer(std::move(tables));
}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  const MappedFile file(path);
  return parse({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path.string());
}

}  // namespace qat
