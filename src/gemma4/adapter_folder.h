// A LoRA adapter as a folder in the format of PEFT (huggingface/peft: LoraConfig, save_pretrained):
//
//   adapter_config.json        peft_type LORA; rank, alpha and the modules that it changes
//   adapter_model.safetensors  base_model.model.MODULE.lora_A.weight [rank, in] and ….lora_B.weight [out, rank]
//
// It stands for W + scaling * B A in place of each of its modules' weights W.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gemma4/weight_table.h"

namespace qat {

struct AdapterSettings {
  int64_t rank = 0;
  double alpha = 0;
  double dropout = 0;            // of the run that trained it
  bool rank_stabilized = false;  // rsLoRA (arXiv 2312.03732)
  // Trained inside its weights, W + scaling * B A quantized as one, or beside quantized weights that stay as they are;
  // other programs do not say.
  std::optional<bool> through_quantizer = std::nullopt;

  // alpha / rank; with rsLoRA alpha / sqrt(rank).
  float scaling() const;
};

// True for matrices [out, in]: not for vectors, tables and stacks of experts.
bool takes_adapter(WeightRole role);

class AdapterFolder {
 public:
  struct Change {
    WeightSpec weight;
    std::vector<float> a;  // [rank, in]
    std::vector<float> b;  // [out, rank]
  };

  // `table`: of the model that is to be changed. Throws Error for a folder that is no adapter, one that asks for more
  // than plain LoRA, and one that does not fit the table, listing what is missing, unknown or wrongly shaped.
  AdapterFolder(const std::filesystem::path& path, const WeightTable& table);

  const std::filesystem::path& path() const { return path_; }
  const AdapterSettings& settings() const { return settings_; }
  // In the table's order.
  const std::vector<Change>& changes() const { return changes_; }
  // The base model as its trainer called it.
  const std::string& base_name() const { return base_name_; }
  // AdapterContents::base_digest; empty where another program wrote the folder.
  const std::string& base_digest() const { return base_digest_; }

 private:
  void read_config();
  void read_tensors(const WeightTable& table);

  std::filesystem::path path_;
  AdapterSettings settings_;
  std::vector<Change> changes_;
  std::string base_name_;
  std::string base_digest_;
};

struct AdapterContents {
  struct Change {
    std::string module;  // the weight's name in the base's files without ".weight"
    int64_t rows = 0;
    int64_t columns = 0;
    std::span<const float> a;  // [rank, columns]
    std::span<const float> b;  // [rows, rank]
  };
  AdapterSettings settings;
  std::string base_name;
  std::string base_digest;  // tells apart bases of one shape; kept in the metadata of the safetensors file
  std::vector<Change> changes;
};

// Writes the folder under a temporary name and moves it into place when complete.
void write_adapter(const std::filesystem::path& path, const AdapterContents& contents);

}  // namespace qat
