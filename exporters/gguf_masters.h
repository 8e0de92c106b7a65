// The weights of a model folder's architecture in a GGUF file, whoever wrote it: found by the table's names, and
// checked against what config.json says.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "gemma4/config.h"
#include "gemma4/weight_table.h"
#include "io/gguf.h"

namespace qat {

class GgufMasters {
 public:
  // `like` is a folder with the config.json that the file was made from, or an equal one. Throws Error that lists
  // together which tensors are missing, left over, of another shape, or quantized where only numbers are read; and one
  // that lists where the metadata describes another model of the same shapes.
  GgufMasters(const std::filesystem::path& file, const std::filesystem::path& like);

  const GgufFile& file() const { return file_; }
  const Gemma4Config& config() const { return config_; }
  const WeightTable& table() const { return table_; }
  const GgufTensor& of(const WeightSpec& weight) const;
  // What stands in the file beside its values: Gemma 3's norms hold 1 + weight.
  float offset_of(const WeightSpec& weight) const;
  // Tensors that no model reads: keys and values of layers that share another layer's.
  const std::vector<std::string>& redundant() const { return redundant_; }

 private:
  void check_tensors(const std::string& config_file);

  GgufFile file_;
  Gemma4Config config_;
  WeightTable table_;
  std::vector<std::string> redundant_;
};

}  // namespace qat
