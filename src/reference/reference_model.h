// Inference straight from the bytes of a GGUF file or a mobile model, sharing nothing with training but the description
// of the model.
#pragma once

#include <memory>
#include <optional>

#include "gemma4/language_model.h"
#include "gemma4/mobile_folder.h"
#include "io/gguf.h"
#include "io/litertlm.h"
#include "reference/gguf_adapter.h"
#include "reference/key_value_cache.h"
#include "reference/linear_observer.h"

namespace qat {

enum class ArithmeticKind {
  // What training computed: fp32 activations (for mobile models fake-quantized at the edges of linears) and decoded
  // weights, rounded to BF16 where a GGUF file holds them in blocks.
  Float,
  // The kernels of the client. GGUF: llama.cpp's on CPUs, activations in Q8_0. Mobile models: XNNPACK's, integer
  // products of int8 activations and fp32 between them, as this processor computes them there.
  Device
};

struct ReferenceOptions {
  ArithmeticKind arithmetic = ArithmeticKind::Float;
  // Default for GGUF: F32 for Float, F16 for Device. For mobile models: Int8 where the model has the scales, else F32.
  std::optional<CacheType> cache = std::nullopt;
  int threads = 0;                    // 0 = one per processor; results do not depend on it
  CacheObserver* observer = nullptr;  // of evaluate(); must outlive the model
  LinearObserver* linears = nullptr;  // the same
  const GgufAdapter* adapter = nullptr;  // of GGUF files only; must outlive the model
};

// `file` must outlive the model and its sessions; weights stay where they are mapped. Throws Error if the file is no
// complete Gemma 3 or 4 text model, or if its heads do not fit the cache type.
std::unique_ptr<LanguageModel> make_reference_model(const GgufFile& file, const ReferenceOptions& options);

// The same for a folder of transformers' mobile format.
std::unique_ptr<LanguageModel> make_reference_model(const MobileFolder& folder, const ReferenceOptions& options);
// The same for a .litertlm file that this program wrote.
std::unique_ptr<LanguageModel> make_reference_model(const LitertlmFile& file, const ReferenceOptions& options);

}  // namespace qat
