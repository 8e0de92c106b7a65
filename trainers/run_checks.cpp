#include "trainers/run_checks.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "core/terminal.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

uint64_t checkpoint_bytes(const BaseModel& base) {
  uint64_t bytes = 0;
  if (base.folder() == nullptr) {
    for (const WeightSpec& weight : base.table().weights()) bytes += 2 * static_cast<uint64_t>(weight.elements());
  } else {
    for (const TensorView& tensor : base.folder()->tensors().tensors()) bytes += tensor.bytes.size();
  }
  return bytes;
}

int64_t checksum(const std::vector<TrainedWeight>& weights, const ShardedWeights& sharded) {
  int64_t sum = sharded.checksum();
  for (const TrainedWeight& weight : weights) sum += weight.is_sharded ? 0 : sum_of_bits(weight.parameter);
  return sum;
}

uint64_t existing_bytes(const fs::path& file) {
  std::error_code error;
  const uint64_t size = fs::file_size(file, error);
  return error ? 0 : size;
}

}  // namespace

void check_lengths(const TrainConfig& config, const Gemma4Config& model) {
  if (config.sequence_length <= model.max_positions) return;
  fail_usage("sequence_length: ", config.sequence_length, " is more than the ", model.max_positions,
             " positions of the model in ", config.model);
}

void check_group(const TrainConfig& config, const TrainingData& data, const ProcessGroup& group) {
  if (group.size() == 1) return;
  if (config.gradient_accumulation % group.size() != 0) {
    fail_usage(
        "gradient_accumulation: the ", config.gradient_accumulation,
        " forward passes of an optimizer step cannot be shared alike by ", group.size(),
        " processes. Start a number of processes that divides it, or choose another gradient_accumulation for a ",
        "new run");
  }
  const int64_t rows = data.source().rows_in_epoch();
  const int64_t taken = config.micro_batch_sequences * group.size();
  if (rows < taken) {
    fail("the data fill ", rows, " rows of ", config.sequence_length, " tokens, fewer than the ", taken, " that ",
         group.size(), " processes take at a time; use fewer processes, shorter sequences or more data");
  }
}

int64_t sum_of_bits(const at::Tensor& values) {
  const at::ScalarType bits = values.element_size() == 2 ? at::kShort : at::kInt;
  return values.detach().view(bits).sum(at::kLong).item<int64_t>();
}

void check_same_settings(const TrainConfig& config, ProcessGroup& group) {
  if (group.size() == 1) return;
  TrainConfig of_run = config;
  of_run.out = "";
  of_run.threads = 0;
  of_run.device = of_run.device.substr(0, of_run.device.find(':'));  // each has its own
  const std::string settings = of_run.to_json().dump();
  const std::string first = group.from_first(settings);
  if (settings != first) {
    std::string message;
    for (const std::string& field : changed_fields(nlohmann::ordered_json::parse(first), of_run.to_json())) {
      message += "\n  " + field;
    }
    fail_usage("the configuration is not that of rank 0 (before: rank 0, now: this one):", message);
  }
}

void check_same_start(const TrainingData& data, const std::vector<TrainedWeight>& weights,
                      const ShardedWeights& sharded, ProcessGroup& group) {
  if (group.size() == 1) return;
  const auto compare = [&](const char* what, const std::string& mine) {
    const std::string wanted = group.from_first(mine);
    if (mine != wanted) fail_usage("the ", what, " are not those of rank 0: found ", mine, ", wanted ", wanted);
  };
  const BatchSource& source = data.source();
  compare("training data", join(source.example_count(), " documents in ", source.rows_in_epoch(), " rows with ",
                                source.trained_tokens_per_epoch(), " trained tokens"));
  compare("weights to start from", join("checksum ", checksum(weights, sharded)));
}

void check_disk_space(const TrainConfig& config, const RunFolder& folder, const BaseModel& base,
                      const Optimizer& optimizer) {
  // A state is replaced only when the new one is complete, so two exist for a while; so do two of each checkpoint kind.
  const uint64_t state = optimizer.state_bytes();
  const uint64_t checkpoints =
      2 + static_cast<uint64_t>(config.checkpoint.keep_last) + (config.checkpoint.keep_best ? 1 : 0);
  const uint64_t wanted = 2 * state + checkpoints * checkpoint_bytes(base);
  const uint64_t there = existing_bytes(folder.state());
  std::error_code error;
  const fs::space_info space = fs::space(folder.path(), error);
  if (error || space.available + there >= wanted) return;
  fail(folder.path().string(), ": the run needs about ", format_bytes(static_cast<double>(wanted)), " of disk (state ",
       format_bytes(static_cast<double>(state)), " twice, ", checkpoints, " checkpoints), ",
       format_bytes(static_cast<double>(space.available)),
       " are free. Free some, lower checkpoint.keep_last, or choose another folder (out=FOLDER)");
}

void check_same_config(const TrainConfig& config, const TrainState& state) {
  const auto before = nlohmann::ordered_json::parse(state.config, nullptr, /*allow_exceptions=*/false);
  if (before.is_discarded()) fail(config.out, "/state.h5: its configuration is no JSON: the file is damaged");
  std::string message;
  for (const std::string& field : changed_fields(before, config.to_json())) message += "\n  " + field;
  if (!message.empty()) {
    fail_usage(config.out,
               ": the run was started with other settings; undo these changes, or start a new run elsewhere:", message);
  }
  if (state.step > config.steps) {
    fail_usage(config.out, ": the run has done ", state.step, " steps, more than steps = ", config.steps);
  }
}

}  // namespace qat
