#include "eval/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.h"

namespace qat {
namespace {

// Width on a terminal, close enough: code points.
size_t display_width(const std::string& text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }));
}

bool looks_numeric(const std::string& cell) {
  if (cell == "n/a" || cell == "-") return true;
  const size_t first = cell.find_first_not_of("+-[(<~ ");
  return first != std::string::npos && cell[first] >= '0' && cell[first] <= '9';
}

std::string pad(const std::string& cell, size_t width, bool right) {
  const std::string blank(width - display_width(cell), ' ');
  return right ? blank + cell : cell + blank;
}

std::string print(const char* format, int digits, double value) {
  if (std::isnan(value)) return "n/a";
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, digits, value);
  return buffer;
}

}  // namespace

std::vector<bool> numeric_columns(const Table& table) {
  std::vector<bool> numeric(table.header.size(), false);
  for (size_t c = 0; c < numeric.size(); ++c) {
    bool any = false;
    bool all = true;
    for (const auto& row : table.rows) {
      QAT_CHECK(row.size() == table.header.size());
      if (row[c].empty()) continue;
      any = true;
      all = all && looks_numeric(row[c]);
    }
    numeric[c] = any && all;
  }
  return numeric;
}

std::string format_table(const Table& table) {
  const std::vector<bool> numeric = numeric_columns(table);
  std::vector<size_t> widths;
  for (const std::string& title : table.header) widths.push_back(display_width(title));
  for (const auto& row : table.rows) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], display_width(row[c]));
  }

  std::string text;
  const auto add_line = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t c = 0; c < cells.size(); ++c) line += (c > 0 ? "  " : "") + pad(cells[c], widths[c], numeric[c]);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  };
  add_line(table.header);
  std::vector<std::string> rules;
  for (const size_t width : widths) rules.emplace_back(width, '-');
  add_line(rules);
  for (const auto& row : table.rows) add_line(row);
  return text;
}

std::string format_fixed(double value, int digits) { return print("%.*f", digits, value); }

std::string format_significant(double value, int digits) { return print("%.*g", digits, value); }

std::string format_percent(double share, int digits) {
  return std::isnan(share) ? "n/a" : format_fixed(100 * share, digits) + " %";
}

}  // namespace qat
