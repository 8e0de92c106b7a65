// Where the time of a training step goes, at layer shapes of Gemma 4 E2B and E4B with random weights.
//
//   qat_train_step [--shape e2b|e4b] [--layers 6] [--vocabulary 16384] [--tokens 2048] [--plan q4_0|none]
//                  [--micro-batches 1] [--steps 3] [--threads 2]
//
// With a plan every step is done with and without it in turn, on the same weights. Prints a JSON line: seconds of the
// fastest step and of its parts, tokens a second, peak resident memory, and the share of the step that its matrix
// products would take at the speed of this machine's best BF16 product. `fake_quantization` is the time in which the
// weights' values are made; what a plan does to activations is part of `forward` and `backward`.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/process_memory.h"
#include "fake_quant/prepare.h"
#include "model/chunked_head.h"
#include "trainers/adamw.h"

namespace {

using namespace qat;
using nlohmann::ordered_json;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Options {
  std::string shape = "e2b", plan = "q4_0";
  int64_t layers = 6, vocabulary = 16384, tokens = 2048, micro_batches = 1, steps = 3, threads = 0;
};

Options parse(int argc, char** argv) {
  Options options;
  const std::map<std::string, std::string*> words{{"--shape", &options.shape}, {"--plan", &options.plan}};
  const std::map<std::string, int64_t*> numbers{
      {"--layers", &options.layers}, {"--vocabulary", &options.vocabulary},
      {"--tokens", &options.tokens}, {"--micro-batches", &options.micro_batches},
      {"--steps", &options.steps},   {"--threads", &options.threads}};
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) fail_usage(name, " needs a value");
    if (words.contains(name)) {
      *words.at(name) = argv[i + 1];
    } else if (numbers.contains(name)) {
      *numbers.at(name) = std::stoll(argv[i + 1]);
    } else {
      fail_usage("unknown option ", name);
    }
  }
  if (options.shape != "e2b" && options.shape != "e4b") fail_usage("--shape ", options.shape, ": wanted e2b or e4b");
  return options;
}

// Layers share keys and values in the proportion of the published models.
ordered_json config_of(const Options& options) {
  const bool is_e2b = options.shape == "e2b";
  const int64_t period = is_e2b ? 5 : 6;
  std::vector<std::string> types;
  for (int64_t layer = 0; layer < options.layers; ++layer) {
    types.push_back(layer % period == period - 1 ? "full_attention" : "sliding_attention");
  }
  const int64_t shared = options.layers < period ? 0 : std::min(options.layers / 2, options.layers - period);
  return {{"model_type", "gemma4_text"},
          {"hidden_size", is_e2b ? 1536 : 2560},
          {"num_hidden_layers", options.layers},
          {"layer_types", types},
          {"num_attention_heads", 8},
          {"num_key_value_heads", is_e2b ? 1 : 2},
          {"head_dim", 256},
          {"global_head_dim", 512},
          {"intermediate_size", is_e2b ? 6144 : 10240},
          {"num_kv_shared_layers", shared},
          {"use_double_wide_mlp", is_e2b},
          {"sliding_window", 512},
          {"vocab_size", options.vocabulary},
          {"hidden_size_per_layer_input", 256},
          {"final_logit_softcapping", 30.0}};
}

// Of one token, in a step whose tables do not learn: two operations for each value of a matrix in each of its products,
// forward, gradient of the input and (but for the head) gradient of the weight. Lookups multiply nothing.
double operations_per_token(const Gemma4Model& model) {
  double products = 2 * static_cast<double>(model.weights().head().elements());
  for (const WeightSpec& weight : model.weights().weights()) {
    if (is_matrix(weight.role) && !is_table(weight.role)) products += 3 * static_cast<double>(weight.elements());
  }
  return 2 * products;
}

// Operations a second of the fastest of several products of the MLP's shape.
double best_product_speed(const Gemma4Config& config, int64_t tokens) {
  const at::NoGradGuard no_grad;
  const int64_t wide = config.layers.front().intermediate_size;
  const at::Tensor x = at::randn({tokens, config.hidden_size}).to(at::kBFloat16);
  const at::Tensor weight = at::randn({wide, config.hidden_size}).to(at::kBFloat16);
  double best = 0;
  for (int i = 0; i < 8; ++i) {
    const double start = now();
    at::linear(x, weight);
    best = std::max(best, 2.0 * static_cast<double>(tokens * config.hidden_size * wide) / (now() - start));
  }
  return best;
}

