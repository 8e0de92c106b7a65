#include "model/torch_language_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

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

// The sequences of a batch packed into one row of tokens.
struct PackedSequences {
  explicit PackedSequences(std::span<const BatchSequence> batch) {
    for (const BatchSequence& sequence : batch) {
      QAT_CHECK(!sequence.tokens.empty() && (!sequence.continues || *sequence.continues < continued.size()));
      QAT_CHECK(!sequence.continues || !continued[*sequence.continues]);
      const auto length = static_cast<int64_t>(sequence.tokens.size());
      const int64_t past =
          sequence.continues ? static_cast<int64_t>(batch[*sequence.continues].tokens.size()) : int64_t{0};
      for (const int64_t position : sequence.wanted) wanted.push_back(starts.back() + position);
      for (int64_t i = 0; i < length; ++i) positions.push_back(static_cast<float>(past + i));
      tokens.insert(tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
      starts.push_back(starts.back() + length);
      continued.push_back(sequence.continues);
    }
  }

  std::vector<int32_t> tokens;
  std::vector<float> positions;
  std::vector<int64_t> starts{0};
  std::vector<int64_t> wanted;  // rows of the packed tokens
  std::vector<std::optional<size_t>> continued;
};

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

  // Hidden states at the wanted positions, of whole sequences without a cache.
  static at::Tensor hidden_states(const Gemma4Model& model, const PackedSequences& packed) {
    const PackedTokens batch{token_tensor(model, packed.tokens), packed.starts};
    const at::Tensor positions = at::tensor(packed.positions).to(batch.tokens.device());
    LayerInputs state = model.embed(batch);
    for (const auto& layer : model.layers_) {
      layer.forward(model.config_, state, {positions, packed.starts, packed.continued}, nullptr);
    }
    const at::Tensor wanted = at::tensor(packed.wanted).to(batch.tokens.device());
    return model.final_norm(at::index_select(state.hidden, 0, wanted));
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

  int64_t hidden_size() const override { return model_.config().hidden_size; }

  std::vector<float> hidden_rows(std::span<const BatchSequence> batch) override {
    const at::NoGradGuard no_gradients;
    const at::Tensor hidden =
        ModelSession::hidden_states(model_, PackedSequences(batch)).to(at::kCPU, at::kFloat).contiguous();
    const auto values = values_of(hidden);
    return {values.begin(), values.end()};
  }

  std::span<const float> logits(std::span<const float> rows) override {
    const at::NoGradGuard no_gradients;
    logits_ = at::Tensor();
    const at::Tensor hidden =
        at::from_blob(const_cast<float*>(rows.data()),
                      {static_cast<int64_t>(rows.size()) / hidden_size(), hidden_size()}, at::kFloat);
    // In place after the product: many rows of a large vocabulary are much memory.
    at::Tensor values = model_.head()(hidden.to(model_.device(), model_.dtype()));
    const double softcap = model_.config().final_logit_softcap;
    if (softcap > 0) values.div_(softcap).tanh_().mul_(softcap);
    logits_ = values.to(at::kCPU, at::kFloat).contiguous();
    return values_of(logits_);
  }

  std::unique_ptr<DecodingSession> start() override { return std::make_unique<ModelSession>(model_); }

 private:
  const Gemma4Model& model_;
  at::Tensor logits_;
};

}  // namespace

std::unique_ptr<LanguageModel> make_language_model(const Gemma4Model& model) {
  return std::make_unique<TorchLanguageModel>(model);
}

}  // namespace qat
