#include "cli/sensitivity_report.h"

#include <nlohmann/json.hpp>

#include "core/terminal.h"
#include "eval/sensitivity_section.h"

namespace qat {

namespace {

std::string bytes_text(int64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

Table parts_table(const SensitivityFindings& findings) {
  Table table{{"weights of", "values", "scheme", "size", "KL", "plan"}, {}};
  if (findings.proposal) table.header.push_back("proposed");
  for (size_t i = 0; i < findings.parts.size(); ++i) {
    const PartFindings& part = findings.parts[i];
    for (size_t choice = 0; choice < part.choices.size(); ++choice) {
      const auto& [candidate, figures] = part.choices[choice];
      table.rows.push_back({choice == 0 ? part.part.name() : "",
                            choice == 0 ? format_count(static_cast<double>(part.values)) : "",
                            std::string(scheme(candidate).name), bytes_text(figures.bytes),
                            format_significant(figures.divergence, 3), choice == part.planned ? "yes" : ""});
      if (findings.proposal) {
        table.rows.back().push_back(findings.proposal->choices[i] == choice ? "yes" : "");
      }
    }
  }
  return table;
}

Table layers_table(const SensitivityFindings& findings) {
  Table table{{"layer", "KL"}, {}};
  for (size_t layer = 0; layer < findings.layers.size(); ++layer) {
    table.rows.push_back({std::to_string(layer), format_significant(findings.layers[layer], 3)});
  }
  return table;
}

Table whole_table(const SensitivityFindings& findings) {
  Table table{{"together", "size", "KL", "sum of the parts' KL"}, {}};
  table.rows.push_back({"as planned", bytes_text(findings.planned_bytes()), format_significant(findings.whole, 3),
                        format_significant(findings.sum_of_parts(), 3)});
  if (findings.proposal) {
    table.rows.push_back({"as proposed", bytes_text(findings.proposal->bytes),
                          format_significant(findings.proposal->divergence, 3),
                          format_significant(findings.proposal->sum, 3)});
  }
  if (findings.cache) table.rows.push_back({"the cache alone", "", format_significant(*findings.cache, 3), ""});
  return table;
}

}  // namespace

std::string sensitivity_text(const SensitivityFindings& findings) {
  return format_table(parts_table(findings)) + "\n" + format_table(layers_table(findings)) + "\n" +
         format_table(whole_table(findings));
}

nlohmann::ordered_json sensitivity_json(const SensitivityFindings& findings, const std::string& plan) {
  nlohmann::ordered_json json{{"plan", plan}, {"tokens", findings.tokens}};
  for (const PartFindings& part : findings.parts) {
    nlohmann::ordered_json entry{{"part", part.part.name()},
                                 {"values", part.values},
                                 {"scheme", scheme(part.choices[part.planned].scheme).name}};
    for (const SchemeChoice& choice : part.choices) {
      entry["choices"].push_back(
          {{"scheme", scheme(choice.scheme).name}, {"bytes", choice.figures.bytes}, {"kl", choice.figures.divergence}});
    }
    json["parts"].push_back(std::move(entry));
  }
  json["layers"] = findings.layers;
  json["whole"] = {
      {"bytes", findings.planned_bytes()}, {"kl", findings.whole}, {"sum_of_parts", findings.sum_of_parts()}};
  if (findings.cache) json["cache"] = *findings.cache;
  if (const auto& proposal = findings.proposal) {
    json["proposal"] = {{"budget", proposal->budget},
                        {"bytes", proposal->bytes},
                        {"kl", proposal->divergence},
                        {"sum_of_parts", proposal->sum},
                        {"plan", proposal->plan.to_json()}};
  }
  return json;
}

Report sensitivity_report(const SensitivityFindings& findings, const std::string& plan, const std::string& model,
                          const std::string& data) {
  Report report;
  report.title = "gemma-qat: sensitivity of " + model;
  report.introduction = {"KL divergence from the model as it is when only one part of it is quantized, on " +
                         std::to_string(findings.tokens) + " tokens of " + data + ", plan " + plan +
                         ", under searched scales. Activations stay whole."};
  report.sections = {
      {"Roles", {parts_table(findings)}},
      {"Layers",
       {layer_sensitivity_plot(findings.layers), layers_table(findings)}},
      {"Together",
       {"The parts' divergences add up only in part, so a proposal is measured as a whole.", whole_table(findings)}}};
  return report;
}

}  // namespace qat
