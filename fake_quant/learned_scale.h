// Scales of a fake quantizer that training may move: scale = start * exp(log_change). A scale never crosses zero, and a
// learning rate means the same relative change for scales of all sizes (qat_methods.md 3.2).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace qat {

class LearnedScale {
 public:
  // What it holds lives on `device`, wherever starts come from.
  explicit LearnedScale(std::string name, at::Device device = at::kCPU) : name_(std::move(name)), device_(device) {}

  // `start` fp32 [groups], not 0, of either sign, which stays. Sets log_change to zeros. A scale that a checkpoint or
  // the format gives is `given`: data do not replace it.
  void set_start(const at::Tensor& start, bool given);
  bool is_set() const { return start_.defined(); }
  bool is_given() const { return given_; }

  const std::string& name() const { return name_; }
  const at::Tensor& start() const { return start_; }
  // The parameter that learns, fp32 [groups], a leaf.
  const at::Tensor& log_change() const { return log_change_; }
  // The scales as the grid uses them now, fp32 [groups].
  const at::Tensor& values() const;
  // To call after log_change moved.
  void changed() { values_ = at::Tensor(); }

 private:
  std::string name_;
  at::Device device_;
  bool given_ = false;
  at::Tensor start_;
  at::Tensor log_change_;
  mutable at::Tensor values_;
};

}  // namespace qat
