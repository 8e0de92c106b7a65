// The fields of a line of JSON, checked. Errors say what is wrong with the line; the caller adds where.
#pragma once

#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace qat {

// Parses a line. Throws Error for invalid UTF-8 and JSON (with the column) and for anything but an object.
nlohmann::ordered_json parse_line(std::string_view line);

// True if the field is there and not null.
bool has(const nlohmann::ordered_json& line, const char* name);
// Throws Error for a missing field and one that is no text.
std::string text_of(const nlohmann::ordered_json& line, const char* name);
// The same for text that is empty or white space.
std::string filled_text(const nlohmann::ordered_json& line, const char* name);
// The first of the names that is there. Throws Error if none is.
const char* first_of(const nlohmann::ordered_json& line, std::initializer_list<const char*> names);

}  // namespace qat
