// What every optimizer offers to the loop and to the saved state.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "trainers/train_config.h"

namespace qat {

// A weight that learns.
struct TrainedWeight {
  std::string name;         // WeightTable's, or that of a scale or of a matrix of an adapter
  at::Tensor parameter;     // a leaf, BF16 or float, requires_grad set
  bool decays = false;      // weight decay applies: matrices and tables only
  bool is_scale = false;    // of a fake quantizer: an fp32 number that is not rounded, with a learning rate of its own
  bool is_adapter = false;  // an fp32 number that is not rounded; the merged weight is
  bool is_sharded = false;  // between uses only its owner has it (sharded_weights.h)

  bool stays_float() const { return is_scale || is_adapter; }
};

// A tensor of an optimizer's state: contiguous, the optimizer's own, to be read or filled.
struct StateArray {
  std::string name;  // in state.h5: masters/WEIGHT, first_moments/WEIGHT, ...
  at::Tensor values;
};

// What an update needs besides gradients.
struct UpdateRule {
  double divisor = 1;  // gradients are sums over this many tokens, times the clipping
  double learning_rate = 0;
  double scale_learning_rate = 0;  // of scales
};

class Optimizer {
 public:
  explicit Optimizer(std::vector<TrainedWeight> weights) : weights_(std::move(weights)) {}
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // One update of all weights: start_update(), then update_weight() of each once, in any order. Parameters of weights
  // are BF16 numbers afterwards; scales and adapters stay fp32.
  virtual void step(const std::vector<at::Tensor>& gradients, const UpdateRule& rule);
  virtual void start_update(const UpdateRule& rule);
  // `gradient`: fp32 or BF16, in the parameter's shape, contiguous; may be overwritten.
  virtual void update_weight(size_t index, const at::Tensor& gradient) = 0;
  // Everything that the next step depends on besides the number of steps done, as far as this process keeps it.
  virtual std::vector<StateArray> state_arrays() const = 0;
  // To call after state_arrays() were filled from a file: parameters follow.
  virtual void restored(int64_t steps_done) = 0;

  // Hands the whole state to `write`, one array at a time; or has `read` fill it. In a group all processes call them at
  // once, and the functions are called on the first alone.
  using ArrayFunction = std::function<void(const StateArray&)>;
  virtual void write_state(const ArrayFunction& write) const;
  virtual void read_state(const ArrayFunction& read);
  // Of the whole state.
  virtual uint64_t state_bytes() const;

  const std::vector<TrainedWeight>& weights() const { return weights_; }
  int64_t steps_done() const { return steps_done_; }
  int64_t trained_values() const;

 protected:
  std::vector<TrainedWeight> weights_;
  int64_t steps_done_ = 0;  // the update under way included
  UpdateRule rule_;
};

// The optimizer that optimizer.kind and optimizer.masters name. `seed` is that of stochastic rounding.
std::unique_ptr<Optimizer> make_optimizer(std::vector<TrainedWeight> weights, const OptimizerConfig& options,
                                          uint64_t seed);

}  // namespace qat
