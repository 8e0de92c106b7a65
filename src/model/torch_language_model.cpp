#include "model/torch_language_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "core/error.h"
#include "model/chunked_head.h"
#include "model/layer.h"

namespace qat {

namespace {

at::Tensor token_tensor(const Gemma4Model& model, std::span<const int32_t> tokens) {
  at::Tensor result = at::empty({static_cast<int64_t>(tokens.size())}, at::TensorOptions(at::kLong));
  std::copy(tokens.begin(), tokens.end(), result.mutable_data_ptr<int64_t>());
  return result.to(model.device());
}

std::span<const float> values_of(const at::Tensor& logits) {
  return {logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel())};
}

}  // namespace

class ModelSession final : public DecodingSession {
 public:
  explicit ModelSession(const Gemma4Model& model) : model_(model) {
    for (const LayerConfig& layer : model_.config().layers) caches_.emplace_back(layer.window);
  }

  std::span<const float> append(std::span<const int32_t> tokens) override {
    QAT_CHECK(!tokens.empty());
    const at::NoGradGuard no_gradients;
    const PackedTokens batch = PackedTokens::single(token_tensor(model_, tokens));
    const at::Tensor positions =
        at::arange(length_, length_ + batch.tokens.size(0), batch.tokens.options().dtype(at::kFloat));
    LayerInputs state = model_.embed(batch);
    for (size_t i = 0; i < caches_.size(); ++i) {
      const auto& layer = model_.layers_[i];
      KeyValueCache* cache = layer.config.key_value_donor ? nullptr : &caches_[i];
      layer.forward(model_.config_, state, {positions, batch.document_starts}, cache);
    }
    length_ += batch.tokens.size(0);
    const at::Tensor last = state.hidden.narrow(0, batch.tokens.size(0) - 1, 1);
    logits_ = model_.logits(model_.final_norm(last)).to(at::kCPU).contiguous();
    return values_of(logits_);
  }

 private:
  const Gemma4Model& model_;
  std::vector<KeyValueCache> caches_;
  int64_t length_ = 0;
  at::Tensor logits_;
};

namespace {

class TorchLanguageModel final : public LanguageModel {
 public:
  explicit TorchLanguageModel(const Gemma4Model& model) : model_(model) {}

  int64_t vocabulary_size() const override { return model_.config().vocabulary_size; }

  void evaluate(std::span<const int32_t> tokens, int64_t first_position, const LogitsSink& sink) override {
    const auto length = static_cast<int64_t>(tokens.size());
    QAT_CHECK(first_position >= 0);
    if (first_position >= length) return;
    const at::NoGradGuard no_gradients;
    const at::Tensor hidden = model_.hidden_states(PackedTokens::single(token_tensor(model_, tokens)));
    ChunkedLogits chunked(model_.head(), model_.config().final_logit_softcap,
                          hidden.narrow(0, first_position, length - first_position));
    chunked.for_each([&](const at::Tensor& logits, int64_t first) {
      sink(first_position + first, values_of(logits.to(at::kCPU).contiguous()));
    });
  }

  std::unique_ptr<DecodingSession> start() override { return std::make_unique<ModelSession>(model_); }

 private:
  const Gemma4Model& model_;
};

}  // namespace

std::unique_ptr<LanguageModel> make_language_model(const Gemma4Model& model) {
  return std::make_unique<TorchLanguageModel>(model);
}

}  // namespace qat
