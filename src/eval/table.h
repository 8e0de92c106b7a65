// A table of text cells, printed with aligned columns.
#pragma once

#include <string>
#include <vector>

namespace qat {

struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // each as long as the header
};

// Columns whose cells are all numbers (with signs, units, intervals) or empty are aligned right. A line per row, the
// header underlined.
std::string format_table(const Table& table);

// Which columns hold numbers.
std::vector<bool> numeric_columns(const Table& table);

// A number with so many digits after the point: "12.350"; "n/a" for NaN.
std::string format_fixed(double value, int digits);
// A number with so many significant digits: "0.0123", "1.2e-07"; "n/a" for NaN.
std::string format_significant(double value, int digits);
// "61.5 %" for 0.615.
std::string format_percent(double share, int digits);

}  // namespace qat
