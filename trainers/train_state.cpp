#include "trainers/train_state.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.h"
#include "io/hdf5.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

constexpr int64_t kFormat = 2;

std::span<const float> values_of(const at::Tensor& tensor) {
  QAT_CHECK(tensor.is_contiguous());
  return {tensor.const_data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

std::span<float> values_of_mutable(const at::Tensor& tensor) {
  QAT_CHECK(tensor.is_contiguous());
  return {tensor.mutable_data_ptr<float>(), static_cast<size_t>(tensor.numel())};
}

void write_number(Hdf5Writer& writer, const char* name, int64_t value) { writer.write(name, {&value, 1}); }

int64_t read_number(const Hdf5Reader& reader, const char* name) {
  int64_t value = 0;
  reader.read(name, std::span(&value, 1));
  return value;
}

// The three groups of tensors of a state, by name.
std::array<std::pair<const char*, const std::vector<at::Tensor>*>, 3> groups(const AdamW::State& state) {
  return {{{"masters/", &state.masters},
           {"first_moments/", &state.first_moments},
           {"second_moments/", &state.second_moments}}};
}

}  // namespace

void save_state(const fs::path& file, const TrainState& state, const AdamW& optimizer,
                FakeQuantSet& fake_quant) {
  Hdf5Writer writer(file);
  write_number(writer, "format", kFormat);
  write_number(writer, "step", state.step);
  const std::array<int64_t, 2> position{state.data.epoch, state.data.row};
  writer.write("data_position", position);
  write_number(writer, "metrics_lines", state.metrics_lines);
  write_number(writer, "evaluated_step", state.evaluated_step);
  write_number(writer, "best_step", state.best_step);
  writer.write("best_metric", std::span<const double>(&state.best_metric, 1));
  writer.write_text("config", state.config);
  for (const auto& [group, tensors] : groups(optimizer.state())) {
    for (size_t i = 0; i < tensors->size(); ++i) {
      writer.write(group + optimizer.weights()[i].name, values_of((*tensors)[i]));
    }
  }
  for (const LearnedScale* scale : fake_quant.scales()) {
    writer.write("scale_starts/" + scale->name(), values_of(scale->start()));
  }
  writer.commit();
}

TrainState load_state(const fs::path& file) {
  const Hdf5Reader reader(file);
  const int64_t format = read_number(reader, "format");
  if (format != kFormat) fail(file.string(), ": has format ", format, ", this program reads ", kFormat);
  TrainState state;
  state.step = read_number(reader, "step");
  std::array<int64_t, 2> position{};
  reader.read("data_position", position);
  state.data = {position[0], position[1]};
  state.metrics_lines = read_number(reader, "metrics_lines");
  state.evaluated_step = read_number(reader, "evaluated_step");
  state.best_step = read_number(reader, "best_step");
  reader.read("best_metric", std::span<double>(&state.best_metric, 1));
  state.config = reader.read_text("config");
  return state;
}

void load_scale_starts(const fs::path& file, FakeQuantSet& fake_quant) {
  const Hdf5Reader reader(file);
  for (LearnedScale* scale : fake_quant.scales()) {
    const int64_t count = scale->is_set() ? scale->start().numel() : 1;
    const at::Tensor start = at::empty({count}, at::kFloat);
    reader.read("scale_starts/" + scale->name(), values_of_mutable(start));
    scale->set_start(start, scale->is_given());
  }
}

void load_optimizer(const fs::path& file, const TrainState& state, AdamW& optimizer) {
  const Hdf5Reader reader(file);
  const auto& weights = optimizer.weights();
  const size_t found = reader.names_in("masters").size();
  if (found != weights.size()) {
    fail(file.string(), ": holds ", found, " trained weights, this run trains ", weights.size());
  }
  for (const auto& [group, tensors] : groups(optimizer.state())) {
    for (size_t i = 0; i < weights.size(); ++i) {
      reader.read(group + weights[i].name, values_of_mutable((*tensors)[i]));
    }
  }
  optimizer.restored(state.step);
}

uint64_t state_bytes(int64_t trained_values) { return 12 * static_cast<uint64_t>(trained_values); }

}  // namespace qat
