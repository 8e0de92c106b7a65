#include "exporters/gguf_tensor_stream.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "core/terminal.h"
#include "quant/block_codec.h"
#include "quant/magnitude.h"

namespace qat {

namespace {

// Values that a thread converts at a time: 512 KiB of BF16, which stay in its cache until their blocks are written. A
// whole number of blocks of every scheme.
constexpr int64_t kPieceValues = int64_t{1} << 18;

struct Piece {
  size_t weight;
  int64_t first;  // value
  int64_t count;
};

// Weight and position of the pieces, numbered through.
class Pieces {
 public:
  explicit Pieces(const std::vector<ExportedWeight>& weights) {
    for (const ExportedWeight& weight : weights) {
      starts_.push_back(total_);
      elements_.push_back(weight.spec->elements());
      total_ += (elements_.back() + kPieceValues - 1) / kPieceValues;
    }
  }
  int64_t count() const { return total_; }
  Piece operator[](int64_t number) const {
    const auto after = std::upper_bound(starts_.begin(), starts_.end(), number);
    const auto weight = static_cast<size_t>(after - starts_.begin()) - 1;
    const int64_t first = (number - starts_[weight]) * kPieceValues;
    return {weight, first, std::min(kPieceValues, elements_[weight] - first)};
  }

 private:
  std::vector<int64_t> starts_;
  std::vector<int64_t> elements_;
  int64_t total_ = 0;
};

// Largest magnitude that a value may have so that the scale of its block is a finite fp16 (65,519 rounds down to
// 65,504).
float largest_allowed(Scheme scheme) {
  constexpr float kLargestFloat16 = 65519.0f;
  switch (scheme) {
    case Scheme::F32:
      return std::numeric_limits<float>::max();
    case Scheme::BF16:
      return 3.3961775e38f;  // above, rounding gives infinity
    case Scheme::F16:
      return kLargestFloat16;
    case Scheme::Q4_0:
      return kLargestFloat16 * 8.0f;
    case Scheme::Q8_0:
      return kLargestFloat16 * 127.0f;
    case Scheme::Q6_K:
      return kLargestFloat16 * 2048.0f;  // half of 32 * 128 steps: the search may choose a larger scale
    case Scheme::Int2:
    case Scheme::Int4:
    case Scheme::Int8:
      break;  // no GGUF file holds them
  }
  QAT_CHECK(false);
  return 0.0f;
}

float widen(float value) { return value; }
float widen(BFloat16 value) { return to_float(value); }

template <class Value>
void check_values(std::span<const Value> values, const ExportedWeight& weight, int64_t first) {
  // Stored scales are what they are, whatever the values.
  const Scheme limiting = weight.stored_scales.empty() ? weight.scheme : Scheme::F32;
  const float allowed = largest_allowed(limiting);
  if (largest_magnitude(values) <= allowed) return;  // not so with NaN
  const auto bad =
      std::find_if(values.begin(), values.end(), [&](Value v) { return !(std::fabs(widen(v)) <= allowed); });
  const int64_t index = first + (bad - values.begin());
  const std::string place = join("[", index / weight.spec->columns(), ", ", index % weight.spec->columns(), "]");
  if (std::isfinite(widen(*bad))) {
    fail("weight ", weight.spec->name, ": value ", widen(*bad), " at ", place, " is too large for ",
         scheme(weight.scheme).name, " (at most ", allowed, ")");
  }
  fail("weight ", weight.spec->name, ": value at ", place, " is ", widen(*bad), ", which no model can use");
}

// Converts pieces with buffers of its own; one per thread.
class PieceEncoder {
 public:
  PieceEncoder(GgufWriter& writer, const GgufExportInputs& inputs) : writer_(writer), inputs_(inputs) {}

