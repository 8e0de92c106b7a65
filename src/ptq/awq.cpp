#include "ptq/awq.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <limits>

#include "ptq/input_statistics.h"
#include "ptq/on_grid.h"

namespace qat {

namespace {

constexpr int64_t kSearchedRows = 512;   // of a weight, evenly spread: what exponents are compared on
constexpr double kSmallestShare = 1e-4;  // of the largest channel: smaller ones count as this
constexpr double kLargestScale = 64;     // and the smallest is one over it; scales of blocks stay far inside fp16

// Root mean squares of an input's channels over their geometric mean.
at::Tensor channel_sizes(const at::Tensor& second_moments) {
  const at::Tensor sizes = second_moments.diagonal().sqrt();
  const double smallest = std::max(kSmallestShare * sizes.max().item<double>(), 1e-30);
  const at::Tensor logarithms = sizes.clamp_min(smallest).log();
  return (logarithms - logarithms.mean()).exp();
}

struct Reader {
  at::Tensor weight;
  double output;  // squared
};

// Sum over the linears that read an input divided by `scales`.
double relative_error(const std::vector<Reader>& readers, const at::Tensor& scales, const at::Tensor& second_moments) {
  const LinearScaling scaling{scales, {}, {}};
  const at::Tensor importance = scaling.squares(second_moments.diagonal());
  double sum = 0;
  for (const Reader& reader : readers) {
    const at::Tensor values = by_importance(scaling.apply(reader.weight), importance).values;
    sum += output_error(scaling.undo(values) - reader.weight, second_moments) / reader.output;
  }
  return sum;
}

at::Tensor best_scales(const Gemma4Model& model, const LinearInput& input, const at::Tensor& second_moments,
                       const AwqOptions& options) {
  std::vector<Reader> readers;
  for (const WeightSpec* reader : input.readers) {
    const int64_t stride = (reader->rows() + kSearchedRows - 1) / kSearchedRows;
    const at::Tensor weight = model.parameter(reader->name).slice(0, 0, reader->rows(), stride).contiguous();
    readers.push_back({weight, std::max(output_error(weight, second_moments), 1e-30)});
  }
  const at::Tensor sizes = channel_sizes(second_moments);
  at::Tensor best;
  double least = std::numeric_limits<double>::infinity();
  for (int64_t point = 0; point < options.points; ++point) {
    const double exponent = static_cast<double>(point) / static_cast<double>(options.points);
    const at::Tensor wanted = sizes.pow(exponent).clamp(1 / kLargestScale, kLargestScale);
    const double error = relative_error(readers, possible_scales(model, input, wanted), second_moments);
    if (point > 0 && !(error < least)) continue;
    least = error;
    best = wanted;
  }
  return best;
}

}  // namespace

std::map<std::string, LinearScaling> awq(Gemma4Model& model, const std::vector<LinearInput>& inputs,
                                         const std::map<std::string, at::Tensor>& second_moments,
                                         const AwqOptions& options) {
  std::map<std::string, LinearScaling> linears;
  for (const LinearInput& input : inputs) {
    if (input.obstacle.empty()) {
      fold_scales(model, input, best_scales(model, input, second_moments.at(input.name), options), linears);
    }
    for (const WeightSpec* reader : input.readers) linears[reader->name].obstacle = input.obstacle;
  }
  return linears;
}

}  // namespace qat
