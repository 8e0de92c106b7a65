#include "gemma4/witness.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <string_view>

#include "core/error.h"
#include "core/json.h"
#include "io/safetensors.h"

namespace qat {

namespace {

constexpr std::string_view kKeyCache = "key_cache.";
constexpr std::string_view kValueCache = "value_cache.";
constexpr std::string_view kEdge = "codes.";

// The bytes of "key_cache.3" and the like go to the layer in the name.
void read_cache(const TensorView& tensor, const std::string& where, std::map<int64_t, WitnessCache>& caches) {
  for (const bool is_key : {true, false}) {
    const std::string_view prefix = is_key ? kKeyCache : kValueCache;
    if (!tensor.name.starts_with(prefix)) continue;
    int64_t layer = -1;
    const char* end = tensor.name.data() + tensor.name.size();
    const auto [stop, error] = std::from_chars(tensor.name.data() + prefix.size(), end, layer);
    if (error != std::errc() || stop != end || layer < 0 || tensor.type != ElementType::U8) {
      fail(where, ": tensor \"", tensor.name, "\" is damaged; train or quantize again");
    }
    auto& target = is_key ? caches[layer].keys : caches[layer].values;
    target.assign(tensor.bytes.begin(), tensor.bytes.end());
  }
}

void read_edge(const TensorView& tensor, const std::string& where, Witness& witness) {
  if (!tensor.name.starts_with(kEdge)) return;
  if (tensor.type != ElementType::I8) fail(where, ": tensor \"", tensor.name, "\" is damaged; train or quantize again");
  const auto* codes = reinterpret_cast<const int8_t*>(tensor.bytes.data());
  witness.edges[tensor.name.substr(kEdge.size())].assign(codes, codes + tensor.bytes.size());
}

template <class T>
std::span<const T> values_of(const SafetensorsSource& source, const char* name, ElementType type, size_t count) {
  const TensorView* tensor = source.find(name);
  if (tensor == nullptr || tensor->type != type || static_cast<size_t>(tensor->elements()) != count) {
    fail(source.where(), ": is no witness: tensor \"", name,
         "\" is missing or has another size; train or quantize again");
  }
  return {reinterpret_cast<const T*>(tensor->bytes.data()), count};
}

}  // namespace

std::string differing_parts(const WeightDigest& a, const WeightDigest& b) {
  std::string parts;
  const auto add = [&](bool differs, const char* name) {
    if (differs) parts += (parts.empty() ? "" : ", ") + std::string(name);
  };
  add(a.codes != b.codes, "codes");
  add(a.scales != b.scales, "scales");
  add(a.values != b.values, "the matrix that the forward pass read");
  return parts;
}

WitnessPosition witness_position(std::span<const float> logits) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto count = std::min<size_t>(kWitnessTopLogits, logits.size());
  const auto larger = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(), larger);

  WitnessPosition position;
  for (size_t i = 0; i < count; ++i) {
    position.top_tokens.push_back(order[i]);
    position.top_logits.push_back(logits[static_cast<size_t>(order[i])]);
  }
  const double largest = position.top_logits.front();
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  position.log_sum_exp = static_cast<float>(largest + std::log(sum));
  return position;
}

