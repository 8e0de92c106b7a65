// The bytes of a GGUF file's tensors, encoded from mapped masters by several threads in bounded pieces.
#pragma once

#include "exporters/gguf_exporter.h"
#include "io/gguf.h"

namespace qat {

// Writes weight i of the inputs as tensor i of the writer, whose data part has begun. Throws Error naming the tensor
// for a value that is not finite or too large for its scheme.
void stream_tensors(GgufWriter& writer, const GgufExportInputs& inputs);

}  // namespace qat
