#include "exporters/export_checkpoint.h"

#include <algorithm>
#include <thread>

#include "core/error.h"
#include "core/output_file.h"
#include "data/chat_template.h"
#include "exporters/gguf_exporter.h"
#include "exporters/ollama_modelfile.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

ResolvedPlan plan_of(const ModelFolder& checkpoint) {
  return checkpoint.plan() ? *checkpoint.plan() : QuantPlan::load("bf16").resolve(checkpoint.table());
}

std::string default_name(const ModelFolder& checkpoint) {
  const fs::path path = fs::absolute(checkpoint.path()).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

}  // namespace

fs::path modelfile_path(const fs::path& gguf) {
  fs::path path = gguf;
  return path.replace_extension(".Modelfile");
}

void export_checkpoint(const ModelFolder& checkpoint, const fs::path& out, const ExportOptions& options) {
  if (!fs::exists(checkpoint.path() / "tokenizer.json")) {
    fail(checkpoint.path().string(), ": has no tokenizer.json, which a GGUF file must contain");
  }
  const ResolvedPlan plan = plan_of(checkpoint);
  GgufExportInputs inputs;
  inputs.config = &checkpoint.config();
  inputs.source = &checkpoint.tensors();
  for (const WeightSpec& weight : checkpoint.table().weights()) {
    inputs.weights.push_back({&weight, &checkpoint.masters().of(weight), plan.of(weight.name).scheme,
                              checkpoint.stored_scales(weight.name)});
  }
  const GgufVocabulary vocabulary = read_gguf_vocabulary(checkpoint.path(), checkpoint.config());
  inputs.vocabulary = &vocabulary;
  inputs.name = options.name.empty() ? default_name(checkpoint) : options.name;
  inputs.sampling = read_sampling_defaults(checkpoint.path());
  inputs.output = out;
  inputs.threads = options.threads > 0 ? options.threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  export_gguf(inputs);

  std::optional<ChatTemplateKind> kind;
  if (const auto chat_template = recognise_chat_template(vocabulary.chat_template)) kind = chat_template->kind;
  write_file(modelfile_path(out), ollama_modelfile(out.filename().string(), kind));
}

}  // namespace qat
