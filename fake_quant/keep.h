// What a weight quantizer keeps of its forward value between uses, until master or scales move. All three give the same
// bits.
#pragma once

namespace qat {

enum class Keep {
  Values,  // as the GEMM reads them
  Codes,   // packed, with their scales; decoded at every use
  Nothing  // quantized again at every use
};

}  // namespace qat
