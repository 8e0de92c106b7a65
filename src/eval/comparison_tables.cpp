#include <algorithm>

#include "core/error.h"
#include "core/terminal.h"
#include "eval/comparison.h"

namespace qat {
namespace {

constexpr const char* kNone = "n/a";

std::string range(const Interval& interval) {
  return format_significant(interval.low, 3) + " – " + format_significant(interval.high, 3);
}

std::string percent_range(const Interval& interval) {
  return format_percent(interval.low, 1) + " – " + format_percent(interval.high, 1);
}

Estimate mean_divergence(const MeasuredModel& model) {
  return bootstrap_ratio(column(model.text, &DocumentMeasures::divergence), token_column(model.text), {});
}

bool with_questions(std::span<const MeasuredModel> models) { return !models.front().choices.empty(); }

}  // namespace

Table results_table(std::span<const MeasuredModel> models) {
  Table table;
  table.header = {"model",   "size", "bits/weight", "perplexity", "KL to " + models[0].name, "KL 95 % interval",
                  "same top"};
  if (with_questions(models)) table.header.insert(table.header.end(), {"accuracy", "95 % interval"});
  const bool with_greedy =
      std::any_of(models.begin(), models.end(), [](const auto& model) { return model.greedy_agreement.has_value(); });
  if (with_greedy) table.header.push_back("greedy agreement");
  for (const MeasuredModel& model : models) {
    const TextSummary summary = summarize(model.text);
    std::vector<std::string> cells{model.name, format_bytes(static_cast<double>(model.bytes)),
                                   format_fixed(model.bits_per_weight, 2), format_fixed(summary.perplexity, 3)};
    if (summary.divergence) {
      const Estimate divergence = mean_divergence(model);
      cells.insert(cells.end(), {format_significant(divergence.value, 3), range(divergence.interval),
                                 format_percent(summary.divergence->same_top_share, 1)});
    } else {
      cells.insert(cells.end(), {kNone, kNone, kNone});
    }
    if (with_questions(models)) {
      const Accuracy accuracy = summarize(model.choices).accuracy;
      cells.insert(cells.end(), {format_percent(accuracy.share, 1), percent_range(accuracy.interval)});
    }
    if (with_greedy) cells.push_back(model.greedy_agreement ? format_percent(*model.greedy_agreement, 1) : kNone);
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table tails_table(std::span<const MeasuredModel> models) {
  Table table;
  table.header = {"model", "KL median",  "90 %",    "99 %",   "99.9 %",
                  "max",   "reverse KL", "mean Δp", "RMS Δp", "bits/byte"};
  const auto number = [](double value) { return format_significant(value, 3); };
  for (const MeasuredModel& model : models) {
    const TextSummary summary = summarize(model.text);
    std::vector<std::string> cells{model.name};
    if (summary.divergence) {
      const DistributionSummary& kl = summary.divergence->divergence;
      cells.insert(cells.end(),
                   {number(kl.median), number(kl.percentile_90), number(kl.percentile_99), number(kl.percentile_99_9),
                    number(kl.maximum), number(summary.divergence->reverse_divergence.mean),
                    format_percent(summary.divergence->probability_change.mean, 2),
                    format_percent(summary.divergence->rms_probability_change, 2)});
    } else {
      cells.resize(table.header.size() - 1, kNone);
    }
    cells.push_back(summary.units ? format_fixed(summary.units->bits_per_byte, 3) : kNone);
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table contexts_table(std::span<const MeasuredModel> models) {
  constexpr auto& kContexts = DivergencePlaces::kContexts;
  Table table{{"model"}, {}};
  for (const MeasuredModel& model : models) table.rows.push_back({model.name});
  for (size_t i = 0; i < kContexts.size(); ++i) {
    const auto range_of = [&](const MeasuredModel& model) { return model.text.places.by_context()[i]; };
    // A range that no document reaches would be a column of gaps.
    if (std::ranges::all_of(models, [&](const MeasuredModel& model) { return range_of(model).tokens == 0; })) continue;
    table.header.push_back(i + 1 < kContexts.size() ? join(kContexts[i], " – ", kContexts[i + 1] - 1)
                                                    : join(kContexts[i], " and more"));
    for (size_t row = 0; row < models.size(); ++row) {
      const auto [tokens, divergence] = range_of(models[row]);
      table.rows[row].push_back(tokens > 0 ? format_significant(divergence / static_cast<double>(tokens), 3) : kNone);
    }
  }
  return table;
}

Table files_table(std::span<const MeasuredModel> models) {
  Table table{{"file", "model", "documents", "tokens", "perplexity", "KL", "95 % interval", "same top"}, {}};
  for (size_t file = 0; file < models[0].files.size(); ++file) {
    for (const MeasuredModel& model : models) {
      const FileMeasures measures = file_measures(model, file);
      std::vector<std::string> cells{model.files[file].name, model.name, std::to_string(measures.documents),
                                     std::to_string(measures.tokens), format_fixed(measures.perplexity, 3)};
      if (measures.divergence) {
        cells.insert(cells.end(), {format_significant(measures.divergence->value, 3),
                                   range(measures.divergence->interval), format_percent(measures.same_top_share, 1)});
      } else {
        cells.insert(cells.end(), {kNone, kNone, kNone});
      }
      table.rows.push_back(std::move(cells));
    }
  }
  return table;
}

Table pairs_table(std::span<const MeasuredModel> models) {
  Table table;
  table.header = {"pair", "KL difference", "95 % interval", "KL ratio"};
  if (with_questions(models)) {
    table.header.insert(table.header.end(), {"answers flipped", "right → wrong", "wrong → right", "McNemar p"});
  }
  const MeasuredModel& baseline = models[1];
  for (const MeasuredModel& model : models.subspan(2)) {
    std::vector<std::string> cells{model.name + " − " + baseline.name};
    if (!model.own_tokenizer && !baseline.own_tokenizer) {
      const Estimate difference =
          bootstrap_difference(column(model.text, &DocumentMeasures::divergence),
                               column(baseline.text, &DocumentMeasures::divergence), token_column(baseline.text), {});
      cells.insert(cells.end(), {format_significant(difference.value, 3), range(difference.interval),
                                 format_fixed(mean_divergence(model).value / mean_divergence(baseline).value, 3)});
    } else {
      cells.insert(cells.end(), {kNone, kNone, kNone});
    }
    if (with_questions(models)) {
      const McNemar test = exact_mcnemar(correct_items(model.choices, &ChoiceResult::correct),
                                         correct_items(baseline.choices, &ChoiceResult::correct));
      cells.insert(cells.end(), {format_percent(test.flip_share(), 1), std::to_string(test.only_second),
                                 std::to_string(test.only_first), format_significant(test.p_value, 2)});
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table verdicts_table(std::span<const Judgement> judgements) {
  Table table;
  table.header = {"comparison", "measure", "p", "p (Holm)", "verdict"};
  for (const Judgement& judgement : judgements) {
    table.rows.push_back({judgement.candidate + " against " + judgement.baseline, judgement.measure,
                          format_significant(judgement.difference.p_value, 2),
                          format_significant(judgement.verdict.adjusted_p_value, 2), judgement.verdict.text});
  }
  return table;
}

Table recovery_table(std::span<const RecoveredGap> gaps, std::span<const MeasuredModel> models) {
  Table table;
  const std::string lost = "lost by " + models[1].name;
  table.header = {"model", "measure", lost, "95 % interval", "regained", "95 % interval"};
  for (const RecoveredGap& gap : gaps) {
    const Estimate& lost_share = gap.recovery.gap;
    std::vector<std::string> cells{gap.model, gap.measure, format_significant(lost_share.value, 3),
                                   range(lost_share.interval)};
    if (gap.recovery.fraction && gap.recovery.fraction->interval.high < 0) {
      cells.insert(cells.end(), {"nothing: it lost more", ""});
    } else if (gap.recovery.fraction) {
      cells.insert(cells.end(),
                   {format_percent(gap.recovery.fraction->value, 1), percent_range(gap.recovery.fraction->interval)});
    } else {
      const bool few = lost_share.interval.low > 0;
      cells.insert(cells.end(), {few ? "not given: too few documents" : "not given: no loss is shown", ""});
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

}  // namespace qat
