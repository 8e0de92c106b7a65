// Takes gradients out of a backward pass as soon as they are complete, so that few exist at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "trainers/optimizer.h"

namespace qat {

class BackwardTap {
 public:
  // `index`: of the weight. The gradient, contiguous and in the parameter's dtype, is gone after the call.
  using Visitor = std::function<void(size_t index, const at::Tensor& gradient)>;

  explicit BackwardTap(const std::vector<TrainedWeight>& weights);
  ~BackwardTap();
  BackwardTap(const BackwardTap&) = delete;
  BackwardTap& operator=(const BackwardTap&) = delete;

  // loss.backward(), whose gradients a plain call leaves to autograd. Every weight is visited once: in the pass, when
  // nothing reads its parameter any more, so that the visitor may change it; or after the pass with zeros, where no
  // gradient arrived.
  void backward(const at::Tensor& loss, const Visitor& visit);

 private:
  void arrived(size_t index);

  std::vector<at::Tensor> parameters_;
  const Visitor* visit_ = nullptr;
  std::vector<bool> visited_;
};

}  // namespace qat
