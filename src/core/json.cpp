#include "core/json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"
#include "core/mapped_file.h"

namespace qat {

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  try {
    return nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::parse_error& error) {
    const auto end = std::min<size_t>(error.byte > 0 ? error.byte - 1 : 0, text.size());
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(end), '\n');
    const size_t last_break = text.substr(0, end).rfind('\n');
    const size_t column = end - (last_break == std::string_view::npos ? 0 : last_break + 1) + 1;
    fail(where, ":", line, ":", column, ": is not valid JSON (", error.what(), ")");
  } catch (const nlohmann::json::exception& error) {
    fail(where, ": is not valid JSON (", error.what(), ")");
  }
}

nlohmann::json load_json(const std::filesystem::path& path) { return parse_json(read_text_file(path), path.string()); }

namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t above = row[j + 1];
      row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::optional<std::string> nearest_name(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string* best = nullptr;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = &candidate;
      best_distance = distance;
    }
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

namespace {

std::string joined(const std::vector<std::string>& words, const char* separator) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : separator) + word;
  return text;
}

class FieldReader final : public FieldVisitor {
 public:
  FieldReader(const nlohmann::json& json, std::string prefix, std::vector<std::string>& problems)
      : json_(json), prefix_(std::move(prefix)), problems_(problems) {
    if (!json_.is_object()) problems_.push_back(here("") + ": must be an object, found " + json_.dump());
  }

  void field(const char* name, bool& value, const char*) override {
    const auto* json = find(name);
    if (json == nullptr) return;
    if (!json->is_boolean()) return wrong(name, "true or false", *json);
    value = json->get<bool>();
  }
  void field(const char* name, int64_t& value, const char*) override {
    const auto* json = find(name);
    if (json == nullptr) return;
    const bool fits = json->is_number_integer() && !(json->is_number_unsigned() && json->get<uint64_t>() > INT64_MAX);
    if (!fits) return wrong(name, "a whole number", *json);
    value = json->get<int64_t>();
  }
  void field(const char* name, double& value, const char*) override {
    const auto* json = find(name);
    if (json == nullptr) return;
    if (!json->is_number() || !std::isfinite(json->get<double>())) return wrong(name, "a number", *json);
    value = json->get<double>();
  }
  void field(const char* name, std::string& value, const char*) override {
    const auto* json = find(name);
    if (json == nullptr) return;
    if (!json->is_string()) return wrong(name, "a string", *json);
    value = json->get<std::string>();
  }
  void field(const char* name, std::vector<std::string>& value, const char*) override {
    const auto* json = find(name);
    if (json == nullptr) return;
    std::vector<std::string> items;
    if (json->is_string()) {
      items.push_back(json->get<std::string>());
    } else {
      if (!json->is_array()) return wrong(name, "a list of strings", *json);
      for (const auto& item : *json) {
        if (!item.is_string()) return wrong(name, "a list of strings", *json);
        items.push_back(item.get<std::string>());
      }
    }
    value = std::move(items);
  }
  void choice(const char* name, std::string& value, std::initializer_list<const char*> choices, const char*) override {
    const auto* json = find(name);
    if (json == nullptr) return;
    const std::vector<std::string> names(choices.begin(), choices.end());
    const bool valid = json->is_string() && std::count(names.begin(), names.end(), json->get<std::string>()) == 1;
    if (!valid) return wrong(name, ("one of " + joined(names, ", ")).c_str(), *json);
    value = json->get<std::string>();
  }
  void object(const char* name, const char*, const std::function<void(FieldVisitor&)>& visit) override {
    const auto* json = find(name);
    if (json == nullptr) return;
    FieldReader nested(*json, here(name), problems_);
    visit(nested);
    nested.report_unknown();
  }

  void report_unknown() {
    if (!json_.is_object()) return;
    for (const auto& item : json_.items()) {
      if (std::count(known_.begin(), known_.end(), item.key()) > 0) continue;
      std::string problem = here(item.key()) + ": no such field";
      if (const auto nearest = nearest_name(item.key(), known_)) {
        problem += "; did you mean \"" + *nearest + "\"?";
      } else {
        problem += "; the fields here are " + joined(known_, ", ");
      }
      problems_.push_back(problem);
    }
  }

