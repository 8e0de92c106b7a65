#include "exporters/litertlm_constants.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/float_types.h"
#include "quant/packing.h"

namespace qat {

namespace {

constexpr int64_t kPieceValues = int64_t{4} << 20;

int64_t piece_rows(const WeightSpec& weight) {
  return std::clamp<int64_t>(kPieceValues / weight.columns(), 1, weight.rows());
}

TfliteType type_of(const WeightSpec& weight, const QuantScheme& scheme) {
  if (weight.scale_width % scheme.block_size != 0) {
    fail(weight.name, ": ", weight.scale_width, " values of ", scheme.name, " do not fill whole bytes");
  }
  switch (scheme.id) {
    case Scheme::Int2: return TfliteType::Int2;
    case Scheme::Int4: return TfliteType::Int4;
    case Scheme::Int8: return TfliteType::Int8;
    default: fail(weight.name, ": scheme ", scheme.name, " does not exist in .litertlm files");
  }
}

std::vector<int32_t> shape_of(const WeightSpec& weight) {
  return {static_cast<int32_t>(weight.rows()), static_cast<int32_t>(weight.columns())};
}

// The lowest bit of a BF16 number that is set: value = odd * 2^(this).
int lowest_bit(float value) {
  int exponent = 0;
  auto digits = static_cast<int64_t>(std::ldexp(std::frexp(value, &exponent), 24));
  exponent -= 24;
  for (; digits % 2 == 0; digits /= 2) ++exponent;
  return exponent;
}

}  // namespace

uint32_t LitertlmConstants::reserve(uint64_t bytes) {
  model_.constants.push_back({bytes, {}});
  return static_cast<uint32_t>(model_.constants.size() - 1);
}

uint32_t LitertlmConstants::quantization(std::vector<float> scales) {
  model_.quantizations.push_back(std::move(scales));
  return static_cast<uint32_t>(model_.quantizations.size() - 1);
}

TfliteTensor LitertlmConstants::small(const std::string& name, TfliteType type, std::vector<int32_t> shape,
                                      std::span<const std::byte> bytes) {
  const auto known = known_.find(name);
  if (known != known_.end()) return known->second.tensor;
  model_.constants.push_back({bytes.size(), {bytes.begin(), bytes.end()}});
  TfliteTensor tensor{name, type, std::move(shape), static_cast<uint32_t>(model_.constants.size() - 1), {}};
  known_[name] = {tensor, 0};
  return tensor;
}

TfliteTensor LitertlmConstants::floats(const std::string& name, std::vector<int32_t> shape,
                                       std::span<const float> values) {
  return small(name, TfliteType::Float32, std::move(shape), std::as_bytes(values));
}

TfliteTensor LitertlmConstants::integers(const std::string& name, std::vector<int32_t> shape,
                                         std::span<const int32_t> values) {
  return small(name, TfliteType::Int32, std::move(shape), std::as_bytes(values));
}

TfliteTensor LitertlmConstants::vector(const WeightSpec& weight, double offset) {
  const auto known = known_.find(weight.name);
  if (known != known_.end()) return known->second.tensor;
  std::vector<float> values(static_cast<size_t>(weight.elements()));
  weights_.values(weight, 0, weight.rows(), values);
  for (float& value : values) value = static_cast<float>(offset + value);
  return floats(weight.name, {static_cast<int32_t>(weight.elements())}, values);
}

TfliteTensor LitertlmConstants::codes(const WeightSpec& weight) {
  const auto known = known_.find(weight.name);
  if (known != known_.end()) return known->second.tensor;
  const QuantScheme& scheme = weights_.scheme_of(weight);
  TfliteTensor tensor{weight.name, type_of(weight, scheme), shape_of(weight), {}, {}};
  tensor.constant = reserve(static_cast<uint64_t>(weight.rows() * scheme.row_bytes(weight.columns())));
  const auto scales = weights_.scales(weight);
  tensor.quantization = quantization({scales.begin(), scales.end()});
  streams_.push_back({&weight, Form::Codes, 0, {{0, *tensor.constant}}});
  known_[weight.name] = {tensor, 0};
  return tensor;
}

TfliteTensor LitertlmConstants::slice(const WeightSpec& weight, int64_t slice) {
  const std::string name = weight.name + "." + std::to_string(slice);
  const auto known = known_.find(name);
  if (known != known_.end()) return known->second.tensor;
  const QuantScheme& scheme = weights_.scheme_of(weight);
  const int64_t width = weight.scale_width, slices = weight.columns() / width;
  TfliteTensor tensor{name, type_of(weight, scheme), {static_cast<int32_t>(weight.rows()), static_cast<int32_t>(width)}, {}, {}};
  tensor.constant = reserve(static_cast<uint64_t>(weight.rows() * scheme.row_bytes(width)));
  const auto all_scales = weights_.scales(weight);
  std::vector<float> scales;
  for (int64_t row = 0; row < weight.rows(); ++row) scales.push_back(all_scales[static_cast<size_t>(row * slices + slice)]);
  tensor.quantization = quantization(std::move(scales));
  const auto [stream, is_new] = stream_of_.try_emplace(&weight, streams_.size());
  if (is_new) streams_.push_back({&weight, Form::Codes, 0, {}});
  streams_[stream->second].slices.emplace_back(slice, *tensor.constant);
  known_[name] = {tensor, 0};
  return tensor;
}

// The exponent that brings every value into float16's range, 0 if that does; nothing if some value is not exact there.
std::optional<int> LitertlmConstants::half_exponent(const WeightSpec& weight) const {
  constexpr int kHalfDigits = 11, kHalfLargestExponent = 16, kHalfLowestBit = -24;
  int largest = INT32_MIN, lowest = INT32_MAX;
  std::vector<float> values;
  const int64_t piece = piece_rows(weight);
  for (int64_t row = 0; row < weight.rows(); row += piece) {
    const int64_t rows = std::min(piece, weight.rows() - row);
    values.resize(static_cast<size_t>(rows * weight.columns()));
    weights_.values(weight, row, rows, values);
    for (const float value : values) {
      if (value == 0) continue;
      int exponent = 0;
      std::frexp(value, &exponent);
      const int lowest_of_value = lowest_bit(value);
      if (exponent - lowest_of_value > kHalfDigits) return std::nullopt;
      largest = std::max(largest, exponent);
      lowest = std::min(lowest, lowest_of_value);
    }
  }
  if (largest == INT32_MIN) return 0;
  if (largest - lowest > kHalfLargestExponent - kHalfLowestBit) return std::nullopt;
  return largest <= kHalfLargestExponent && lowest >= kHalfLowestBit ? 0 : kHalfLargestExponent - largest;
}

FloatMatrix LitertlmConstants::matrix(const WeightSpec& weight) {
  const auto known = known_.find(weight.name);
  if (known != known_.end()) return known->second;
  const std::optional<int> exponent = half_exponent(weight);
  const TfliteType type = exponent ? TfliteType::Float16 : TfliteType::Float32;
  FloatMatrix matrix{{weight.name, type, shape_of(weight), {}, {}}, exponent.value_or(0)};
  matrix.tensor.constant = reserve(*tflite_bytes(type, static_cast<uint64_t>(weight.elements())));
  streams_.push_back({&weight, exponent ? Form::Half : Form::Float, matrix.exponent, {{0, *matrix.tensor.constant}}});
  known_[weight.name] = matrix;
  return matrix;
}

void LitertlmConstants::write_codes(const Stream& stream, const TfliteLayout& layout, const Write& write) const {
  const WeightSpec& weight = *stream.weight;
  const QuantScheme& scheme = weights_.scheme_of(weight);
  const int64_t columns = weight.columns(), piece = piece_rows(weight);
  // Without slices the whole row is the one slice.
  const bool sliced = stream_of_.contains(&weight);
  const int64_t width = sliced ? weight.scale_width : columns;
  const int64_t slice_bytes = scheme.row_bytes(width);
  std::vector<int8_t> codes, part;
  std::vector<std::byte> packed;
  for (int64_t first = 0; first < weight.rows(); first += piece) {
    const int64_t rows = std::min(piece, weight.rows() - first);
    codes.resize(static_cast<size_t>(rows * columns));
    weights_.codes(weight, first, rows, codes);
    packed.resize(static_cast<size_t>(rows * slice_bytes));
    for (const auto& [slice, constant] : stream.slices) {
      part.resize(static_cast<size_t>(rows * width));
      for (int64_t row = 0; row < rows; ++row) {
        std::copy_n(codes.begin() + row * columns + slice * width, width, part.begin() + row * width);
      }
      pack_codes(scheme.id, CodeBytes::TwosComplement, part, packed);
      write(layout.offsets[constant] + static_cast<uint64_t>(first * slice_bytes), packed);
    }
  }
}

void LitertlmConstants::write_values(const Stream& stream, const TfliteLayout& layout, const Write& write) const {
  const WeightSpec& weight = *stream.weight;
  const int64_t piece = piece_rows(weight);
  const uint64_t offset = layout.offsets[stream.slices.front().second];
  std::vector<float> values;
  std::vector<Float16> halves;
  for (int64_t first = 0; first < weight.rows(); first += piece) {
    const int64_t rows = std::min(piece, weight.rows() - first);
    values.resize(static_cast<size_t>(rows * weight.columns()));
    weights_.values(weight, first, rows, values);
    const auto begin = static_cast<uint64_t>(first * weight.columns());
    if (stream.form == Form::Float) {
      write(offset + begin * sizeof(float), std::as_bytes(std::span(values)));
      continue;
    }
    halves.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) halves[i] = to_float16(std::ldexp(values[i], stream.exponent));
    write(offset + begin * sizeof(Float16), std::as_bytes(std::span(halves)));
  }
}

void LitertlmConstants::write(const TfliteLayout& layout, const Write& write) const {
  write(0, layout.flatbuffer);
  for (const Stream& stream : streams_) {
    stream.form == Form::Codes ? write_codes(stream, layout, write) : write_values(stream, layout, write);
  }
}

}  // namespace qat
