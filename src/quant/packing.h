// Codes of Int2, Int4 and Int8 <-> the bytes of mobile files: dense, the first code in the low bits of a byte.
// Source: mobile_format.md 2.1, 2.3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/scheme.h"

namespace qat {

enum class CodeBytes {
  TwosComplement,  // TFLite
  Offset           // transformers: code + 8, code + 2; Int8 is two's complement here as well
};

// `bytes` has scheme.row_bytes(codes.size()) bytes. Codes must be in the scheme's range.
void pack_codes(Scheme scheme, CodeBytes form, std::span<const int8_t> codes, std::span<std::byte> bytes);
void unpack_codes(Scheme scheme, CodeBytes form, std::span<const std::byte> bytes, std::span<int8_t> codes);

}  // namespace qat
