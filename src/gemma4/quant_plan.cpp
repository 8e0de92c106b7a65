#include "gemma4/quant_plan.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/comma_list.h"
#include "core/error.h"
#include "core/json.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

// "int8" or "none".
bool is_int8(const nlohmann::json& value, const std::string& where) {
  if (value == "int8") return true;
  if (value == "none") return false;
  fail_usage(where, " = ", value.dump(), " is not understood (int8, none)");
}

WeightPlan parse_rule(const nlohmann::json& rule, const std::string& where) {
  WeightPlan plan;
  const nlohmann::json& scheme_json = rule.is_object() && rule.contains("scheme") ? rule["scheme"] : rule;
  if (!scheme_json.is_string()) fail_usage(where, ": wanted a scheme name or {\"scheme\": …}, found ", rule.dump());
  plan.scheme = scheme_by_name(scheme_json.get<std::string>()).id;
  if (scheme(plan.scheme).has_row_scales()) plan.scales = ScaleSource::Stored;
  if (!rule.is_object()) return plan;
  for (const auto& item : rule.items()) {
    if (item.key() == "scheme" || item.key() == "double_wide") continue;
    if (item.key() == "scales" && item.value() == "rule" && plan.scales == ScaleSource::Rule) continue;
    if (item.key() == "scales" && item.value() == "stored") {
      plan.scales = ScaleSource::Stored;
    } else if (item.key() == "frozen" && item.value().is_boolean()) {
      plan.frozen = item.value().get<bool>();
    } else if (item.key() == "scale_per" && (item.value() == "row" || item.value() == "slice")) {
      plan.one_scale_per_row = item.value() == "row";
    } else if (item.key() == "input") {
      plan.quantizes_input = is_int8(item.value(), where + ": input");
    } else if (item.key() == "output") {
      plan.quantizes_output = is_int8(item.value(), where + ": output");
    } else {
      fail_usage(
          where, ": ", item.key(), " = ", item.value().dump(),
          " is not understood (scheme; double_wide; scales: rule, stored; frozen: true, false; scale_per: row, slice; "
          "input, output: int8, none)");
    }
  }
  if (plan.scales == ScaleSource::Stored && !scheme(plan.scheme).allows_stored_scales) {
    fail_usage(where, ": ", scheme(plan.scheme).name, " has no stored scales, only the scheme's rule");
  }
  return plan;
}

std::optional<Scheme> parse_cache(const nlohmann::json& document, const std::string& where) {
  const auto found = document.find("kv_cache");
  if (found == document.end() || *found == "none") return std::nullopt;
  if (*found == "q8_0") return Scheme::Q8_0;
  if (*found == "int8") return Scheme::Int8;
  fail_usage(where, ": kv_cache ", found->dump(), " is not supported (none, q8_0, int8)");
}

std::string cache_name(const std::optional<Scheme>& cache) { return cache ? std::string(scheme(*cache).name) : "none"; }

int64_t divided_width(const WeightSpec& weight, const QuantScheme& scheme) {
  return scheme.has_row_scales() ? weight.scale_width : weight.columns();
}

void check_rows_divide(const WeightSpec& weight, const WeightPlan& plan, const std::string& plan_name) {
  const QuantScheme& chosen = scheme(plan.scheme);
  if (rows_divide(weight, chosen)) return;
  fail_usage(weight.name, ": ", divided_width(weight, chosen), " columns, ", chosen.name, " needs a multiple of ", chosen.block_size,
             "\n  the plan \"", plan_name, "\" gives it ", chosen.name, " by role \"", role_name(weight.role),
             "\"\n  give this role another scheme (q4_0-q8-tables has Q8_0 tables, int8 divides everything)");
}

void check_ends(const WeightSpec& weight, const WeightPlan& plan, const std::string& where) {
  if (!plan.quantizes_input && !plan.quantizes_output) return;
  if (is_linear(weight.role) && scheme(plan.scheme).has_row_scales()) return;
  fail_usage(where, ": ", weight.name,
             ": only linears with int2, int4 or int8 weights have quantized inputs and outputs");
}

