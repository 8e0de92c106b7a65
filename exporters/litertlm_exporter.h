// Writes a model of a mobile plan as one .litertlm file that LiteRT-LM runs on the CPU: metadata, tokenizer, embedders,
// prefill and decode graphs, config.json. Source: mobile_format.md 2.3, 2.4, 9.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "exporters/litertlm_weights.h"

namespace qat {

enum class EmbedderLayout {
  Separate,  // models of their own, as in Google's files
  Shared     // inside the prefill and decode graphs: a tied head and the token table are one constant
};

struct LitertlmExportInputs {
  const LitertlmWeights* weights = nullptr;
  std::filesystem::path model_folder;  // config.json, tokenizer.json, chat template, generation_config.json
  std::filesystem::path output;
  int64_t context = 0;                   // positions; 0: 4096, or the model's limit if that is smaller
  std::vector<int64_t> prefill_lengths;  // empty: 8, 32, 128, 512, as far as they fit the context
  EmbedderLayout embedder = EmbedderLayout::Separate;
};

struct LitertlmExportFigures {
  uint64_t file_bytes = 0;
  int64_t context = 0;
  std::vector<int64_t> prefill_lengths;
  double seconds = 0;  // of writing, without the final sync to the disk
};

// Throws Error, and leaves nothing under the output's name, for a model that the graphs cannot express (experts, Gemma
// 3), a context beyond the model's positions or not a multiple of the smallest prefill length, a linear with one static
// end, a tokenizer without ids that the metadata needs, and everything that goes wrong with the output.
LitertlmExportFigures export_litertlm(const LitertlmExportInputs& inputs);

}  // namespace qat