  // Returns the bytes written.
  uint64_t encode(const Piece& piece) {
    const ExportedWeight& weight = inputs_.weights[piece.weight];
    const TensorView& master = *weight.master;
    const auto width = static_cast<size_t>(element_bytes(master.type));
    const auto bytes =
        master.bytes.subspan(static_cast<size_t>(piece.first) * width, static_cast<size_t>(piece.count) * width);
    const double offset = weight.spec->role == WeightRole::Norm ? inputs_.config->norm_offset : 0.0;
    if (master.type == ElementType::BF16 && offset == 0.0) {
      encode_values(weight, piece, aligned<BFloat16>(bytes, narrow_));
    } else {
      widen_master(master.type, bytes);
      if (offset != 0.0) {
        for (float& value : floats_) value = static_cast<float>(offset) + value;
      }
      encode_values(weight, piece, std::span<const float>(floats_));
    }
    inputs_.source->release(bytes);
    return blocks_.size();
  }

 private:
  template <class Value>
  void encode_values(const ExportedWeight& weight, const Piece& piece, std::span<const Value> values) {
    check_values(values, weight, piece.first);
    const QuantScheme& row = scheme(weight.scheme);
    const auto first_block = static_cast<size_t>(piece.first / row.block_size);
    const auto count = static_cast<size_t>(piece.count / row.block_size);
    blocks_.resize(count * static_cast<size_t>(row.block_bytes));
    const auto scales =
        weight.stored_scales.empty() ? weight.stored_scales : weight.stored_scales.subspan(first_block, count);
    encode_blocks(weight.scheme, values, scales, blocks_);
    writer_.write(piece.weight, first_block * static_cast<uint64_t>(row.block_bytes), blocks_);
  }

  // The bytes as values; through a copy where the file did not align them.
  template <class Value>
  std::span<const Value> aligned(std::span<const std::byte> bytes, std::vector<Value>& copy) {
    if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(Value) == 0) {
      return {reinterpret_cast<const Value*>(bytes.data()), bytes.size() / sizeof(Value)};
    }
    copy.resize(bytes.size() / sizeof(Value));
    std::memcpy(copy.data(), bytes.data(), bytes.size());
    return copy;
  }

  void widen_master(ElementType type, std::span<const std::byte> bytes) {
    floats_.resize(bytes.size() / static_cast<size_t>(element_bytes(type)));
    const Scheme plain = type == ElementType::F32 ? Scheme::F32 : type == ElementType::F16 ? Scheme::F16 : Scheme::BF16;
    decode_blocks(plain, bytes, floats_);
  }

  GgufWriter& writer_;
  const GgufExportInputs& inputs_;
  std::vector<BFloat16> narrow_;
  std::vector<float> floats_;
  std::vector<std::byte> blocks_;
};

// Runs the pieces on threads; the first error stops all of them.
class Workers {
 public:
  Workers(GgufWriter& writer, const GgufExportInputs& inputs)
      : writer_(writer),
        inputs_(inputs),
        pieces_(inputs.weights),
        progress_("export", static_cast<int64_t>(writer.file_bytes()), "B") {}

  void run() {
    const int64_t threads = std::clamp<int64_t>(inputs_.threads, 1, std::max<int64_t>(1, pieces_.count()));
    std::vector<std::thread> workers;
    for (int64_t i = 0; i < threads; ++i) workers.emplace_back([this] { work(); });
    for (std::thread& worker : workers) worker.join();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void work() {
    try {
      PieceEncoder encoder(writer_, inputs_);
      for (int64_t number = next_++; number < pieces_.count() && !stopped_; number = next_++) {
        const uint64_t bytes = encoder.encode(pieces_[number]);
        const std::lock_guard lock(mutex_);
        progress_.advance(static_cast<int64_t>(bytes));
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      stopped_ = true;
    }
  }

  GgufWriter& writer_;
  const GgufExportInputs& inputs_;
  const Pieces pieces_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;  // guards what follows
  Progress progress_;
  std::exception_ptr error_;
};

}  // namespace

void stream_tensors(GgufWriter& writer, const GgufExportInputs& inputs) { Workers(writer, inputs).run(); }

}  // namespace qat