Scheme parse_double_wide(const nlohmann::json& value, WeightRole role, const std::string& where) {
  if (role != WeightRole::MlpGate && role != WeightRole::MlpUp && role != WeightRole::MlpDown) {
    fail_usage(where, ": double_wide is for mlp_gate, mlp_up and mlp_down");
  }
  if (!value.is_string()) fail_usage(where, ": double_wide: wanted a scheme name, found ", value.dump());
  return scheme_by_name(value.get<std::string>()).id;
}

// "activations": {"input": "int8", "output": "int8"}: of every linear whose weights have a scale per row.
void parse_activations(const nlohmann::json& document, const std::string& where,
                       std::map<WeightRole, WeightPlan>& rules) {
  const auto found = document.find("activations");
  if (found == document.end() || *found == "none") return;
  if (!found->is_object()) fail_usage(where, ": activations: wanted \"none\" or {\"input\": …, \"output\": …}");
  bool input = false;
  bool output = false;
  for (const auto& item : found->items()) {
    if (item.key() == "input") {
      input = is_int8(item.value(), where + ": activations.input");
    } else if (item.key() == "output") {
      output = is_int8(item.value(), where + ": activations.output");
    } else {
      fail_usage(where, ": activations.", item.key(), ": no such field (input, output)");
    }
  }
  for (auto& [role, rule] : rules) {
    if (!is_linear(role) || !scheme(rule.scheme).has_row_scales()) continue;
    rule.quantizes_input = input;
    rule.quantizes_output = output;
  }
}

}  // namespace

bool rows_divide(const WeightSpec& weight, const QuantScheme& scheme) {
  return divided_width(weight, scheme) % scheme.block_size == 0;
}

const WeightPlan& ResolvedPlan::of(std::string_view weight) const {
  const auto found = weights.find(weight);
  QAT_CHECK(found != weights.end());
  return found->second;
}

bool ResolvedPlan::has_static_scales() const {
  return key_value_cache == Scheme::Int8 || std::any_of(weights.begin(), weights.end(), [](const auto& item) {
           return item.second.quantizes_input || item.second.quantizes_output;
         });
}

nlohmann::ordered_json ResolvedPlan::to_json() const {
  nlohmann::ordered_json json;
  json["format"] = 1;
  json["plan"] = name;
  json["kv_cache"] = cache_name(key_value_cache);
  auto& list = json["weights"] = nlohmann::ordered_json::object();
  for (const auto& [weight, plan] : weights) {
    list[weight] = {{"scheme", scheme(plan.scheme).name},
                    {"scales", plan.scales == ScaleSource::Stored ? "stored" : "rule"},
                    {"frozen", plan.frozen}};
    if (plan.one_scale_per_row) list[weight]["scale_per"] = "row";
    if (plan.quantizes_input) list[weight]["input"] = "int8";
    if (plan.quantizes_output) list[weight]["output"] = "int8";
  }
  return json;
}

ResolvedPlan ResolvedPlan::from_json(const nlohmann::json& document, const WeightTable& table,
                                     const std::string& where) {
  if (!document.is_object() || document.value("format", 0) != 1 || !document.contains("weights") ||
      !document["weights"].is_object()) {
    fail(where, ": is not a quantization.json of format 1");
  }
  ResolvedPlan plan;
  plan.name = document.value("plan", "");
  plan.key_value_cache = parse_cache(document, where);
  for (const auto& item : document["weights"].items()) {
    const WeightSpec* weight = table.find(item.key());
    if (weight == nullptr) fail(where, ": the model has no weight \"", item.key(), "\"");
    const WeightPlan rule = parse_rule(item.value(), where + ": " + item.key());
    check_rows_divide(*weight, rule, plan.name);
    check_ends(*weight, rule, where);
    plan.weights.emplace(item.key(), rule);
  }
  for (const WeightSpec& weight : table.weights()) {
    if (!plan.weights.contains(weight.name)) fail(where, ": says nothing about the weight \"", weight.name, "\"");
  }
  return plan;
}

