#include "exporters/gguf_exporter.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "exporters/gguf_metadata.h"
#include "exporters/gguf_tensor_stream.h"
#include "io/gguf.h"

namespace qat {

namespace {

void check_weight(const ExportedWeight& weight) {
  QAT_CHECK(weight.spec != nullptr && weight.master != nullptr);
  const WeightSpec& spec = *weight.spec;
  const QuantScheme& row = scheme(weight.scheme);
  const ElementType type = weight.master->type;
  if (type != ElementType::BF16 && type != ElementType::F32 && type != ElementType::F16) {
    fail("weight ", spec.name, ": its master is ", element_name(type), ", wanted is BF16, F32 or F16");
  }
  if (weight.master->elements() != spec.elements()) {
    fail("weight ", spec.name, ": its master has ", weight.master->elements(), " values, wanted are ", spec.elements());
  }
  if (row.has_row_scales()) {
    fail("weight ", spec.name, ": GGUF files cannot hold ", row.name, "; a checkpoint of a mobile plan is exported with ",
         "--format mobile-hf or litertlm");
  }
  if (spec.columns() % row.block_size != 0) {
    fail("weight ", spec.name, ": rows of ", spec.columns(), " values are no whole blocks of ", row.name, " (",
         row.block_size, "); choose another scheme for ", role_name(spec.role), " in the plan");
  }
  if (weight.stored_scales.empty()) return;
  const int64_t blocks = spec.elements() / row.block_size;
  if (!row.allows_stored_scales || static_cast<int64_t>(weight.stored_scales.size()) != blocks) {
    fail("weight ", spec.name, ": has ", weight.stored_scales.size(), " stored scales; ", row.name, " wants ",
         row.allows_stored_scales ? std::to_string(blocks) : "none");
  }
  const auto bad = std::find_if(weight.stored_scales.begin(), weight.stored_scales.end(),
                                [](Float16 scale) { return (scale.bits & 0x7c00u) == 0x7c00u; });
  if (bad != weight.stored_scales.end()) {
    fail("weight ", spec.name, ": stored scale ", bad - weight.stored_scales.begin(), " is ", to_float(*bad));
  }
}

}  // namespace

GgufExportFigures export_gguf(const GgufExportInputs& inputs) {
  QAT_CHECK(inputs.config != nullptr && inputs.source != nullptr && inputs.vocabulary != nullptr);
  check_gguf_can_express(*inputs.config);
  for (const ExportedWeight& weight : inputs.weights) check_weight(weight);

  const auto start = std::chrono::steady_clock::now();
  GgufWriter writer(inputs.output);
  add_general_metadata(writer, inputs);
  add_model_metadata(writer, *inputs.config);
  add_vocabulary(writer, *inputs.vocabulary);
  for (const ExportedWeight& weight : inputs.weights) {
    writer.declare(weight.spec->gguf_name, weight.spec->shape, weight.scheme);
  }
  const std::vector<float> divisors = rope_frequency_divisors(*inputs.config);
  if (!divisors.empty()) writer.declare("rope_freqs.weight", {static_cast<int64_t>(divisors.size())}, Scheme::F32);

  writer.begin_data();
  stream_tensors(writer, inputs);
  if (!divisors.empty()) writer.write(inputs.weights.size(), 0, std::as_bytes(std::span(divisors)));
  GgufExportFigures figures;
  for (const ExportedWeight& weight : inputs.weights) figures.weights += weight.spec->elements();
  figures.file_bytes = writer.file_bytes();
  figures.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  writer.commit();
  return figures;
}

}  // namespace qat
