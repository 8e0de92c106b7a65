#include "eval/measure_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "eval/table.h"

namespace qat {
namespace {

using Json = nlohmann::ordered_json;

Json interval_json(const Interval& interval) { return {interval.low, interval.high}; }

std::string percent_range(const Interval& interval) {
  return format_percent(interval.low, 1) + " to " + format_percent(interval.high, 1);
}

Json distribution_json(const DistributionSummary& values) {
  return {{"mean", values.mean},
          {"minimum", values.minimum},
          {"percentile_0_1", values.percentile_0_1},
          {"percentile_1", values.percentile_1},
          {"percentile_10", values.percentile_10},
          {"median", values.median},
          {"percentile_90", values.percentile_90},
          {"percentile_99", values.percentile_99},
          {"percentile_99_9", values.percentile_99_9},
          {"maximum", values.maximum}};
}

Estimate per_token(const TextMeasures& measures, double DocumentMeasures::*field) {
  return bootstrap_ratio(column(measures, field), token_column(measures), {});
}

Json divergence_json(const DivergenceSummary& summary, const TextMeasures& measures) {
  Json json = distribution_json(summary.divergence);
  json["interval"] = interval_json(per_token(measures, &DocumentMeasures::divergence).interval);
  json["same_top"] = summary.same_top_share;
  json["mean_probability_change"] = summary.probability_change.mean;
  json["rms_probability_change"] = summary.rms_probability_change;
  json["reference_perplexity"] = summary.reference_perplexity;
  return json;
}

// "median 0.01, 90 % 0.05, 99 % 0.3, 99.9 % 0.8, max 1.2"
std::string upper_tail(const DistributionSummary& values) {
  const auto number = [](double value) { return format_significant(value, 3); };
  return "median " + number(values.median) + ", 90 % " + number(values.percentile_90) + ", 99 % " +
         number(values.percentile_99) + ", 99.9 % " + number(values.percentile_99_9) + ", max " +
         number(values.maximum);
}

std::string divergence_lines(const DivergenceSummary& summary, const TextMeasures& measures) {
  const Interval interval = per_token(measures, &DocumentMeasures::divergence).interval;
  const DistributionSummary& change = summary.probability_change;
  return join("KL          ", format_significant(summary.divergence.mean, 4), "   (95 % interval ",
              format_significant(interval.low, 4), " to ", format_significant(interval.high, 4), ")\n", "  ",
              upper_tail(summary.divergence), "\n", "reverse KL  ",
              format_significant(summary.reverse_divergence.mean, 4), "\n", "  ",
              upper_tail(summary.reverse_divergence), "\n", "same top    ", format_percent(summary.same_top_share, 2),
              "   RMS Δp ", format_percent(summary.rms_probability_change, 3), "   reference perplexity ",
              format_fixed(summary.reference_perplexity, 4), "\n", "Δp          ", format_percent(change.mean, 3),
              "   (min ", format_percent(change.minimum, 2), ", 1 % ", format_percent(change.percentile_1, 2),
              ", median ", format_percent(change.median, 3), ", 99 % ", format_percent(change.percentile_99, 2),
              ", max ", format_percent(change.maximum, 2), ")\n");
}

std::string units_line(const UnitSummary& units) {
  return join("            ", format_fixed(units.word_perplexity, 3), " per word (", units.words, "), ",
              format_fixed(units.byte_perplexity, 4), " per byte (", units.bytes,
              "): ", format_fixed(units.bits_per_byte, 4), " bits per byte\n");
}

Json accuracy_json(const Accuracy& accuracy) {
  return {{"share", accuracy.share},
          {"correct", accuracy.correct},
          {"items", accuracy.items},
          {"interval", interval_json(accuracy.interval)}};
}

std::string accuracy_line(const char* name, const Accuracy& accuracy) {
  std::string padded(name);
  padded.resize(std::max<size_t>(padded.size(), 10), ' ');
  return join(padded, " ", format_percent(accuracy.share, 1), " (", accuracy.correct, " of ", accuracy.items,
              ", 95 % interval ", percent_range(accuracy.interval), ")\n");
}

// What every line of items begins with.
Json item_json(const std::string& model, const std::string& file, int64_t line) {
  Json json = Json::object();
  if (!model.empty()) json["model"] = model;
  json["file"] = file;
  json["line"] = line;
  return json;
}

Accuracy problem_accuracy(std::span<const ProblemResult> results, bool ProblemResult::*field) {
  int64_t correct = 0;
  for (const ProblemResult& result : results) correct += result.*field ? 1 : 0;
  return accuracy_of(correct, static_cast<int64_t>(results.size()));
}

}  // namespace

Json text_json(const TextMeasures& measures) {
  const TextSummary summary = summarize(measures);
  const Estimate loss = per_token(measures, &DocumentMeasures::negative_log_likelihood);
  Json json{{"documents", summary.documents},
            {"tokens", summary.tokens},
            {"perplexity", summary.perplexity},
            {"loss", summary.mean_negative_log_likelihood},
            {"loss_interval", interval_json(loss.interval)}};
  if (summary.units) {
    json["words"] = summary.units->words;
    json["bytes"] = summary.units->bytes;
    json["word_perplexity"] = summary.units->word_perplexity;
    json["byte_perplexity"] = summary.units->byte_perplexity;
    json["bits_per_byte"] = summary.units->bits_per_byte;
  }
  if (summary.divergence) {
    json["kl"] = divergence_json(*summary.divergence, measures);
    json["reverse_kl"] = distribution_json(summary.divergence->reverse_divergence);
    json["probability_change"] = distribution_json(summary.divergence->probability_change);
  }
  return json;
}

Json choice_json(std::span<const ChoiceResult> results) {
  const ChoiceSummary summary = summarize(results);
  return {{"accuracy", accuracy_json(summary.accuracy)},
          {"accuracy_by_characters", accuracy_json(summary.accuracy_by_characters)},
          {"accuracy_by_bytes", accuracy_json(summary.accuracy_by_bytes)}};
}

Json problem_json(std::span<const ProblemResult> results) {
  return {{"strict_match", accuracy_json(problem_accuracy(results, &ProblemResult::correct_strict))},
          {"flexible_extract", accuracy_json(problem_accuracy(results, &ProblemResult::correct_flexible))}};
}

Json warnings_json(std::span<const DataWarning> warnings) {
  Json json = Json::array();
  for (const DataWarning& warning : warnings) json.push_back({{"name", warning.name}, {"text", warning.text}});
  return json;
}

std::string text_lines(const TextMeasures& measures) {
  const TextSummary summary = summarize(measures);
  const Estimate loss = per_token(measures, &DocumentMeasures::negative_log_likelihood);
  std::string text =
      join(summary.documents, " documents, ", summary.tokens, " tokens\n", "perplexity  ",
           format_fixed(summary.perplexity, 4), "   (loss ", format_fixed(loss.value, 4), ", 95 % interval ",
           format_fixed(loss.interval.low, 4), " to ", format_fixed(loss.interval.high, 4), ")\n");
  if (summary.units) text += units_line(*summary.units);
  if (summary.divergence) text += divergence_lines(*summary.divergence, measures);
  return text;
}

std::string choice_lines(std::span<const ChoiceResult> results) {
  const ChoiceSummary summary = summarize(results);
  return accuracy_line("acc", summary.accuracy) + accuracy_line("acc_norm", summary.accuracy_by_characters) +
         accuracy_line("acc_bytes", summary.accuracy_by_bytes);
}

std::string problem_lines(std::span<const ProblemResult> results) {
  return accuracy_line("strict-match    ", problem_accuracy(results, &ProblemResult::correct_strict)) +
         accuracy_line("flexible-extract", problem_accuracy(results, &ProblemResult::correct_flexible));
}

std::string document_items(const TextMeasures& measures, const std::string& file, const std::string& model) {
  std::string lines;
  for (const DocumentMeasures& document : measures.documents) {
    const auto tokens = static_cast<double>(document.tokens);
    Json json = item_json(model, file, document.line);
    json["tokens"] = document.tokens;
    if (document.tokens > 0) json["loss"] = document.negative_log_likelihood / tokens;
    if (document.tokens > 0 && measures.divergences.count() > 0) {
      json["kl"] = document.divergence / tokens;
      json["reverse_kl"] = document.reverse_divergence / tokens;
      json["same_top"] = document.same_top / tokens;
      json["probability_change"] = document.probability_change / tokens;
    }
    lines += json.dump() + "\n";
  }
  return lines;
}

std::string choice_items(std::span<const ChoiceResult> results, const std::string& file, const std::string& model) {
  std::string lines;
  for (const ChoiceResult& result : results) {
    Json json = item_json(model, file, result.line);
    json.update({{"answer", result.answer},
                 {"log_likelihoods", result.log_likelihoods},
                 {"acc", {{"choice", result.chosen}, {"correct", result.correct}}},
                 {"acc_norm", {{"choice", result.chosen_by_characters}, {"correct", result.correct_by_characters}}},
                 {"acc_bytes", {{"choice", result.chosen_by_bytes}, {"correct", result.correct_by_bytes}}}});
    lines += json.dump() + "\n";
  }
  return lines;
}

std::string problem_items(std::span<const ProblemResult> results, const std::string& file) {
  std::string lines;
  for (const ProblemResult& result : results) {
    const Json json{{"file", file},
                    {"line", result.line},
                    {"text", result.text},
                    {"strict_match", {{"found", result.strict}, {"correct", result.correct_strict}}},
                    {"flexible_extract", {{"found", result.flexible}, {"correct", result.correct_flexible}}}};
    lines += json.dump() + "\n";
  }
  return lines;
}

}  // namespace qat
