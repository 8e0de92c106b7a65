#include "fake_quant/static_fake_quantizer.h"

#include <ATen/ops/full.h>
#include <c10/core/GradMode.h>

#include <utility>

#include "core/error.h"
#include "fake_quant/integer_fake_quantize.h"
#include "fake_quant/tensor_values.h"
#include "model/recompute.h"
#include "quant/grid.h"
#include "quant/row_codec.h"

namespace qat {

void StaticFakeQuantizer::set_scale(float scale, bool given) {
  scale_.set_start(at::full({1}, scale, at::kFloat), given);
}

at::Tensor StaticFakeQuantizer::apply(const at::Tensor& activation) {
  if (!enabled_ && !observation_) return activation;
  if (users_left_ > 0 && activation.is_same(shared_input_)) {
    const at::Tensor result = shared_output_;
    if (--users_left_ == 0) shared_input_ = shared_output_ = at::Tensor();
    return result;
  }
  if (observation_ && !is_recomputing()) observe(activation);
  const at::Tensor result = observation_ ? activation : quantize(activation);
  users_left_ = users_ - 1;
  if (users_left_ > 0) {
    shared_input_ = activation;
    shared_output_ = result;
  }
  return result;
}

at::Tensor StaticFakeQuantizer::quantize(const at::Tensor& activation) {
  if (!scale_.is_set()) fail(name(), ": was never calibrated, so it has no scale");
  fired_ = true;
  const at::Tensor value = integer_values(Scheme::Int8, activation, scale_.values(), activation.numel());
  if (!is_recomputing() && (recorded_ != nullptr || measured_ != nullptr)) look_on(activation, value);
  return integer_fake_quantize(Scheme::Int8, activation, scale_.log_change(), scale_.values(), activation.numel(),
                               value);
}

void StaticFakeQuantizer::look_on(const at::Tensor& activation, const at::Tensor& value) {
  const c10::NoGradGuard no_grad;
  const at::Tensor floats = activation.detach().to(at::kCPU, at::kFloat).contiguous();
  const float scale = scale_value();
  if (recorded_ != nullptr) {
    const size_t before = recorded_->size();
    recorded_->resize(before + static_cast<size_t>(floats.numel()));
    encode_groups(Scheme::Int8, values_of<const float>(floats), {&scale, 1}, floats.numel(),
                  std::span(*recorded_).subspan(before));
  }
  if (measured_ != nullptr) {
    const at::Tensor quantized = value.detach().to(at::kCPU, at::kFloat).contiguous();
    measured_->add(values_of<const float>(floats), values_of<const float>(quantized), grid::kActivationMin * scale,
                   grid::kActivationMax * scale);
  }
}

void StaticFakeQuantizer::start_observing(const at::Tensor* first_rows) {
  observation_.emplace();
  first_rows_ = first_rows;
}

std::optional<StaticFakeQuantizer::Observation> StaticFakeQuantizer::take_observation() {
  first_rows_ = nullptr;
  std::optional<Observation> result = std::exchange(observation_, std::nullopt);
  if (result && result->rows.count() + result->first_rows.count() == 0) return std::nullopt;
  return result;
}

void StaticFakeQuantizer::observe(const at::Tensor& activation) {
  const c10::NoGradGuard no_grad;
  const at::Tensor floats = activation.detach().to(at::kCPU, at::kFloat).contiguous();
  const auto row = static_cast<size_t>(floats.numel() / floats.size(0));
  const auto values = values_of<const float>(floats);
  size_t position = 0;
  for (const int64_t first : values_of<const int64_t>(*first_rows_)) {
    const size_t at = static_cast<size_t>(first) * row;
    observation_->rows.add(values.subspan(position, at - position));
    observation_->first_rows.add(values.subspan(at, row));
    position = at + row;
  }
  observation_->rows.add(values.subspan(position));
}

}  // namespace qat
