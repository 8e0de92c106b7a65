#include "trainers/compute_settings.h"

#include <ATen/Parallel.h>

namespace qat {

void resolve_automatic_values(TrainConfig& config) {
  config.dtype = config.computes_in_bfloat16() ? "bfloat16" : "float32";
  if (config.threads > 0) at::set_num_threads(static_cast<int>(config.threads));
  config.threads = at::get_num_threads();
}

at::ScalarType compute_type(const TrainConfig& config) {
  return config.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

}  // namespace qat
