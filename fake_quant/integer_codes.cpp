#include "fake_quant/integer_codes.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/error.h"
#include "fake_quant/tensor_values.h"
#include "quant/packing.h"
#include "quant/row_codec.h"

namespace qat {

namespace {

constexpr int64_t kPiece = int64_t{1} << 15;  // values a thread takes at a time, at least one group

// Calls run(values, bytes, scales, buffer) for the parts of groups that belong together, on all threads. `buffer` holds
// a code per value.
template <class Value, class Byte, class Run>
void for_groups(Scheme id, std::span<Value> values, std::span<Byte> bytes, std::span<const float> scales, int64_t width,
                const Run& run) {
  const QuantScheme& row = scheme(id);
  QAT_CHECK(row.has_row_scales() && width % row.block_size == 0);
  QAT_CHECK(values.size() == scales.size() * static_cast<size_t>(width));
  const auto codes = static_cast<size_t>(width), packed = static_cast<size_t>(row.row_bytes(width));
  const int64_t grain = std::max<int64_t>(1, kPiece / width);
  at::parallel_for(0, static_cast<int64_t>(scales.size()), grain, [&](int64_t begin, int64_t end) {
    std::vector<int8_t> buffer;
    for (int64_t next = begin; next < end; next += grain) {
      const auto first = static_cast<size_t>(next);
      const auto count = static_cast<size_t>(std::min(grain, end - next));
      buffer.resize(count * codes);
      run(values.subspan(first * codes, count * codes), bytes.subspan(first * packed, count * packed),
          scales.subspan(first, count), std::span<int8_t>(buffer));
    }
  });
}

// Calls run(Value{}) with the tensor's element type: BFloat16 or float.
template <class Run>
void with_value_type(const at::Tensor& tensor, const Run& run) {
  if (tensor.scalar_type() == at::kBFloat16) {
    run(BFloat16{});
  } else {
    QAT_CHECK(tensor.scalar_type() == at::kFloat);
    run(float{});
  }
}

}  // namespace

at::Tensor packed_integer_codes(Scheme id, const at::Tensor& master, const at::Tensor& scales, int64_t width) {
  const c10::NoGradGuard no_grad;
  const at::Tensor source = master.detach().contiguous();
  at::Tensor result = at::empty({scheme(id).row_bytes(master.numel())}, at::kByte);
  with_value_type(source, [&]<class Value>(Value) {
    for_groups(id, values_of<const Value>(source), values_of<std::byte>(result), values_of<const float>(scales), width,
               [&](auto values, auto bytes, auto part_scales, auto codes) {
                 encode_groups(id, values, part_scales, width, codes);
                 pack_codes(id, CodeBytes::TwosComplement, codes, bytes);
               });
  });
  return result;
}

at::Tensor values_of_integer_codes(Scheme id, const at::Tensor& codes, const at::Tensor& scales, int64_t width,
                                   const at::Tensor& like) {
  const c10::NoGradGuard no_grad;
  at::Tensor result = at::empty_like(like, at::MemoryFormat::Contiguous).detach();
  with_value_type(result, [&]<class Value>(Value) {
    for_groups(id, values_of<Value>(result), values_of<const std::byte>(codes), values_of<const float>(scales), width,
               [&](auto values, auto bytes, auto part_scales, auto buffer) {
                 unpack_codes(id, CodeBytes::TwosComplement, bytes, buffer);
                 decode_groups(buffer, part_scales, width, values);
               });
  });
  return result;
}

}  // namespace qat
