#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <atomic>
#include <cstring>

#include "core/error.h"
#include "gemma4/master_weights.h"
#include "model/gemma4_model.h"
#include "model/mapped_tensor.h"

namespace qat {

namespace {

// True if a value has all exponent bits set: NaN or infinity. `Bits` is the unsigned type of an element.
template <class Bits>
bool has_nonfinite(std::span<const std::byte> bytes, Bits exponent) {
  const auto count = static_cast<int64_t>(bytes.size() / sizeof(Bits));
  std::atomic<bool> found = false;
  at::parallel_for(0, count, int64_t{1} << 20, [&](int64_t first, int64_t end) {
    bool here = false;
    for (int64_t i = first; i < end; ++i) {
      Bits bits;
      std::memcpy(&bits, bytes.data() + static_cast<size_t>(i) * sizeof(Bits), sizeof(Bits));
      here |= (bits & exponent) == exponent;
    }
    if (here) found = true;
  });
  return found;
}

bool has_nonfinite(const TensorView& tensor) {
  switch (tensor.type) {
    case ElementType::F32:
      return has_nonfinite<uint32_t>(tensor.bytes, 0x7f800000u);
    case ElementType::F16:
      return has_nonfinite<uint16_t>(tensor.bytes, 0x7c00u);
    default:
      return has_nonfinite<uint16_t>(tensor.bytes, 0x7f80u);
  }
}

// The mapped bytes where they are BF16 numbers, else a copy.
at::Tensor in_file_or_copied(const TensorView& tensor, at::ScalarType dtype) {
  if (tensor.type == ElementType::BF16) return aligned_tensor(tensor);
  return mapped_tensor(tensor).to(dtype, /*non_blocking=*/false, /*copy=*/true);
}

}  // namespace

WeightChoice readable_in_file(const WeightTable& table, at::ScalarType dtype) {
  return [in_bfloat16 = dtype == at::kBFloat16, head = table.head().name](const WeightSpec& weight) {
    return is_matrix(weight.role) && (in_bfloat16 || (is_table(weight.role) && weight.name != head));
  };
}

void load_weights(Gemma4Model& model, const TensorSource& source,
                  const std::function<void(const WeightSpec&, Projection&)>& loaded) {
  const at::NoGradGuard no_gradients;
  const MasterWeights masters(model.weights(), source);
  for (const WeightSpec& spec : model.weights().weights()) {
    const TensorView& tensor = masters.of(spec);
    if (has_nonfinite(tensor))
      fail(source.where(), ": ", tensor.name, " has NaN or infinite values; the file is damaged");
    if (at::Tensor parameter = model.parameter(spec.name); parameter.defined()) {
      parameter.copy_(mapped_tensor(tensor));
    } else {
      Projection& projection = model.projection(spec.name);
      projection.weight = in_file_or_copied(tensor, model.dtype()).to(model.device());
      if (loaded) loaded(spec, projection);
    }
    source.release(tensor.bytes);
  }
}

Projection load_head(const WeightTable& table, const TensorSource& source, at::ScalarType dtype, at::Device device) {
  const WeightSpec& spec = table.head();
  Projection head;
  head.name = spec.name;
  head.weight = mapped_tensor(MasterWeights(table, source).of(spec)).to(device, dtype);
  return head;
}

}  // namespace qat