void Witness::save(const std::filesystem::path& file) const {
  nlohmann::json digest_json = nlohmann::json::object();
  for (const auto& [name, digest] : digests) {
    digest_json[name] = {{"codes", digest.codes}, {"scales", digest.scales}, {"values", digest.values}};
  }

  std::vector<int32_t> lengths;
  std::vector<int32_t> tokens;
  std::vector<int32_t> top_tokens;
  std::vector<float> top_logits;
  std::vector<float> log_sum_exp;
  for (const WitnessPrompt& prompt : prompts) {
    QAT_CHECK(prompt.positions.size() == prompt.tokens.size());
    lengths.push_back(static_cast<int32_t>(prompt.tokens.size()));
    tokens.insert(tokens.end(), prompt.tokens.begin(), prompt.tokens.end());
    for (const WitnessPosition& position : prompt.positions) {
      top_tokens.insert(top_tokens.end(), position.top_tokens.begin(), position.top_tokens.end());
      top_logits.insert(top_logits.end(), position.top_logits.begin(), position.top_logits.end());
      log_sum_exp.push_back(position.log_sum_exp);
    }
  }
  const auto positions = static_cast<int64_t>(tokens.size());
  const int64_t top = positions == 0 ? 0 : static_cast<int64_t>(top_tokens.size()) / positions;

  SafetensorsWriter writer(file);
  writer.set_metadata({{"format", "gemma-qat witness 1"}, {"digests", digest_json.dump()}});
  writer.declare("prompt_lengths", ElementType::I32, {static_cast<int64_t>(lengths.size())});
  writer.declare("tokens", ElementType::I32, {positions});
  writer.declare("top_tokens", ElementType::I32, {positions, top});
  writer.declare("top_logits", ElementType::F32, {positions, top});
  writer.declare("log_sum_exp", ElementType::F32, {positions});
  for (const auto& [layer, cache] : caches) {
    writer.declare(join(kKeyCache, layer), ElementType::U8, {static_cast<int64_t>(cache.keys.size())});
    writer.declare(join(kValueCache, layer), ElementType::U8, {static_cast<int64_t>(cache.values.size())});
  }
  for (const auto& [name, codes] : edges) {
    writer.declare(join(kEdge, name), ElementType::I8, {static_cast<int64_t>(codes.size())});
  }
  writer.write(std::as_bytes(std::span(lengths)));
  writer.write(std::as_bytes(std::span(tokens)));
  writer.write(std::as_bytes(std::span(top_tokens)));
  writer.write(std::as_bytes(std::span(top_logits)));
  writer.write(std::as_bytes(std::span(log_sum_exp)));
  for (const auto& [layer, cache] : caches) {
    writer.write(cache.keys);
    writer.write(cache.values);
  }
  for (const auto& [name, codes] : edges) writer.write(std::as_bytes(std::span(codes)));
  writer.commit();
}

Witness Witness::load(const std::filesystem::path& file) {
  const SafetensorsSource source(file);
  const auto& metadata = source.metadata();
  const auto format = metadata.find("format");
  if (format == metadata.end() || format->second != "gemma-qat witness 1" || !metadata.contains("digests")) {
    fail(file.string(), ": is no witness of format 1; train or quantize again");
  }
  Witness witness;
  const auto digests = parse_json(metadata.at("digests"), file.string() + ": digests");
  for (const auto& item : digests.items()) {
    const auto part = [&](const char* name) {
      const auto& entry = item.value();
      if (!entry.is_object() || !entry.contains(name) || !entry[name].is_string()) {
        fail(file.string(), ": digest of ", item.key(), " is damaged");
      }
      return entry[name].get<std::string>();
    };
    witness.digests[item.key()] = {part("codes"), part("scales"), part("values")};
  }

  for (const TensorView& tensor : source.tensors()) {
    read_cache(tensor, file.string(), witness.caches);
    read_edge(tensor, file.string(), witness);
  }

  const TensorView* lengths_view = source.find("prompt_lengths");
  const TensorView* top_view = source.find("top_tokens");
  if (lengths_view == nullptr || top_view == nullptr || top_view->shape.size() != 2) {
    fail(file.string(), ": is no witness: tensors are missing");
  }
  const auto lengths =
      values_of<int32_t>(source, "prompt_lengths", ElementType::I32, static_cast<size_t>(lengths_view->elements()));
  int64_t total = 0;
  for (const int32_t length : lengths) {
    if (length < 1 || length > kWitnessPositions) fail(file.string(), ": prompt of ", length, " tokens");
    total += length;
  }
  const auto positions = static_cast<size_t>(total);
  const auto top = static_cast<size_t>(top_view->shape[1]);
  const auto tokens = values_of<int32_t>(source, "tokens", ElementType::I32, positions);
  const auto top_tokens = values_of<int32_t>(source, "top_tokens", ElementType::I32, positions * top);
  const auto top_logits = values_of<float>(source, "top_logits", ElementType::F32, positions * top);
  const auto log_sum_exp = values_of<float>(source, "log_sum_exp", ElementType::F32, positions);

  size_t next = 0;
  for (const int32_t length : lengths) {
    WitnessPrompt prompt;
    for (int32_t i = 0; i < length; ++i, ++next) {
      const auto ids = top_tokens.subspan(next * top, top);
      const auto logits = top_logits.subspan(next * top, top);
      prompt.tokens.push_back(tokens[next]);
      prompt.positions.push_back({{ids.begin(), ids.end()}, {logits.begin(), logits.end()}, log_sum_exp[next]});
    }
    witness.prompts.push_back(std::move(prompt));
  }
  return witness;
}

}  // namespace qat
