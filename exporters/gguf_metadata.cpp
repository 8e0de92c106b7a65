#include "exporters/gguf_metadata.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"

namespace qat {

namespace {

// Layers of Gemma 3 come in groups: five sliding ones and a full one.
constexpr int64_t kGemma3Period = 6;
// llama.cpp takes a Gemma 3 of this many layers for the 27B, whose attention scale differs from the others'.
constexpr int64_t kGemma3LayersOf27B = 62;

const LayerConfig* first_of(const Gemma4Config& config, LayerType type) {
  const auto found = std::find_if(config.layers.begin(), config.layers.end(),
                                  [&](const LayerConfig& layer) { return layer.type == type; });
  return found == config.layers.end() ? nullptr : &*found;
}

// The layer that stands for all of its type; of the other type where the model has none of this one.
const LayerConfig& example_of(const Gemma4Config& config, LayerType type) {
  const LayerConfig* layer = first_of(config, type);
  return layer != nullptr ? *layer : config.layers.front();
}

[[noreturn]] void fail_expressing(const Gemma4Config& config, const std::string& what) {
  fail("GGUF architecture ", config.architecture(), " cannot express this model: ", what);
}

void check_layers_of_a_type_agree(const Gemma4Config& config) {
  for (const LayerConfig& layer : config.layers) {
    const LayerConfig& example = example_of(config, layer.type);
    if (layer.head_dim != example.head_dim || layer.rope.theta != example.rope.theta ||
        layer.rope.rotated_pairs != example.rope.rotated_pairs || layer.rope.factor != example.rope.factor) {
      fail_expressing(config, join("layers ", example.index, " and ", layer.index,
                                   " are of one type but differ in head size or rotary embedding"));
    }
    if (layer.type == LayerType::Sliding && layer.rope.rotated_pairs != layer.head_dim / 2) {
      fail_expressing(config, join("sliding layer ", layer.index, " turns only a part of its head"));
    }
  }
}

int64_t shared_layers(const Gemma4Config& config) {
  return std::count_if(config.layers.begin(), config.layers.end(),
                       [](const LayerConfig& layer) { return layer.key_value_donor.has_value(); });
}

// The last n layers share; sliding ones read the last but one of the others, full ones the last.
void check_gemma4(const Gemma4Config& config) {
  const int64_t own = config.layer_count() - shared_layers(config);
  for (const LayerConfig& layer : config.layers) {
    if (layer.rope.factor != 1.0) fail_expressing(config, "its rotary embedding is scaled");
    if (layer.index < own) {
      if (layer.key_value_donor)
        fail_expressing(config, join("layer ", layer.index, " shares keys but later ones do not"));
      continue;
    }
    const int64_t wanted = layer.type == LayerType::Sliding ? own - 2 : own - 1;
    if (!layer.key_value_donor || *layer.key_value_donor != wanted) {
      fail_expressing(config, join("layer ", layer.index, " must read the keys of layer ", wanted));
    }
  }
  if (config.attention_scale != 1.0) fail_expressing(config, "its attention scale is not 1");
}

void check_gemma3(const Gemma4Config& config) {
  const LayerConfig& example = config.layers.front();
  for (const LayerConfig& layer : config.layers) {
    const bool full = layer.index % kGemma3Period == kGemma3Period - 1;
    if (full != (layer.type == LayerType::Full)) {
      fail_expressing(config, join("layer ", layer.index, " breaks the pattern of five sliding layers and a full one"));
    }
    if (layer.type == LayerType::Sliding && layer.rope.factor != 1.0) {
      fail_expressing(config, "the rotary embedding of its sliding layers is scaled");
    }
    if (layer.rope.rotated_pairs != layer.head_dim / 2) fail_expressing(config, "heads turn only in part");
    if (layer.head_dim != example.head_dim) fail_expressing(config, "head sizes differ between layers");
  }
  const bool is_27b = config.layer_count() == kGemma3LayersOf27B;
  const auto width = static_cast<double>(is_27b ? config.hidden_size / example.heads : example.head_dim);
  if (std::fabs(config.attention_scale * std::sqrt(width) - 1.0) > 1e-6) {
    fail_expressing(
        config, join("its attention scale is ", config.attention_scale, ", llama.cpp uses ", 1.0 / std::sqrt(width)));
  }
  if (config.final_logit_softcap != 0.0) fail_expressing(config, "it has a soft-cap on its logits");
}

// One number if all layers agree, else a list.
void add_per_layer(GgufWriter& writer, const std::string& key, const Gemma4Config& config, int64_t LayerConfig::*fact) {
  std::vector<int32_t> values;
  for (const LayerConfig& layer : config.layers) values.push_back(static_cast<int32_t>(layer.*fact));
  const bool equal = std::all_of(values.begin(), values.end(), [&](int32_t value) { return value == values.front(); });
  if (equal) {
    writer.add(key, static_cast<uint32_t>(values.front()));
  } else {
    writer.add(key, GgufArray(std::move(values)));
  }
}

class ArchitectureKeys {
 public:
  ArchitectureKeys(GgufWriter& writer, std::string architecture)
      : writer_(writer), prefix_(std::move(architecture) + ".") {}
  void count(const char* key, int64_t value) { writer_.add(prefix_ + key, static_cast<uint32_t>(value)); }
  void number(const char* key, double value) { writer_.add(prefix_ + key, static_cast<float>(value)); }
  std::string name(const char* key) const { return prefix_ + key; }

