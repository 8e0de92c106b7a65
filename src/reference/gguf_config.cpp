#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "quant/block_codec.h"
#include "reference/gguf_model.h"

namespace qat {

namespace {

constexpr int64_t kMostLayers = 512;
constexpr int64_t kLargestSize = int64_t{1} << 24;

// Metadata under "<architecture>.", with ranges checked.
class Facts {
 public:
  explicit Facts(const GgufFile& file)
      : metadata_(file.metadata()), where_(file.where()), architecture_(metadata_.text("general.architecture")) {}

  const std::string& architecture() const { return architecture_; }
  const std::string& where() const { return where_; }
  std::string key(const char* name) const { return architecture_ + "." + name; }
  bool has(const char* name) const { return metadata_.contains(key(name)); }

  double number_or(const char* name, double otherwise) const {
    if (!has(name)) return otherwise;
    const double value = metadata_.number(key(name));
    if (!std::isfinite(value)) fail(where_, ": ", key(name), " is ", value, ", wanted a number");
    return value;
  }
  double positive_or(const char* name, double otherwise) const {
    const double value = number_or(name, otherwise);
    if (value <= 0) fail(where_, ": ", key(name), " is ", value, ", wanted a positive number");
    return value;
  }
  int64_t size(const char* name) const { return checked(name, metadata_.integer(key(name)), 1); }
  int64_t size_or(const char* name, int64_t otherwise) const {
    return has(name) ? checked(name, metadata_.integer(key(name)), 0) : otherwise;
  }
  // One value per layer, given as a list or once for all.
  std::vector<int64_t> per_layer(const char* name, int64_t layers, int64_t least) const {
    std::vector<int64_t> values = metadata_.integers_per_layer(key(name), layers);
    for (const int64_t value : values) checked(name, value, least);
    return values;
  }
  bool is_list(const char* name) const {
    const GgufValue* value = metadata_.find(key(name));
    return value != nullptr && gguf_type(*value) == GgufType::Array;
  }
  bool has_text(const char* name, std::string_view wanted) const {
    return has(name) && metadata_.text(key(name)) == wanted;
  }

 private:
  int64_t checked(const char* name, int64_t value, int64_t least) const {
    if (value < least || value > kLargestSize) {
      fail(where_, ": ", key(name), " is ", value, ", wanted a whole number from ", least, " to ", kLargestSize);
    }
    return value;
  }

