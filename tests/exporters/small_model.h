// A random model in memory, for tests of the exporters.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/random.h"
#include "data/small_tokenizer.h"
#include "exporters/gguf_exporter.h"
#include "exporters/small_gemma3.h"
#include "gemma4/quant_plan.h"
#include "quant/weight_rows.h"

namespace qat::test {

// Gemma 4 in the manner of E2B: per-layer inputs, shared keys and values, wider MLPs in the layers that share.
inline Gemma4Config small_gemma4(int64_t vocabulary) {
  const nlohmann::json config{
      {"model_type", "gemma4_text"},
      {"vocab_size", vocabulary},
      {"hidden_size", 64},
      {"num_hidden_layers", 6},
      {"num_attention_heads", 2},
      {"num_key_value_heads", 1},
      {"head_dim", 32},
      {"global_head_dim", 64},
      {"intermediate_size", 96},
      {"use_double_wide_mlp", true},
      {"hidden_size_per_layer_input", 32},
      {"num_kv_shared_layers", 2},
      {"sliding_window", 16},
      {"max_position_embeddings", 256},
      {"tie_word_embeddings", true},
      {"final_logit_softcapping", 30.0},
      {"layer_types",
       {"sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention",
        "full_attention"}},
      {"rope_parameters",
       {{"full_attention", {{"rope_type", "proportional"}, {"rope_theta", 1e6}, {"partial_rotary_factor", 0.25}}},
        {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}}}}};
  return Gemma4Config::parse(config, "config.json");
}

inline Gemma4Config small_gemma3(int64_t vocabulary) {
  nlohmann::json config = small_gemma3_json(vocabulary, /*tied=*/true);
  config.update({{"max_position_embeddings", 256}, {"rope_theta", 1e6}, {"rope_local_base_freq", 1e4}});
  return Gemma4Config::parse(config, "config.json");
}

// BF16 masters of all weights of a table, and what export_gguf() wants of them.
class SmallModel final : public TensorSource {
 public:
  SmallModel(Gemma4Config config, const std::string& plan)
      : config_(std::move(config)),
        table_(config_),
        vocabulary_(make_gguf_vocabulary(testing::small_tokenizer(), config_, "{{ bos_token }}")) {
    const ResolvedPlan resolved = QuantPlan::load(plan).resolve(table_);
    SplitMix64 random(5);
    views_.reserve(table_.weights().size());
    for (const WeightSpec& weight : table_.weights()) {
      auto& values = masters_[weight.name];
      values = to_bfloat16(draw_row(RowKind::Gaussian, static_cast<size_t>(weight.elements()), random));
      views_.push_back({weight.name, ElementType::BF16, weight.shape, std::as_bytes(std::span(values))});
      inputs_.weights.push_back({&weight, &views_.back(), resolved.of(weight.name).scheme, {}});
    }
    inputs_.config = &config_;
    inputs_.source = this;
    inputs_.vocabulary = &vocabulary_;
    inputs_.name = "small";
  }
  SmallModel(const SmallModel&) = delete;
  SmallModel& operator=(const SmallModel&) = delete;

  const std::vector<TensorView>& tensors() const override { return views_; }
  const TensorView* find(std::string_view) const override { return nullptr; }
  std::string where() const override { return "memory"; }
  void release(std::span<const std::byte>) const override {}

  const Gemma4Config& config() const { return config_; }
  const WeightTable& table() const { return table_; }
  GgufVocabulary& vocabulary() { return vocabulary_; }
  GgufExportInputs& inputs() { return inputs_; }
  std::vector<BFloat16>& master(const std::string& name) { return masters_.at(name); }
  TensorView& view(const std::string& name) { return views_[index(name)]; }
  ExportedWeight& exported(const std::string& name) { return inputs_.weights[index(name)]; }

 private:
  size_t index(const std::string& name) const {
    return static_cast<size_t>(table_.find(name) - table_.weights().data());
  }

  Gemma4Config config_;
  WeightTable table_;
  GgufVocabulary vocabulary_;
  std::map<std::string, std::vector<BFloat16>> masters_;
  std::vector<TensorView> views_;
  GgufExportInputs inputs_;
};

}  // namespace qat::test
