#include "eval/comparison.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "eval/measure_report.h"

namespace qat {
namespace {

using Json = nlohmann::ordered_json;

std::string nats(double size) { return format_significant(size, 3); }
std::string points(double share) { return format_fixed(100 * share, 1) + " points"; }

// Indices of the candidates and of their baseline.
size_t baseline_of(std::span<const MeasuredModel> models) { return models.size() >= 3 ? 1 : 0; }
std::span<const MeasuredModel> candidates(std::span<const MeasuredModel> models) {
  return models.subspan(std::min(models.size(), baseline_of(models) + 1));
}

Comparison text_comparison(const MeasuredModel& candidate, const MeasuredModel& baseline,
                           double DocumentMeasures::*field) {
  return {
      document_difference(column(candidate.text, field), column(baseline.text, field), token_column(baseline.text), {}),
      /*smaller_is_better=*/true, nats};
}

Comparison answer_comparison(const MeasuredModel& candidate, const MeasuredModel& baseline) {
  return {answer_difference(correct_items(candidate.choices, &ChoiceResult::correct),
                            correct_items(baseline.choices, &ChoiceResult::correct)),
          /*smaller_is_better=*/false, points};
}

std::vector<double> wrong_answers(const MeasuredModel& model) {
  std::vector<double> wrong;
  for (const ChoiceResult& result : model.choices) wrong.push_back(result.correct ? 0.0 : 1.0);
  return wrong;
}

const char* finding_name(Finding finding) {
  switch (finding) {
    case Finding::Better:
      return "better";
    case Finding::Worse:
      return "worse";
    case Finding::NotJudged:
      return "not judged";
    case Finding::NoDifferenceShown:
      break;
  }
  return "no difference shown";
}

Json interval_json(const Interval& interval) { return {interval.low, interval.high}; }

Json files_json(const MeasuredModel& model) {
  Json json = Json::array();
  for (size_t file = 0; file < model.files.size(); ++file) {
    const FileMeasures measures = file_measures(model, file);
    Json entry{{"file", model.files[file].name},
               {"documents", measures.documents},
               {"tokens", measures.tokens},
               {"perplexity", measures.perplexity}};
    if (measures.divergence) {
      entry["kl"] = measures.divergence->value;
      entry["kl_interval"] = interval_json(measures.divergence->interval);
      entry["same_top"] = measures.same_top_share;
    }
    json.push_back(std::move(entry));
  }
  return json;
}

Json contexts_json(const MeasuredModel& model) {
  Json json = Json::array();
  for (size_t i = 0; i < DivergencePlaces::kContexts.size(); ++i) {
    const ContextMeasures& range = model.text.places.by_context()[i];
    if (range.tokens == 0) continue;
    json.push_back({{"from", DivergencePlaces::kContexts[i]},
                    {"tokens", range.tokens},
                    {"kl", range.divergence / static_cast<double>(range.tokens)}});
  }
  return json;
}

Json model_json(const MeasuredModel& model) {
  Json json{{"name", model.name},
            {"path", model.path},
            {"bytes", model.bytes},
            {"bits_per_weight", model.bits_per_weight},
            {"own_tokenizer", model.own_tokenizer},
            {"text", text_json(model.text)},
            {"files", files_json(model)},
            {"kl_by_context", contexts_json(model)}};
  if (!model.choices.empty()) json["questions"] = choice_json(model.choices);
  if (model.greedy_agreement) json["greedy_agreement"] = *model.greedy_agreement;
  return json;
}

}  // namespace

FileMeasures file_measures(const MeasuredModel& model, size_t file) {
  size_t first = 0;
  for (size_t before = 0; before < file; ++before) first += model.files[before].documents;
  const size_t count = model.files[file].documents;
  const auto part = [&](const std::vector<double>& values) {
    return std::vector(values.begin() + static_cast<std::ptrdiff_t>(first),
                       values.begin() + static_cast<std::ptrdiff_t>(first + count));
  };
  const auto sum = [&](double DocumentMeasures::*field) {
    const std::vector<double> values = part(column(model.text, field));
    return std::accumulate(values.begin(), values.end(), 0.0);
  };
  FileMeasures measures;
  const std::vector<double> tokens = part(token_column(model.text));
  for (const double of_document : tokens) {
    measures.documents += of_document > 0 ? 1 : 0;
    measures.tokens += static_cast<int64_t>(of_document);
  }
  const auto all = static_cast<double>(measures.tokens);
  measures.perplexity = std::exp(sum(&DocumentMeasures::negative_log_likelihood) / all);
  if (model.text.divergences.count() > 0) {
    measures.divergence = bootstrap_ratio(part(column(model.text, &DocumentMeasures::divergence)), tokens, {});
    measures.same_top_share = sum(&DocumentMeasures::same_top) / all;
  }
  return measures;
}

std::vector<Judgement> judge_models(std::span<const MeasuredModel> models) {
  std::vector<Judgement> judgements;
  std::vector<Comparison> family;
  const MeasuredModel& baseline = models[baseline_of(models)];
  for (const MeasuredModel& candidate : candidates(models)) {
    if (!candidate.is_judged) continue;
    const auto add = [&](const char* measure, Comparison comparison) {
      judgements.push_back({candidate.name, baseline.name, measure, comparison.difference, {}});
      family.push_back(std::move(comparison));
    };
    if (!candidate.own_tokenizer && !baseline.own_tokenizer) {
      // The first model's KL to itself is 0, so against it there is nothing to test.
      if (baseline_of(models) > 0) add("KL", text_comparison(candidate, baseline, &DocumentMeasures::divergence));
      add("loss", text_comparison(candidate, baseline, &DocumentMeasures::negative_log_likelihood));
    }
    if (!candidate.choices.empty()) add("accuracy", answer_comparison(candidate, baseline));
  }
  const std::vector<Verdict> verdicts = judge(family);
  for (size_t i = 0; i < verdicts.size(); ++i) judgements[i].verdict = verdicts[i];
  return judgements;
}

std::vector<RecoveredGap> recovered_gaps(std::span<const MeasuredModel> models) {
  std::vector<RecoveredGap> gaps;
  if (models.size() < 3) return gaps;
  for (const MeasuredModel& model : candidates(models)) {
    if (!model.is_judged) continue;
    if (!model.own_tokenizer && !models[1].own_tokenizer) {
      for (const auto& [measure, field] : {std::pair("KL", &DocumentMeasures::divergence),
                                           std::pair("loss", &DocumentMeasures::negative_log_likelihood)}) {
        gaps.push_back({model.name, measure,
                        recovery_fraction(column(models[1].text, field), column(model.text, field),
                                          column(models[0].text, field), token_column(model.text), {})});
      }
    }
    if (model.choices.empty()) continue;
    const std::vector<double> ones(model.choices.size(), 1.0);
    gaps.push_back(
        {model.name, "accuracy",
         recovery_fraction(wrong_answers(models[1]), wrong_answers(model), wrong_answers(models[0]), ones, {})});
  }
  return gaps;
}

Json comparison_json(std::span<const MeasuredModel> models) {
  Json json{{"models", Json::array()}, {"verdicts", Json::array()}, {"recovered", Json::array()}};
  for (const MeasuredModel& model : models) json["models"].push_back(model_json(model));
  for (const Judgement& judgement : judge_models(models)) {
    json["verdicts"].push_back({{"candidate", judgement.candidate},
                                {"baseline", judgement.baseline},
                                {"measure", judgement.measure},
                                {"difference", judgement.difference.estimate.value},
                                {"interval", interval_json(judgement.difference.estimate.interval)},
                                {"p_value", judgement.difference.p_value},
                                {"adjusted_p_value", judgement.verdict.adjusted_p_value},
                                {"finding", finding_name(judgement.verdict.finding)},
                                {"verdict", judgement.verdict.text}});
  }
  for (const RecoveredGap& gap : recovered_gaps(models)) {
    Json entry{{"model", gap.model},
               {"measure", gap.measure},
               {"gap", gap.recovery.gap.value},
               {"gap_interval", interval_json(gap.recovery.gap.interval)},
               {"fraction", nullptr}};
    if (gap.recovery.fraction) {
      entry["fraction"] = gap.recovery.fraction->value;
      entry["interval"] = interval_json(gap.recovery.fraction->interval);
    }
    json["recovered"].push_back(std::move(entry));
  }
  return json;
}

}  // namespace qat
