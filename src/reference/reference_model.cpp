#include "reference/reference_model.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "core/error.h"
#include "reference/forward.h"
#include "reference/gguf_model.h"
#include "reference/litertlm_model.h"
#include "reference/mobile_folder_model.h"

namespace qat {

namespace {

constexpr int64_t kChunkTokens = 512;       // tokens per pass, as many as llama.cpp's default micro-batch
constexpr int64_t kLogitsBudget = 8 << 20;  // values of logits that exist at a time

// Whether every layer with own keys and values has their static scales.
bool has_cache_scales(const ReferenceWeights& weights) {
  return std::all_of(weights.config().layers.begin(), weights.config().layers.end(), [&](const LayerConfig& layer) {
    const CacheScales scales = weights.cache_scales(layer.index);
    return layer.key_value_donor || (scales.key != 0 && scales.value != 0);
  });
}

class Session final : public DecodingSession {
 public:
  Session(const Forward& forward, CacheType cache) : forward_(forward), state_(forward.start(cache)) {}

  std::span<const float> append(std::span<const int32_t> tokens) override {
    if (tokens.empty()) fail("a decoding session needs at least one token to append");
    Matrix hidden;
    for (size_t start = 0; start < tokens.size(); start += kChunkTokens) {
      hidden = forward_.hidden(tokens.subspan(start, std::min<size_t>(kChunkTokens, tokens.size() - start)), state_,
                               Forward::Rows::Last);
    }
    logits_ = forward_.logits(hidden);
    return row_of(std::as_const(logits_), 0);
  }

 private:
  const Forward& forward_;
  SequenceState state_;
  Matrix logits_;
};

using MakeArithmetic = std::function<std::unique_ptr<Arithmetic>(ThreadPool& pool)>;

class ReferenceModel final : public LanguageModel {
 public:
  // `make_device` makes the arithmetic of the client that runs such files.
  ReferenceModel(std::unique_ptr<ReferenceWeights> weights, const ReferenceOptions& options,
                 const MakeArithmetic& make_device, CacheType default_cache)
      : weights_(std::move(weights)),
        pool_(options.threads),
        arithmetic_(options.arithmetic == ArithmeticKind::Float ? make_float_arithmetic(pool_) : make_device(pool_)),
        forward_(*weights_, *arithmetic_),
        observer_(options.observer),
        linears_(options.linears),
        cache_(options.cache.value_or(default_cache)) {
    forward_.start(cache_);
  }

  int64_t vocabulary_size() const override { return weights_->config().vocabulary_size; }

  void evaluate(std::span<const int32_t> tokens, int64_t first_position, const LogitsSink& sink) override {
    SequenceState state = forward_.start(cache_);
    state.observer = observer_;
    state.linears = linears_;
    const auto count = static_cast<int64_t>(tokens.size());
    for (int64_t start = 0; start < count; start += kChunkTokens) {
      const int64_t chunk = std::min(kChunkTokens, count - start);
      const Matrix hidden = forward_.hidden(tokens.subspan(static_cast<size_t>(start), static_cast<size_t>(chunk)),
                                            state, Forward::Rows::All);
      for (int64_t row = std::max<int64_t>(0, first_position - start); row < chunk; row += rows_at_once()) {
        const Matrix logits = forward_.logits(hidden.middleRows(row, std::min(rows_at_once(), chunk - row)));
        sink(start + row, {logits.data(), static_cast<size_t>(logits.size())});
      }
    }
  }

  int64_t hidden_size() const override { return weights_->config().hidden_size; }

  // Sequence by sequence; what others continue is kept with its cache until the batch is done.
  std::vector<float> hidden_rows(std::span<const BatchSequence> batch) override {
    std::vector<SequenceState> states;
    std::vector<float> rows;
    for (const BatchSequence& sequence : batch) {
      QAT_CHECK(!sequence.tokens.empty() && (!sequence.continues || *sequence.continues < states.size()));
      QAT_CHECK(!sequence.continues || states[*sequence.continues].length > 0);
      SequenceState state = sequence.continues ? states[*sequence.continues] : forward_.start(cache_);
      append_wanted_rows(sequence, state, rows);
      states.push_back(sequence.continues ? SequenceState{} : std::move(state));
    }
    return rows;
  }

  std::span<const float> logits(std::span<const float> rows) override {
    const Eigen::Map<const Matrix> hidden(rows.data(), static_cast<int64_t>(rows.size()) / hidden_size(),
                                          hidden_size());
    logits_.resize(hidden.rows(), vocabulary_size());
    // As many rows as evaluate() takes: a client's kernels may depend on that.
    for (int64_t row = 0; row < hidden.rows(); row += rows_at_once()) {
      const int64_t count = std::min(rows_at_once(), hidden.rows() - row);
      logits_.middleRows(row, count) = forward_.logits(hidden.middleRows(row, count));
    }
    return {logits_.data(), static_cast<size_t>(logits_.size())};
  }

  std::unique_ptr<DecodingSession> start() override { return std::make_unique<Session>(forward_, cache_); }

 private:
  int64_t rows_at_once() const { return std::max<int64_t>(1, kLogitsBudget / vocabulary_size()); }

  void append_wanted_rows(const BatchSequence& sequence, SequenceState& state, std::vector<float>& rows) const {
    const std::span<const int32_t> tokens(sequence.tokens);
    auto wanted = sequence.wanted.begin();
    for (size_t start = 0; start < tokens.size(); start += kChunkTokens) {
      const size_t count = std::min<size_t>(kChunkTokens, tokens.size() - start);
      const Matrix hidden = forward_.hidden(tokens.subspan(start, count), state, Forward::Rows::All);
      for (; wanted != sequence.wanted.end() && *wanted < static_cast<int64_t>(start + count); ++wanted) {
        const auto row = row_of(hidden, *wanted - static_cast<int64_t>(start));
        rows.insert(rows.end(), row.begin(), row.end());
      }
    }
    QAT_CHECK(wanted == sequence.wanted.end());
  }

  std::unique_ptr<ReferenceWeights> weights_;
  ThreadPool pool_;
  std::unique_ptr<Arithmetic> arithmetic_;
  Forward forward_;
  CacheObserver* observer_;
  LinearObserver* linears_;
  CacheType cache_;
  Matrix logits_;
};

std::unique_ptr<LanguageModel> make_mobile_model(std::unique_ptr<ReferenceWeights> weights, int64_t context,
                                                 const ReferenceOptions& options) {
  const CacheType cache = has_cache_scales(*weights) ? CacheType::Int8 : CacheType::F32;
  const auto make_device = [context](ThreadPool& pool) { return make_mobile_device_arithmetic(pool, context); };
  return std::make_unique<ReferenceModel>(std::move(weights), options, make_device, cache);
}

}  // namespace

std::unique_ptr<LanguageModel> make_reference_model(const GgufFile& file, const ReferenceOptions& options) {
  return std::make_unique<ReferenceModel>(
      std::make_unique<GgufModel>(file, options.adapter), options, make_device_arithmetic,
      options.arithmetic == ArithmeticKind::Float ? CacheType::F32 : CacheType::F16);
}

std::unique_ptr<LanguageModel> make_reference_model(const MobileFolder& folder, const ReferenceOptions& options) {
  return make_mobile_model(std::make_unique<MobileFolderModel>(folder), kAnyContext, options);
}

std::unique_ptr<LanguageModel> make_reference_model(const LitertlmFile& file, const ReferenceOptions& options) {
  auto weights = std::make_unique<LitertlmModel>(file);
  const int64_t context = weights->context();
  return make_mobile_model(std::move(weights), context, options);
}

}  // namespace qat
