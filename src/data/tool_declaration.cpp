#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/gemma4_template.h"
#include "data/template_values.h"

namespace qat {

namespace {

using nlohmann::ordered_json;

// Writes the members of one schema object, separated by commas.
class SchemaWriter {
 public:
  SchemaWriter(const char* null_text, SpanWriter& out) : null_text_(null_text), out_(out) {}

  // The entries of `properties`, each NAME:{description:…,…,type:…}.
  void parameters(const ordered_json& properties) {
    bool first = true;
    for (const auto& [key, value] : sorted_entries(properties)) {
      if (is_schema_keyword(key)) continue;
      if (!first) out_.markup(",");
      first = false;
      out_.content(key);
      out_.markup(":{");
      parameter(*value);
    }
  }

  void quoted(const std::string& text) {
    out_.markup("<|\"|>");
    out_.content(text);
    out_.markup("<|\"|>");
  }

  void required(const ordered_json& names) {
    out_.markup("required:[");
    bool first = true;
    for (const ordered_json& name : names) {
      if (!first) out_.markup(",");
      first = false;
      quoted(value_text(&name));
    }
    out_.markup("]");
  }

 private:
  // Fields that describe a schema, so no property names when a schema itself is read as a list of properties.
  static bool is_schema_keyword(const std::string& key) {
    constexpr std::array<std::string_view, 5> kKeywords = {"description", "type", "properties", "required", "nullable"};
    return std::find(kKeywords.begin(), kKeywords.end(), key) != kKeywords.end();
  }

  void parameter(const ordered_json& schema) {
    const ordered_json* type_field = find_field(&schema, "type");
    const std::string type = upper_case(value_text(type_field));
    bool any = false;
    const auto separate = [&] {
      if (any) out_.markup(",");
      any = true;
    };
    if (const ordered_json* description = find_field(&schema, "description"); is_true(description)) {
      separate();
      out_.markup("description:");
      quoted(value_text(description));
    }
    if (const ordered_json* choices = find_field(&schema, "enum"); type == "STRING" && is_true(choices)) {
      separate();
      out_.markup("enum:");
      write_argument(*choices, true, null_text_, out_);
    }
    if (const ordered_json* items = find_field(&schema, "items");
        type == "ARRAY" && is_true(items) && items->is_object()) {
      separate();
      array_items(*items);
    }
    if (is_true(find_field(&schema, "nullable"))) {
      separate();
      out_.markup("nullable:true");
    }
    if (type == "OBJECT") object_members(schema, separate);
    separate();
    out_.markup("type:");
    quoted(type);
    out_.markup("}");
  }

  template <class Separate>
  void object_members(const ordered_json& schema, const Separate& separate) {
    const ordered_json* properties = find_field(&schema, "properties");
    separate();
    out_.markup("properties:{");
    parameters(properties != nullptr && properties->is_object() ? *properties : schema);
    out_.markup("}");
    if (const ordered_json* names = find_field(&schema, "required"); is_true(names)) {
      separate();
      required(*names);
    }
  }

  void array_items(const ordered_json& items) {
    out_.markup("items:{");
    bool first = true;
    for (const auto& [key, value] : sorted_entries(items)) {
      if (value->is_null()) continue;
      if (!first) out_.markup(",");
      first = false;
      if (key == "properties") {
        out_.markup("properties:{");
        if (value->is_object()) parameters(*value);
        out_.markup("}");
      } else if (key == "required") {
        required(*value);
      } else {
        out_.content(key);
        out_.markup(":");
        write_argument(key == "type" ? upper_case_types(*value) : *value, true, null_text_, out_);
      }
    }
    out_.markup("}");
  }

  static ordered_json upper_case_types(const ordered_json& type) {
    if (type.is_string()) return upper_case(type.get<std::string>());
    ordered_json upper = ordered_json::array();
    for (const ordered_json& one : type) upper.push_back(upper_case(value_text(&one)));
    return upper;
  }

  const char* null_text_;
  SpanWriter& out_;
};

void write_response_declaration(const ordered_json& response, SchemaWriter& schema, SpanWriter& out) {
  out.markup(",response:{");
  if (const ordered_json* description = find_field(&response, "description"); is_true(description)) {
    out.markup("description:");
    schema.quoted(value_text(description));
    out.markup(",");
  }
  if (const std::string type = upper_case(value_text(find_field(&response, "type"))); type == "OBJECT") {
    out.markup("type:");
    schema.quoted(type);
    out.markup("}");
  }
}

}  // namespace

void write_tool_declaration(const std::string& tool, const char* null_text, SpanWriter& out) {
  const ordered_json parsed = ordered_json::parse(tool, nullptr, false);
  const ordered_json* function = find_field(&parsed, "function");
  if (function == nullptr || !function->is_object() || find_field(function, "name") == nullptr) {
    fail("chat template: a tool is ", tool, "; {\"type\": \"function\", \"function\": {\"name\": …}} is wanted");
  }
  SchemaWriter schema(null_text, out);
  out.markup("declaration:");
  out.content(value_text(find_field(function, "name")));
  out.markup("{description:");
  schema.quoted(value_text(find_field(function, "description")));
  if (const ordered_json* parameters = find_field(function, "parameters"); is_true(parameters)) {
    out.markup(",parameters:{");
    if (const ordered_json* properties = find_field(parameters, "properties"); is_true(properties)) {
      out.markup("properties:{");
      schema.parameters(*properties);
      out.markup("},");
    }
    if (const ordered_json* names = find_field(parameters, "required"); is_true(names)) {
      schema.required(*names);
      out.markup(",");
    }
    // The closing brace stands with the type in the template, so a schema without a type stays open there too.
    if (const ordered_json* type = find_field(parameters, "type"); is_true(type)) {
      out.markup("type:");
      schema.quoted(upper_case(value_text(type)));
      out.markup("}");
    }
  }
  if (const ordered_json* response = find_field(function, "response")) {
    write_response_declaration(*response, schema, out);
  }
  out.markup("}");
}

}  // namespace qat
