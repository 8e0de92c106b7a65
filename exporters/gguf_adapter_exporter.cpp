#include "exporters/gguf_adapter_exporter.h"

#include "core/error.h"
#include "exporters/gguf_metadata.h"
#include "io/gguf.h"

namespace qat {

void export_gguf_adapter(const AdapterFolder& adapter, const Gemma4Config& config, const std::string& name,
                         const std::filesystem::path& output) {
  check_gguf_can_express(config);
  const int64_t rank = adapter.settings().rank;
  GgufWriter writer(output);
  writer.add("general.architecture", config.architecture());
  writer.add("general.type", std::string("adapter"));
  writer.add("general.name", name);
  writer.add("adapter.type", std::string("lora"));
  writer.add("adapter.lora.alpha", adapter.settings().scaling() * static_cast<float>(rank));
  for (const AdapterFolder::Change& change : adapter.changes()) {
    writer.declare(change.weight.gguf_name + ".lora_a", {rank, change.weight.columns()}, Scheme::F32);
    writer.declare(change.weight.gguf_name + ".lora_b", {change.weight.rows(), rank}, Scheme::F32);
  }
  writer.begin_data();
  size_t tensor = 0;
  for (const AdapterFolder::Change& change : adapter.changes()) {
    writer.write(tensor++, 0, std::as_bytes(std::span(change.a)));
    writer.write(tensor++, 0, std::as_bytes(std::span(change.b)));
  }
  writer.commit();
}

}  // namespace qat
