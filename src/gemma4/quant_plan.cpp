#include "gemma4/quant_plan.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"

namespace qat {
namespace fs = std::filesystem;


namespace {

WeightPlan parse_rule(const nlohmann::json& rule, const std::string& where) {
  WeightPlan plan;
  const nlohmann::json& scheme_json = rule.is_object() && rule.contains("scheme") ? rule["scheme"] : rule;
  if (!scheme_json.is_string()) fail_usage(where, ": wanted a scheme name or {\"scheme\": …}, found ", rule.dump());
  plan.scheme = scheme_by_name(scheme_json.get<std::string>()).id;
  if (!rule.is_object()) return plan;
  for (const auto& item : rule.items()) {
    if (item.key() == "scheme") continue;
    if (item.key() == "scales" && item.value() == "rule") continue;
    if (item.key() == "scales" && item.value() == "stored") {
      plan.scales = ScaleSource::Stored;
    } else if (item.key() == "frozen" && item.value().is_boolean()) {
      plan.frozen = item.value().get<bool>();
    } else {
      fail_usage(where, ": ", item.key(), " = ", item.value().dump(),
                 " is not understood (scheme; scales: rule, stored; frozen: true, false)");
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
  fail_usage(where, ": kv_cache ", found->dump(), " is not supported (none, q8_0)");
}

std::string cache_name(const std::optional<Scheme>& cache) {
  return cache ? std::string(scheme(*cache).name) : "none";
}

void check_rows_divide(const WeightSpec& weight, const WeightPlan& plan, const std::string& plan_name) {
  const QuantScheme& chosen = scheme(plan.scheme);
  if (weight.columns() % chosen.block_size == 0) return;
  fail_usage(weight.name, ": ", weight.columns(), " columns, ", chosen.name, " needs a multiple of ", chosen.block_size,
             "\n  the plan \"", plan_name, "\" gives it ", chosen.name, " by role \"", role_name(weight.role),
             "\"\n  give this role another scheme (q4_0-q8-tables has Q8_0 tables)");
}

}  // namespace

const WeightPlan& ResolvedPlan::of(std::string_view weight) const {
  const auto found = weights.find(weight);
  QAT_CHECK(found != weights.end());
  return found->second;
}

nlohmann::ordered_json ResolvedPlan::to_json() const {
  nlohmann::ordered_json json;
  json["format"] = 1;
  json["plan"] = name;
  json["kv_cache"] = cache_name(key_value_cache);
  json["activations"] = nlohmann::ordered_json::object();
  auto& list = json["weights"] = nlohmann::ordered_json::object();
  for (const auto& [weight, plan] : weights) {
    list[weight] = {{"scheme", scheme(plan.scheme).name},
                    {"scales", plan.scales == ScaleSource::Stored ? "stored" : "rule"},
                    {"frozen", plan.frozen}};
  }
  return json;
}

ResolvedPlan ResolvedPlan::from_json(const nlohmann::json& document, const WeightTable& table, const std::string& where) {
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
  for (const auto& item : document.items()) {
    if (item.key() != "about" && item.key() != "weights" && item.key() != "kv_cache") {
      const auto nearest = nearest_name(item.key(), {"about", "weights", "kv_cache"});
      fail_usage(where, ": ", item.key(), ": no such field", nearest ? "; did you mean \"" + *nearest + "\"?" : "");
    }
  }
  plan.about = document.value("about", "");
  plan.key_value_cache = parse_cache(document, where);
  const auto rules = document.find("weights");
  if (rules == document.end() || !rules->is_object() || rules->empty()) fail_usage(where, ": has no rules under \"weights\"");
  for (const auto& item : rules->items()) {
    const auto role = role_by_name(item.key());
    if (!role || !is_matrix(*role)) {
      const auto nearest = nearest_name(item.key(), role_names());
      fail_usage(where, ": weights.", item.key(), ": no such role of matrices",
                 nearest ? "; did you mean \"" + *nearest + "\"?" : "");
    }
    plan.rules.emplace(*role, parse_rule(item.value(), where + ": weights." + item.key()));
  }
  return plan;
}

QuantPlan QuantPlan::load(const std::string& name_or_path) {
  const fs::path named = configs_folder() / "plans" / (name_or_path + ".json");
  const bool is_file = fs::is_regular_file(name_or_path);
  if (!is_file && !fs::is_regular_file(named)) {
    std::string known;
    for (const std::string& plan : known_plans()) known += (known.empty() ? "" : ", ") + plan;
    const auto nearest = nearest_name(name_or_path, known_plans());
    fail_usage("plan \"", name_or_path, "\": neither a file nor a known plan", nearest ? "; did you mean \"" + *nearest + "\"?" : "",
               "\n  known plans: ", known);
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
    check_rows_divide(weight, rule->second, name);
    resolved.weights.emplace(weight.name, rule->second);
  }
  return resolved;
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
