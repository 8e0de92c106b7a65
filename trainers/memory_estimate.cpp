#include "trainers/memory_estimate.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "fake_quant/make_witness.h"
#include "model/chunked_head.h"
#include "model/cpu_instructions.h"
#include "trainers/activation_memory.h"
#include "trainers/moment_codec.h"
#include "trainers/quantized_memory.h"

namespace qat {

namespace {

constexpr int64_t kFloat = 4;
constexpr int64_t kProductTile = int64_t{64} << 20;  // fp32 copies that BF16 products make (weight_product.cpp)

// Of the weights that a model keeps in memory: all but those that stay in their file.
int64_t elements_of(const WeightTable& table, const WeightChoice& in_file) {
  int64_t elements = 0;
  for (const WeightSpec& weight : table.weights()) elements += in_file(weight) ? 0 : weight.elements();
  return elements;
}

// What comes and goes within a step or a save.
struct Moment {
  const char* name;
  int64_t gradients = 0, activations = 0, buffers = 0;

  int64_t sum() const { return gradients + activations + buffers; }
};

class Estimator {
 public:
  Estimator(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& frozen,
            int64_t processes)
      : config_(config),
        processes_(processes),
        state_shares_(config.shards_states() ? processes : 1),
        passes_(std::max<int64_t>(1, config.gradient_accumulation / processes)),
        base_(base),
        sharded_(config, base, unchanged_weights(config, base, frozen), processes),
        model_(base.config()),
        dtype_(config.computes_in_bfloat16() ? at::kBFloat16 : at::kFloat),
        value_(static_cast<int64_t>(c10::elementSize(dtype_))),
        in_file_(base.readable_in_file(unchanged_weights(config, base, frozen), dtype_)),
        quantized_(config, base, sharded_, head_is_constant(frozen)),
        tokens_(config.micro_batch_sequences * std::min(config.sequence_length, model_.max_positions)),
        per_token_(activation_bytes(model_, base.plan(), value_)) {
    for (const WeightSpec& weight : base.table().weights()) {
      if (config.trains_adapters()) {
        if (has_adapter(weight)) adapted_.push_back(&weight);
      } else if (std::find(frozen.begin(), frozen.end(), weight.name) == frozen.end()) {
        trained_.push_back(&weight);
      }
    }
  }

  MemoryEstimate estimate() const {
    const std::vector<Moment> moments = all_moments();
    const Moment& peak = *std::max_element(moments.begin(), moments.end(),
                                           [](const Moment& a, const Moment& b) { return a.sum() < b.sum(); });
    MemoryEstimate result{peak.name,
                          {{"parameters", parameter_bytes()},
                           {"frozen weights", config_.computes_on_cpu() ? 0 : bytes_in_file()},
                           {"packed weights", quantized_.packed()},
                           {"masters",
                            config_.optimizer.masters == "float32" ? kFloat * trained_values() / state_shares_ : 0},
                           {"moments", moments_bytes() / state_shares_},
                           {"adapters", adapter_bytes()},
                           {"fake-quantized weights", quantized_.held(value_)},
                           {"teacher and reference", other_models()},
                           {"gradients", peak.gradients},
                           {"activations", peak.activations},
                           {"buffers", peak.buffers}},
                          config_.computes_on_cpu() ? bytes_in_file() : 0};
    std::erase_if(result.parts, [](const MemoryPart& part) { return part.bytes == 0; });
    return result;
  }

