#include "fake_quant/prepare.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "core/error.h"
#include "core/sha256.h"
#include "fake_quant/key_value_fake_quantizer.h"
#include "fake_quant/weight_fake_quantizer.h"
#include "quant/key_value_rotation.h"

namespace qat {

struct FakeQuantSet::State {
  struct LayerCache {
    int64_t layer;
    std::shared_ptr<KeyValueFakeQuantizer> key;
    std::shared_ptr<KeyValueFakeQuantizer> value;
  };
  Gemma4Model* model = nullptr;
  bool enabled = true;
  std::vector<std::shared_ptr<WeightFakeQuantizer>> weights;
  std::vector<LayerCache> caches;
};

FakeQuantSet::FakeQuantSet() : state_(std::make_unique<State>()) {}
FakeQuantSet::~FakeQuantSet() = default;
FakeQuantSet::FakeQuantSet(FakeQuantSet&&) noexcept = default;
FakeQuantSet& FakeQuantSet::operator=(FakeQuantSet&&) noexcept = default;

bool FakeQuantSet::empty() const { return state_->weights.empty() && state_->caches.empty(); }
bool FakeQuantSet::enabled() const { return state_->enabled; }

void FakeQuantSet::set_enabled(bool enabled) {
  state_->enabled = enabled;
  for (const auto& quantizer : state_->weights) quantizer->set_enabled(enabled);
  for (const auto& cache : state_->caches) {
    cache.key->set_enabled(enabled);
    cache.value->set_enabled(enabled);
  }
}

void FakeQuantSet::masters_changed() {
  for (const auto& quantizer : state_->weights) quantizer->master_changed();
}

void FakeQuantSet::check_all_fired() const {
  std::string silent;
  const auto check = [&](const auto& quantizer) {
    if (!quantizer.has_fired()) silent += "\n  " + quantizer.name();
  };
  for (const auto& quantizer : state_->weights) check(*quantizer);
  for (const auto& cache : state_->caches) {
    check(*cache.key);
    check(*cache.value);
  }
  if (silent.empty()) return;
  fail("the plan quantizes these, but no forward pass ever used their quantizers, so nothing was trained for them:",
       silent);
}

namespace {

constexpr int64_t kRowsPerPiece = 4096;

bool is_table(const WeightSpec& weight) {
  return weight.role == WeightRole::TokenEmbedding || weight.role == WeightRole::PerLayerEmbedding;
}

void update(Sha256& digest, const at::Tensor& values) {
  const at::Tensor bits = values.to(at::kBFloat16).contiguous();
  digest.update({static_cast<const std::byte*>(bits.data_ptr()), static_cast<size_t>(bits.nbytes())});
}

// What the model's slot hands to the GEMM, read through the slot itself. Tables come by rows, as lookups read them.
std::string digest_of_values(const Projection& projection, const WeightSpec& weight) {
  const c10::NoGradGuard no_grad;
  Sha256 digest;
  if (is_table(weight)) {
    for (int64_t first = 0; first < weight.rows(); first += kRowsPerPiece) {
      const int64_t end = std::min(first + kRowsPerPiece, weight.rows());
      update(digest, projection.effective_rows(at::arange(first, end, at::kLong)));
    }
  } else {
    update(digest, projection.effective_weight());
  }
  return digest.finish();
}

}  // namespace

std::map<std::string, WeightDigest, std::less<>> FakeQuantSet::digests() const {
  std::map<std::string, WeightDigest, std::less<>> result;
  for (const auto& quantizer : state_->weights) {
    const Projection& projection = state_->model->projection(quantizer->name());
    WeightDigest digest = quantizer->digest(projection.weight);
    digest.values = digest_of_values(projection, *state_->model->weights().find(quantizer->name()));
    result.emplace(quantizer->name(), std::move(digest));
  }
  return result;
}

FakeQuantSet prepare(Gemma4Model& model, const ResolvedPlan& plan,
                     const std::function<std::span<const Float16>(const std::string&)>& stored_scales) {
  FakeQuantSet set;
  set.state_->model = &model;
  for (const WeightSpec& weight : model.weights().weights()) {
    const WeightPlan& rule = plan.of(weight.name);
    if (!scheme(rule.scheme).is_quantized()) continue;
    std::span<const Float16> scales;
    if (rule.scales == ScaleSource::Stored) {
      scales = stored_scales(weight.name);
      const int64_t blocks = weight.elements() / scheme(rule.scheme).block_size;
      if (static_cast<int64_t>(scales.size()) != blocks) {
        fail(weight.name, ": the plan wants stored scales, ", blocks, " of them; found ", scales.size());
      }
    }
    auto quantizer = std::make_shared<WeightFakeQuantizer>(weight.name, rule.scheme, scales);
    model.projection(weight.name).weight_transform = quantizer;
    set.state_->weights.push_back(std::move(quantizer));
  }
  if (!plan.key_value_cache) return set;

  QAT_CHECK(*plan.key_value_cache == Scheme::Q8_0);
  for (const LayerConfig& layer : model.config().layers) {
    if (layer.key_value_donor) continue;  // shared layers read what the donor cached
    const std::string name = "layers." + std::to_string(layer.index) + ".self_attn.";
    const auto rotation = key_value_rotation(model.config().layers.front().head_dim, layer.head_dim);
    auto key = std::make_shared<KeyValueFakeQuantizer>(name + "key_cache", rotation.key, layer.head_dim);
    auto value = std::make_shared<KeyValueFakeQuantizer>(name + "value_cache", rotation.value, layer.head_dim);
    model.key_transform(layer.index) = key;
    model.value_transform(layer.index) = value;
    set.state_->caches.push_back({layer.index, std::move(key), std::move(value)});
  }
  return set;
}

// Records what every layer caches, for its lifetime.
class CacheRecording {
 public:
  CacheRecording(const FakeQuantSet& fake_quant, std::map<int64_t, WitnessCache>& recorded) : fake_quant_(fake_quant) {
    for (const auto& cache : fake_quant_.state_->caches) {
      WitnessCache& target = recorded[cache.layer];
      cache.key->record_into(&target.keys);
      cache.value->record_into(&target.values);
    }
  }
  ~CacheRecording() {
    for (const auto& cache : fake_quant_.state_->caches) {
      cache.key->record_into(nullptr);
      cache.value->record_into(nullptr);
    }
  }
  CacheRecording(const CacheRecording&) = delete;
  CacheRecording& operator=(const CacheRecording&) = delete;

 private:
  const FakeQuantSet& fake_quant_;
};

Witness make_witness(const Gemma4Model& model, const FakeQuantSet& fake_quant,
                     const std::vector<std::vector<int32_t>>& prompts) {
  const c10::NoGradGuard no_grad;
  QAT_CHECK(model.dtype() == at::kFloat);
  Witness witness;
  const CacheRecording recording(fake_quant, witness.caches);
  for (const auto& prompt : prompts) {
    const auto count = std::min<size_t>(prompt.size(), kWitnessPositions);
    if (count == 0) continue;
    WitnessPrompt entry;
    entry.tokens.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(count));
    const std::vector<int64_t> ids(entry.tokens.begin(), entry.tokens.end());
    const at::Tensor hidden = model.hidden_states(PackedTokens::single(at::tensor(ids, at::kLong)));
    for (size_t i = 0; i < count; ++i) {
      const at::Tensor logits = model.logits(hidden.narrow(0, static_cast<int64_t>(i), 1)).contiguous();
      entry.positions.push_back(
          witness_position({logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel())}));
    }
    witness.prompts.push_back(std::move(entry));
  }
  witness.digests = fake_quant.digests();
  return witness;
}

}  // namespace qat
