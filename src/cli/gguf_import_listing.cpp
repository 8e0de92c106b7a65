#include "cli/gguf_import_listing.h"

#include "core/error.h"
#include "eval/table.h"

namespace qat {

namespace {

std::vector<std::string> row_of(const std::string& name, std::string_view scheme_name, int64_t blocks,
                                int64_t changed) {
  const double share = static_cast<double>(blocks - changed) / static_cast<double>(blocks);
  return {name, std::string(scheme_name), std::to_string(blocks), format_percent(share, 2), std::to_string(changed),
          ""};
}

}  // namespace

std::string describe_import(const GgufImportReport& report) {
  Table table{{"weight", "scheme", "blocks", "kept", "requantized", "moved by"}, {}};
  std::string rounded;
  int64_t blocks = 0;
  int64_t changed = 0;
  for (const ImportedTensor& tensor : report.tensors) {
    const QuantScheme& row = scheme(tensor.scheme);
    if (row.is_quantized()) {
      table.rows.push_back(row_of(tensor.name, row.name, tensor.blocks, tensor.changed));
      if (tensor.changed > 0) table.rows.back().back() = format_percent(tensor.moved, 3);
      blocks += tensor.blocks;
      changed += tensor.changed;
    } else if (tensor.changed > 0) {
      rounded += join(tensor.name, ": ", tensor.changed, " of ", tensor.blocks, " ", row.name,
                      " values are not kept by a BF16 master and were rounded\n");
    }
  }
  std::string text;
  if (blocks > 0) {
    table.rows.push_back(row_of("all", "", blocks, changed));
    text = format_table(table);
  }
  if (changed > 0) {
    text +=
        "requantized: export writes other bytes for these blocks, since q8_0 and q6_k find their scales by a rule, and "
        "q4_0 has no codes under a scale of 0; all others come out as they are in the file. Moved by: the root mean "
        "square of what this changes, over that of the tensor's values\n";
  }
  text += rounded;
  if (!report.redundant.empty()) {
    text +=
        join("left out: ", report.redundant.size(), " tensors of layers that read another layer's keys and values, ",
             "which no model looks at (", report.redundant.front(), report.redundant.size() > 1 ? ", …" : "", ")\n");
  }
  if (report.token_difference) {
    text += join("warning: the checkpoint has another tokenizer than the file: ", *report.token_difference, "\n");
  }
  return text;
}

}  // namespace qat