 private:
  int64_t parameter_bytes() const {
    int64_t elements = 0;
    for (const WeightSpec& weight : base_.table().weights()) {
      elements += in_file(weight) || quantized_.packs(weight) ? 0 : weight.elements() / sharded_.holders(weight);
    }
    return value_ * elements;
  }
  bool has_adapter(const WeightSpec& weight) const {
    const auto& roles = config_.lora.roles;
    return config_.trains_adapters() && std::find(roles.begin(), roles.end(), role_name(weight.role)) != roles.end();
  }
  bool keeps_merged() const {
    return config_.lora.through_quantizer && config_.lora.keep_merged && !config_.packs_base();
  }
  // The merged weight that the forward pass reads; A and B with gradients and AdamW's state, all in fp32.
  int64_t adapter_bytes() const {
    int64_t bytes = 0;
    for (const WeightSpec* weight : adapted_) {
      bytes += keeps_merged() ? value_ * weight->elements() : 0;
      bytes += 5 * kFloat * config_.lora.rank * (weight->rows() + weight->columns());
    }
    return bytes;
  }

  int64_t trained_values() const {
    return std::accumulate(trained_.begin(), trained_.end(), int64_t{0},
                           [](int64_t sum, const WeightSpec* weight) { return sum + weight->elements(); });
  }
  bool is_trained(const std::string& name) const {
    return std::any_of(trained_.begin(), trained_.end(),
                       [&](const WeightSpec* weight) { return weight->name == name; });
  }

  int64_t moments_bytes() const {
    int64_t bytes = 0;
    for (const WeightSpec* weight : trained_) {
      const int64_t elements = weight->elements();
      if (config_.optimizer.kind == "adamw") bytes += 2 * kFloat * elements;
      if (config_.optimizer.kind == "adamw8bit") bytes += 2 * elements + 2 * kFloat * (elements / kMomentBlock + 1);
      if (config_.optimizer.kind == "adafactor") bytes += kFloat * factored_values(*weight);
    }
    return bytes;
  }
  static int64_t factored_values(const WeightSpec& weight) {
    if (weight.shape.size() < 2) return weight.elements();
    return weight.rows() + weight.elements() / weight.shape[weight.shape.size() - 2];
  }

  // A frozen head's forward value is made once on the CPU, unless it is converted at every use.
  bool head_is_constant(const std::vector<std::string>& frozen) const {
    const bool is_frozen = std::find(frozen.begin(), frozen.end(), head().name) != frozen.end();
    return (is_frozen || config_.trains_adapters()) && !has_adapter(head()) && config_.computes_on_cpu() &&
           !(value_ == kFloat && in_file_(head()));
  }

  // On another device than the CPU these are BF16 copies.
  bool in_file(const WeightSpec& weight) const { return !quantized_.packs(weight) && in_file_(weight); }

  // What is made of a layer's weights (or of those outside of layers, but for the head) at every use and stays with
  // autograd until its backward pass.
  int64_t passing(const std::optional<int64_t>& layer) const {
    int64_t bytes = quantized_.passing(layer, value_);
    for (const WeightSpec& weight : base_.table().weights()) {
      if (weight.layer != layer) continue;
      // The gradient of row scales looks at the quantizer's input again.
      const bool is_made = quantized_.packs(weight) || (has_adapter(weight) && !keeps_merged());
      if (is_made && base_.plan() != nullptr && scheme(base_.plan()->of(weight.name).scheme).has_row_scales()) {
        bytes += value_ * weight.elements();
      }
      // A BF16 input is widened for its adapter.
      if (has_adapter(weight) && !config_.lora.through_quantizer) {
        bytes += tokens_ * kFloat * (config_.lora.rank + (value_ == kFloat ? 0 : weight.columns()));
      }
    }
    return bytes;
  }

  // Teachers' files are taken to be BF16.
  int64_t other_models() const {
    int64_t bytes = 0;
    if (config_.distills()) {
      const WeightTable table(config_.teacher.empty() ? model_ : Gemma4Config::load(config_.teacher));
      const bool copies_head = value_ == kFloat || !config_.computes_on_cpu();
      const int64_t converted = elements_of(table, readable_in_file(table, dtype_));
      const int64_t readable = config_.computes_on_cpu() ? 0 : table.elements() - converted;
      const bool runs = config_.distillation.cache.empty();
      bytes += runs ? value_ * converted + 2 * readable : value_ * (copies_head ? table.head().elements() : 0);
    }
    const bool measures_kl = config_.wants_kl() && config_.eval.every_steps > 0;
    const bool has_head = in_file(head()) && config_.kl_reference().empty();
    if (measures_kl && !has_head) bytes += 2 * head().elements();
    return bytes;
  }

