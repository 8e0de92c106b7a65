#include "exporters/litertlm_constants.h"

#include "core/error.h"

namespace qat {

namespace {

TfliteType type_of(const WeightSpec& weight, const QuantScheme& scheme) {
  if (weight.scale_width % scheme.block_size != 0) {
    fail(weight.name, ": ", weight.scale_width, " values of ", scheme.name, " do not fill whole bytes");
  }
  switch (scheme.id) {
    case Scheme::Int2:
      return TfliteType::Int2;
    case Scheme::Int4:
      return TfliteType::Int4;
    case Scheme::Int8:
      return TfliteType::Int8;
    default:
      fail(weight.name, ": scheme ", scheme.name, " does not exist in .litertlm files");
  }
}

std::vector<int32_t> shape_of(const WeightSpec& weight) {
  return {static_cast<int32_t>(weight.rows()), static_cast<int32_t>(weight.columns())};
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
  streams_.push_back({&weight, Form::Codes, 0, weight.columns(), {{0, *tensor.constant}}});
  known_[weight.name] = {tensor, 0};
  return tensor;
}

TfliteTensor LitertlmConstants::slice(const WeightSpec& weight, int64_t slice) {
  const std::string name = weight.name + "." + std::to_string(slice);
  const auto known = known_.find(name);
  if (known != known_.end()) return known->second.tensor;
  const QuantScheme& scheme = weights_.scheme_of(weight);
  const int64_t width = weight.scale_width, slices = weight.columns() / width;
  TfliteTensor tensor{
      name, type_of(weight, scheme), {static_cast<int32_t>(weight.rows()), static_cast<int32_t>(width)}, {}, {}};
  tensor.constant = reserve(static_cast<uint64_t>(weight.rows() * scheme.row_bytes(width)));
  const auto all_scales = weights_.scales(weight);
  std::vector<float> scales;
  for (int64_t row = 0; row < weight.rows(); ++row)
    scales.push_back(all_scales[static_cast<size_t>(row * slices + slice)]);
  tensor.quantization = quantization(std::move(scales));
  const auto [stream, is_new] = stream_of_.try_emplace(&weight, streams_.size());
  if (is_new) streams_.push_back({&weight, Form::Codes, 0, width, {}});
  streams_[stream->second].slices.emplace_back(slice, *tensor.constant);
  known_[name] = {tensor, 0};
  return tensor;
}

FloatMatrix LitertlmConstants::matrix(const WeightSpec& weight) {
  const auto known = known_.find(weight.name);
  if (known != known_.end()) return known->second;
  const std::optional<int> exponent = half_exponent(weights_, weight);
  const TfliteType type = exponent ? TfliteType::Float16 : TfliteType::Float32;
  FloatMatrix matrix{{weight.name, type, shape_of(weight), {}, {}}, exponent.value_or(0)};
  matrix.tensor.constant = reserve(*tflite_bytes(type, static_cast<uint64_t>(weight.elements())));
  streams_.push_back({&weight,
                      exponent ? Form::Half : Form::Float,
                      matrix.exponent,
                      weight.columns(),
                      {{0, *matrix.tensor.constant}}});
  known_[weight.name] = matrix;
  return matrix;
}

void LitertlmConstants::write(const TfliteLayout& layout, const WriteBytes& write) const {
  write(0, layout.flatbuffer);
  for (const Stream& stream : streams_) {
    std::vector<SlicePlace> places;
    for (const auto& [slice, constant] : stream.slices) places.push_back({slice, layout.offsets[constant]});
    if (stream.form == Form::Codes) write_codes(weights_, *stream.weight, stream.width, places, write);
    if (stream.form == Form::Half) write_halves(weights_, *stream.weight, stream.exponent, places[0].offset, write);
    if (stream.form == Form::Float) write_floats(weights_, *stream.weight, places[0].offset, write);
  }
}

}  // namespace qat
