// The text of data files of every kind, without a tokenizer: for comparing files with each other.
#pragma once

#include <filesystem>

#include "data/data_lines.h"

namespace qat {

// What each document says, in the order of the file: a text; a prompt and its completion; the messages of a chat; a
// question and its right answer. System prompts are left out, since many documents share them. Throws Error as
// for_each_example() does.
void for_each_text(const std::filesystem::path& path, const TakeText& take);

}  // namespace qat
