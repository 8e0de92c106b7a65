// A language model whose next-token distribution is a table: row t gives the probabilities after a sequence that ends
// in token t. What any measure should give on it can be computed by hand.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "gemma4/language_model.h"

namespace qat {

class TableModel : public LanguageModel {
 public:
  // `shift` is added to all logits of a row, which must change nothing.
  explicit TableModel(std::vector<std::vector<double>> probabilities, double shift = 0, int64_t chunk = 3)
      : chunk_(chunk) {
    for (const auto& row : probabilities) {
      rows_.emplace_back();
      for (const double p : row) rows_.back().push_back(static_cast<float>(std::log(p) + shift));
    }
  }

  int64_t vocabulary_size() const override { return static_cast<int64_t>(rows_.front().size()); }

  void evaluate(std::span<const int32_t> tokens, int64_t first_position, const LogitsSink& sink) override {
    ++calls;
    const auto size = static_cast<int64_t>(tokens.size());
    for (int64_t position = first_position; position < size; position += chunk_) {
      std::vector<float> logits;
      for (int64_t i = position; i < std::min(position + chunk_, size); ++i) {
        const auto& row = rows_[static_cast<size_t>(tokens[static_cast<size_t>(i)])];
        logits.insert(logits.end(), row.begin(), row.end());
        ++rows_computed;
      }
      sink(position, logits);
    }
  }

  // A hidden row is the last token's id.
  int64_t hidden_size() const override { return 1; }

  std::vector<float> hidden_rows(std::span<const BatchSequence> batch) override {
    ++calls;
    std::vector<float> rows;
    for (const BatchSequence& sequence : batch) {
      for (const int64_t position : sequence.wanted) {
        rows.push_back(static_cast<float>(sequence.tokens.at(static_cast<size_t>(position))));
      }
    }
    return rows;
  }

  std::span<const float> logits(std::span<const float> rows) override {
    logits_.clear();
    for (const float token : rows) {
      const auto& row = rows_[static_cast<size_t>(token)];
      logits_.insert(logits_.end(), row.begin(), row.end());
      ++rows_computed;
    }
    return logits_;
  }

  std::unique_ptr<DecodingSession> start() override { return std::make_unique<Session>(*this); }

  int64_t calls = 0;
  int64_t rows_computed = 0;

 private:
  class Session : public DecodingSession {
   public:
    explicit Session(const TableModel& model) : model_(model) {}
    std::span<const float> append(std::span<const int32_t> tokens) override {
      return model_.rows_[static_cast<size_t>(tokens.back())];
    }

   private:
    const TableModel& model_;
  };

  std::vector<std::vector<float>> rows_;
  std::vector<float> logits_;
  int64_t chunk_;
};

}  // namespace qat
