// What a quantization scheme is, as a value, and the table of all schemes this program knows.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace qat {

enum class Scheme { F32, F16, BF16, Q4_0, Q8_0, Q6_K, Int2, Int4, Int8 };

// What one scale covers.
enum class Granularity {
  None,   // not quantized
  Block,  // a block of consecutive values; its scale lies beside its codes
  Row     // a row, or a slice of a table's row; scales are an array of their own (quant/row_codec.h)
};

// How the scale of a group is found from its values.
enum class ScaleRule {
  None,           // not quantized
  SignedExtremum, // value of largest magnitude / -8 (Q4_0)
  AbsoluteMax,    // largest magnitude / 127 (Q8_0)
  SearchedTwoLevel,  // per-16 search, then 8-bit sub-scales of one fp16 scale (Q6_K)
  Free             // any: a checkpoint always stores them (Int2, Int4, Int8)
};

// Where a weight's scales come from.
enum class ScaleSource {
  Rule,   // derived from the master by the scheme's rule
  Stored  // read from the checkpoint's scales (searched, learned or recovered); only for schemes that allow it
};

// One row per scheme. A block is `block_size` consecutive values of a row and `block_bytes` bytes in a file; for schemes
// with a scale per row it is what one byte of packed codes holds.
// Sources: gguf_q4_0.md sections 1, 2.1 (ggml-common.h of llama.cpp); mobile_format.md 1.3.
struct QuantScheme {
  Scheme id;
  std::string_view name;   // in plans and reports: "q4_0"
  int gguf_type;           // ggml tensor type id, -1: GGUF files cannot hold it
  int64_t block_size;      // values
  int64_t block_bytes;     // bytes
  int code_min, code_max;  // signed codes, 0 and 0 where not quantized
  ScaleRule scale_rule;
  Granularity granularity;
  bool allows_stored_scales;

  bool is_quantized() const { return scale_rule != ScaleRule::None; }
  bool has_row_scales() const { return granularity == Granularity::Row; }
  // Without the scales of rows.
  double bits_per_weight() const {
    return 8.0 * static_cast<double>(block_bytes) / static_cast<double>(block_size);
  }
  // Bytes of one row of `columns` values, a multiple of block_size.
  int64_t row_bytes(int64_t columns) const { return columns / block_size * block_bytes; }
};

std::span<const QuantScheme> all_schemes();
const QuantScheme& scheme(Scheme id);
// Throws Error (usage) naming the known schemes if there is none of this name.
const QuantScheme& scheme_by_name(std::string_view name);
// The scheme stored as this ggml type; throws Error naming the type if it is none of ours.
const QuantScheme& scheme_by_gguf_type(int gguf_type, const std::string& where);

}  // namespace qat
