#include "eval/comparison_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "core/error.h"
#include "core/json.h"
#include "eval/comparison_items.h"
#include "eval/comparison_plots.h"
#include "eval/measure_report.h"
#include "eval/sensitivity_section.h"

namespace qat {
namespace {

ComparisonSection results(std::span<const MeasuredModel> models) { return {"Results", "", results_table(models)}; }

ComparisonSection pairs(std::span<const MeasuredModel> models) { return {"Pairs", "", pairs_table(models)}; }

ComparisonSection tails(std::span<const MeasuredModel> models) {
  return {"Tails",
          "Percentiles of KL over tokens; Δp is the shift of the right token's probability. Means hide what goes wrong "
          "rarely and badly.",
          tails_table(models)};
}

ComparisonSection verdicts(std::span<const MeasuredModel> models) {
  return {
      "What can be said",
      "A difference counts as shown if its p-value stays below 0.05 after Holm's correction over all lines (KL and "
      "loss: bootstrap over documents; accuracy: McNemar's exact test). No difference shown does not mean equal: the "
      "intervals say how large one may be.",
      verdicts_table(judge_models(models))};
}

ComparisonSection recovery(std::span<const MeasuredModel> models) {
  return {"How much of the loss is regained",
          "Of what " + models[1].name + " lost against " + models[0].name + " (of KL: how far it is from it)" +
              "; not given where no loss is shown, since the ratio would be noise.",
          recovery_table(recovered_gaps(models), models)};
}

bool has_divergence(const MeasuredModel& model) { return model.text.divergences.count() > 0; }

// Models whose items are worth reading: the baseline and the trained ones, or, where it is not known which those are,
// all.
std::vector<const MeasuredModel*> models_to_read(std::span<const MeasuredModel> models,
                                                 const ComparisonOrigin& origin) {
  std::vector<const MeasuredModel*> chosen;
  for (size_t i = 1; i < models.size(); ++i) {
    const bool is_named = std::ranges::find(origin.seeds, models[i].name) != origin.seeds.end();
    if (i == 1 || origin.seeds.empty() || is_named) chosen.push_back(&models[i]);
  }
  return chosen;
}

std::vector<std::string> introduction(std::span<const MeasuredModel> models, const ComparisonFacts& facts) {
  std::string files;
  for (const MeasuredFile& file : models[0].files) files += (files.empty() ? "" : ", ") + file.name;
  const TextSummary first = summarize(models[0].text);
  std::vector<std::string> paragraphs{join("All models were measured on the same documents (", files, "), ",
                                           first.documents, " documents with ", first.tokens,
                                           " counted tokens. KL is measured from ", models[0].name,
                                           ". Intervals are 95 %, by bootstrap over documents.")};
  for (const DataWarning& warning : facts.warnings) {
    paragraphs.push_back("Warning (" + warning.name + "): " + warning.text + ".");
  }
  return paragraphs;
}

ReportSection in_report(const ComparisonSection& section) {
  ReportSection entry{section.heading, {}};
  if (!section.explanation.empty()) entry.items.emplace_back(section.explanation);
  entry.items.emplace_back(section.table);
  return entry;
}

ReportSection claims(std::span<const MeasuredModel> models, std::span<const Judgement> judgements,
                     const ComparisonOrigin& origin) {
  ReportSection section{"What would have made the claims fail", {}};
  section.items.emplace_back(claims_table(claim_limits(models, judgements)));
  for (std::string& sentence : origin_sentences(models, origin)) section.items.emplace_back(std::move(sentence));
  return section;
}

ReportSection places(std::span<const MeasuredModel> models) {
  ReportSection section{"Where the models stray", {}};
  section.items.emplace_back(std::string("Mean KL by the number of tokens that a model had read in its window."));
  section.items.emplace_back(contexts_table(models));
  if (models[0].files.size() > 1) {
    section.items.emplace_back(std::string("By file."));
    section.items.emplace_back(files_table(models));
  }
  return section;
}

ReportSection flipped(std::span<const MeasuredModel> models, const ComparisonFacts& facts) {
  ReportSection section{"Flipped answers to read", {}};
  for (const MeasuredModel* model : models_to_read(models, facts.origin)) {
    const auto items = flipped_items(models[0], *model, facts.questions);
    if (items.empty()) {
      section.items.emplace_back(model->name + " chose as " + models[0].name + " did everywhere.");
      continue;
    }
    section.items.emplace_back("Questions where " + model->name + " chose otherwise than " + models[0].name +
                               ", those first where it is surest of it.");
    section.items.emplace_back(flipped_table(items, models[0].name, model->name));
  }
  return section;
}

ReportSection worst_tokens(std::span<const MeasuredModel> models, const ComparisonFacts& facts) {
  ReportSection section{"Worst tokens to read", {}};
  for (const MeasuredModel* model : models_to_read(models, facts.origin)) {
    if (!has_divergence(*model)) continue;
    section.items.emplace_back("The tokens where " + model->name + " strays most from " + models[0].name +
                               "; p: the probability of the right token. ␣ is a space, ⏎ a new line.");
    section.items.emplace_back(worst_tokens_table(*model, models[0].name));
  }
  return section;
}

ReportSection training(const ComparisonFacts& facts) {
  ReportSection section{"Training", {}};
  for (const auto& [kind, field, label] :
       {std::tuple("step", "loss", "training loss"), std::tuple("eval", "kl", "held-out KL"),
        std::tuple("eval", "loss", "held-out loss")}) {
    LinePlot plot{{label, "step", label}, AxisScale::Linear, {}};
    for (const auto& run : facts.runs) {
      const Series series = read_metric_series(run.metrics, kind, field, run.name);
      if (!series.x.empty()) plot.series.push_back(thinned(series));
    }
    if (!plot.series.empty()) section.items.emplace_back(std::move(plot));
  }
  return section;
}

}  // namespace

std::vector<ComparisonSection> comparison_sections(std::span<const MeasuredModel> models) {
  std::vector<ComparisonSection> sections{results(models)};
  if (models.size() >= 3) sections.push_back(pairs(models));
  sections.push_back(tails(models));
  if (!judge_models(models).empty()) sections.push_back(verdicts(models));
  if (!recovered_gaps(models).empty()) sections.push_back(recovery(models));
  return sections;
}

Report make_comparison_report(std::span<const MeasuredModel> models, const ComparisonFacts& facts) {
  Report report;
  report.title = "gemma-qat: comparison";
  report.introduction = introduction(models, facts);
  const auto add = [&](ReportSection section) {
    if (!section.items.empty()) report.sections.push_back(std::move(section));
  };
  const std::vector<Judgement> judgements = judge_models(models);
  add(in_report(results(models)));
  if (!judgements.empty()) {
    add(in_report(verdicts(models)));
    if (!recovered_gaps(models).empty()) add(in_report(recovery(models)));
    add(claims(models, judgements, facts.origin));
  }
  add(size_section(models));
  if (!facts.questions.empty()) add({"Accuracy", {accuracy_plot(models)}});
  ReportSection of_tails = in_report(tails(models));
  if (models.size() >= 2) of_tails.items.emplace_back(tails_plot(models));
  add(std::move(of_tails));
  if (models.size() >= 3) add(in_report(pairs(models)));
  add(documents_section(models));
  if (models.size() >= 2) add(places(models));
  if (!facts.sensitivity.empty()) add(sensitivity_section(load_json(facts.sensitivity)));
  if (!facts.questions.empty()) add(flipped(models, facts));
  add(worst_tokens(models, facts));
  add(training(facts));
  return report;
}

nlohmann::ordered_json comparison_report_json(std::span<const MeasuredModel> models, const ComparisonFacts& facts) {
  nlohmann::ordered_json json = comparison_json(models);
  json["claims"] = claims_json(claim_limits(models, judge_models(models)));
  json["origin"] = {
      {"seeds", facts.origin.seeds}, {"methods", facts.origin.methods}, {"chosen_on", facts.origin.chosen_on}};
  for (size_t i = 1; i < models.size(); ++i) {
    auto& entry = json["models"][i];
    if (has_divergence(models[i])) entry["worst_tokens"] = worst_tokens_json(models[i]);
    if (!facts.questions.empty()) {
      entry["flipped"] = flipped_json(flipped_items(models[0], models[i], facts.questions));
    }
  }
  if (!facts.sensitivity.empty()) json["sensitivity"] = load_json(facts.sensitivity);
  json["warnings"] = warnings_json(facts.warnings);
  return json;
}

}  // namespace qat
