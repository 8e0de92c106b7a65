// Proves on the exported bytes that what was trained is what is shipped. Needs neither LibTorch nor training data, and
// decodes with code of its own (gguf_decoder.h) that shares nothing with the writer but the description of the model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gemma4/model_folder.h"

namespace qat {

struct VerifyReport {
  int64_t quantized_weights = 0;    // compared with the witness: codes, scales and the matrix the GEMM read
  int64_t unquantized_weights = 0;  // compared value by value with the masters
  int64_t blocks = 0;
  int64_t witness_positions = 0;
  double largest_logit_difference = 0;
  int64_t cached_codes = 0;              // of keys and values, compared with those that training cached
  int64_t cached_codes_aside = 0;        // of them, one step aside (exporters/witness_caches.h)
  int64_t edge_codes = 0;                // of static activations and caches, compared with training's
  int64_t edge_codes_aside = 0;          // of them, one step aside (exporters/witness_edges.h)
  std::vector<std::string> inexact;      // weights that the format cannot hold as they were trained, one line each
  std::vector<std::string> differences;  // one line each, naming the tensor

  bool equal() const { return differences.empty(); }
};

struct VerifyOptions {
  bool run_model = true;  // also run the reference inference on the witness prompts
  int threads = 2;
  std::filesystem::path adapter = {};  // GGUF: the adapter that the checkpoint was trained with; empty: none
};

// Throws Error where the artifact cannot be read or the checkpoint has no witness; differences are no errors.
VerifyReport verify_gguf(const std::filesystem::path& artifact, const ModelFolder& checkpoint,
                         const VerifyOptions& options);
// The same for a folder of transformers' mobile format, and for a .litertlm file of this program.
VerifyReport verify_mobile_folder(const std::filesystem::path& artifact, const ModelFolder& checkpoint,
                                  const VerifyOptions& options);
VerifyReport verify_litertlm(const std::filesystem::path& artifact, const ModelFolder& checkpoint,
                         const VerifyOptions& options);

}  // namespace qat
