#include "model/cpu_instructions.h"

#include <ATen/core/Dict.h>
#include <ATen/cpu/Utils.h>

namespace qat {

namespace {

bool has(const char* instructions) {
  const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto found = capabilities.find(instructions);
  return found != capabilities.end() && found->second.isBool() && found->second.toBool();
}

}  // namespace

bool cpu_multiplies_bfloat16() {
  static const bool multiplies = cpu_multiplies_bfloat16_blocks() || has("arm_bf16");
  return multiplies;
}

bool cpu_multiplies_bfloat16_blocks() {
  static const bool multiplies = has("avx512_bf16") || has("amx_bf16");
  return multiplies;
}

}  // namespace qat
