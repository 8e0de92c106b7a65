#include "trainers/moments.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "fake_quant/tensor_values.h"
#include "trainers/moment_codec.h"

namespace qat {

namespace {

constexpr int64_t kGrainBlocks = 64;

// The constants of AdamW at one step.
class AdamStep {
 public:
  AdamStep(const OptimizerConfig& options, int64_t step)
      : beta1_(static_cast<float>(options.beta1)),
        beta2_(static_cast<float>(options.beta2)),
        epsilon_(static_cast<float>(options.epsilon)),
        first_share_(static_cast<float>(1 - std::pow(options.beta1, static_cast<double>(step)))),
        second_share_(static_cast<float>(1 - std::pow(options.beta2, static_cast<double>(step)))) {}

  // The same in ATen operations, for devices that the loop below does not run on.
  void apply(at::Tensor gradient, at::Tensor first, at::Tensor second) const {
    const auto same_device = [&](float value) { return at::full({}, value, gradient.options()); };
    first.mul_(beta1_).add_(gradient * (1 - beta1_));
    second.mul_(beta2_).add_((gradient * (1 - beta2_)).mul_(gradient));
    // Through double: LibTorch's fp32 square roots need not be the nearest numbers.
    const at::Tensor root =
        (second / same_device(second_share_)).to(at::kDouble).sqrt_().to(at::kFloat).add_(epsilon_);
    gradient.copy_((first / same_device(first_share_)).div_(root));
  }

  // Updates the moments with the gradients and replaces these by the direction.
  void apply(std::span<float> gradients, std::span<float> first, std::span<float> second) const {
    for (size_t i = 0; i < gradients.size(); ++i) {
      const float gradient = gradients[i];
      first[i] = beta1_ * first[i] + (1 - beta1_) * gradient;
      second[i] = beta2_ * second[i] + (1 - beta2_) * gradient * gradient;
      gradients[i] = first[i] / first_share_ / (std::sqrt(second[i] / second_share_) + epsilon_);
    }
  }

 private:
  float beta1_, beta2_, epsilon_, first_share_, second_share_;
};

int64_t blocks_of(int64_t values) { return (values + kMomentBlock - 1) / kMomentBlock; }

// Calls run(block, first value, values) for all blocks, on all threads.
template <class Run>
void for_blocks(int64_t values, const Run& run) {
  at::parallel_for(0, blocks_of(values), kGrainBlocks, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kMomentBlock;
      run(static_cast<size_t>(block), static_cast<size_t>(first),
          static_cast<size_t>(std::min(kMomentBlock, values - first)));
    }
  });
}

class FullMoments final : public Moments {
 public:
  FullMoments(const std::vector<TrainedWeight>& weights, const OptimizerConfig& options) : options_(options) {
    for (const TrainedWeight& weight : weights) {
      first_.push_back({"first_moments/" + weight.name, at::zeros_like(weight.parameter, at::kFloat)});
      second_.push_back({"second_moments/" + weight.name, at::zeros_like(weight.parameter, at::kFloat)});
    }
  }

  void turn_into_direction(size_t index, const at::Tensor& gradient, int64_t step, const ElementRandom&) override {
    const AdamStep adam(options_, step);
    if (!gradient.is_cpu()) return adam.apply(gradient, first_[index].values, second_[index].values);
    const auto gradients = values_of<float>(gradient);
    const auto first = values_of<float>(first_[index].values), second = values_of<float>(second_[index].values);
    for_blocks(gradient.numel(), [&](size_t, size_t from, size_t count) {
      adam.apply(gradients.subspan(from, count), first.subspan(from, count), second.subspan(from, count));
    });
  }

  std::vector<StateArray> state_arrays() const override {
    std::vector<StateArray> arrays = first_;
    arrays.insert(arrays.end(), second_.begin(), second_.end());
    return arrays;
  }

 private:
  OptimizerConfig options_;
  std::vector<StateArray> first_, second_;
};

class CodedMoments final : public Moments {
 public:
  CodedMoments(const std::vector<TrainedWeight>& weights, const OptimizerConfig& options) : options_(options) {
    for (const TrainedWeight& weight : weights) {
      const int64_t values = weight.parameter.numel();
      const auto scales = [&] { return at::zeros({blocks_of(values)}, at::kFloat); };
      const std::string& name = weight.name;
      weights_.push_back({StateArray{"first_moments/" + name, at::zeros({values}, at::kChar)},
                          StateArray{"first_moment_scales/" + name, scales()},
                          StateArray{"second_moments/" + name, at::zeros({values}, at::kByte)},
                          StateArray{"second_moment_scales/" + name, scales()}});
    }
  }

  void turn_into_direction(size_t index, const at::Tensor& gradient, int64_t step,
                           const ElementRandom& random) override {
    const auto& [first, first_scale, second, second_scale] = weights_[index];
    const auto gradients = values_of<float>(gradient);
    const auto first_codes = values_of<int8_t>(first.values);
    const auto second_codes = values_of<uint8_t>(second.values);
    const auto first_scales = values_of<float>(first_scale.values);
    const auto second_scales = values_of<float>(second_scale.values);
    const AdamStep adam(options_, step);
    for_blocks(gradient.numel(), [&](size_t block, size_t from, size_t count) {
      std::array<float, kMomentBlock> first_values, second_values;
      const auto firsts = std::span(first_values).first(count), seconds = std::span(second_values).first(count);
      decode_first_moments(first_codes.subspan(from, count), first_scales[block], firsts);
      decode_second_moments(second_codes.subspan(from, count), second_scales[block], seconds);
      adam.apply(gradients.subspan(from, count), firsts, seconds);
      const auto element = static_cast<int64_t>(from);
      first_scales[block] = encode_first_moments(firsts, random, element, first_codes.subspan(from, count));
      second_scales[block] = encode_second_moments(seconds, random, element, second_codes.subspan(from, count));
    });
  }

  std::vector<StateArray> state_arrays() const override {
    std::vector<StateArray> arrays;
    for (const auto& of_weight : weights_) arrays.insert(arrays.end(), of_weight.begin(), of_weight.end());
    return arrays;
  }

 private:
  OptimizerConfig options_;
  std::vector<std::array<StateArray, 4>> weights_;
};

}  // namespace

std::unique_ptr<Moments> make_full_moments(const std::vector<TrainedWeight>& weights, const OptimizerConfig& options) {
  return std::make_unique<FullMoments>(weights, options);
}

std::unique_ptr<Moments> make_coded_moments(const std::vector<TrainedWeight>& weights, const OptimizerConfig& options) {
  return std::make_unique<CodedMoments>(weights, options);
}

}  // namespace qat
