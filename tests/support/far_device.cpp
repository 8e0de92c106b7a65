#include "support/far_device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_set>

namespace qat::testing {

namespace {

constexpr c10::DeviceType kFar = c10::DeviceType::PrivateUse1;
// No address has this bit and not those above it: reading there ends the program.
constexpr uintptr_t kFarBit = uintptr_t{1} << 62;

void* far_address(void* host) { return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(host) | kFarBit); }
void* host_address(const void* far) { return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(far) & ~kFarBit); }

class FarAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device(kFar, 0);
    if (bytes == 0) return {nullptr, device};
    void* host = std::malloc(bytes);
    if (host == nullptr) throw std::bad_alloc();
    std::memset(host, 0xff, bytes);  // NaN: nobody may count on zeros
    return {far_address(host), host, &std::free, device};
  }
  void copy_data(void* target, const void* source, size_t bytes) const override {
    std::memcpy(host_address(target), host_address(source), bytes);
  }
};

FarAllocator& allocator() {
  static FarAllocator instance;
  return instance;
}

struct FarGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kFar; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return {kFar, current()}; }
  void setDevice(c10::Device device) const override { current() = device.index(); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current() = device.index(); }
  c10::Stream getStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream getDefaultStream(c10::Device device) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return kFarDevices; }
  // Operations are done when they return, so events have nothing to wait for.
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}

 private:
  static c10::DeviceIndex& current() {
    thread_local c10::DeviceIndex index = 0;
    return index;
  }
};

struct FarHooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kFarDevices; }
};

at::Tensor empty(at::IntArrayRef sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(sizes, &allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   dtype.value_or(at::kFloat), format);
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      sizes, strides, &allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype.value_or(at::kFloat));
}

// The same memory as a tensor of the CPU.
at::Tensor seen_from_host(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  return at::from_blob(host_address(tensor.const_data_ptr()), tensor.sizes(), tensor.strides(),
                       tensor.options().device(at::kCPU));
}

at::Tensor copy_from(const at::Tensor& source, const at::Tensor& target, bool) {
  seen_from_host(target).copy_(seen_from_host(source));
  return target;
}

at::Tensor copy_from_and_resize(const at::Tensor& source, const at::Tensor& target) {
  if (target.sizes() != source.sizes()) {
    const at::Tensor room = at::empty(source.sizes(), target.options());
    target.unsafeGetTensorImpl()->set_storage_keep_dtype(room.storage());
    target.unsafeGetTensorImpl()->set_sizes_contiguous(source.sizes());
  }
  return copy_from(source, target, false);
}

// What a GPU refuses: tensors of the CPU among its own, unless they are numbers of the host.
void check_place(const c10::OperatorHandle& op, const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cpu() || tensor.unsafeGetTensorImpl()->is_wrapped_number()) return;
  TORCH_CHECK(false, op.operator_name(), ": a tensor ", tensor.sizes(), " lies on the CPU, others on the far device");
}

std::mutex operations_mutex;
std::unordered_set<c10::OperatorName> operations;

void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  {
    const std::lock_guard lock(operations_mutex);
    operations.insert(op.operator_name());
  }
  const size_t arguments = op.schema().arguments().size();
  for (const c10::IValue& argument : c10::ArrayRef<c10::IValue>(*stack).slice(stack->size() - arguments)) {
    if (argument.isTensor()) check_place(op, argument.toTensor());
    if (argument.isTensorList()) {
      for (const at::Tensor& tensor : argument.toTensorVector()) check_place(op, tensor);
    }
  }
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
}

// LibTorch's CPU has kernels of its own for attention, which give other last bits than its general formula: here they
// are used, too. One node of the far device, so that a single thread computes all gradients and adds them in one order.
class Attention : public torch::autograd::Function<Attention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value, const std::optional<at::Tensor>& mask, bool causal,
                            std::optional<double> scale) {
    const at::Tensor q = query.to(at::kCPU), k = key.to(at::kCPU), v = value.to(at::kCPU);
    const std::optional<at::Tensor> near_mask = mask ? std::optional(mask->to(at::kCPU)) : std::nullopt;
    const auto [output, log_sums] =
        at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, near_mask, scale);
    context->save_for_backward({q, k, v, output, log_sums, near_mask.value_or(at::Tensor())});
    context->saved_data["causal"] = causal;
    context->saved_data["scale"] = scale;
    return output.to(query.device());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const std::optional<at::Tensor> mask = saved[5].defined() ? std::optional(saved[5]) : std::nullopt;
    const auto [of_query, of_key, of_value] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        gradients[0].to(at::kCPU), saved[0], saved[1], saved[2], saved[3], saved[4], 0.0,
        context->saved_data["causal"].toBool(), mask, context->saved_data["scale"].toOptional<double>());
    const auto far = [&](const at::Tensor& x) { return x.to(gradients[0].device()); };
    return {far(of_query), far(of_key), far(of_value), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const std::optional<at::Tensor>& mask, double dropout, bool causal, std::optional<double> scale,
                     bool grouped) {
  TORCH_CHECK(dropout == 0 && !grouped, "attention of the far device has neither dropout nor groups");
  return Attention::apply(query, key, value, mask, causal, scale);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("as_strided", &at::native::as_strided_tensorimpl);
  library.impl("view", &at::native::view);
  library.impl("_reshape_alias", &at::native::_reshape_alias);
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_from_and_resize);
}
TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, library) { library.impl("scaled_dot_product_attention", &attention); }
TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

}  // namespace

at::Device far_device() {
  static const bool registered = [] {
    static FarGuard guard;
    static FarHooks hooks;
    c10::register_privateuse1_backend("far");
    c10::impl::DeviceGuardImplRegistrar(kFar, &guard);
    at::RegisterPrivateUse1HooksInterface(&hooks);
    c10::SetAllocator(kFar, &allocator());
    return true;
  }();
  return registered ? at::Device(kFarDevice) : at::Device(at::kCPU);
}

std::vector<c10::OperatorName> operations_run() {
  const std::lock_guard lock(operations_mutex);
  return {operations.begin(), operations.end()};
}

}  // namespace qat::testing
