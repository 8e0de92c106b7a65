#include "trainers/checkpoint_writer.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/output_file.h"
#include "fake_quant/make_witness.h"
#include "fake_quant/tensor_values.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

constexpr int64_t kPieceElements = int64_t{1} << 22;

void write_as_bfloat16(const at::Tensor& parameter, const std::function<void(std::span<const BFloat16>)>& write) {
  const at::Tensor flat = parameter.detach().flatten();
  for (int64_t from = 0; from < flat.numel(); from += kPieceElements) {
    const at::Tensor piece =
        flat.slice(0, from, std::min(from + kPieceElements, flat.numel())).to(at::kCPU, at::kBFloat16).contiguous();
    write(values_of<const BFloat16>(piece));
  }
}

// Switches all quantizers on for its lifetime: a checkpoint is always the quantized model, also before a delayed start.
class QuantizersOn {
 public:
  explicit QuantizersOn(FakeQuantSet& fake_quant) : fake_quant_(fake_quant), before_(fake_quant.enabled()) {
    fake_quant_.enable({});
  }
  ~QuantizersOn() { fake_quant_.enable(before_); }
  QuantizersOn(const QuantizersOn&) = delete;
  QuantizersOn& operator=(const QuantizersOn&) = delete;

 private:
  FakeQuantSet& fake_quant_;
  QuantizedParts before_;
};

// Another model's weights and their changes, read as they are: of matrices and tables nothing is copied, and fp32
// values exist while they are used.
std::unique_ptr<Gemma4Model> float_view(const Gemma4Model& model) {
  const auto is_shared = [](const WeightSpec& weight) { return is_matrix(weight.role); };
  auto view = std::make_unique<Gemma4Model>(model.config(), at::kFloat, is_shared, model.device());
  for (const WeightSpec& weight : model.weights().weights()) {
    if (is_shared(weight)) {
      const Projection& of_model = model.projection(weight.name);
      Projection& projection = view->projection(weight.name);
      projection.weight = of_model.weight;
      projection.stored_master = of_model.stored_master;
      projection.lender = of_model.lender;
      projection.weight_delta = of_model.weight_delta;
      projection.side_product = of_model.side_product;
    } else {
      view->parameter(weight.name).copy_(model.parameter(weight.name));
    }
  }
  return view;
}

Witness witness_of(const BaseModel& base, const Gemma4Model& model, FakeQuantSet& fake_quant,
                   const std::vector<std::vector<int32_t>>& prompts) {
  const at::NoGradGuard no_grad;
  if (model.dtype() == at::kFloat) {
    const QuantizersOn on(fake_quant);
    return make_witness(model, fake_quant, prompts);
  }
  const auto view = float_view(model);
  const FakeQuantSet quantizers = base.attach_fake_quant(*view, fake_quant);
  return make_witness(*view, quantizers, prompts);
}

}  // namespace

void CheckpointWriter::write(const fs::path& folder, const Gemma4Model& model, FakeQuantSet& fake_quant,
                             int64_t step) const {
  const Witness witness = witness_of(base_, model, fake_quant, witness_prompts_);
  const auto row_scales = fake_quant.row_scales();
  const auto block_scales = fake_quant.block_scales();
  CheckpointContents contents;
  contents.base_folder = &base_.path();
  contents.base_tensors = base_.folder() == nullptr ? nullptr : &base_.folder()->tensors();
  contents.table = &base_.table();
  contents.plan = base_.plan();
  contents.write_master = [&](const WeightSpec& weight, const std::function<void(std::span<const BFloat16>)>& write) {
    const auto loan = is_matrix(weight.role) ? model.projection(weight.name).borrow_master() : nullptr;
    write_as_bfloat16(model.merged_parameter(weight.name), write);
  };
  if (base_.plan() != nullptr) {
    for (const auto& [name, scales] : block_scales) {
      contents.stored_scales.emplace(name, values_of<const Float16>(scales));
    }
    for (const auto& [name, scales] : row_scales) {
      contents.row_scales.emplace(name, values_of<const float>(scales));
    }
    contents.static_scales = fake_quant.static_scales();
  }
  contents.write_more = [&](const fs::path& target) {
    witness.save(target / "witness.safetensors");
    const nlohmann::ordered_json training = {{"step", step}};
    write_file(target / "training.json", training.dump(1) + "\n");
  };
  write_checkpoint(folder, contents);
}

}  // namespace qat
