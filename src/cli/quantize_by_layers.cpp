#include "cli/quantize_by_layers.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "core/error.h"
#include "fake_quant/tensor_values.h"
#include "ptq/quantize_layers.h"
#include "trainers/calibration.h"
#include "trainers/training_data.h"

namespace qat {

namespace {

constexpr int64_t kMeasuredRows = 4;  // every fourth

const std::map<std::string, PtqMethod> kMethods{{"imatrix", PtqMethod::Importance},
                                                {"gptq", PtqMethod::Gptq},
                                                {"awq", PtqMethod::Awq},
                                                {"awq-gptq", PtqMethod::AwqGptq},
                                                {"autoround", PtqMethod::SignDescent}};

struct Rows {
  std::vector<PackedTokens> calibration;
  std::vector<PackedTokens> held_out;
};

Rows read_rows(const TrainConfig& config, const std::string& method, const Gemma4Config& model) {
  if (config.data.train.empty()) {
    fail_usage("--method ", method, " looks at activations; name a file to compute them from: --data FILE");
  }
  TrainingData data(config, model);
  Rows rows;
  int64_t number = 0;
  for (TrainingBatch& batch : data.first_rows(config.quantization.calibration.rows)) {
    auto& part = ++number % kMeasuredRows == 0 ? rows.held_out : rows.calibration;
    part.push_back(std::move(batch.input));
  }
  if (rows.held_out.empty()) {
    fail_usage("--method ", method, " wants ", kMeasuredRows, " rows of ", config.sequence_length,
               " tokens or more, one in ", kMeasuredRows, " to measure on; ", config.data.train.front(), " fills ",
               number, " (--rows, --sequence-length)");
  }
  return rows;
}

}  // namespace

bool looks_at_activations(const std::string& method) { return kMethods.contains(method); }

FakeQuantSet attach_after_layers(const TrainConfig& config, const std::string& method, const BaseModel& base,
                                 Gemma4Model& model) {
  QAT_CHECK(base.plan() != nullptr);
  const auto& weights = base.table().weights();
  if (std::none_of(weights.begin(), weights.end(),
                   [&](const WeightSpec& weight) { return is_quantized_by_layer(weight, *base.plan()); })) {
    fail_usage("--method ", method, " quantizes linears of q4_0 blocks, and the plan \"", base.plan()->name,
               "\" has none; --method mse does all plans");
  }
  const Rows rows = read_rows(config, method, base.config());
  LayerPtqOptions options;
  options.method = kMethods.at(method);
  const LayerPtqResult result = quantize_layers(model, *base.plan(), rows.calibration, rows.held_out, options);
  std::printf("%s\n", describe(result).c_str());

  KnownScales known;
  known.blocks = [&](const std::string& weight) {
    const auto found = result.scales.find(weight);
    return found == result.scales.end() ? std::span<const Float16>() : values_of<const Float16>(found->second);
  };
  known.row_method = row_scale_method(config.quantization);
  known.block_method = BlockScaleMethod::Learned;  // what no scales are known for is searched
  return prepare(model, *base.plan(), known);
}

}  // namespace qat