 private:
  std::string here(const std::string& name) const {
    if (prefix_.empty()) return name;
    return name.empty() ? prefix_ : prefix_ + "." + name;
  }
  const nlohmann::json* find(const char* name) {
    known_.emplace_back(name);
    if (!json_.is_object()) return nullptr;
    const auto found = json_.find(name);
    return found == json_.end() ? nullptr : &*found;
  }
  void wrong(const char* name, const char* wanted, const nlohmann::json& found) {
    problems_.push_back(here(name) + ": must be " + wanted + ", found " + found.dump());
  }

  const nlohmann::json& json_;
  std::string prefix_;
  std::vector<std::string>& problems_;
  std::vector<std::string> known_;
};

class FieldWriter final : public FieldVisitor {
 public:
  explicit FieldWriter(nlohmann::ordered_json& json) : json_(json) { json_ = nlohmann::ordered_json::object(); }
  void field(const char* name, bool& value, const char*) override { json_[name] = value; }
  void field(const char* name, int64_t& value, const char*) override { json_[name] = value; }
  void field(const char* name, double& value, const char*) override { json_[name] = value; }
  void field(const char* name, std::string& value, const char*) override { json_[name] = value; }
  void field(const char* name, std::vector<std::string>& value, const char*) override { json_[name] = value; }
  void choice(const char* name, std::string& value, std::initializer_list<const char*>, const char*) override {
    json_[name] = value;
  }
  void object(const char* name, const char*, const std::function<void(FieldVisitor&)>& visit) override {
    FieldWriter nested(json_[name]);
    visit(nested);
  }

 private:
  nlohmann::ordered_json& json_;
};

class FieldDescriber final : public FieldVisitor {
 public:
  explicit FieldDescriber(std::string prefix, std::string& text) : prefix_(std::move(prefix)), text_(text) {}
  void field(const char* name, bool& value, const char* help) override { line(name, value ? "true" : "false", help); }
  void field(const char* name, int64_t& value, const char* help) override { line(name, join(value), help); }
  void field(const char* name, double& value, const char* help) override { line(name, join(value), help); }
  void field(const char* name, std::string& value, const char* help) override { line(name, "\"" + value + "\"", help); }
  void field(const char* name, std::vector<std::string>& value, const char* help) override {
    line(name, "[" + joined(value, ", ") + "]", help);
  }
  void choice(const char* name, std::string& value, std::initializer_list<const char*> choices,
              const char* help) override {
    const std::vector<std::string> names(choices.begin(), choices.end());
    line(name, "\"" + value + "\"", (std::string(help) + " (" + joined(names, ", ") + ")").c_str());
  }
  void object(const char* name, const char*, const std::function<void(FieldVisitor&)>& visit) override {
    FieldDescriber nested(prefix_ + name + ".", text_);
    visit(nested);
  }

 private:
  void line(const char* name, const std::string& value, const char* help) {
    std::string left = "  " + prefix_ + name + " = " + value;
    left.resize(std::max<size_t>(left.size() + 2, 48), ' ');
    text_ += left + help + "\n";
  }
  std::string prefix_;
  std::string& text_;
};

}  // namespace

void read_fields(const nlohmann::json& json, const VisitFields& visit, std::vector<std::string>& problems) {
  FieldReader reader(json, "", problems);
  visit(reader);
  reader.report_unknown();
}

nlohmann::ordered_json write_fields(const VisitFields& visit) {
  nlohmann::ordered_json json;
  FieldWriter writer(json);
  visit(writer);
  return json;
}

std::string describe_fields(const VisitFields& visit) {
  std::string text;
  FieldDescriber describer("", text);
  visit(describer);
  return text;
}

void apply_override(nlohmann::json& json, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    fail_usage("\"", assignment, "\": an override has the form key=value, for example optimizer.learning_rate=1e-5");
  }
  const std::string text(assignment.substr(equals + 1));
  nlohmann::json value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) value = text;

  nlohmann::json* place = &json;
  std::string_view key = assignment.substr(0, equals);
  for (;;) {
    const size_t dot = key.find('.');
    const std::string name(key.substr(0, dot));
    if (!place->is_object()) fail_usage("\"", assignment, "\": ", name, " is not inside an object");
    place = &(*place)[name];
    if (dot == std::string_view::npos) break;
    if (place->is_null()) *place = nlohmann::json::object();
    key.remove_prefix(dot + 1);
  }
  *place = std::move(value);
}

}  // namespace qat
