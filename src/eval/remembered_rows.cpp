#include "eval/remembered_rows.h"

#include <map>
#include <utility>

namespace qat {
namespace {

using Key = std::vector<int64_t>;

// Everything that the rows depend on, with lengths, so that no two batches share a key.
Key key_of(std::span<const BatchSequence> batch) {
  Key key;
  for (const BatchSequence& sequence : batch) {
    key.push_back(sequence.continues ? static_cast<int64_t>(*sequence.continues) : -1);
    key.push_back(static_cast<int64_t>(sequence.tokens.size()));
    key.push_back(static_cast<int64_t>(sequence.wanted.size()));
    key.insert(key.end(), sequence.tokens.begin(), sequence.tokens.end());
    key.insert(key.end(), sequence.wanted.begin(), sequence.wanted.end());
  }
  return key;
}

class RememberingModel final : public LanguageModel {
 public:
  RememberingModel(std::unique_ptr<LanguageModel> model, int64_t most_bytes)
      : model_(std::move(model)), bytes_left_(most_bytes) {}

  int64_t vocabulary_size() const override { return model_->vocabulary_size(); }
  int64_t hidden_size() const override { return model_->hidden_size(); }

  void evaluate(std::span<const int32_t> tokens, int64_t first_position, const LogitsSink& sink) override {
    model_->evaluate(tokens, first_position, sink);
  }

  std::vector<float> hidden_rows(std::span<const BatchSequence> batch) override {
    Key key = key_of(batch);
    if (const auto found = rows_.find(key); found != rows_.end()) return found->second;
    std::vector<float> rows = model_->hidden_rows(batch);
    const auto bytes = static_cast<int64_t>(key.size() * sizeof(int64_t) + rows.size() * sizeof(float));
    if (bytes <= bytes_left_) {
      bytes_left_ -= bytes;
      rows_.emplace(std::move(key), rows);
    }
    return rows;
  }

  std::span<const float> logits(std::span<const float> rows) override { return model_->logits(rows); }
  std::unique_ptr<DecodingSession> start() override { return model_->start(); }

 private:
  std::unique_ptr<LanguageModel> model_;
  std::map<Key, std::vector<float>> rows_;
  int64_t bytes_left_;
};

}  // namespace

std::unique_ptr<LanguageModel> remember_hidden_rows(std::unique_ptr<LanguageModel> model, int64_t most_bytes) {
  return std::make_unique<RememberingModel>(std::move(model), most_bytes);
}

}  // namespace qat
