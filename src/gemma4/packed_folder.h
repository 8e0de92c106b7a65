// A folder with 4-bit weights in the form "pack-quantized" of compressed-tensors (w4a16, such as Google's
// -qat-w4a16-ct checkpoints): of a module M, M.weight_packed I32 [rows, columns / 8] holds codes + 8, the first in the
// lowest bits, and M.weight_scale [rows, groups] their scales. Every such group is a whole number of Q4_0 blocks.
// Source: gguf_q4_0.md 2.4; quantization_config of the library's config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/float_types.h"
#include "gemma4/config.h"
#include "gemma4/weight_table.h"
#include "io/safetensors.h"

namespace qat {

struct PackedWeight {
  std::span<const std::byte> codes;    // rows in CodeBytes::Offset of Int4; empty where the weight is not quantized
  std::vector<Float16> scales;         // one per block of 32
  const TensorView* values = nullptr;  // BF16, F16 or F32 of a weight that is not quantized
};

class PackedFolder {
 public:
  // Whether a folder's config.json speaks of compressed-tensors.
  static bool is_one(const std::filesystem::path& path);

  // Throws Error if the configuration asks for something else than symmetric 4-bit weights, and one that lists together
  // what is wrong with the tensors.
  explicit PackedFolder(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const Gemma4Config& config() const { return config_; }
  const WeightTable& table() const { return table_; }
  const TensorSource& tensors() const { return tensors_; }
  // What stands before the table's names in the files: "model.language_model.".
  const std::string& prefix() const { return prefix_; }

  // By its name in the table.
  const PackedWeight& weight(std::string_view name) const;
  // How many scales of blocks are no fp16 numbers and were rounded to the nearest.
  int64_t rounded_scales() const { return rounded_scales_; }

 private:
  class Reader;

  std::filesystem::path path_;
  Gemma4Config config_;
  WeightTable table_;
  SafetensorsSource tensors_;
  std::string prefix_;
  std::map<std::string, PackedWeight, std::less<>> weights_;
  int64_t rounded_scales_ = 0;
};

}  // namespace qat
