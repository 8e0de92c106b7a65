// Proves on the exported bytes that what was trained is what is shipped. Needs neither LibTorch nor training data, and
// decodes with code of its own (gguf_decoder.h) that shares nothing with the writer but the description of the model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gemma4/model_folder.h"

namespace qat {

// Witness logits and the reference's `float` arithmetic differ only by the order of fp32 sums.
inline constexpr double kWitnessTolerance = 1e-3;

struct VerifyReport {
  int64_t quantized_weights = 0;    // compared with the witness: codes, scales and the matrix the GEMM read
  int64_t unquantized_weights = 0;  // compared value by value with the masters
  int64_t blocks = 0;
  int64_t witness_positions = 0;
  double largest_logit_difference = 0;
  int64_t cached_codes = 0;              // of keys and values, compared with those that training cached
  int64_t cached_codes_aside = 0;        // of them, one step aside (exporters/witness_caches.h)
  std::vector<std::string> differences;  // one line each, naming the tensor

  bool equal() const { return differences.empty(); }
};

struct VerifyOptions {
  bool run_model = true;  // also run the reference inference on the witness prompts
  int threads = 2;
};

// Throws Error where the artifact cannot be read or the checkpoint has no witness; differences are no errors.
VerifyReport verify_gguf(const std::filesystem::path& artifact, const ModelFolder& checkpoint,
                         const VerifyOptions& options);

}  // namespace qat