struct Parts {
  double fake_quantization = 0, forward = 0, head_and_loss = 0, backward = 0, optimizer = 0;
  double total() const { return fake_quantization + forward + head_and_loss + backward + optimizer; }
  ordered_json json() const {
    return {{"step", total()},      {"fake_quantization", fake_quantization},
            {"forward", forward},   {"head_and_loss", head_and_loss},
            {"backward", backward}, {"optimizer", optimizer}};
  }
};

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        model_(Gemma4Config::parse(config_of(options), "benchmark"), at::kBFloat16),
        tokens_(at::randint(3, options.vocabulary, {options.tokens}, at::TensorOptions(at::kLong))),
        batch_(PackedTokens::single(tokens_)) {
    initialize_weights(model_, 1);
    if (options.plan != "none") {
      set_ = prepare(model_, QuantPlan::load(options.plan).resolve(model_.weights()), {});
      if (set_.needs_calibration()) {
        const at::NoGradGuard no_grad;
        const at::Tensor first_rows = at::tensor({int64_t{0}}, at::kLong);
        set_.start_calibration(&first_rows);
        model_.hidden_states(batch_);
        set_.finish_calibration({}, {});
      }
    }
    auto weights = select_trained_weights(model_, {"embed_tokens.weight", "embed_tokens_per_layer.weight"});
    for (TrainedWeight& scale : select_trained_scales(set_, {})) weights.push_back(scale);
    optimizer_.emplace(std::move(weights), OptimizerConfig());
    gradients_.emplace(optimizer_->weights());
  }

  const Gemma4Model& model() const { return model_; }

  Parts step(bool with_plan) {
    const QuantizedParts parts{with_plan, with_plan, with_plan};
    set_.enable(parts);
    set_.learned_weights_changed();
    Parts times;
    double mark = now();
    const auto lap = [&](double& part) {
      const double time = now();
      part += time - mark;
      mark = time;
    };
    if (with_plan) make_weight_values();
    lap(times.fake_quantization);
    for (int64_t pass = 0; pass < options_.micro_batches; ++pass) {
      const at::Tensor hidden = model_.hidden_states(batch_);
      lap(times.forward);
      const at::Tensor loss = cross_entropy_sum(model_, hidden, tokens_.roll(-1));
      lap(times.head_and_loss);
      loss.backward();
      gradients_->collect();
      lap(times.backward);
    }
    gradients_->norm();
    optimizer_->step(gradients_->sums(), {static_cast<double>(options_.tokens * options_.micro_batches), 1e-6, 1e-6});
    gradients_->clear();
    lap(times.optimizer);
    return times;
  }

 private:
  // The quantizers keep what they make until the weights change.
  void make_weight_values() {
    const at::NoGradGuard no_grad;
    const auto make = [&](const auto& quantizers) {
      for (const auto& quantizer : quantizers) {
        const WeightSpec& weight = *model_.weights().find(quantizer->name());
        const bool is_looked_up = is_table(weight.role) && weight.name != model_.head().name;
        if (!is_looked_up) quantizer->apply(model_.projection(weight.name).weight);
      }
    };
    make(set_.weights);
    make(set_.row_weights);
  }

  Options options_;
  Gemma4Model model_;
  at::Tensor tokens_;
  PackedTokens batch_;
  FakeQuantSet set_;
  std::optional<AdamW> optimizer_;
  std::optional<GradientSum> gradients_;
};

void run(const Options& options) {
  keep_freed_memory();
  if (options.threads > 0) at::set_num_threads(static_cast<int>(options.threads));
  Bench bench(options);
  const bool has_plan = options.plan != "none";
  std::vector<std::pair<const char*, bool>> kinds{{"plain", false}};
  if (has_plan) kinds = {{"qat", true}, {"plain", false}};
  for (const auto& [name, with_plan] : kinds) bench.step(with_plan);
  std::map<std::string, Parts> fastest;
  for (int64_t i = 0; i < options.steps; ++i) {
    for (const auto& [name, with_plan] : kinds) {
      const Parts times = bench.step(with_plan);
      if (!fastest.contains(name) || times.total() < fastest[name].total()) fastest[name] = times;
    }
  }
  const double tokens = static_cast<double>(options.tokens * options.micro_batches);
  const double operations = tokens * operations_per_token(bench.model());
  const double best = best_product_speed(bench.model().config(), options.tokens);
  ordered_json line{{"shape", options.shape},
                    {"layers", options.layers},
                    {"values", bench.model().weights().elements()},
                    {"tokens", options.tokens},
                    {"micro_batches", options.micro_batches},
                    {"plan", options.plan},
                    {"threads", at::get_num_threads()}};
  for (const auto& [name, with_plan] : kinds) {
    const Parts& times = fastest[name];
    line[name] = {{"seconds", times.json()},
                  {"tokens_per_second", tokens / times.total()},
                  {"share_of_products", operations / best / times.total()}};
  }
  line["best_product_gflops"] = best / 1e9;
  line["peak_resident_mib"] = current_memory_use().peak_resident >> 20;
  std::printf("%s\n", line.dump().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
