#include "trainers/compute_settings.h"

#include <ATen/Parallel.h>
#include <c10/core/Device.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>

#include "core/error.h"

namespace qat {

namespace {

// GPUs, and what a library may add to LibTorch's devices.
bool names_device(const std::string& name) {
  try {
    const c10::DeviceType type = c10::Device(name).type();
    return type == c10::DeviceType::CUDA || type == c10::DeviceType::PrivateUse1;
  } catch (const c10::Error&) {
    return false;
  }
}

}  // namespace

std::vector<std::string> device_problems(const TrainConfig& config) {
  if (config.computes_on_cpu()) return {};
  if (!names_device(config.device)) return {join("device: must be cpu, cuda or cuda:N, found \"", config.device, "\"")};
  std::vector<std::string> problems;
  const auto only_on_cpu = [&](bool is_set, const char* field, const std::string& found, const char* wanted) {
    if (!is_set) return;
    problems.push_back(
        join(field, ": ", found, " runs on the CPU only; with device = ", config.device, " use ", wanted));
  };
  const OptimizerConfig& optimizer = config.optimizer;
  const QuantizationConfig& quantization = config.quantization;
  only_on_cpu(optimizer.kind != "adamw", "optimizer.kind", optimizer.kind, "adamw");
  only_on_cpu(quantization.block_scales != "rule", "quantization.block_scales", quantization.block_scales, "rule");
  only_on_cpu(quantization.keep == "codes", "quantization.keep", quantization.keep, "values or nothing");
  only_on_cpu(config.packs_base(), "lora.base", config.lora.base, "bfloat16");
  only_on_cpu(config.shards_parameters(), "sharding", config.sharding, "none");
  return problems;
}

void choose_own_device(TrainConfig& config, int64_t local_rank, int64_t local_size) {
  if (config.computes_on_cpu() || local_size == 1 || config.device.find(':') != std::string::npos) return;
  config.device += join(":", local_rank);
}

void resolve_automatic_values(TrainConfig& config) {
  compute_device(config);
  config.dtype = config.computes_in_bfloat16() ? "bfloat16" : "float32";
  if (config.threads > 0) at::set_num_threads(static_cast<int>(config.threads));
  config.threads = at::get_num_threads();
}

at::ScalarType compute_type(const TrainConfig& config) {
  return config.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

at::Device compute_device(const TrainConfig& config) {
  if (config.computes_on_cpu()) return at::kCPU;
  const at::Device wanted(config.device);
  const std::string kind = c10::DeviceTypeName(wanted.type(), /*lower_case=*/true);
  if (!c10::impl::hasDeviceGuardImpl(wanted.type())) {
    fail_usage("device: found \"", config.device, "\", but the LibTorch that this program was built with has no ", kind,
               ". Build it with one that has: LIBTORCH_ROOT=FOLDER scripts/setup, then scripts/build (README, \"On a ",
               "GPU\"); or set device = cpu");
  }
  const int count = c10::impl::getDeviceGuardImpl(wanted.type())->deviceCount();
  if (count == 0) {
    fail_usage("device: found \"", config.device, "\", but LibTorch sees no ", kind,
               " device on this machine. Check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES, or set device = cpu");
  }
  const int index = wanted.has_index() ? wanted.index() : 0;
  if (index >= count) {
    fail_usage("device: found \"", config.device, "\", but LibTorch sees ", count, " ", kind,
               count == 1 ? " device" : " devices", " on this machine; wanted: ", kind, ":0 to ", kind, ":", count - 1);
  }
  return {wanted.type(), static_cast<at::DeviceIndex>(index)};
}

}  // namespace qat
