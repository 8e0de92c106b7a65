// Puts a checkpoint's codes and scales into an existing .litertlm file of the same architecture and keeps every other
// byte: graphs, other modalities, tokenizer, metadata. Constants are recognised by what the graphs do with them and by
// their names, ours or those that Google's files use (mobile_format.md 2.3). Untried on Google's files.
#pragma once

#include <cstdint>
#include <filesystem>

#include "exporters/litertlm_weights.h"

namespace qat {

struct LitertlmSpliceFigures {
  int64_t constants = 0;  // whose bytes were replaced
  int64_t scales = 0;     // fp32 scales that were replaced
};

// Writes `output` from `base`. Throws Error, and leaves nothing under the output's name, that lists every weight of the
// model without a constant of its shape and type in the file, every quantized constant of the text model's graphs that
// belongs to no weight, and every edge that the file quantizes otherwise.
LitertlmSpliceFigures splice_litertlm(const LitertlmWeights& weights, const std::filesystem::path& base,
                                      const std::filesystem::path& output);

}  // namespace qat
