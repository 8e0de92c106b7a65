// Writes a model as one GGUF file that llama.cpp and Ollama run: metadata, vocabulary, and every weight in the scheme
// of its plan, streamed from mapped masters in bounded pieces. What it writes: gemma4_architecture.md 4,
// gguf_q4_0.md 4.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/float_types.h"
#include "exporters/gguf_vocabulary.h"
#include "gemma4/config.h"
#include "gemma4/weight_table.h"
#include "io/tensor_source.h"
#include "quant/scheme.h"

namespace qat {

// One weight of the file. A BF16 master is encoded from its BF16 numbers, an F32 or F16 one from its own.
struct ExportedWeight {
  const WeightSpec* spec = nullptr;
  const TensorView* master = nullptr;
  Scheme scheme = Scheme::F32;
  std::span<const Float16> stored_scales;  // empty: the rule of the scheme; else one per block
};

struct GgufExportInputs {
  const Gemma4Config* config = nullptr;
  const TensorSource* source = nullptr;  // where the masters come from; told which bytes are done with
  std::vector<ExportedWeight> weights;   // in the order of the file
  const GgufVocabulary* vocabulary = nullptr;
  std::string name;  // general.name
  SamplingDefaults sampling;
  std::filesystem::path output;
  int threads = 2;
};

// What an export did, for reports.
struct GgufExportFigures {
  int64_t weights = 0;
  uint64_t file_bytes = 0;
  double seconds = 0;  // of writing, without the final sync to the disk
};

// Throws Error, and leaves nothing under the output's name, for rows that are no whole blocks, a master that is not a
// finite number everywhere or too large for its scheme (naming the tensor), a model that the file's architecture cannot
// express, and everything that goes wrong with the output. Memory beyond the mapped masters stays below 64 MiB plus the
// vocabulary.
GgufExportFigures export_gguf(const GgufExportInputs& inputs);

}  // namespace qat
