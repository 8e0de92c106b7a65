#include "eval/sensitivity_section.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/terminal.h"

namespace qat {
namespace {

// The planned scheme of each role.
Table roles_table(const nlohmann::json& parts) {
  Table table{{"weights of", "scheme", "size", "KL"}, {}};
  for (const auto& part : parts) {
    for (const auto& choice : part.at("choices")) {
      if (choice.at("scheme") != part.at("scheme")) continue;
      table.rows.push_back({part.at("part").get<std::string>(), part.at("scheme").get<std::string>(),
                            format_bytes(choice.at("bytes").get<double>()),
                            format_significant(choice.at("kl").get<double>(), 3)});
    }
  }
  return table;
}

}  // namespace

LinePlot layer_sensitivity_plot(std::span<const double> divergences) {
  Series layers{"KL", {}, {}};
  for (size_t layer = 0; layer < divergences.size(); ++layer) {
    layers.put(static_cast<double>(layer), divergences[layer]);
  }
  return {{"One layer quantized", "layer", "KL"}, AxisScale::Linear, {layers}};
}

ReportSection sensitivity_section(const nlohmann::json& figures) {
  try {
    const double whole = figures.at("whole").at("kl").get<double>();
    return {
        "Which parts suffer",
        {join("KL divergence of the unquantized model from itself with one part quantized, by role and by layer, under "
              "searched scales, on ",
              figures.at("tokens").get<int64_t>(), " tokens; all parts together: ", format_significant(whole, 3), "."),
         roles_table(figures.at("parts")), layer_sensitivity_plot(figures.at("layers").get<std::vector<double>>())}};
  } catch (const nlohmann::json::exception& error) {
    fail("figures of sensitivity: ", error.what(), "; compare --sensitivity MODEL --report FILE writes them");
  }
}

}  // namespace qat
