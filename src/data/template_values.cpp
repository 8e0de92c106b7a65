#include "data/template_values.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace qat {

using nlohmann::ordered_json;

namespace {

std::string lower_case(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

// Python's repr(float): the shortest digits that read back, an exponent below 1e-4 and from 1e16.
std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  const double size = std::fabs(value);
  const bool exponent = size != 0 && (size < 1e-4 || size >= 1e16);
  std::array<char, 64> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 exponent ? std::chars_format::scientific : std::chars_format::fixed);
  std::string text(buffer.data(), end.ptr);
  if (!exponent && text.find('.') == std::string::npos) text += ".0";
  return text;
}

}  // namespace

void SpanWriter::add(std::string_view text, bool content) {
  if (text.empty()) return;
  if (!spans_.empty() && spans_.back().trained == trained_ && spans_.back().content == content) {
    spans_.back().text += text;
  } else {
    spans_.push_back({std::string(text), trained_, content});
  }
}

bool is_true(const ordered_json* value) {
  if (value == nullptr || value->is_null()) return false;
  if (value->is_boolean()) return value->get<bool>();
  if (value->is_number()) return value->get<double>() != 0;
  if (value->is_string()) return !value->get_ref<const std::string&>().empty();
  return !value->empty();
}

const ordered_json* find_field(const ordered_json* value, const char* name) {
  if (value == nullptr || !value->is_object()) return nullptr;
  const auto found = value->find(name);
  return found == value->end() ? nullptr : &*found;
}

std::string value_text(const ordered_json* value) {
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  if (value->is_null()) return "None";
  if (value->is_boolean()) return value->get<bool>() ? "True" : "False";
  if (value->is_number_float()) return float_text(value->get<double>());
  if (value->is_number()) return value->dump();
  fail("chat template: a tool's description has ", value->dump(), " where text is wanted");
}

std::string upper_case(std::string text) {
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return text;
}

std::vector<std::pair<std::string, const ordered_json*>> sorted_entries(const ordered_json& object) {
  std::vector<std::pair<std::string, const ordered_json*>> entries;
  for (const auto& [key, value] : object.items()) entries.emplace_back(key, &value);
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return lower_case(a.first) < lower_case(b.first); });
  return entries;
}

void write_argument(const ordered_json& value, bool quote_keys, const char* null_text, SpanWriter& out) {
  const auto quoted = [&](const std::string& text) {
    out.markup("<|\"|>");
    out.content(text);
    out.markup("<|\"|>");
  };
  if (value.is_string()) return quoted(value.get<std::string>());
  if (value.is_boolean()) return out.markup(value.get<bool>() ? "true" : "false");
  if (value.is_null()) return out.markup(null_text);
  if (value.is_number()) return out.content(value_text(&value));
  const bool object = value.is_object();
  out.markup(object ? "{" : "[");
  bool first = true;
  const auto separate = [&] {
    if (!first) out.markup(",");
    first = false;
  };
  if (object) {
    for (const auto& [key, item] : sorted_entries(value)) {
      separate();
      quote_keys ? quoted(key) : out.content(key);
      out.markup(":");
      write_argument(*item, quote_keys, null_text, out);
    }
  } else {
    for (const ordered_json& item : value) {
      separate();
      write_argument(item, quote_keys, null_text, out);
    }
  }
  out.markup(object ? "}" : "]");
}

}  // namespace qat