  const GgufMetadata& metadata_;
  std::string where_;
  std::string architecture_;
};

// True where the layer is a sliding one. Gemma 3 files may leave the pattern to the architecture: five sliding, one
// full.
std::vector<bool> sliding_layers(const Facts& facts, Family family, int64_t count) {
  constexpr const char* kPattern = "attention.sliding_window_pattern";
  std::vector<bool> sliding(static_cast<size_t>(count), false);
  if (facts.size_or("attention.sliding_window", 0) == 0) return sliding;
  if (family == Family::Gemma4 || facts.is_list(kPattern)) {
    const std::vector<int64_t> flags = facts.per_layer(kPattern, count, 0);
    for (size_t i = 0; i < sliding.size(); ++i) sliding[i] = flags[i] != 0;
    return sliding;
  }
  const int64_t period = std::max<int64_t>(1, facts.size_or(kPattern, 6));
  for (int64_t i = 0; i < count; ++i) sliding[static_cast<size_t>(i)] = (i + 1) % period != 0;
  return sliding;
}

// rope_freqs divides the frequencies of full layers: 1 for pairs that turn, a huge number for the rest.
int64_t turning_pairs(const GgufFile& file, const std::string& where, int64_t pairs) {
  const GgufTensor* tensor = file.find("rope_freqs.weight");
  if (tensor == nullptr) fail(where, ": the tensor rope_freqs.weight is missing");
  if (tensor->scheme != Scheme::F32 || tensor->shape != std::vector<int64_t>{pairs}) {
    fail(where, ": rope_freqs.weight must hold ", pairs, " F32 values");
  }
  std::vector<float> divisors(static_cast<size_t>(pairs));
  decode_blocks(Scheme::F32, tensor->bytes, divisors);
  const auto turning =
      std::find_if(divisors.begin(), divisors.end(), [](float d) { return d != 1.0f; }) - divisors.begin();
  for (size_t i = static_cast<size_t>(turning); i < divisors.size(); ++i) {
    if (divisors[i] < 1e20f)
      fail(where, ": rope_freqs.weight has ", divisors[i], " at ", i, ", wanted 1 for pairs that turn, then 1e30");
  }
  return turning;
}

RopeConfig rope_of(const Facts& facts, const GgufFile& file, Family family, bool sliding, int64_t head_dim) {
  RopeConfig rope;
  rope.head_dim = head_dim;
  rope.rotated_pairs = head_dim / 2;
  if (sliding) {
    rope.theta = facts.positive_or("rope.freq_base_swa", 1e4);
    return rope;
  }
  rope.theta = facts.positive_or("rope.freq_base", 1e4);
  if (family == Family::Gemma4) {
    rope.rotated_pairs = turning_pairs(file, facts.where(), head_dim / 2);
  } else if (facts.has_text("rope.scaling.type", "linear")) {
    rope.factor = facts.positive_or("rope.scaling.factor", 1.0);
  }
  return rope;
}

// llama.cpp's rule: the last own layer of each type, which must be the last two own layers (sliding, full).
void assign_donors(Gemma4Config& config, int64_t shared, const Facts& facts) {
  const int64_t own = config.layer_count() - shared;
  if (shared == 0) return;
  if (own < 2)
    fail(facts.where(), ": ", facts.key("attention.shared_kv_layers"), " is ", shared, " of ", config.layer_count(),
         " layers");
  for (LayerConfig& layer : config.layers) {
    if (layer.index < own) continue;
    layer.key_value_donor = layer.type == LayerType::Sliding ? own - 2 : own - 1;
    const LayerConfig& donor = config.layers[static_cast<size_t>(*layer.key_value_donor)];
    if (donor.type != layer.type || donor.head_dim != layer.head_dim ||
        donor.key_value_heads != layer.key_value_heads) {
      fail(facts.where(), ": layer ", layer.index, " reads the keys of layer ", donor.index,
           ", which is of another type or head shape");
    }
  }
}

void read_experts(Gemma4Config& config, const Facts& facts) {
  config.experts = facts.size_or("expert_count", 0);
  if (config.experts == 0) return;
  config.experts_per_token = facts.size("expert_used_count");
  config.expert_intermediate_size = facts.size("expert_feed_forward_length");
  if (config.experts_per_token > config.experts) {
    fail(facts.where(), ": ", facts.key("expert_used_count"), " exceeds ", facts.key("expert_count"));
  }
}

// Full layers without attn_v take their raw keys as values. All of a model's do or none: otherwise a tensor is missing.
void mark_keys_as_values(Gemma4Config& config, const GgufFile& file) {
  const auto is_own_full = [](const LayerConfig& layer) {
    return layer.type == LayerType::Full && !layer.key_value_donor;
  };
  for (const LayerConfig& layer : config.layers) {
    if (is_own_full(layer) && file.find("blk." + std::to_string(layer.index) + ".attn_v.weight") != nullptr) return;
  }
  for (LayerConfig& layer : config.layers) layer.value_is_key = is_own_full(layer);
}

void read_layers(Gemma4Config& config, const Facts& facts, const GgufFile& file) {
  const bool gemma4 = config.family == Family::Gemma4;
  const int64_t count = facts.size("block_count");
  if (count > kMostLayers) fail(facts.where(), ": ", facts.key("block_count"), " ", count, " exceeds ", kMostLayers);
  const auto sliding = sliding_layers(facts, config.family, count);
  const auto heads = facts.per_layer("attention.head_count", count, 1);
  const auto widths = facts.per_layer("feed_forward_length", count, 1);
  const int64_t full_head_dim = facts.size_or("attention.key_length", config.hidden_size / heads[0]);
  const int64_t sliding_head_dim = facts.size_or("attention.key_length_swa", full_head_dim);
  const auto key_value_heads =
      facts.has("attention.head_count_kv") ? facts.per_layer("attention.head_count_kv", count, 1) : heads;
  for (int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<size_t>(i);
    LayerConfig layer;
    layer.index = i;
    layer.type = sliding[index] ? LayerType::Sliding : LayerType::Full;
    layer.window = sliding[index] ? config.sliding_window : 0;
    layer.heads = heads[index];
    layer.key_value_heads = key_value_heads[index];
    layer.head_dim = sliding[index] ? sliding_head_dim : full_head_dim;
    layer.intermediate_size = widths[index];
    if (layer.heads % layer.key_value_heads != 0 || layer.head_dim < 2 || layer.head_dim % 2 != 0) {
      fail(facts.where(), ": layer ", i, " has ", layer.heads, " heads of ", layer.head_dim, " values and ",
           layer.key_value_heads, " key-value heads, which do not fit together");
    }
    const char* turning_width = sliding[index] && gemma4 ? "rope.dimension_count_swa" : "rope.dimension_count";
    if (facts.size_or(turning_width, layer.head_dim) != layer.head_dim) {
      fail(facts.where(), ": ", facts.key(turning_width), " is ", facts.size(turning_width), ", the heads of layer ", i,
           " have ", layer.head_dim, " values");
    }
    layer.rope = rope_of(facts, file, config.family, sliding[index], layer.head_dim);
    layer.has_experts = config.experts > 0;
    config.layers.push_back(layer);
  }
  assign_donors(config, facts.size_or("attention.shared_kv_layers", 0), facts);
  if (gemma4) mark_keys_as_values(config, file);
}

Family family_of(const Facts& facts) {
  if (facts.architecture() == "gemma4") return Family::Gemma4;
  if (facts.architecture() == "gemma3") return Family::Gemma3;
  fail(facts.where(), ": general.architecture \"", facts.architecture(), "\" is not supported (known: gemma4, gemma3)");
}

int64_t special_token(const GgufFile& file, const char* key, int64_t otherwise) {
  return file.metadata().contains(key) ? file.metadata().integer(key) : otherwise;
}

}  // namespace

Gemma4Config config_from_gguf(const GgufFile& file) {
  const Facts facts(file);
  Gemma4Config config;
  config.family = family_of(facts);
  const bool gemma4 = config.family == Family::Gemma4;
  config.hidden_size = facts.size("embedding_length");
  config.vocabulary_size = static_cast<int64_t>(file.metadata().texts("tokenizer.ggml.tokens").size());
  config.max_positions = facts.size("context_length");
  config.sliding_window = facts.size_or("attention.sliding_window", 0);
  config.norm_epsilon = facts.number_or("attention.layer_norm_rms_epsilon", 1e-6);
  config.norm_offset = 0;
  config.final_logit_softcap = facts.number_or("final_logit_softcapping", gemma4 ? 30.0 : 0.0);
  config.value_norm = gemma4;
  config.has_layer_scalar = gemma4;
  config.tied_head = file.find("output.weight") == nullptr;
  if (gemma4) {
    config.per_layer_input_size = facts.size_or("embedding_length_per_layer_input", 0);
    read_experts(config, facts);
  }
  read_layers(config, facts, file);
  if (!gemma4) {
    // The largest Gemma 3 (62 layers) scales by its hidden size per head, the others by the head size (gemma3.cpp of
    // llama.cpp).
    const LayerConfig& first = config.layers.front();
    const int64_t width = config.layer_count() == 62 ? config.hidden_size / first.heads : first.head_dim;
    config.attention_scale = 1.0 / std::sqrt(static_cast<double>(width));
  }
  config.bos_token = special_token(file, "tokenizer.ggml.bos_token_id", config.bos_token);
  config.pad_token = special_token(file, "tokenizer.ggml.padding_token_id", config.pad_token);
  config.eos_tokens = {special_token(file, "tokenizer.ggml.eos_token_id", config.eos_tokens.front())};
  return config;
}

}  // namespace qat
