#include "data/tokenizer_json.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace qat {

namespace {

using nlohmann::json;

class TokenizerReader : public nlohmann::json_sax<json> {
 public:
  TokenizerReader(const std::string& where, TokenizerJson& parts) : where_(where), parts_(parts) {}

  json take() { return std::move(root_); }

  bool null() override { return value(json(nullptr), nullptr); }
  bool boolean(bool flag) override { return value(json(flag), nullptr); }
  bool number_float(number_float_t number, const string_t&) override { return value(json(number), nullptr); }
  bool binary(binary_t&) override { return false; }
  bool string(string_t& text) override {
    if (place_ == Place::Merges) return merge_text(text);
    return value(json(std::move(text)), nullptr);
  }
  bool number_integer(number_integer_t number) override { return value(json(number), &number); }
  bool number_unsigned(number_unsigned_t number) override {
    // An id this large is out of range in any case.
    const auto id = static_cast<number_integer_t>(std::min<number_unsigned_t>(number, INT64_MAX));
    return value(json(number), &id);
  }

  bool key(string_t& name) override {
    key_ = std::move(name);
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ != Place::Other) fail_entry();
    if (at_model_field("vocab") && !parts_.has_vocabulary) {
      parts_.has_vocabulary = true;
      place_ = Place::Vocabulary;
      return true;
    }
    open(json::object());
    return true;
  }

  bool end_object() override {
    if (place_ == Place::Vocabulary) {
      place_ = Place::Other;
    } else {
      open_.pop_back();
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::Merges && sides_ == kOutside) {
      sides_ = 0;
      return true;
    }
    if (place_ != Place::Other) fail_entry();
    if (at_model_field("merges") && !parts_.has_merges) {
      parts_.has_merges = true;
      place_ = Place::Merges;
      return true;
    }
    open(json::array());
    return true;
  }

  bool end_array() override {
    if (place_ != Place::Merges) {
      open_.pop_back();
    } else if (sides_ == kOutside) {
      place_ = Place::Other;
    } else {
      if (sides_ != 2) fail_entry();
      sides_ = kOutside;
      parts_.merges.push_back(std::move(merge_));
    }
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  enum class Place { Other, Vocabulary, Merges };
  static constexpr int kOutside = -1;

  bool at_model_field(const char* name) const {
    return open_.size() == 2 && key_ == name && root_.contains("model") && open_.back() == &root_["model"];
  }

  // Stores a value in the innermost open object or array.
  json& store(json item) {
    if (open_.empty()) return root_ = std::move(item);
    json& parent = *open_.back();
    if (parent.is_object()) return parent[key_] = std::move(item);
    parent.push_back(std::move(item));
    return parent.back();
  }

  void open(json item) { open_.push_back(&store(std::move(item))); }

  bool value(json item, const number_integer_t* integer) {
    if (place_ == Place::Merges) fail_entry();
    if (place_ == Place::Vocabulary) {
      if (integer == nullptr) fail_entry();
      parts_.vocabulary.emplace_back(std::move(key_), *integer);
      return true;
    }
    store(std::move(item));
    return true;
  }

  bool merge_text(const std::string& text) {
    if (sides_ == kOutside) {
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) fail_entry();
      parts_.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
      return true;
    }
    if (sides_ >= 2) fail_entry();
    (sides_ == 0 ? merge_.first : merge_.second) = text;
    ++sides_;
    return true;
  }

  [[noreturn]] void fail_entry() const {
    if (place_ == Place::Vocabulary) fail(where_, ": model.vocab: the id of piece \"", key_, "\" is no integer");
    fail(where_, ": model.merges[", parts_.merges.size(), "]: \"left right\" or [\"left\", \"right\"] is wanted");
  }

  const std::string& where_;
  TokenizerJson& parts_;
  json root_;
  std::vector<json*> open_;
  std::string key_;
  Place place_ = Place::Other;
  int sides_ = kOutside;  // sides of the merge that have been read, inside its array
  std::pair<std::string, std::string> merge_;
};

}  // namespace

json read_tokenizer_json(std::string_view text, const std::string& where, TokenizerJson& parts) {
  TokenizerReader reader(where, parts);
  if (!json::sax_parse(text.begin(), text.end(), &reader)) {
    parse_json(text, where);  // throws with line and column
    fail(where, ": is not valid JSON");
  }
  return reader.take();
}

}  // namespace qat
