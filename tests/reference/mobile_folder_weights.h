// A mobile folder as the .litertlm exporter reads models: for files that hold the folder's own codes and scales.
#pragma once

#include "exporters/litertlm_weights.h"
#include "reference/mobile_folder_model.h"

namespace qat::testing {

class MobileFolderWeights final : public LitertlmWeights {
 public:
  explicit MobileFolderWeights(const MobileFolder& folder) : folder_(folder), model_(folder) {}

  const Gemma4Config& config() const override { return folder_.config(); }
  const WeightTable& table() const override { return folder_.table(); }
  const QuantScheme& scheme_of(const WeightSpec& weight) const override { return *folder_.weight(weight.name).scheme; }
  std::span<const float> scales(const WeightSpec& weight) const override { return folder_.weight(weight.name).scales; }
  void codes(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<int8_t> codes) const override {
    const WeightView& view = model_.weight(weight.name);
    unpack_codes(view.scheme->id, view.code_bytes, view.row_blocks(first_row, rows), codes);
  }
  void values(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<float> values) const override {
    decode_rows(model_.weight(weight.name), first_row, rows, values);
  }
  LinearScales linear_scales(const WeightSpec& weight) const override {
    const auto found = changed_edges.find(weight.name);
    return found == changed_edges.end() ? folder_.weight(weight.name).edges : found->second;
  }
  CacheScales cache_scales(int64_t layer) const override { return model_.cache_scales(layer); }

  std::map<std::string, LinearScales, std::less<>> changed_edges;

 private:
  const MobileFolder& folder_;
  MobileFolderModel model_;
};

}  // namespace qat::testing
