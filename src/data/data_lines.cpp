#include "data/data_lines.h"

#include <fstream>

#include "core/error.h"
#include "data/utf8.h"

namespace qat {

namespace {

std::ifstream open_text(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) fail(path.string(), ": is a folder, a data file (.jsonl or .txt) is wanted");
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(path.string(), ": cannot be opened; is the path of the data file right?");
  return in;
}

void take_at(const std::filesystem::path& path, const TakeText& take, const std::string& text, int64_t line) {
  try {
    take(text, line);
  } catch (const Error& error) {
    throw Error(join(path.string(), ":", line, ": ", error.what()), error.exit_code());
  }
}

}  // namespace

void for_each_line(const std::filesystem::path& path, const TakeText& take) {
  std::ifstream in = open_text(path);
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (number == 1 && line.starts_with("\xef\xbb\xbf")) line.erase(0, 3);
    if (!trim_white_space(line).empty()) take_at(path, take, line, number);
  }
  if (in.bad()) fail(path.string(), ": reading failed after line ", number);
}

void for_each_paragraph(const std::filesystem::path& path, const TakeText& take) {
  std::ifstream in = open_text(path);
  std::string document;
  int64_t number = 0;
  int64_t start = 0;
  const auto finish = [&] {
    if (document.empty()) return;
    document.pop_back();
    if (!is_valid_utf8(document)) fail(path.string(), ":", start, ": is not valid UTF-8; save the file as UTF-8");
    take_at(path, take, document, start);
    document.clear();
  };
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (trim_white_space(line).empty()) {
      finish();
      continue;
    }
    if (document.empty()) start = number;
    document.append(line).append("\n");
  }
  finish();
  if (in.bad()) fail(path.string(), ": reading failed after line ", number);
}

std::string first_line(const std::filesystem::path& path) {
  std::ifstream in = open_text(path);
  std::string line;
  while (std::getline(in, line) && trim_white_space(line).empty()) {
  }
  return line;
}

}  // namespace qat
