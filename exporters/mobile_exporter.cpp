#include "exporters/mobile_exporter.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "core/output_file.h"
#include "core/terminal.h"
#include "exporters/mobile_config.h"
#include "exporters/row_pieces.h"
#include "io/safetensors.h"
#include "quant/packing.h"
#include "quant/row_codec.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

constexpr int64_t kValuesPerPiece = int64_t{1} << 20;

// A tensor of the folder: declared first, written in the same order.
struct Tensor {
  std::string name;
  ElementType type;
  std::vector<int64_t> shape;
  std::function<void(SafetensorsWriter&)> write;
};

class FolderTensors {
 public:
  explicit FolderTensors(const MobileCheckpoint& checkpoint)
      : checkpoint_(checkpoint), prefix_(checkpoint.folder().masters().prefix()) {
    for (const WeightSpec& weight : checkpoint.table().weights()) add(weight);
    add_tied_head();
    add_cache_scales();
    add_other_modalities();
  }

  const std::vector<Tensor>& all() const { return tensors_; }

 private:
  void add(const WeightSpec& weight) {
    const std::string name = weight.role == WeightRole::OutputHead ? weight.name : prefix_ + weight.name;
    if (!mobile_folder_has_codes(checkpoint_, weight)) return add_values(name, weight);
    const std::string module = name.substr(0, name.rfind('.'));
    if (is_table(weight.role)) {
      add_codes(module + ".embedding_quantized", module + ".embedding_scale", weight);
    } else {
      add_linear(module, weight, checkpoint_.linear_scales(weight));
    }
  }

  void add_linear(const std::string& module, const WeightSpec& weight, LinearScales scales) {
    add_codes(module + ".weight", module + ".weight_scale", weight);
    add_scalar(module + ".input_activation_scale", scales.input);
    add_scalar(module + ".output_activation_scale", scales.output);
  }

  // The folder's head is a tensor of its own, with the table's codes and scales.
  void add_tied_head() {
    if (!checkpoint_.config().tied_head) return;
    const WeightSpec& table = *checkpoint_.table().find("embed_tokens.weight");
    if (mobile_folder_has_codes(checkpoint_, table)) {
      add_linear("lm_head", table, {});
    } else {
      add_values("lm_head.weight", table);
    }
  }

  // Layers that share another's keys and values repeat its scales.
  void add_cache_scales() {
    for (const LayerConfig& layer : checkpoint_.config().layers) {
      const CacheScales scales = checkpoint_.cache_scales(layer.key_value_donor.value_or(layer.index));
      if (scales.key == 0) continue;
      const std::string attention = prefix_ + "layers." + std::to_string(layer.index) + ".self_attn.";
      add_scalar(attention + "k_cache_scale", scales.key);
      add_scalar(attention + "v_cache_scale", scales.value);
    }
  }

  void add_other_modalities() {
    const MasterWeights& masters = checkpoint_.folder().masters();
    for (const TensorView& tensor : checkpoint_.folder().tensors().tensors()) {
      if (masters.weight_of(tensor) != nullptr || is_redundant(tensor.name)) continue;
      tensors_.push_back({tensor.name, tensor.type, tensor.shape, [this, &tensor](SafetensorsWriter& writer) {
                            writer.write(tensor.bytes);
                            checkpoint_.folder().tensors().release(tensor.bytes);
                          }});
    }
  }

  bool is_redundant(const std::string& name) const {
    return name.starts_with(prefix_) && checkpoint_.table().is_redundant(name.substr(prefix_.size()));
  }

  void add_scalar(const std::string& name, float value) {
    tensors_.push_back({name, ElementType::F32, {}, [value](SafetensorsWriter& writer) {
                          writer.write(std::as_bytes(std::span(&value, 1)));
                        }});
  }

