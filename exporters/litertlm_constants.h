// The constants of one TFLite model: small ones inside the flatbuffer, weights behind it, each once whatever number of
// graphs use it. Weights are converted while they are written, in bounded pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "exporters/litertlm_weight_bytes.h"
#include "exporters/litertlm_weights.h"
#include "io/tflite.h"

namespace qat {

// An unquantized matrix as float16 where a power of two makes that exact: value = stored / 2^exponent.
struct FloatMatrix {
  TfliteTensor tensor;
  int exponent = 0;
};

class LitertlmConstants {
 public:
  explicit LitertlmConstants(const LitertlmWeights& weights) : weights_(weights) {}

  TfliteTensor floats(const std::string& name, std::vector<int32_t> shape, std::span<const float> values);
  TfliteTensor integers(const std::string& name, std::vector<int32_t> shape, std::span<const int32_t> values);

  // All `offset + value` of a vector, fp32.
  TfliteTensor vector(const WeightSpec& weight, double offset = 0);
  // Codes with their scales. Throws Error if a row does not fill whole bytes.
  TfliteTensor codes(const WeightSpec& weight);
  // The same for slice `slice` of a table whose rows hold one slice per layer.
  TfliteTensor slice(const WeightSpec& weight, int64_t slice);
  // An unquantized matrix.
  FloatMatrix matrix(const WeightSpec& weight);

  // The quantization of activations with this scale.
  uint32_t one_scale(float scale) { return quantization({scale}); }

  TfliteModel& model() { return model_; }
  // Writes the bytes of every constant behind the flatbuffer.
  void write(const TfliteLayout& layout, const WriteBytes& write) const;

 private:
  enum class Form { Codes, Half, Float };
  // A weight whose rows go to one constant, or slice by slice to several.
  struct Stream {
    const WeightSpec* weight;
    Form form;
    int exponent = 0;
    int64_t width = 0;                                 // of a slice
    std::vector<std::pair<int64_t, uint32_t>> slices;  // slice, constant
  };

  TfliteTensor small(const std::string& name, TfliteType type, std::vector<int32_t> shape,
                     std::span<const std::byte> bytes);
  uint32_t reserve(uint64_t bytes);
  uint32_t quantization(std::vector<float> scales);

  const LitertlmWeights& weights_;
  TfliteModel model_;
  std::map<std::string, FloatMatrix, std::less<>> known_;
  std::map<const WeightSpec*, size_t> stream_of_;
  std::vector<Stream> streams_;
};

}  // namespace qat
