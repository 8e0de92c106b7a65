// JSON files, and structs that describe their fields once for reading, printing and help.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qat {

// Parses a JSON file. Throws Error with the path, line and column of a syntax error.
nlohmann::json load_json(const std::filesystem::path& path);
nlohmann::json parse_json(std::string_view text, const std::string& where);

// The candidate with the smallest edit distance to `word`, if any is close enough to be a typing error.
std::optional<std::string> nearest_name(std::string_view word, const std::vector<std::string>& candidates);

// A struct lists its fields once in `void visit_fields(FieldVisitor&)`; reading, writing and help follow from it.
class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void field(const char* name, bool& value, const char* help) = 0;
  virtual void field(const char* name, int64_t& value, const char* help) = 0;
  virtual void field(const char* name, double& value, const char* help) = 0;
  virtual void field(const char* name, std::string& value, const char* help) = 0;
  virtual void field(const char* name, std::vector<std::string>& value, const char* help) = 0;
  // A string that must be one of `choices`.
  virtual void choice(const char* name, std::string& value, std::initializer_list<const char*> choices,
                      const char* help) = 0;
  // A nested object whose fields `visit` lists.
  virtual void object(const char* name, const char* help, const std::function<void(FieldVisitor&)>& visit) = 0;
};

using VisitFields = std::function<void(FieldVisitor&)>;

// Fills a struct from JSON. Absent fields keep their values. Unknown fields and wrong types are appended to `problems`,
// one line each, with the nearest valid name. Relative meaning of values is the caller's to check.
void read_fields(const nlohmann::json& json, const VisitFields& visit, std::vector<std::string>& problems);

// Every field with its current value, nested like the struct.
nlohmann::ordered_json write_fields(const VisitFields& visit);

// A line per field: dotted name, current value, help.
std::string describe_fields(const VisitFields& visit);

// Sets one dotted field ("optimizer.learning_rate") in `json` from the text of a command line: the text is read as JSON
// where it is valid JSON, else as a string.
void apply_override(nlohmann::json& json, std::string_view assignment);

}  // namespace qat
