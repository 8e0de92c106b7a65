#include "exporters/mobile_checkpoint.h"

#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "quant/magnitude.h"
#include "quant/row_codec.h"

namespace qat {

namespace {

std::span<const BFloat16> rows_of(const TensorView& master, const WeightSpec& weight, int64_t first_row, int64_t rows) {
  const int64_t columns = weight.columns();
  const auto bytes =
      master.bytes.subspan(static_cast<size_t>(first_row * columns * 2), static_cast<size_t>(rows * columns * 2));
  return {reinterpret_cast<const BFloat16*>(bytes.data()), static_cast<size_t>(rows * columns)};
}

void check_finite(std::span<const BFloat16> values, const WeightSpec& weight, int64_t first_row) {
  if (std::isfinite(largest_magnitude(values))) return;
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(to_float(values[i]))) continue;
    const auto columns = static_cast<size_t>(weight.columns());
    fail("weight ", weight.name, ": its value at row ", first_row + static_cast<int64_t>(i / columns), ", column ",
         i % columns, " is ", to_float(values[i]), "; the checkpoint is damaged");
  }
}

}  // namespace

MobileCheckpoint::MobileCheckpoint(const ModelFolder& folder) : folder_(folder) {
  const std::string where = folder.path().string();
  if (!folder.plan()) {
    fail(where,
         ": has no quantization.json: it is no quantized checkpoint. Train or quantize it with a mobile plan first");
  }
  const ResolvedPlan& plan = *folder.plan();
  std::string problems;
  const auto add = [&](const auto&... parts) { problems += "\n  " + join(parts...); };
  if (plan.key_value_cache == Scheme::Q8_0) add("kv_cache: q8_0 is llama.cpp's; mobile formats have int8 or none");
  for (const WeightSpec& weight : folder.table().weights()) {
    const QuantScheme& row = scheme(plan.of(weight.name).scheme);
    const bool is_vector = !is_matrix(weight.role);
    if (!is_vector && !row.has_row_scales() && row.id != Scheme::BF16) {
      add(weight.name, ": ", row.name, " is no scheme of the mobile format (int2, int4, int8, bf16)");
    }
    if (folder.masters().of(weight).type != ElementType::BF16) {
      add(weight.name, ": its master is ", element_name(folder.masters().of(weight).type), ", wanted is BF16");
    }
  }
  if (!problems.empty()) fail(where, ": plan \"", plan.name, "\" cannot be exported in a mobile format:", problems);
}

const QuantScheme& MobileCheckpoint::scheme_of(const WeightSpec& weight) const {
  return is_matrix(weight.role) ? scheme(folder_.plan()->of(weight.name).scheme) : scheme(Scheme::F32);
}

std::span<const float> MobileCheckpoint::scales(const WeightSpec& weight) const {
  return folder_.row_scales(weight.name);
}

void MobileCheckpoint::codes(const WeightSpec& weight, int64_t first_row, int64_t rows, std::span<int8_t> codes) const {
  const auto master = rows_of(folder_.masters().of(weight), weight, first_row, rows);
  check_finite(master, weight, first_row);
  const auto per_row = static_cast<size_t>(weight.columns() / weight.scale_width);
  const auto part =
      scales(weight).subspan(static_cast<size_t>(first_row) * per_row, static_cast<size_t>(rows) * per_row);
  encode_groups(scheme_of(weight).id, master, part, weight.scale_width, codes);
  folder_.tensors().release(std::as_bytes(master));
}

void MobileCheckpoint::values(const WeightSpec& weight, int64_t first_row, int64_t rows,
                              std::span<float> values) const {
  const auto master = rows_of(folder_.masters().of(weight), weight, first_row, rows);
  QAT_CHECK(values.size() == master.size());
  check_finite(master, weight, first_row);
  for (size_t i = 0; i < master.size(); ++i) values[i] = to_float(master[i]);
}

LinearScales MobileCheckpoint::linear_scales(const WeightSpec& weight) const {
  return folder_.static_scales().of_linear(weight.name);
}

CacheScales MobileCheckpoint::cache_scales(int64_t layer) const { return folder_.static_scales().of_cache(layer); }

}  // namespace qat
