#include "eval/run_figures.h"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

namespace qat {
namespace {

using Field = std::pair<const char*, Series RunFigures::*>;

constexpr std::array kStepFields{Field{"loss", &RunFigures::loss},
                                 Field{"learning_rate", &RunFigures::learning_rate},
                                 Field{"gradient_norm", &RunFigures::gradient_norm},
                                 Field{"tokens", &RunFigures::tokens},
                                 Field{"trained_tokens", &RunFigures::trained_tokens},
                                 Field{"tokens_per_second", &RunFigures::tokens_per_second},
                                 Field{"seconds", &RunFigures::seconds},
                                 Field{"peak_memory", &RunFigures::peak_memory}};
constexpr std::array kEvaluationFields{Field{"loss", &RunFigures::held_out_loss}, Field{"kl", &RunFigures::kl}};
constexpr std::array kQuantizationFields{Field{"codes_changed", &RunFigures::codes_changed},
                                         Field{"codes_returned", &RunFigures::codes_returned}};

void add_quantizers(RunFigures& figures, const nlohmann::json& line) {
  const auto quantizers = line.find("quantizers");
  if (quantizers == line.end() || !quantizers->is_object()) return;
  for (const auto& [name, measured] : quantizers->items()) {
    const double signal_to_noise = metric_at(measured, "signal_to_noise_db");
    const auto [entry, is_new] = figures.quantizers.try_emplace(name);
    if (is_new) entry->second.first_signal_to_noise = signal_to_noise;
    entry->second.signal_to_noise = signal_to_noise;
    entry->second.clipping_rate = metric_at(measured, "clipping_rate");
    entry->second.codes_changed = metric_at(measured, "codes_changed");
  }
}

}  // namespace

RunFigures read_run_figures(const std::filesystem::path& metrics_file) {
  RunFigures figures;
  visit_metrics(metrics_file, [&](const std::string& kind, const nlohmann::json& line) {
    const double step = metric_at(line, "step");
    if (std::isnan(step)) return;
    const auto put_all = [&](const auto& fields) {
      for (const auto& [field, series] : fields) {
        const double value = metric_at(line, field);
        if (!std::isnan(value)) (figures.*series).put(step, value);
      }
    };
    if (kind == "step") {
      figures.step = static_cast<int64_t>(step);
      put_all(kStepFields);
    } else if (kind == "eval") {
      put_all(kEvaluationFields);
      const auto best = line.find("best");
      if (best != line.end() && *best == true) figures.best_step = static_cast<int64_t>(step);
    } else if (kind == "quantization") {
      put_all(kQuantizationFields);
      add_quantizers(figures, line);
    }
  });
  return figures;
}

}  // namespace qat
