#include "eval/claim_limits.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/comma_list.h"
#include "core/error.h"

namespace qat {
namespace {

// What a judgement is made of, a number per document or question: candidate - baseline.
std::vector<double> contributions(const MeasuredModel& candidate, const MeasuredModel& baseline,
                                  const std::string& measure) {
  std::vector<double> values;
  if (measure == "accuracy") {
    for (size_t i = 0; i < candidate.choices.size(); ++i) {
      values.push_back((candidate.choices[i].correct ? 1.0 : 0.0) - (baseline.choices[i].correct ? 1.0 : 0.0));
    }
    return values;
  }
  const auto field = measure == "KL" ? &DocumentMeasures::divergence : &DocumentMeasures::negative_log_likelihood;
  values = column(candidate.text, field);
  const std::vector<double> others = column(baseline.text, field);
  for (size_t i = 0; i < values.size(); ++i) values[i] -= others[i];
  return values;
}

int64_t fewest_to_remove(std::vector<double> values) {
  double total = std::accumulate(values.begin(), values.end(), 0.0);
  if (total < 0) {
    for (double& value : values) value = -value;
    total = -total;
  }
  std::ranges::sort(values, std::greater<>());
  int64_t removed = 0;
  for (; total > 0 && removed < static_cast<int64_t>(values.size()); ++removed) {
    total -= values[static_cast<size_t>(removed)];
  }
  return removed;
}

const MeasuredModel& named(std::span<const MeasuredModel> models, const std::string& name) {
  const auto found = std::ranges::find(models, name, &MeasuredModel::name);
  QAT_CHECK(found != models.end());
  return *found;
}

bool is_shown(const ClaimLimit& limit) {
  const Finding finding = limit.judgement.verdict.finding;
  return finding == Finding::Better || finding == Finding::Worse;
}

bool is_accuracy(const Judgement& judgement) { return judgement.measure == "accuracy"; }

std::string size_of(const Judgement& judgement, double difference) {
  const double size = std::fabs(difference);
  return is_accuracy(judgement) ? format_fixed(100 * size, 1) + " points" : format_significant(size, 3);
}

std::string what_is_claimed(const ClaimLimit& limit) {
  const Judgement& judgement = limit.judgement;
  const std::string pair = judgement.candidate + " and " + judgement.baseline + ": ";
  switch (judgement.verdict.finding) {
    case Finding::Better:
      return judgement.candidate + " is better than " + judgement.baseline + " in " + judgement.measure;
    case Finding::Worse:
      return judgement.candidate + " is worse than " + judgement.baseline + " in " + judgement.measure;
    case Finding::NotJudged:
      return pair + judgement.measure + " is not judged";
    case Finding::NoDifferenceShown:
      break;
  }
  return pair + "no difference in " + judgement.measure + " is shown";
}

std::string what_it_rests_on(const ClaimLimit& limit) {
  const Judgement& judgement = limit.judgement;
  return join("a difference of ", size_of(judgement, judgement.difference.estimate.value), " over ",
              judgement.difference.samples, is_accuracy(judgement) ? " questions (McNemar)" : " documents (bootstrap)",
              ", p ", format_significant(judgement.verdict.adjusted_p_value, 2), " after Holm");
}

std::string what_would_make_it_fail(const ClaimLimit& limit) {
  const Judgement& judgement = limit.judgement;
  if (judgement.verdict.finding == Finding::NotJudged) return "more documents are needed";
  if (!is_shown(limit)) {
    const Interval& interval = judgement.difference.estimate.interval;
    const double largest = std::max(std::fabs(interval.low), std::fabs(interval.high));
    return "a difference of up to " + size_of(judgement, largest) + " may have gone unseen";
  }
  return join("an interval that reaches 0: its near end is ", size_of(judgement, limit.nearest_end),
              " away; or to lack the ", limit.breaks_without, is_accuracy(judgement) ? " questions" : " documents",
              " that speak most for it");
}

double mean_divergence(const MeasuredModel& model) {
  const auto sum = [](const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); };
  return sum(column(model.text, &DocumentMeasures::divergence)) / sum(token_column(model.text));
}

std::string seeds_sentence(std::span<const MeasuredModel> models, const ComparisonOrigin& origin) {
  if (origin.seeds.empty()) {
    return "Seeds: these models were given as files, so what another seed of their training would have changed is not "
           "known. The intervals say how the figures vary with the choice of documents, not with a seed.";
  }
  if (origin.seeds.size() == 1) {
    return "Seeds: one. " + origin.seeds.front() +
           " was trained once, and the intervals say how the figures vary with the choice of documents, not with the "
           "seed: a second run may come out otherwise. Set seeds=3 to see by how much.";
  }
  std::vector<double> figures;
  for (const std::string& name : origin.seeds) figures.push_back(mean_divergence(named(models, name)));
  const auto [least, most] = std::ranges::minmax(figures);
  const double baseline = mean_divergence(models[1]);
  const std::string spread =
      join("Seeds: ", figures.size(), " trained QAT models, with a KL of ", format_significant(least, 3), " to ",
           format_significant(most, 3), "; that of ", models[1].name, " is ", format_significant(baseline, 3), ". ");
  if (most < baseline)
    return spread + "Every seed is better than it; had one not been, the claim would have been about luck.";
  return spread + "It is not so that every seed is better than it: what is claimed of one seed is not claimed of QAT.";
}

std::string choice_sentence(std::span<const MeasuredModel> models, const ComparisonOrigin& origin) {
  const std::string& baseline = models[1].name;
  if (origin.methods == 0) {
    return "Baseline: " + baseline + " was named by whoever made this report; a better one without training may exist.";
  }
  if (origin.methods == 1) {
    return "Baseline: " + baseline + " is the only method without training that was tried; a better one may exist.";
  }
  return join(
      "Baseline: ", baseline, " had the least KL of ", origin.methods, " methods without training on ", comma_list(origin.chosen_on),
      ", from which nothing is reported here. Chosen on the files of this report, its figures would be flattered.");
}

}  // namespace