 private:
  GgufWriter& writer_;
  std::string prefix_;
};

void add_gemma4_metadata(GgufWriter& writer, ArchitectureKeys& keys, const Gemma4Config& config) {
  const LayerConfig& full = example_of(config, LayerType::Full);
  const LayerConfig& sliding = example_of(config, LayerType::Sliding);
  keys.count("attention.key_length", full.head_dim);
  keys.count("attention.value_length", full.head_dim);
  keys.count("attention.key_length_swa", sliding.head_dim);
  keys.count("attention.value_length_swa", sliding.head_dim);
  keys.count("rope.dimension_count", full.head_dim);
  keys.count("rope.dimension_count_swa", sliding.head_dim);
  std::vector<bool> pattern;
  for (const LayerConfig& layer : config.layers) pattern.push_back(layer.type == LayerType::Sliding);
  writer.add(keys.name("attention.sliding_window_pattern"), GgufArray(std::move(pattern)));
  keys.count("attention.shared_kv_layers", shared_layers(config));
  keys.count("embedding_length_per_layer_input", config.per_layer_input_size);
  // Absent would mean 30.
  keys.number("final_logit_softcapping", config.final_logit_softcap);
  if (config.experts > 0) {
    keys.count("expert_count", config.experts);
    keys.count("expert_used_count", config.experts_per_token);
    keys.count("expert_feed_forward_length", config.expert_intermediate_size);
  }
}

void add_gemma3_metadata(GgufWriter& writer, ArchitectureKeys& keys, const Gemma4Config& config) {
  const LayerConfig& full = example_of(config, LayerType::Full);
  keys.count("attention.key_length", full.head_dim);
  keys.count("attention.value_length", full.head_dim);
  if (full.rope.factor != 1.0) {
    writer.add(keys.name("rope.scaling.type"), std::string("linear"));
    keys.number("rope.scaling.factor", full.rope.factor);
  }
}

// The scheme that most values have.
Scheme main_scheme(const GgufExportInputs& inputs) {
  std::map<Scheme, int64_t> values;
  for (const ExportedWeight& weight : inputs.weights) values[weight.scheme] += weight.spec->elements();
  QAT_CHECK(!values.empty());
  return std::max_element(values.begin(), values.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

// llama.cpp's file types.
uint32_t file_type(Scheme scheme) {
  switch (scheme) {
    case Scheme::F32:
      return 0;
    case Scheme::F16:
      return 1;
    case Scheme::Q4_0:
      return 2;
    case Scheme::Q8_0:
      return 7;
    case Scheme::Q6_K:
      return 18;
    case Scheme::BF16:
      return 32;
    case Scheme::Int2:
    case Scheme::Int4:
    case Scheme::Int8:
      break;  // no GGUF file holds them
  }
  QAT_CHECK(false);
  return 0;
}

}  // namespace

void check_gguf_can_express(const Gemma4Config& config) {
  QAT_CHECK(!config.layers.empty());
  check_layers_of_a_type_agree(config);
  if (config.family == Family::Gemma4) {
    check_gemma4(config);
  } else {
    check_gemma3(config);
  }
}

void add_general_metadata(GgufWriter& writer, const GgufExportInputs& inputs) {
  writer.add("general.architecture", inputs.config->architecture());
  writer.add("general.type", std::string("model"));
  if (!inputs.name.empty()) writer.add("general.name", inputs.name);
  writer.add("general.file_type", file_type(main_scheme(inputs)));
  writer.add("general.quantization_version", uint32_t{2});
  const SamplingDefaults& sampling = inputs.sampling;
  if (sampling.top_k) writer.add("general.sampling.top_k", *sampling.top_k);
  if (sampling.top_p) writer.add("general.sampling.top_p", *sampling.top_p);
  if (sampling.temperature) writer.add("general.sampling.temp", *sampling.temperature);
}

void add_model_metadata(GgufWriter& writer, const Gemma4Config& config) {
  ArchitectureKeys keys(writer, config.architecture());
  keys.count("block_count", config.layer_count());
  keys.count("context_length", config.max_positions);
  keys.count("embedding_length", config.hidden_size);
  add_per_layer(writer, keys.name("feed_forward_length"), config, &LayerConfig::intermediate_size);
  add_per_layer(writer, keys.name("attention.head_count"), config, &LayerConfig::heads);
  add_per_layer(writer, keys.name("attention.head_count_kv"), config, &LayerConfig::key_value_heads);
  keys.number("attention.layer_norm_rms_epsilon", config.norm_epsilon);
  keys.count("attention.sliding_window", config.sliding_window);
  keys.number("rope.freq_base", example_of(config, LayerType::Full).rope.theta);
  keys.number("rope.freq_base_swa", example_of(config, LayerType::Sliding).rope.theta);
  if (config.family == Family::Gemma4) {
    add_gemma4_metadata(writer, keys, config);
  } else {
    add_gemma3_metadata(writer, keys, config);
  }
}

std::vector<float> rope_frequency_divisors(const Gemma4Config& config) {
  if (config.family != Family::Gemma4) return {};
  const RopeConfig& rope = example_of(config, LayerType::Full).rope;
  std::vector<float> divisors(static_cast<size_t>(rope.head_dim / 2), 1e30f);
  std::fill_n(divisors.begin(), rope.rotated_pairs, 1.0f);
  return divisors;
}

}  // namespace qat