  int64_t bytes_in_file() const {
    int64_t bytes = 0;
    for (const WeightSpec& weight : base_.table().weights()) bytes += in_file(weight) ? 2 * weight.elements() : 0;
    return bytes + quantized_.in_file(value_);
  }

  const WeightSpec& head() const { return base_.table().head(); }

  // Products of a chunk, the teacher's too, and logits of some rows with what is computed from them.
  int64_t logits_bytes() const {
    const bool two_models = config_.distills() || config_.wants_kl();
    const int64_t chunk = std::min(head_chunk_tokens(model_.vocabulary_size, value_), tokens_);
    const int64_t rows = std::min(head_loss_rows(model_.vocabulary_size), tokens_);
    return ((two_models ? 2 : 1) * value_ * chunk + (two_models ? 6 : 3) * kFloat * rows) * model_.vocabulary_size;
  }

  // Temporary tensors of one layer's backward pass, beyond what it frees meanwhile: gradients of the MLP's activations,
  // and one matrix' gradient.
  int64_t layer_buffers() const {
    int64_t largest = 0;
    for (const WeightSpec& weight : base_.table().weights()) {
      if (weight.layer) largest = std::max(largest, weight.elements());
    }
    const bool has_kernels = value_ != kFloat && config_.computes_on_cpu();  // no intermediate result of the activation
    const bool copies_operands = has_kernels && !cpu_multiplies_bfloat16();
    const int64_t copies = copies_operands ? 2 * std::min(kProductTile, kFloat * largest) : 0;
    return (has_kernels ? 2 : 3) * value_ * tokens_ * per_token_.widest + value_ * largest + copies;
  }

  std::vector<Moment> all_moments() const {
    std::vector<Moment> moments{saving()};
    add_step(moments);
    return moments;
  }

  // The witness of a BF16 run is computed in fp32, one weight after the other, made in pieces; the head, one piece after
  // the other.
  Moment saving() const {
    const int64_t arriving = sharded_.most_arriving_masters(value_);
    const int64_t pieces = 3 * kFloat * std::min(kConvertedValues, head().elements());
    const int64_t merged = quantized_.packs(head()) || has_adapter(head()) ? value_ * head().elements() : 0;
    const int64_t positions = config_.checkpoint.witness_prompts * kWitnessPositions;
    const int64_t logits = 3 * std::min(kWitnessLogitsBytes, kFloat * positions * model_.vocabulary_size);
    int64_t largest = 0;
    for (const WeightSpec& weight : base_.table().weights()) {
      if (weight.layer && value_ != kFloat) largest = std::max(largest, weight.elements());
    }
    return {"saving a checkpoint", 0, 0, kFloat * largest + merged + pieces + logits + arriving};
  }

  // What a backward pass changes in the gradients that are held of so many values. Those of several processes leave as
  // they are complete, and their sums in fp32 come, at the owner alone where it is enough.
  int64_t grown_by(int64_t values, int64_t held_value) const {
    if (processes_ > 1) return kFloat * values / state_shares_ - held_value * values;
    const bool in_place = config_.optimizer.step_in_backward || (held_value > 0 && value_ == kFloat);
    return in_place ? 0 : value_ * values;
  }

