// A folder of transformers' mobile format (quant_method "gemma"): packed integer codes, a scale per row, static scales
// of activations and of the key-value cache. Source: mobile_format.md 2.1 (quantizer_gemma.py and gemma_quant.py of
// transformers).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <regex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gemma4/config.h"
#include "gemma4/static_scales.h"
#include "gemma4/weight_table.h"
#include "io/safetensors.h"
#include "quant/scheme.h"

namespace qat {

// quantization_config of a config.json: how many bits each module has.
class MobileWidths {
 public:
  // Throws Error if the file describes another quantization, a width that is none of 2, 4 and 8, or a pattern that is
  // no regular expression.
  explicit MobileWidths(const std::filesystem::path& config_file);

  struct Choice {
    int bits;          // 2, 4 or 8; 0 = the module stays as it is
    std::string rule;  // what in the file says so, for messages
  };
  // The width of a linear or an embedding, by module path ("model.language_model.layers.0.mlp.up_proj"), as
  // transformers finds it: of all patterns the one whose match starts first in the path, of several such the first of
  // the file.
  Choice of(const std::string& module, bool is_embedding) const;

 private:
  struct Pattern {
    std::string text;
    std::regex regex;
    int bits;
  };
  bool matches(const Pattern& excluded, const std::string& module) const;

  std::string where_;
  int default_bits_ = 4;
  bool quantize_embeddings_ = false;
  std::vector<Pattern> patterns_;
  std::vector<Pattern> excluded_;
};

// A weight of the folder where it lies in the mapped file.
struct MobileWeight {
  const QuantScheme* scheme = nullptr;  // Int2, Int4, Int8; BF16, F16 or F32 where it is not quantized
  std::span<const std::byte> bytes;     // rows of packed codes in CodeBytes::Offset, or of values
  std::span<const float> scales = {};   // one per WeightSpec::scale_width values, row-major; of quantized weights
  LinearScales edges = {};              // of quantized linears
};

class MobileFolder {
 public:
  // Whether a folder's config.json speaks of this format.
  static bool is_one(const std::filesystem::path& path);

  // Throws Error that lists together what is wrong with the weights: missing ones, bytes that contradict the width
  // which the patterns give the module (transformers would decode them to garbage), scales that are no positive normal
  // number.
  explicit MobileFolder(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const Gemma4Config& config() const { return config_; }
  const WeightTable& table() const { return table_; }
  const TensorSource& tensors() const { return tensors_; }
  // What stands before the table's names in the files: "model.language_model.".
  const std::string& prefix() const { return prefix_; }

  // By its name in the table.
  const MobileWeight& weight(std::string_view name) const;
  // Of every quantized linear, and of layers with own keys and values where the folder has cache scales.
  const StaticScales& static_scales() const { return static_scales_; }

 private:
  class Reader;

  std::filesystem::path path_;
  Gemma4Config config_;
  WeightTable table_;
  SafetensorsSource tensors_;
  std::string prefix_;
  std::map<std::string, MobileWeight, std::less<>> weights_;
  StaticScales static_scales_;
  std::vector<std::unique_ptr<float[]>> copied_scales_;  // that do not lie in the files one by one, aligned
};

}  // namespace qat
