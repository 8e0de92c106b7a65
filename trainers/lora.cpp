#include "trainers/lora.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "core/sha256.h"
#include "fake_quant/tensor_values.h"

namespace qat {

namespace {

// Numbers of their own for every weight and purpose: FNV-1a of the name, mixed with the seed.
SplitMix64 generator_for(uint64_t seed, std::string_view name, int64_t purpose) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3u;
  SplitMix64 seeds(seed);
  SplitMix64 mixed(seeds.next() ^ hash);
  return SplitMix64(mixed.next() + static_cast<uint64_t>(purpose));
}

constexpr int64_t kFirstValues = -1;  // purpose of a generator; steps are counted from 0

at::Tensor uniform_matrix(int64_t rows, int64_t columns, SplitMix64 random) {
  const double bound = 1 / std::sqrt(static_cast<double>(columns));
  at::Tensor matrix = at::empty({rows, columns}, at::kFloat);
  for (float& value : values_of<float>(matrix)) value = static_cast<float>(bound * (2 * random.uniform() - 1));
  return matrix;
}

at::Tensor as_tensor(const std::vector<float>& values, int64_t rows) {
  return at::tensor(values, at::kFloat).view({rows, -1});
}

// "model.language_model.layers.3.mlp.up_proj": a weight's module as the base's files call it.
std::string module_in_files(const BaseModel& base, const WeightSpec& weight) {
  const std::string name = base.folder()->masters().of(weight).name;
  return name.substr(0, name.size() - std::string_view(".weight").size());
}

AdapterSettings settings_of(const LoraConfig& config) {
  return {config.rank, config.alpha, config.dropout, config.rank_stabilized, config.through_quantizer};
}

// What packed bases and adapters beside weights need of a weight's scheme.
void check_plan_of(const TrainConfig& config, const BaseModel& base, const WeightSpec& weight) {
  if (config.packs_base() && !base.packs(weight)) {
    fail_usage("lora.base: packed: ", weight.name, " gets an adapter, but the plan \"", base.plan()->name,
               "\" gives it ", scheme(base.plan()->of(weight.name).scheme).name,
               ", which has no codes to keep it in; use lora.base = ", "bfloat16, or leave \"", role_name(weight.role),
               "\" out of lora.roles");
  }
  if (!config.lora.through_quantizer && scheme(base.plan()->of(weight.name).scheme).has_row_scales()) {
    fail_usage("lora.through_quantizer: false is for plans of GGUF files; the plan \"", base.plan()->name, "\" gives ",
               weight.name, " ", scheme(base.plan()->of(weight.name).scheme).name,
               ", and no file of the mobile format holds an adapter");
  }
}

std::vector<WeightSpec> weights_of_roles(const TrainConfig& config, const BaseModel& base,
                                         const std::vector<std::string>& frozen) {
  const auto holds = [](const std::vector<std::string>& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  std::vector<WeightSpec> weights;
  std::vector<std::string> found;
  for (const WeightSpec& weight : base.table().weights()) {
    const std::string role(role_name(weight.role));
    if (!holds(config.lora.roles, role)) continue;
    if (holds(frozen, weight.name)) {
      fail_usage("lora.roles: \"", role, "\" gets adapters, but ", weight.name, " is frozen by the plan or by freeze");
    }
    check_plan_of(config, base, weight);
    weights.push_back(weight);
    found.push_back(role);
  }
  for (const std::string& role : config.lora.roles) {
    if (!holds(found, role))
      fail_usage("lora.roles: the model in ", config.model, " has no weight of role \"", role, "\"");
  }
  return weights;
}

// A run that starts from a folder goes on with exactly its matrices.
void check_same(const TrainConfig& config, const AdapterFolder& folder, const std::vector<WeightSpec>& weights) {
  const AdapterSettings& found = folder.settings();
  const LoraConfig& lora = config.lora;
  if (found.rank != lora.rank || found.alpha != lora.alpha || found.rank_stabilized != lora.rank_stabilized) {
    fail_usage("lora.adapter: ", lora.adapter, " has rank = ", found.rank, ", alpha = ", found.alpha,
               ", rank_stabilized = ", found.rank_stabilized ? "true" : "false", "; lora has ", lora.rank, ", ",
               lora.alpha, ", ", lora.rank_stabilized ? "true" : "false", ". Give it the folder's");
  }
  if (found.through_quantizer.value_or(lora.through_quantizer) != lora.through_quantizer) {
    fail_usage("lora.adapter: ", lora.adapter,
               " was trained with through_quantizer = ", lora.through_quantizer ? "false" : "true",
               "; give lora.through_quantizer the same");
  }
  const auto holds = [](const auto& list, const std::string& name, const auto& name_of) {
    return std::any_of(list.begin(), list.end(), [&](const auto& entry) { return name_of(entry) == name; });
  };
  for (const WeightSpec& weight : weights) {
    if (holds(folder.changes(), weight.name, [](const auto& change) { return change.weight.name; })) continue;
    fail_usage("lora.adapter: ", lora.adapter, " has no adapter of ", weight.name, ", which lora.roles asks for");
  }
  for (const AdapterFolder::Change& change : folder.changes()) {
    if (holds(weights, change.weight.name, [](const auto& weight) { return weight.name; })) continue;
    fail_usage("lora.adapter: ", lora.adapter, " has an adapter of ", change.weight.name, "; add \"",
               role_name(change.weight.role), "\" to lora.roles");
  }
}

}  // namespace

LoraAdapters::LoraAdapters(const BaseModel& base, Gemma4Model& model, const AdapterSettings& settings, uint64_t seed)
    : base_(&base), model_(&model), settings_(settings), seed_(seed) {
  QAT_CHECK(base.folder() != nullptr);
}

void LoraAdapters::attach(const WeightSpec& weight, const at::Tensor& a, const at::Tensor& b) {
  Adapter adapter{weight, a.to(model_->device()), b.to(model_->device()), nullptr, nullptr};
  Projection& projection = model_->projection(weight.name);
  if (settings_.through_quantizer.value_or(true)) {
    projection.weight_delta = adapter.delta = std::make_shared<LoraDelta>(adapter.a, adapter.b, settings_.scaling());
  } else {
    projection.side_product = adapter.branch = std::make_shared<LoraBranch>(adapter.a, adapter.b, settings_.scaling());
  }
  adapters_.push_back(std::move(adapter));
}

void LoraAdapters::Adapter::count_components(const at::Tensor& counts) const {
  const at::Tensor here = counts.to(a.device());
  if (delta) delta->count_components(here);
  if (branch) branch->count_components(here);
}

void LoraAdapters::keep_merged(bool wanted) {
  for (const Adapter& adapter : adapters_) {
    if (adapter.delta) adapter.delta->keep_merged(wanted);
  }
}

void LoraAdapters::add(const WeightSpec& weight) {
  attach(weight, uniform_matrix(settings_.rank, weight.columns(), generator_for(seed_, weight.name, kFirstValues)),
         at::zeros({weight.rows(), settings_.rank}, at::kFloat));
}

void LoraAdapters::add(const AdapterFolder& folder) {
  for (const AdapterFolder::Change& change : folder.changes()) {
    attach(change.weight, as_tensor(change.a, settings_.rank), as_tensor(change.b, change.weight.rows()));
  }
  if (folder.base_digest().empty() || folder.base_digest() == base_digest()) return;
  fail(folder.path().string(), ": this adapter was trained on ", folder.base_name(),
       ", whose weights differ from those in ", base_->path().string(),
       "; name the base that it was trained on, packed under the same plan if it was");
}

std::vector<TrainedWeight> LoraAdapters::trained_weights() const {
  std::vector<TrainedWeight> weights;
  for (const Adapter& adapter : adapters_) {
    for (const auto& [name, matrix] : {std::pair(".lora_A", adapter.a), std::pair(".lora_B", adapter.b)}) {
      matrix.set_requires_grad(true);
      weights.push_back({adapter.weight.module_name() + name, matrix, /*decays=*/true, /*is_scale=*/false,
                         /*is_adapter=*/true});
    }
  }
  return weights;
}

bool LoraAdapters::drop_components(int64_t steps_done) {
  if (settings_.dropout == 0) return false;
  const auto kept = static_cast<float>(1 / (1 - settings_.dropout));
  for (const Adapter& adapter : adapters_) {
    SplitMix64 random = generator_for(seed_, adapter.weight.name, steps_done);
    const at::Tensor counts = at::empty({settings_.rank}, at::kFloat);
    for (float& count : values_of<float>(counts)) count = random.uniform() < settings_.dropout ? 0.0F : kept;
    adapter.count_components(counts);
  }
  return settings_.through_quantizer.value_or(true) && !adapters_.empty();
}

void LoraAdapters::changed() {
  const at::Tensor all = at::ones({settings_.rank}, at::kFloat);
  for (const Adapter& adapter : adapters_) adapter.count_components(all);
}

// SHA-256 of the names and first rows of the frozen masters: tells apart bases of one shape.
std::string LoraAdapters::base_digest() const {
  const at::NoGradGuard no_grad;
  Sha256 digest;
  for (const Adapter& adapter : adapters_) {
    digest.update(std::as_bytes(std::span(adapter.weight.name)));
    const at::Tensor row =
        on_cpu(model_->projection(adapter.weight.name).master().select(0, 0).to(at::kBFloat16)).contiguous();
    digest.update(std::as_bytes(values_of<const BFloat16>(row)));
  }
  return digest.finish();
}

void LoraAdapters::save(const std::filesystem::path& folder, const std::string& base_name) const {
  AdapterContents contents{settings_, base_name, base_digest(), {}};
  std::vector<at::Tensor> matrices;  // hold what the contents refer to
  for (const Adapter& adapter : adapters_) {
    const at::Tensor a = matrices.emplace_back(on_cpu(adapter.a)), b = matrices.emplace_back(on_cpu(adapter.b));
    contents.changes.push_back({module_in_files(*base_, adapter.weight), adapter.weight.rows(),
                                adapter.weight.columns(), values_of<const float>(a), values_of<const float>(b)});
  }
  write_adapter(folder, contents);
}

LoraAdapters attach_lora(const TrainConfig& config, const BaseModel& base, const std::vector<std::string>& frozen,
                         Gemma4Model& model) {
  if (!config.trains_adapters()) return {};
  const std::vector<WeightSpec> weights = weights_of_roles(config, base, frozen);
  LoraAdapters adapters(base, model, settings_of(config.lora), static_cast<uint64_t>(config.seed));
  if (config.lora.adapter.empty()) {
    for (const WeightSpec& weight : weights) adapters.add(weight);
  } else {
    const AdapterFolder folder(config.lora.adapter, base.table());
    check_same(config, folder, weights);
    adapters.add(folder);
  }
  adapters.keep_merged(config.lora.keep_merged && !config.packs_base());
  return adapters;
}

}  // namespace qat