QuantPlan QuantPlan::parse(const nlohmann::json& document, const std::string& name, const std::string& where) {
  if (!document.is_object()) fail_usage(where, ": a plan is a JSON object");
  QuantPlan plan;
  plan.name = name;
  const std::vector<std::string> fields{"about", "weights", "activations", "kv_cache"};
  for (const auto& item : document.items()) {
    if (std::find(fields.begin(), fields.end(), item.key()) != fields.end()) continue;
    const auto nearest = nearest_name(item.key(), fields);
    fail_usage(where, ": ", item.key(), ": no such field", nearest ? "; did you mean \"" + *nearest + "\"?" : "");
  }
  plan.about = document.value("about", "");
  plan.key_value_cache = parse_cache(document, where);
  const auto rules = document.find("weights");
  if (rules == document.end() || !rules->is_object() || rules->empty())
    fail_usage(where, ": has no rules under \"weights\"");
  for (const auto& item : rules->items()) {
    const auto role = role_by_name(item.key());
    if (!role || !is_matrix(*role)) {
      const auto nearest = nearest_name(item.key(), role_names());
      fail_usage(where, ": weights.", item.key(), ": no such role of matrices",
                 nearest ? "; did you mean \"" + *nearest + "\"?" : "");
    }
    const std::string rule_where = where + ": weights." + item.key();
    plan.rules.emplace(*role, parse_rule(item.value(), rule_where));
    if (item.value().is_object() && item.value().contains("double_wide")) {
      plan.double_wide.emplace(*role, parse_double_wide(item.value()["double_wide"], *role, rule_where));
    }
  }
  parse_activations(document, where, plan.rules);
  return plan;
}

QuantPlan QuantPlan::load(const std::string& name_or_path) {
  const fs::path named = configs_folder() / "plans" / (name_or_path + ".json");
  const bool is_file = fs::is_regular_file(name_or_path);
  if (!is_file && !fs::is_regular_file(named)) {
    const auto nearest = nearest_name(name_or_path, known_plans());
    fail_usage("plan \"", name_or_path, "\": neither a file nor a known plan",
               nearest ? "; did you mean \"" + *nearest + "\"?" : "", "\n  known plans: ", comma_list(known_plans()));
  }
  const fs::path file = is_file ? fs::path(name_or_path) : named;
  return parse(load_json(file), file.stem().string(), file.string());
}

ResolvedPlan QuantPlan::resolve(const WeightTable& table) const {
  ResolvedPlan resolved;
  resolved.name = name;
  resolved.key_value_cache = key_value_cache;
  for (const WeightSpec& weight : table.weights()) {
    if (!is_matrix(weight.role)) {
      resolved.weights.emplace(weight.name, WeightPlan{});
      continue;
    }
    const auto rule = rules.find(weight.role);
    if (rule == rules.end()) {
      fail_usage(weight.name, ": the plan \"", name, "\" has no rule for the role \"", role_name(weight.role),
                 "\"\n  add it under \"weights\", with \"bf16\" to leave it unquantized");
    }
    WeightPlan chosen = rule->second;
    const auto wide = double_wide.find(weight.role);
    if (weight.double_wide && wide != double_wide.end()) chosen.scheme = wide->second;
    check_rows_divide(weight, chosen, name);
    check_ends(weight, chosen, "plan \"" + name + "\"");
    resolved.weights.emplace(weight.name, chosen);
  }
  return resolved;
}

nlohmann::ordered_json QuantPlan::to_json() const {
  nlohmann::ordered_json json{{"about", about}, {"kv_cache", cache_name(key_value_cache)}};
  for (const auto& [role, rule] : rules) {
    nlohmann::ordered_json& entry = json["weights"][std::string(role_name(role))];
    entry["scheme"] = scheme(rule.scheme).name;
    const auto wide = double_wide.find(role);
    if (wide != double_wide.end()) entry["double_wide"] = scheme(wide->second).name;
    if (rule.scales == ScaleSource::Stored && !scheme(rule.scheme).has_row_scales()) entry["scales"] = "stored";
    if (rule.frozen) entry["frozen"] = true;
    if (rule.one_scale_per_row) entry["scale_per"] = "row";
    if (rule.quantizes_input) entry["input"] = "int8";
    if (rule.quantizes_output) entry["output"] = "int8";
  }
  return json;
}

fs::path configs_folder() {
  if (const char* folder = std::getenv("GEMMA_QAT_CONFIGS")) return folder;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  const fs::path installed = program.parent_path().parent_path() / "share/gemma-qat/configs";
  return fs::is_directory(installed) ? installed : fs::path(QAT_SOURCE_CONFIGS);
}

std::vector<std::string> known_plans() {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(configs_folder() / "plans", error)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace qat
