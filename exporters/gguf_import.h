// A GGUF file as a checkpoint to train on, which exports as the file that it came from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "quant/scheme.h"

namespace qat {

// What became of one tensor.
struct ImportedTensor {
  std::string name;  // of the weight table: "layers.0.mlp.up_proj.weight"
  Scheme scheme;
  int64_t blocks = 0;   // values where it is not quantized
  int64_t changed = 0;  // of them, those that export would write with other bytes
  double moved = 0;     // by how much this moves the values: root mean square, over that of the values
};

struct GgufImportReport {
  std::vector<ImportedTensor> tensors;          // in the order of the table
  std::vector<std::string> redundant;           // tensors that were left out: no model reads them
  std::optional<std::string> token_difference;  // where the file's tokens leave tokenizer.json's
};

// Writes the checkpoint folder `out` with the config.json, tokenizer and other small files of the model folder `like`,
// and a plan "imported" that gives every weight the scheme it has in the file. Q4_0 keeps codes under stored scales:
// masters bf16(code * scale). Other schemes have no stored scales: masters bf16(value), and what export would encode
// differently is counted. Tables that are Q6_K or Q8_0 are frozen, as in the plans of such files. `write_more` writes
// further files (the witness) into the folder before it gets its final name. Throws Error as GgufMasters does, and for
// a value that is no finite number, naming the tensor; then nothing stands under `out`.
GgufImportReport import_gguf(const std::filesystem::path& file, const std::filesystem::path& like,
                             const std::filesystem::path& out,
                             const std::function<void(const std::filesystem::path& folder)>& write_more);

}  // namespace qat
