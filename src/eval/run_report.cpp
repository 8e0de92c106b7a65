#include "eval/run_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"
#include "core/json.h"
#include "core/output_file.h"
#include "core/terminal.h"
#include "eval/quantizer_report.h"

namespace qat {
namespace {

using Json = nlohmann::ordered_json;

// A field of the configuration, or nothing of its type.
template <class T>
T field(const Json& configuration, const char* path, T otherwise) {
  const Json::json_pointer pointer(path);
  if (!configuration.contains(pointer)) return otherwise;
  const Json& value = configuration.at(pointer);
  const bool fits = std::is_same_v<T, std::string> ? value.is_string() : value.is_number();
  return fits ? value.get<T>() : otherwise;
}

std::string text_field(const Json& configuration, const char* path) {
  return field<std::string>(configuration, path, "");
}

double sum(const Series& series) { return std::accumulate(series.y.begin(), series.y.end(), 0.0); }

double median(std::vector<double> values) {
  if (values.empty()) return std::nan("");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string count_text(double value) { return format_count(value); }

// "4.5120 at step 0, 1.9031 at step 160".
std::string first_and_last(const Series& series) {
  const auto at = [&](size_t i) {
    return format_significant(series.y[i], 4) + " at step " + std::to_string(static_cast<int64_t>(series.x[i]));
  };
  return series.x.size() == 1 ? at(0) : at(0) + ", " + at(series.x.size() - 1);
}

std::string what_it_is(const Json& configuration) {
  const std::string plan = text_field(configuration, "/plan");
  const std::string objective = text_field(configuration, "/objective");
  const auto rank = field<int64_t>(configuration, "/lora/rank", 0);
  std::string text = text_field(configuration, "/model") + ", " +
                     (plan.empty() ? "fine-tuned in plain BF16" : "quantization-aware training with the plan " + plan);
  text += rank > 0 ? ", LoRA adapters of rank " + std::to_string(rank) : ", weights trained themselves";
  if (objective != "cross_entropy" && !objective.empty()) {
    const std::string teacher = text_field(configuration, "/teacher");
    text += ", distilled (" + objective + ") from " + (teacher.empty() ? "the model it started from" : teacher);
  }
  return text + ".";
}

std::string where_it_stands(const RunFigures& figures, int64_t steps) {
  const std::string done = join("Step ", figures.step, " of ", steps);
  if (figures.step >= steps) return done + ": complete.";
  const double left = static_cast<double>(steps - figures.step) * median(figures.seconds.y);
  return done + (std::isnan(left) ? "." : "; about " + format_duration(left) + " of steps left.");
}

int64_t clipped_steps(const RunFigures& figures, double clip_norm) {
  if (!(clip_norm > 0)) return 0;
  return std::count_if(figures.gradient_norm.y.begin(), figures.gradient_norm.y.end(),
                       [&](double norm) { return norm > clip_norm; });
}

Table standing(const RunFigures& figures, double clip_norm) {
  Table table{{"figure", "value"}, {}};
  const auto add = [&](const char* name, std::string value) { table.rows.push_back({name, std::move(value)}); };
  if (!figures.held_out_loss.x.empty()) add("held-out loss", first_and_last(figures.held_out_loss));
  if (!figures.kl.x.empty()) add("held-out KL", first_and_last(figures.kl));
  if (figures.best_step >= 0) add("best evaluation", join("step ", figures.best_step));
  if (figures.step == 0) return table;
  add("tokens read", count_text(sum(figures.tokens)) + ", " + count_text(sum(figures.trained_tokens)) + " trained on");
  add("time in steps", format_duration(sum(figures.seconds)));
  const double rate = median(figures.tokens_per_second.y);
  add("tokens per second, median", format_fixed(rate, rate < 100 ? 1 : 0));
  const auto clipped = static_cast<double>(clipped_steps(figures, clip_norm));
  add("steps with a clipped gradient",
      format_percent(clipped / static_cast<double>(figures.gradient_norm.y.size()), 1));
  if (!figures.peak_memory.y.empty()) add("peak memory", format_bytes(figures.peak_memory.y.back()));
  return table;
}

Series named(const Series& series, std::string name, double factor = 1) {
  Series result = thinned(series);
  result.name = std::move(name);
  for (double& value : result.y) value *= factor;
  return result;
}

// A plot over the step, if one of the series has values.
void add_curves(ReportSection& section, const char* title, const char* y, AxisScale scale, std::vector<Series> series) {
  std::erase_if(series, [](const Series& curve) { return curve.x.empty(); });
  if (!series.empty()) section.items.emplace_back(LinePlot{{title, "step", y}, scale, std::move(series)});
}

ReportSection learning(const RunFigures& figures) {
  ReportSection section{"Loss", {}};
  add_curves(section, "Loss", "nats per token", AxisScale::Linear,
             {named(figures.loss, "training"), named(figures.held_out_loss, "held-out")});
  add_curves(section, "Held-out KL divergence from the reference model", "nats per token", AxisScale::Logarithmic,
             {named(figures.kl, "KL")});
  return section;
}

ReportSection course(const RunFigures& figures, double clip_norm) {
  ReportSection section{"Steps", {}};
  add_curves(section, "Learning rate", "rate", AxisScale::Linear, {named(figures.learning_rate, "learning rate")});
  Series limit{"clipped above", {}, {}};
  if (clip_norm > 0 && !figures.gradient_norm.x.empty()) {
    limit.put(figures.gradient_norm.x.front(), clip_norm);
    limit.put(figures.gradient_norm.x.back(), clip_norm);
  }
  add_curves(section, "Gradient norm before clipping", "norm", AxisScale::Logarithmic,
             {named(figures.gradient_norm, "gradient norm"), limit});
  add_curves(section, "Throughput", "tokens per second", AxisScale::Linear,
             {named(figures.tokens_per_second, "tokens per second")});
  add_curves(section, "Peak memory of the process", "GB", AxisScale::Linear,
             {named(figures.peak_memory, "peak memory", 1e-9)});
  return section;
}

ReportSection settings(const Json& configuration) {
  Table table{{"field", "value"}, {}};
  const Json fields = configuration.flatten();
  for (const auto& [pointer, value] : fields.items()) {
    std::string name = pointer.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    table.rows.push_back({name, value.is_string() ? value.get<std::string>() : value.dump()});
  }
  return {"Configuration", {table}};
}

}  // namespace

Report make_run_report(const RunFigures& figures, const Json& configuration) {
  const std::filesystem::path out = text_field(configuration, "/out");
  const auto clip_norm = field<double>(configuration, "/optimizer/clip_norm", 0);
  Report report;
  report.title = "Training run " + (out.has_filename() ? out : out.parent_path()).filename().string();
  const std::string about = text_field(configuration, "/about");
  if (!about.empty()) report.introduction.push_back(about);
  report.introduction.push_back(what_it_is(configuration));
  report.introduction.push_back(where_it_stands(figures, field<int64_t>(configuration, "/steps", 0)));
  report.sections = {
      {"Where it stands", {standing(figures, clip_norm)}}, learning(figures), course(figures, clip_norm)};
  if (!figures.quantizers.empty()) report.sections.push_back(quantization_section(figures));
  report.sections.push_back(settings(configuration));
  std::erase_if(report.sections, [](const ReportSection& section) { return section.items.empty(); });
  return report;
}

void write_run_report(const std::filesystem::path& metrics_file, const std::filesystem::path& configuration_file,
                      const std::filesystem::path& report_file) {
  const Json configuration(load_json(configuration_file));
  write_file(report_file, render_html(make_run_report(read_run_figures(metrics_file), configuration)));
}

}  // namespace qat
