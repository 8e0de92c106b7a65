// A Hugging Face model folder, and the checkpoint folder of this program, which is one with a plan, scales and a
// witness:
//
//   config.json, tokenizer.json, chat_template.jinja, ...  byte for byte from the base model
//   model*.safetensors    BF16 masters under their HF names; other modalities' tensors travel through untouched
//   quantization.json     the resolved plan
//   scales.safetensors    stored weight scales by weight name (F16 [blocks], or F32 [rows] for integer schemes) and, by
//                         the names of Gemma's mobile format, F32 [] of static activations and int8 caches:
//                         layers.0.mlp.up_proj.input_activation_scale, layers.0.self_attn.k_cache_scale, …
//   witness.safetensors   what the fake-quantized forward pass computed (gemma4/witness.h)
#pragma once

#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/float_types.h"
#include "gemma4/config.h"
#include "gemma4/master_weights.h"
#include "gemma4/quant_plan.h"
#include "gemma4/static_scales.h"
#include "gemma4/weight_table.h"
#include "io/safetensors.h"

namespace qat {

class ModelFolder {
 public:
  // Throws Error if the folder is no model this program knows, or its parts contradict each other.
  explicit ModelFolder(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const Gemma4Config& config() const { return config_; }
  const WeightTable& table() const { return table_; }
  const TensorSource& tensors() const { return *tensors_; }
  const MasterWeights& masters() const { return *masters_; }

  // Present in checkpoints that hold a quantized model.
  const std::optional<ResolvedPlan>& plan() const { return plan_; }
  // Stored scales of a weight, one per block in row-major order; empty where the plan says `rule`.
  std::span<const Float16> stored_scales(std::string_view weight) const;
  // Of a weight in an integer scheme: one per WeightSpec::scale_width values; empty for other weights.
  std::span<const float> row_scales(std::string_view weight) const;
  // Of every activation and cache that the plan quantizes statically.
  const StaticScales& static_scales() const { return static_scales_; }

 private:
  void load_scales();
  void load_static_scales();
  const TensorView* find_scales(const std::string& weight, ElementType type, int64_t count) const;

  std::filesystem::path path_;
  Gemma4Config config_;
  WeightTable table_;
  std::unique_ptr<SafetensorsSource> tensors_;
  std::unique_ptr<MasterWeights> masters_;
  std::optional<ResolvedPlan> plan_;
  std::unique_ptr<SafetensorsSource> scales_;
  StaticScales static_scales_;
};

// Copies the files of a model folder that are no weights (config.json, tokenizer, templates, ...), but for those in `left`.
// Folders inside it stay behind.
void copy_side_files(const std::filesystem::path& from, const std::filesystem::path& to,
                     std::initializer_list<std::string_view> left);

// Bytes of one weight as BF16, row-major, handed over in pieces.
using WriteMaster =
    std::function<void(const WeightSpec& weight, const std::function<void(std::span<const BFloat16>)>& write)>;

struct CheckpointContents {
  const std::filesystem::path* base_folder = nullptr;  // files to copy (config.json, tokenizer, template, ...)
  const TensorSource* base_tensors = nullptr;          // null for models that start from a bare config.json
  // Without base_tensors: what stands before the table's names, and tensors that travel along.
  std::string prefix = "model.";
  std::vector<const TensorView*> other_tensors;
  const WeightTable* table = nullptr;
  WriteMaster write_master;
  const ResolvedPlan* plan = nullptr;                                          // null: a plain BF16 model
  std::map<std::string, std::span<const Float16>, std::less<>> stored_scales;  // by weight name
  std::map<std::string, std::span<const float>, std::less<>> row_scales;       // by weight name, integer schemes
  StaticScales static_scales;
  // Writes further files (the witness) into the folder before it gets its final name.
  std::function<void(const std::filesystem::path& folder)> write_more;
};

// Writes a checkpoint folder under a temporary name and moves it into place when complete.
void write_checkpoint(const std::filesystem::path& path, const CheckpointContents& contents);

}  // namespace qat
