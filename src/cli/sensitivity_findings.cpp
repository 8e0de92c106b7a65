#include "cli/sensitivity_findings.h"

#include <algorithm>
#include <numeric>

#include "cli/stored_bytes.h"
#include "core/error.h"
#include "core/terminal.h"

namespace qat {

namespace {

// Those of `wanted` (or of the planned scheme's kind) whose blocks fit all weights of the part; the planned one among
// them.
std::vector<Scheme> candidates(const WeightTable& table, const ModelPart& part, Scheme planned,
                               const std::vector<std::string>& wanted) {
  std::vector<Scheme> schemes;
  if (wanted.empty()) {
    schemes = scheme(planned).has_row_scales() ? std::vector{Scheme::Int2, Scheme::Int4, Scheme::Int8}
                                               : std::vector{Scheme::Q4_0, Scheme::Q6_K, Scheme::Q8_0};
  }
  for (const std::string& name : wanted) schemes.push_back(scheme_by_name(name).id);
  std::erase_if(schemes, [&](Scheme candidate) {
    return std::any_of(table.weights().begin(), table.weights().end(), [&](const WeightSpec& weight) {
      return part.holds(weight) && !rows_divide(weight, scheme(candidate));
    });
  });
  if (std::find(schemes.begin(), schemes.end(), planned) == schemes.end()) schemes.push_back(planned);
  return schemes;
}

ResolvedPlan with_scheme(ResolvedPlan plan, const WeightTable& table, const ModelPart& part, Scheme chosen) {
  for (const WeightSpec& weight : table.weights()) {
    if (part.holds(weight)) plan.weights.at(weight.name).scheme = chosen;
  }
  return plan;
}

bool is_quantized(const ResolvedPlan& plan, const WeightSpec& weight) {
  return scheme(plan.of(weight.name).scheme).is_quantized();
}

// Parts without their divergences.
std::vector<PartFindings> list_parts(const WeightTable& table, const ResolvedPlan& plan,
                                     const std::vector<std::string>& schemes) {
  std::vector<PartFindings> parts;
  for (const ModelPart& model_part : quantized_parts(table, plan)) {
    PartFindings part{model_part, 0, {}, 0};
    const auto first = std::find_if(table.weights().begin(), table.weights().end(),
                                    [&](const WeightSpec& weight) { return model_part.holds(weight); });
    const Scheme planned = plan.of(first->name).scheme;
    for (const Scheme candidate : candidates(table, model_part, planned, schemes)) {
      SchemeChoice choice{candidate, {}};
      for (const WeightSpec& weight : table.weights()) {
        if (!model_part.holds(weight)) continue;
        WeightPlan rule = plan.of(weight.name);
        rule.scheme = candidate;
        choice.figures.bytes += stored_bytes(weight, rule);
        part.values += part.choices.empty() ? weight.elements() : 0;
      }
      if (candidate == planned) part.planned = part.choices.size();
      part.choices.push_back(choice);
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

void check_budget(const SensitivityFindings& findings, int64_t budget) {
  int64_t least = findings.other_bytes;
  for (const PartFindings& part : findings.parts) {
    least += std::min_element(part.choices.begin(), part.choices.end(), [](const auto& a, const auto& b) {
               return a.figures.bytes < b.figures.bytes;
             })->figures.bytes;
  }
  if (least <= budget) return;
  fail_usage("--budget: ", format_bytes(static_cast<double>(budget)),
             " is too little: with these schemes the weights take ", format_bytes(static_cast<double>(least)),
             " at least");
}

PlanProposal propose(const SensitivityFindings& findings, QuantPlan plan, int64_t budget) {
  std::vector<std::vector<PartChoice>> choices;
  for (const PartFindings& part : findings.parts) {
    choices.emplace_back();
    for (const SchemeChoice& choice : part.choices) choices.back().push_back(choice.figures);
  }
  const auto found = choose_within(choices, budget - findings.other_bytes);
  QAT_CHECK(found);
  PlanProposal proposal{budget, *found, std::move(plan), findings.other_bytes};
  for (size_t i = 0; i < findings.parts.size(); ++i) {
    const PartFindings& part = findings.parts[i];
    const SchemeChoice& choice = part.choices[proposal.choices[i]];
    proposal.bytes += choice.figures.bytes;
    proposal.sum += choice.figures.divergence;
    if (part.part.double_wide) {
      proposal.plan.double_wide[part.part.role] = choice.scheme;
    } else {
      proposal.plan.rules.at(part.part.role).scheme = choice.scheme;
    }
  }
  return proposal;
}

}  // namespace

int64_t SensitivityFindings::planned_bytes() const {
  return std::accumulate(parts.begin(), parts.end(), other_bytes, [](int64_t sum, const PartFindings& part) {
    return sum + part.choices[part.planned].figures.bytes;
  });
}

double SensitivityFindings::sum_of_parts() const {
  return std::accumulate(parts.begin(), parts.end(), 0.0, [](double sum, const PartFindings& part) {
    return sum + part.choices[part.planned].figures.divergence;
  });
}

SensitivityFindings measure_sensitivity(Gemma4Model& model, const std::vector<TrainingBatch>& batches,
                                        const SensitivityInputs& inputs) {
  const WeightTable& table = model.weights();
  const ResolvedPlan plan = inputs.plan.resolve(table);
  SensitivityFindings findings;
  findings.parts = list_parts(table, plan, inputs.schemes);
  if (findings.parts.empty()) fail_usage("the plan \"", plan.name, "\" quantizes no weights");
  for (const WeightSpec& weight : table.weights()) {
    if (!is_quantized(plan, weight)) findings.other_bytes += stored_bytes(weight, plan.of(weight.name));
  }
  if (inputs.budget) check_budget(findings, *inputs.budget);
  for (const TrainingBatch& batch : batches) findings.tokens += batch.trained_tokens;

  const int64_t layers = model.config().layer_count();
  int64_t steps = layers + 1;
  for (const PartFindings& part : findings.parts) steps += std::ssize(part.choices);
  Progress progress("sensitivity", steps, "measurements");
  Sensitivity sensitivity(model, batches);
  for (PartFindings& part : findings.parts) {
    for (SchemeChoice& choice : part.choices) {
      choice.figures.divergence =
          sensitivity.divergence(with_scheme(plan, table, part.part, choice.scheme),
                                 [&](const WeightSpec& weight) { return part.part.holds(weight); });
      progress.advance(1);
    }
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    findings.layers.push_back(sensitivity.divergence(
        plan, [&](const WeightSpec& weight) { return weight.layer == layer && is_quantized(plan, weight); }));
    progress.advance(1);
  }
  const auto all = [&](const WeightSpec& weight) { return is_quantized(plan, weight); };
  findings.whole = sensitivity.divergence(plan, all);
  if (plan.key_value_cache == Scheme::Q8_0) findings.cache = sensitivity.cache_divergence(plan);
  progress.advance(1);
  if (inputs.budget) {
    findings.proposal = propose(findings, inputs.plan, *inputs.budget);
    findings.proposal->divergence = sensitivity.divergence(findings.proposal->plan.resolve(table), all);
  }
  return findings;
}

}  // namespace qat
