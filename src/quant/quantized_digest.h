// SHA-256 digests of a quantized weight, from its blocks in order. Training's witness and `verify` compare these, so
// what is hashed is the meaning of the blocks and not their packing:
//   codes   one signed byte per value, row-major (Q4_0: -8..7, Q8_0: -127..127, Q6_K: -32..31)
//   scales  the stored scale bytes per block: fp16 little-endian; Q6_K: the fp16, then its 16 sub-scales; fp32 little-endian
//           for schemes with row scales
// Schemes that are not quantized: codes is the digest of the bytes themselves, scales is empty.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "core/sha256.h"
#include "quant/scheme.h"

namespace qat {

class QuantizedDigest {
 public:
  explicit QuantizedDigest(Scheme scheme) : scheme_(scheme) {}

  // The next whole blocks of the weight.
  void update(std::span<const std::byte> blocks);

  struct Result {
    std::string codes;
    std::string scales;
    bool operator==(const Result&) const = default;
  };
  // Ends the digests; the object must not be updated afterwards.
  Result finish();

 private:
  Scheme scheme_;
  Sha256 codes_;
  Sha256 scales_;
};

// The same for schemes with row scales, whose codes and scales lie apart.
class RowDigest {
 public:
  // The next rows.
  void update(std::span<const int8_t> codes, std::span<const float> scales);
  // Ends the digests; the object must not be updated afterwards.
  QuantizedDigest::Result finish();

 private:
  Sha256 codes_;
  Sha256 scales_;
};

// Codes of whole blocks as signed bytes, one per value. Quantized schemes only.
void unpack_codes(Scheme scheme, std::span<const std::byte> blocks, std::span<int8_t> codes);

}  // namespace qat
