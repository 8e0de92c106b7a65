#include "fake_quant/block_values.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstddef>

#include "core/error.h"
#include "fake_quant/aten_values.h"
#include "fake_quant/tensor_values.h"
#include "quant/block_codec.h"
#include "quant/block_scales.h"

namespace qat {

namespace {

constexpr int64_t kPiece = int64_t{1} << 16;  // values a thread converts at a time; a multiple of every block size

// Calls run(first value, count) for pieces that cover `values`, on all threads.
template <class Run>
void for_pieces(int64_t values, const Run& run) {
  at::parallel_for(0, (values + kPiece - 1) / kPiece, 1, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kPiece;
    run(static_cast<size_t>(first), static_cast<size_t>(std::min(end * kPiece, values) - first));
  });
}

std::span<const Float16> all_of(const at::Tensor& scales) {
  return scales.defined() ? values_of<const Float16>(scales) : std::span<const Float16>();
}

// The scales of `count` values from `first` on.
std::span<const Float16> part_of(std::span<const Float16> scales, Scheme id, size_t first, size_t count) {
  const auto block = static_cast<size_t>(scheme(id).block_size);
  return scales.empty() ? scales : scales.subspan(first / block, count / block);
}

// Calls run(values) with the values of the result in their own type.
template <class Run>
void with_values(const at::Tensor& result, const Run& run) {
  if (result.scalar_type() == at::kBFloat16) {
    run(values_of<BFloat16>(result));
  } else {
    QAT_CHECK(result.scalar_type() == at::kFloat);
    run(values_of<float>(result));
  }
}

at::Tensor empty_values(const at::Tensor& like) { return at::empty_like(like, at::MemoryFormat::Contiguous).detach(); }

}  // namespace

at::Tensor as_bfloat16(const at::Tensor& master) {
  check_on_cpu(master);
  return master.detach().to(at::kBFloat16).contiguous();
}

at::Tensor block_values(Scheme id, const at::Tensor& master, const at::Tensor& scales) {
  const c10::NoGradGuard no_grad;
  if (!master.device().is_cpu()) return block_values_in_aten(id, master, scales);
  const at::Tensor input = as_bfloat16(master);
  const auto masters = values_of<const BFloat16>(input);
  const auto all_scales = all_of(scales);
  at::Tensor result = empty_values(master);
  with_values(result, [&](auto values) {
    for_pieces(master.numel(), [&](size_t first, size_t count) {
      fake_quantize_blocks(id, masters.subspan(first, count), part_of(all_scales, id, first, count),
                           values.subspan(first, count));
    });
  });
  return result;
}

at::Tensor encoded_blocks(Scheme id, const at::Tensor& master, const at::Tensor& scales) {
  const c10::NoGradGuard no_grad;
  const QuantScheme& row = scheme(id);
  const at::Tensor input = as_bfloat16(master);
  const auto masters = values_of<const BFloat16>(input);
  const auto all_scales = all_of(scales);
  at::Tensor result = at::empty({row.row_bytes(master.numel())}, at::kByte);
  const auto blocks = values_of<std::byte>(result);
  for_pieces(master.numel(), [&](size_t first, size_t count) {
    const auto from = static_cast<size_t>(row.row_bytes(static_cast<int64_t>(first)));
    encode_blocks(id, masters.subspan(first, count), part_of(all_scales, id, first, count),
                  blocks.subspan(from, static_cast<size_t>(row.row_bytes(static_cast<int64_t>(count)))));
  });
  return result;
}

at::Tensor values_of_blocks(Scheme id, const at::Tensor& blocks, const at::Tensor& like) {
  const c10::NoGradGuard no_grad;
  const QuantScheme& row = scheme(id);
  const auto bytes = values_of<const std::byte>(blocks);
  at::Tensor result = empty_values(like);
  with_values(result, [&](auto values) {
    for_pieces(like.numel(), [&](size_t first, size_t count) {
      const auto from = static_cast<size_t>(row.row_bytes(static_cast<int64_t>(first)));
      decode_forward_values(id, bytes.subspan(from, static_cast<size_t>(row.row_bytes(static_cast<int64_t>(count)))),
                            values.subspan(first, count));
    });
  });
  return result;
}

at::Tensor searched_block_scales(const at::Tensor& master) {
  const at::Tensor input = as_bfloat16(master);
  const auto masters = values_of<const BFloat16>(input);
  const auto block = static_cast<size_t>(scheme(Scheme::Q4_0).block_size);
  QAT_CHECK(masters.size() % block == 0);
  at::Tensor result = at::empty({static_cast<int64_t>(masters.size() / block)}, at::kHalf);
  const auto scales = values_of<Float16>(result);
  for_pieces(master.numel(), [&](size_t first, size_t count) {
    search_block_scales(masters.subspan(first, count), scales.subspan(first / block, count / block));
  });
  return result;
}

}  // namespace qat
