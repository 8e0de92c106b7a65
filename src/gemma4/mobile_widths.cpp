#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"
#include "gemma4/mobile_folder.h"

namespace qat {

namespace {

using Json = nlohmann::ordered_json;  // the order of the patterns counts

int checked_bits(const Json& value, const std::string& where) {
  if (value == 2 || value == 4 || value == 8) return value.get<int>();
  fail(where, ": num_bits is ", value.dump(), ", wanted 2, 4 or 8");
}

std::regex compiled(const std::string& pattern, const std::string& where) {
  try {
    return std::regex(pattern, std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& error) {
    fail(where, ": \"", pattern, "\" is no regular expression that this program understands (", error.what(), ")");
  }
}

}  // namespace

MobileWidths::MobileWidths(const std::filesystem::path& config_file)
    : where_(config_file.string() + ": quantization_config") {
  load_json(config_file);  // tells where a syntax error is
  const Json document = Json::parse(read_text_file(config_file));
  if (!document.is_object() || !document.contains("quantization_config") ||
      !document["quantization_config"].is_object()) {
    fail(where_, " is missing: this is no folder of the mobile format");
  }
  const Json& json = document["quantization_config"];
  const auto found = [&](const char* name) {
    const auto entry = json.find(name);
    return entry == json.end() || entry->is_null() ? nullptr : &*entry;
  };
  const Json* method = found("quant_method");
  if (method == nullptr || *method != "gemma") {
    fail(where_, ": quant_method is ", method == nullptr ? "missing" : method->dump(), ", wanted \"gemma\"");
  }
  if (const Json* bits = found("num_bits")) default_bits_ = checked_bits(*bits, where_);
  if (const Json* flag = found("quantize_embeddings")) {
    if (!flag->is_boolean()) fail(where_, ": quantize_embeddings is ", flag->dump(), ", wanted true or false");
    quantize_embeddings_ = flag->get<bool>();
  }
  if (const Json* patterns = found("module_quant_configs")) {
    if (!patterns->is_object()) fail(where_, ": module_quant_configs must be an object");
    for (const auto& item : patterns->items()) {
      const std::string where = where_ + ": module_quant_configs[\"" + item.key() + "\"]";
      if (!item.value().is_object()) fail(where, " must be an object");
      const bool has_bits = item.value().contains("num_bits");
      patterns_.push_back({item.key(), compiled(item.key(), where),
                           has_bits ? checked_bits(item.value()["num_bits"], where) : default_bits_});
    }
  }
  // Without a list transformers leaves the head alone.
  const Json* excluded = found("modules_to_not_convert");
  const Json list = excluded == nullptr ? Json::array({"lm_head"}) : *excluded;
  if (!list.is_array()) fail(where_, ": modules_to_not_convert must be a list");
  for (const Json& entry : list) {
    if (!entry.is_string()) fail(where_, ": modules_to_not_convert has ", entry.dump(), ", wanted names");
    const auto text = entry.get<std::string>();
    excluded_.push_back({text, compiled(text, where_ + ": modules_to_not_convert"), 0});
  }
}

// An entry excludes what ends with it, and what it matches from the start of the path up to a dot or the end.
bool MobileWidths::matches(const Pattern& excluded, const std::string& module) const {
  if (module.ends_with(excluded.text)) return true;
  for (size_t end = 0; end <= module.size(); ++end) {
    const bool at_boundary = end == module.size() || module[end] == '.' || (end > 0 && module[end - 1] == '.');
    if (at_boundary && std::regex_match(module.substr(0, end), excluded.regex)) return true;
  }
  return false;
}

MobileWidths::Choice MobileWidths::of(const std::string& module, bool is_embedding) const {
  for (const Pattern& pattern : excluded_) {
    if (matches(pattern, module)) return {0, "modules_to_not_convert has \"" + pattern.text + "\""};
  }
  if (is_embedding && !quantize_embeddings_) return {0, "quantize_embeddings is false"};
  const Pattern* best = nullptr;
  auto best_position = static_cast<std::ptrdiff_t>(module.size()) + 1;
  for (const Pattern& pattern : patterns_) {
    std::smatch match;
    if (!std::regex_search(module, match, pattern.regex) || match.position() >= best_position) continue;
    best = &pattern;
    best_position = match.position();
  }
  if (best == nullptr) return {default_bits_, "num_bits is " + std::to_string(default_bits_) + " by default"};
  return {best->bits, "the pattern \"" + best->text + "\" gives " + std::to_string(best->bits) + " bits"};
}

}  // namespace qat
