#pragma once

#include <string>

namespace qat {

// "rtn, mse, gptq": texts of a range, for messages.
template <class Range>
std::string comma_list(const Range& texts) {
  std::string list;
  for (const auto& text : texts) {
    if (!list.empty()) list += ", ";
    list += text;
  }
  return list;
}

}  // namespace qat
