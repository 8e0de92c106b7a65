// Which weight gets which scheme: a plan says it by role, resolving it against a model says it for every weight.
// A weight without a rule, a role ruled twice or a row that does not divide into blocks is an error, never a fallback.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gemma4/weight_table.h"
#include "quant/scheme.h"

namespace qat {

struct WeightPlan {
  Scheme scheme = Scheme::F32;
  ScaleSource scales = ScaleSource::Rule;
  bool frozen = false;  // not trained unless the run says otherwise
  // Static int8 at the input and output of a linear (mobile_format.md 1.4).
  bool quantizes_input = false;
  bool quantizes_output = false;
  // The per-layer table only: all layers' slices of a row have one scale. transformers 5.23 loads no other form of it.
  bool one_scale_per_row = false;
};

// The plan of every weight of one model, as quantization.json keeps it.
struct ResolvedPlan {
  std::string name;
  std::map<std::string, WeightPlan, std::less<>> weights;  // by WeightTable name, all of them
  std::optional<Scheme> key_value_cache;                   // Q8_0 or Int8; absent = the cache is not quantized

  const WeightPlan& of(std::string_view weight) const;
  // Whether static scales belong to the plan: of any activation, or of an int8 cache.
  bool has_static_scales() const;

  nlohmann::ordered_json to_json() const;
  // Reads quantization.json of a checkpoint. Throws Error if it does not fit the table.
  static ResolvedPlan from_json(const nlohmann::json& json, const WeightTable& table, const std::string& where);
};

// configs/plans/*.json.
struct QuantPlan {
  std::string name;
  std::string about;
  std::map<WeightRole, WeightPlan> rules;
  std::map<WeightRole, Scheme> double_wide;  // of the same roles in MLPs that are twice as wide as the model's others
  std::optional<Scheme> key_value_cache;     // Q8_0 or Int8

  // `name_or_path` is a file, or the name of a plan that comes with the program. Throws Error (usage) otherwise.
  static QuantPlan load(const std::string& name_or_path);
  static QuantPlan parse(const nlohmann::json& json, const std::string& name, const std::string& where);
  ResolvedPlan resolve(const WeightTable& table) const;
  // What parse() reads as an equal plan.
  nlohmann::ordered_json to_json() const;
};

// Whether the rows of a weight divide into this scheme's blocks.
bool rows_divide(const WeightSpec& weight, const QuantScheme& scheme);

// "q4_0", "bf16", ...: plans that come with the program.
std::vector<std::string> known_plans();

// Where configs/ is: $GEMMA_QAT_CONFIGS, beside the installed program, or in the source tree it was built from.
std::filesystem::path configs_folder();

}  // namespace qat