  void add_codes(const std::string& codes_name, const std::string& scales_name, const WeightSpec& weight) {
    const QuantScheme& row = checkpoint_.scheme_of(weight);
    const ElementType type = row.id == Scheme::Int8 ? ElementType::I8 : ElementType::U8;
    tensors_.push_back({codes_name,
                        type,
                        {weight.rows(), row.row_bytes(weight.columns())},
                        [this, &weight](SafetensorsWriter& writer) { write_codes(weight, writer); }});
    const int64_t slices = weight.columns() / weight.scale_width;
    if (!groups_share_scales(checkpoint_.scales(weight), slices)) {
      tensors_.push_back(
          {scales_name, ElementType::F32, {weight.rows(), slices}, [this, &weight](SafetensorsWriter& writer) {
             writer.write(std::as_bytes(checkpoint_.scales(weight)));
           }});
      return;
    }
    tensors_.push_back(
        {scales_name, ElementType::F32, {weight.rows(), 1}, [this, &weight, slices](SafetensorsWriter& writer) {
           std::vector<float> of_rows;
           const auto scales = checkpoint_.scales(weight);
           for (size_t i = 0; i < scales.size(); i += static_cast<size_t>(slices)) of_rows.push_back(scales[i]);
           writer.write(std::as_bytes(std::span(of_rows)));
         }});
  }

  void write_codes(const WeightSpec& weight, SafetensorsWriter& writer) const {
    const QuantScheme& row = checkpoint_.scheme_of(weight);
    std::vector<int8_t> codes;
    std::vector<std::byte> bytes;
    for_row_pieces(weight, kValuesPerPiece, [&](int64_t first, int64_t rows) {
      codes.resize(static_cast<size_t>(rows * weight.columns()));
      bytes.resize(static_cast<size_t>(rows * row.row_bytes(weight.columns())));
      checkpoint_.codes(weight, first, rows, codes);
      pack_codes(row.id, CodeBytes::Offset, codes, bytes);
      writer.write(bytes);
    });
  }

  void add_values(const std::string& name, const WeightSpec& weight) {
    tensors_.push_back({name, ElementType::BF16, weight.shape,
                        [this, &weight](SafetensorsWriter& writer) { write_values(weight, writer); }});
  }

  // The master, or BF16(code * scale) of a weight whose codes the format cannot hold.
  void write_values(const WeightSpec& weight, SafetensorsWriter& writer) const {
    const bool is_quantized = checkpoint_.scheme_of(weight).has_row_scales();
    std::vector<int8_t> codes;
    std::vector<float> values;
    std::vector<BFloat16> rounded;
    for_row_pieces(weight, kValuesPerPiece, [&](int64_t first, int64_t rows) {
      values.resize(static_cast<size_t>(rows * weight.columns()));
      if (is_quantized) {
        codes.resize(values.size());
        checkpoint_.codes(weight, first, rows, codes);
        decode_groups(codes, checkpoint_.scales(weight).subspan(static_cast<size_t>(first), static_cast<size_t>(rows)),
                      weight.columns(), values);
      } else {
        checkpoint_.values(weight, first, rows, values);
      }
      rounded.resize(values.size());
      std::transform(values.begin(), values.end(), rounded.begin(), to_bfloat16);
      writer.write(std::as_bytes(std::span(rounded)));
    });
  }

  const MobileCheckpoint& checkpoint_;
  std::string prefix_;
  std::vector<Tensor> tensors_;
};

}  // namespace

MobileExportFigures export_mobile_folder(const MobileCheckpoint& checkpoint, const fs::path& out) {
  const auto start = std::chrono::steady_clock::now();
  const fs::path& from = checkpoint.folder().path();
  OutputFolder folder(out);
  // config.json is written anew; what only this program reads stays behind.
  copy_side_files(from, folder.working_path(),
                  {"config.json", "quantization.json", "training.json", "model.safetensors.index.json"});
  const auto config = nlohmann::ordered_json::parse(read_text_file(from / "config.json"));
  write_file(folder.working_path() / "config.json", mobile_config(config, checkpoint).dump(2) + "\n");

  const FolderTensors tensors(checkpoint);
  const fs::path file = folder.working_path() / "model.safetensors";
  SafetensorsWriter writer(file);
  writer.set_metadata({{"format", "pt"}});
  for (const Tensor& tensor : tensors.all()) writer.declare(tensor.name, tensor.type, tensor.shape);
  Progress progress("export", static_cast<int64_t>(tensors.all().size()), "tensors");
  for (const Tensor& tensor : tensors.all()) {
    tensor.write(writer);
    progress.advance(1);
  }
  writer.commit();
  MobileExportFigures figures;
  for (const WeightSpec& weight : checkpoint.table().weights()) figures.weights += weight.elements();
  figures.file_bytes = fs::file_size(file);
  folder.commit();
  figures.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return figures;
}

}  // namespace qat
