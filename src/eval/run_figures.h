// What a run's metrics.jsonl says, in the form that its report needs: one pass over the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "eval/metric_series.h"

namespace qat {

// What one quantizer loses on held-out data, from the first evaluation to the last.
struct QuantizerFigures {
  double first_signal_to_noise = 0;  // dB
  double signal_to_noise = 0;        // dB
  double clipping_rate = 0;
  double codes_changed = 0;  // share of codes that changed since the evaluation before; NaN where none are compared
};

struct RunFigures {
  int64_t step = 0;  // the last one
  // Over the step.
  Series loss, learning_rate, gradient_norm, tokens, trained_tokens, tokens_per_second, seconds, peak_memory;
  // Over the step, at evaluations.
  Series held_out_loss, kl, codes_changed, codes_returned;
  int64_t best_step = -1;  // the last evaluation that was the best so far
  std::map<std::string, QuantizerFigures> quantizers;
};

RunFigures read_run_figures(const std::filesystem::path& metrics_file);

}  // namespace qat