std::vector<ClaimLimit> claim_limits(std::span<const MeasuredModel> models, std::span<const Judgement> judgements) {
  std::vector<ClaimLimit> limits;
  for (const Judgement& judgement : judgements) {
    ClaimLimit limit{judgement};
    const Interval& interval = judgement.difference.estimate.interval;
    if (interval.excludes(0)) limit.nearest_end = interval.low > 0 ? interval.low : interval.high;
    limit.breaks_without = fewest_to_remove(
        contributions(named(models, judgement.candidate), named(models, judgement.baseline), judgement.measure));
    limits.push_back(std::move(limit));
  }
  return limits;
}

Table claims_table(std::span<const ClaimLimit> limits) {
  Table table{{"claim", "rests on", "what would have made it fail"}, {}};
  for (const ClaimLimit& limit : limits) {
    table.rows.push_back({what_is_claimed(limit), what_it_rests_on(limit), what_would_make_it_fail(limit)});
  }
  return table;
}

std::vector<std::string> origin_sentences(std::span<const MeasuredModel> models, const ComparisonOrigin& origin) {
  if (models.size() < 2) return {};
  std::vector<std::string> sentences{seeds_sentence(models, origin)};
  if (models.size() > 2) sentences.push_back(choice_sentence(models, origin));
  return sentences;
}

nlohmann::ordered_json claims_json(std::span<const ClaimLimit> limits) {
  auto json = nlohmann::ordered_json::array();
  for (const ClaimLimit& limit : limits) {
    json.push_back({{"candidate", limit.judgement.candidate},
                    {"baseline", limit.judgement.baseline},
                    {"measure", limit.judgement.measure},
                    {"shown", is_shown(limit)},
                    {"samples", limit.judgement.difference.samples},
                    {"nearest_end", limit.nearest_end},
                    {"breaks_without", limit.breaks_without}});
  }
  return json;
}

}  // namespace qat
