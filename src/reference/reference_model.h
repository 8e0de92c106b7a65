// Inference straight from the bytes of a GGUF file, sharing nothing with training but the description of the model.
#pragma once

#include <memory>
#include <optional>

#include "gemma4/language_model.h"
#include "reference/gguf_model.h"
#include "reference/key_value_cache.h"

namespace qat {

enum class ArithmeticKind {
  Float,  // what training computed: BF16 matrices of decoded weights, fp32 activations
  Device  // llama.cpp's CPU kernels: activations in Q8_0, integer dot products, its cache
};

struct ReferenceOptions {
  ArithmeticKind arithmetic = ArithmeticKind::Float;
  std::optional<CacheType> cache;     // default: F32 for Float, F16 for Device
  int threads = 0;                    // 0 = one per processor; results do not depend on it
  CacheObserver* observer = nullptr;  // of evaluate(); must outlive the model
};

// `file` must outlive the model and its sessions; weights stay where they are mapped. Throws Error if the file is no
// complete Gemma 3 or 4 text model, or if its heads do not fit the cache type.
std::unique_ptr<LanguageModel> make_reference_model(const GgufFile& file, const ReferenceOptions& options);

}  // namespace qat
