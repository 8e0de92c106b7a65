// A .litertlm file that this program wrote as a source of weights: constants by their names in WeightTable, in the
// prefill and decode graphs or in the embedders; scales of edges and caches from the decode graph; config.json inside.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gemma4/weight_table.h"
#include "io/litertlm.h"
#include "io/tflite.h"
#include "reference/litertlm_linears.h"
#include "reference/reference_weights.h"

namespace qat {

class LitertlmModel final : public ReferenceWeights {
 public:
  // `file` must outlive this. Throws Error naming what is missing or contradicts config.json.
  explicit LitertlmModel(const LitertlmFile& file);

  // The head is never tied: the graph says which constant it is.
  const Gemma4Config& config() const override { return config_; }
  const std::string& where() const override { return where_; }
  std::vector<WeightView> per_layer_tables() const override { return per_layer_tables_; }
  CacheScales cache_scales(int64_t layer) const override;
  // Positions that the caches have room for.
  int64_t context() const { return context_; }

 private:
  using Linears = std::map<std::string, LitertlmLinear, std::less<>>;
  using Constants = std::map<std::string_view, const TfliteTensorView*>;

  void open_models(const LitertlmFile& file);
  const TfliteTensorView& constant(const std::string& name) const;
  WeightView table(const std::string& name, const WeightSpec& spec, int64_t columns) const;
  WeightView linear(const WeightSpec& spec, const Linears& linears);
  WeightView unscaled(WeightView view, float factor);
  void add_per_layer_tables(const WeightSpec& spec);
  void read_caches(const TfliteSignatureView& decode);
  float cache_scale(const TfliteSignatureView& decode, const std::string& name, const LayerConfig& layer);

  std::string where_;
  Gemma4Config config_;
  std::vector<std::unique_ptr<TfliteFile>> models_;  // prefill and decode first
  Constants constants_;
  std::vector<WeightView> per_layer_tables_;
  std::map<int64_t, CacheScales> caches_;
  std::vector<std::unique_ptr<std::vector<float>>> decoded_;
  int64_t context_ = 0;
};

}  // namespace qat
