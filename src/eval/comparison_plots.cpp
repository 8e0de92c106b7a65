#include "eval/comparison_plots.h"

#include <cmath>

namespace qat {
namespace {

// What KL is drawn of: a model measured against the first, which has none but 0.
bool has_divergence(const MeasuredModel& model) { return model.text.divergences.count() > 0; }

std::vector<double> per_document(const MeasuredModel& model) {
  std::vector<double> values;
  for (const DocumentMeasures& document : model.text.documents) {
    values.push_back(document.tokens > 0 ? document.divergence / static_cast<double>(document.tokens) : 0);
  }
  return values;
}

// Shares of 1, 0.75, 0.56, ... down to a single token, and the KL that so many tokens exceed.
Series tail(const MeasuredModel& model, int color) {
  constexpr double kStep = 8;  // points per decade
  const double least = 1 / static_cast<double>(model.text.divergences.count());
  std::vector<double> shares, probabilities;
  for (int i = 0; std::pow(10, -i / kStep) >= least; ++i) {
    shares.push_back(std::pow(10, -i / kStep));
    probabilities.push_back(1 - shares.back());
  }
  return {model.name, model.text.divergences.quantiles(probabilities), shares, color};
}

}  // namespace

ReportSection size_section(std::span<const MeasuredModel> models) {
  NamedPoints plot{
      {"KL over bits per weight", "bits per weight", "KL to " + models[0].name}, AxisScale::Logarithmic, {}};
  for (const MeasuredModel& model : models.subspan(1)) {
    if (!has_divergence(model)) continue;
    plot.points.push_back({model.name, model.bits_per_weight, summarize(model.text).divergence->divergence.mean});
  }
  if (plot.points.empty()) return {"KL over size", {}};
  return {"KL over size",
          {"Lower is nearer to " + models[0].name + ", whose own KL is 0; further left is smaller.", std::move(plot)}};
}

LinePlot tails_plot(std::span<const MeasuredModel> models) {
  LinePlot plot{{"How often KL is large", "KL of a token (nats)", "share of tokens above"},
                AxisScale::Logarithmic,
                {},
                AxisScale::Logarithmic};
  for (size_t i = 1; i < models.size(); ++i) {
    if (has_divergence(models[i])) plot.series.push_back(tail(models[i], static_cast<int>(i) - 1));
  }
  return plot;
}

IntervalPlot accuracy_plot(std::span<const MeasuredModel> models) {
  IntervalPlot plot{"Accuracy, with 95 % intervals", "% of questions answered right", {}};
  for (const MeasuredModel& model : models) {
    const Accuracy accuracy = summarize(model.choices).accuracy;
    plot.rows.push_back(
        {model.name, {100 * accuracy.share, {100 * accuracy.interval.low, 100 * accuracy.interval.high}}});
  }
  return plot;
}

ReportSection documents_section(std::span<const MeasuredModel> models) {
  ReportSection section{"Per document", {}};
  Histogram histogram{{"KL per document", "mean KL per token", "documents"}, AxisScale::Logarithmic, 30, {}};
  for (size_t i = 1; i < models.size(); ++i) {
    if (has_divergence(models[i])) {
      histogram.groups.push_back({models[i].name, per_document(models[i]), static_cast<int>(i) - 1});
    }
  }
  if (histogram.groups.empty()) return section;
  section.items.emplace_back(std::move(histogram));
  if (models.size() < 3 || !has_divergence(models[1]) || !has_divergence(models[2])) return section;
  ScatterPlot plot{{"KL per document", models[1].name, models[2].name}, AxisScale::Logarithmic, true, {}};
  plot.series.push_back({"documents", per_document(models[1]), per_document(models[2])});
  section.items.emplace_back("A point below the line is a document on which " + models[2].name + " is nearer to " +
                             models[0].name + " than " + models[1].name + " is.");
  section.items.emplace_back(std::move(plot));
  return section;
}

}  // namespace qat
