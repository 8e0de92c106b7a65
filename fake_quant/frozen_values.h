// Forward values of a weight that never changes, in a scratch file: they are made once, and the system can drop their
// pages from memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>

#include "model/projection.h"

namespace qat {

// Stands between a weight and its quantizer. Neither the master nor the quantizer's scales may change from the first
// use on.
template <class Quantizer>
class FrozenValues final : public WeightTransform {
 public:
  FrozenValues(std::shared_ptr<Quantizer> quantizer, std::filesystem::path folder)
      : quantizer_(std::move(quantizer)), folder_(std::move(folder)) {}

  // Throws Error if the folder cannot hold the values.
  at::Tensor apply(const at::Tensor& master) override {
    if (!quantizer_->is_enabled()) return master;
    if (!values_.defined()) values_ = values_in_file(*quantizer_, master, folder_);
    return values_;
  }
  at::Tensor apply_rows(const at::Tensor& values, const at::Tensor& rows) override {
    return quantizer_->apply_rows(values, rows);
  }

 private:
  std::shared_ptr<Quantizer> quantizer_;
  std::filesystem::path folder_;
  at::Tensor values_;
};

// transform.apply(master), made by rows into a tensor that lies in a file of `folder` without a name. Without autograd.
at::Tensor values_in_file(WeightTransform& transform, const at::Tensor& master, const std::filesystem::path& folder);

}  // namespace qat
