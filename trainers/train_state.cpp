#include "trainers/train_state.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <array>
#include <bit>

#include "core/error.h"
#include "fake_quant/tensor_values.h"
#include "io/hdf5.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

constexpr int64_t kFormat = 3;

void write_number(Hdf5Writer& writer, const char* name, int64_t value) { writer.write(name, {&value, 1}); }

int64_t read_number(const Hdf5Reader& reader, const char* name) {
  int64_t value = 0;
  reader.read(name, std::span(&value, 1));
  return value;
}

// FP32 tensors as numbers, others (codes, BF16) as their bytes.
void write_tensor(Hdf5Writer& writer, const StateArray& array) {
  const at::Tensor values = on_cpu(array.values);
  if (values.scalar_type() == at::kFloat) {
    writer.write(array.name, values_of<const float>(values));
  } else {
    writer.write(array.name, std::span<const std::byte>(bytes_of(values)));
  }
}

void read_tensor(const Hdf5Reader& reader, const StateArray& array) {
  const at::Tensor values = on_cpu(array.values);
  if (values.scalar_type() == at::kFloat) {
    reader.read(array.name, values_of<float>(values));
  } else {
    reader.read(array.name, bytes_of(values));
  }
  if (!values.is_same(array.values)) array.values.copy_(values);
}

void write_codes(Hdf5Writer& writer, const CodeHistory& codes) {
  for (const auto& [name, sample] : codes.samples()) {
    writer.write("codes/now/" + name, std::as_bytes(std::span(sample.now)));
    writer.write("codes/before/" + name, std::as_bytes(std::span(sample.before)));
  }
}

void read_codes(const Hdf5Reader& reader, CodeHistory& codes) {
  for (const std::string& name : reader.names_in("codes/now")) {
    CodeHistory::Sample& sample = codes.samples()[name];
    for (const auto& [group, values] :
         {std::pair("codes/now/", &sample.now), std::pair("codes/before/", &sample.before)}) {
      values->resize(reader.elements(group + name));
      reader.read(group + name, std::as_writable_bytes(std::span(*values)));
    }
    if (sample.now.size() != sample.before.size()) fail("codes/before/", name, ": is not as long as codes/now/", name);
  }
}

void read_scale_starts(const fs::path& file, FakeQuantSet& fake_quant) {
  const Hdf5Reader reader(file);
  for (LearnedScale* scale : fake_quant.scales()) {
    const int64_t count = scale->is_set() ? scale->start().numel() : 1;
    const at::Tensor start = at::empty({count}, at::kFloat);
    reader.read("scale_starts/" + scale->name(), values_of<float>(start));
    scale->set_start(start, scale->is_given());
  }
}

}  // namespace

void save_state(const fs::path& file, const TrainState& state, const Optimizer& optimizer, FakeQuantSet& fake_quant,
                const ProcessGroup& group) {
  if (!group.is_first()) {
    optimizer.write_state({});
    return;
  }
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
  optimizer.write_state([&](const StateArray& array) { write_tensor(writer, array); });
  write_codes(writer, state.codes);
  for (const LearnedScale* scale : fake_quant.scales()) {
    const at::Tensor start = on_cpu(scale->start());
    writer.write("scale_starts/" + scale->name(), values_of<const float>(start));
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
  read_codes(reader, state.codes);
  state.config = reader.read_text("config");
  return state;
}

TrainState from_first(ProcessGroup& group, TrainState state) {
  std::array<int64_t, 7> numbers{state.step,          state.data.epoch,
                                 state.data.row,      state.metrics_lines,
                                 state.evaluated_step, state.best_step,
                                 std::bit_cast<int64_t>(state.best_metric)};
  group.copy_from_first(at::from_blob(numbers.data(), {std::ssize(numbers)}, at::kLong));
  state.step = numbers[0];
  state.data = {numbers[1], numbers[2]};
  state.metrics_lines = numbers[3];
  state.evaluated_step = numbers[4];
  state.best_step = numbers[5];
  state.best_metric = std::bit_cast<double>(numbers[6]);
  state.config = group.from_first(state.config);
  return state;
}

void load_scale_starts(const fs::path& file, FakeQuantSet& fake_quant, ProcessGroup& group) {
  if (group.is_first()) read_scale_starts(file, fake_quant);
  share_scale_starts(fake_quant, group);
}

void share_scale_starts(FakeQuantSet& fake_quant, ProcessGroup& group) {
  if (group.size() == 1) return;
  for (LearnedScale* scale : fake_quant.scales()) {
    const at::Tensor start = scale->is_set() ? scale->start().clone() : at::empty({1}, at::kFloat);
    group.copy_from_first(start);
    scale->set_start(start, scale->is_given());
  }
}

void load_optimizer(const fs::path& file, const TrainState& state, Optimizer& optimizer, const ProcessGroup& group) {
  if (group.is_first()) {
    const Hdf5Reader reader(file);
    const size_t found = reader.names_in("masters").size();
    const size_t wanted = optimizer.weights().size();
    if (found != wanted) fail(file.string(), ": holds ", found, " trained weights, this run trains ", wanted);
    optimizer.read_state([&](const StateArray& array) { read_tensor(reader, array); });
  } else {
    optimizer.read_state({});
  }
  optimizer.restored(state.step);
}

}  // namespace qat
