// What an imported GGUF file became, for `import`.
#pragma once

#include <string>

#include "exporters/gguf_import.h"

namespace qat {

// A row per quantized tensor, what was rounded of the others, and what the figures mean where not all was kept.
std::string describe_import(const GgufImportReport& report);

}  // namespace qat
