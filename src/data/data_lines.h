// The lines and paragraphs of data files. Errors from `take` get the file and the line in front.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace qat {

// Receives a text and the number of its (first) line, from 1.
using TakeText = std::function<void(const std::string& text, int64_t line)>;

// Each line that is not blank, without a byte order mark in front of the first.
void for_each_line(const std::filesystem::path& path, const TakeText& take);

// The documents of a text file, which blank lines separate. Throws Error where one is not UTF-8.
void for_each_paragraph(const std::filesystem::path& path, const TakeText& take);

// The first line that is not blank; empty if there is none.
std::string first_line(const std::filesystem::path& path);

}  // namespace qat