  // The last of the passes of a step, from the loss back to the embeddings.
  void add_step(std::vector<Moment>& moments) const {
    const bool recomputed = config_.activation_checkpointing == "layers";
    const bool adds_up = passes_ > 1;
    const bool in_backward = config_.optimizer.step_in_backward;
    // FP32 gradients are added in place where there are some; of BF16 ones the first stay as they are, later ones are
    // added to fp32 sums after the pass.
    const int64_t held_value = !adds_up ? 0 : passes_ > 2 ? kFloat : value_;
    const int64_t held = held_value * trained_values();
    int64_t activations = tokens_ * per_token_.kept(recomputed);
    activations += passing(std::nullopt);
    for (int64_t layer = 0; !recomputed && layer < model_.layer_count(); ++layer) activations += passing(layer);
    const int64_t head_values = is_trained(head().name) ? head().elements() : 0;
    const int64_t states = tokens_ * model_.hidden_size * (2 * kFloat + value_);
    moments.push_back({"the loss", held, activations,
                       kFloat * head_values + quantized_.passing_head(value_) + states + logits_bytes()});
    moments.push_back(
        {"the loss", held, activations, 2 * kFloat * head_values + states + (value_ == 2 ? 2 : 0) * head_values});

    // Of a tied head: waits until that of the lookup joins it.
    int64_t grown = model_.tied_head ? value_ * head_values : grown_by(head_values, held_value);
    for (int64_t layer = model_.layer_count() - 1; layer >= 0; --layer) {
      const auto index = static_cast<size_t>(layer);
      const int64_t again = (recomputed ? tokens_ * per_token_.layers[index] + passing(layer) : 0) +
                            sharded_.arriving(layer, value_);
      moments.push_back({"the backward pass", held + grown, activations + again, layer_buffers()});
      activations -= tokens_ * (recomputed ? per_token_.inputs : per_token_.layers)[index];
      if (!recomputed) activations -= passing(layer);
      for (const WeightSpec* weight : trained_) {
        grown += weight->layer == layer ? grown_by(weight->elements(), held_value) : 0;
      }
    }
    int64_t lookups = 0;
    for (const WeightSpec* weight : trained_) lookups += is_table(weight->role) ? value_ * weight->elements() : 0;
    moments.push_back({"the backward pass", held + grown + lookups, activations, 0});
    // With several processes the last pass adds to none.
    const int64_t without_adding = processes_ == 1 ? 1 : 2;
    if (value_ == 2 && passes_ > without_adding) {
      moments.push_back({"adding gradients", (held_value + 2) * trained_values()});
    }
    // A weight's gradient in fp32 beside those that wait; plain AdamW takes it in small pieces.
    const bool in_pieces = config_.optimizer.kind == "adamw" && config_.optimizer.masters == "float32";
    const int64_t alone = in_backward ? 0 : (adds_up ? kFloat : value_) * trained_values();
    const int64_t waiting = processes_ == 1 ? alone : kFloat * trained_values() / state_shares_;
    moments.push_back({"the update", waiting, 0, value_ == kFloat || in_pieces ? 0 : kFloat * largest_trained()});
  }

  int64_t largest_trained() const {
    int64_t largest = 0;
    for (const WeightSpec* weight : trained_) largest = std::max(largest, weight->elements());
    return largest;
  }

  const TrainConfig& config_;
  int64_t processes_;
  int64_t state_shares_;  // processes that have masters and moments of about as many weights each
  int64_t passes_;        // of a process in a step
  const BaseModel& base_;
  ShardedMemory sharded_;
  const Gemma4Config& model_;
  at::ScalarType dtype_;
  int64_t value_;  // bytes
  WeightChoice in_file_;
  QuantizedMemory quantized_;
  int64_t tokens_;
  ActivationBytes per_token_;
  std::vector<const WeightSpec*> trained_;  // as a whole
  std::vector<const WeightSpec*> adapted_;  // by adapters
};

}  // namespace

int64_t MemoryEstimate::total() const {
  return std::accumulate(parts.begin(), parts.end(), int64_t{0},
                         [](int64_t sum, const MemoryPart& part) { return sum + part.bytes; });
}

MemoryEstimate estimate_memory(const TrainConfig& config, const BaseModel& base,
                               const std::vector<std::string>& frozen, int64_t processes) {
  return Estimator(config, base, frozen, processes).estimate();
}

}  // namespace qat
