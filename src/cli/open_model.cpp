#include "cli/open_model.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "cli/gguf_tokenizer.h"
#include "core/error.h"
#include "fake_quant/prepare.h"
#include "gemma4/model_folder.h"
#include "io/gguf.h"
#include "model/gemma4_model.h"
#include "model/torch_language_model.h"
#include "reference/reference_model.h"

namespace qat {
namespace fs = std::filesystem;

void describe_model_options(cxxopts::Options& options) {
  options.add_options()("plain", "checkpoints: compute with the BF16 masters, without fake quantization")(
      "dtype", "model folders and checkpoints: bfloat16 or float32", cxxopts::value<std::string>()->default_value("float32"))(
      "arithmetic", "GGUF: float (what training computed) or device (llama.cpp's)",
      cxxopts::value<std::string>()->default_value("float"))(
      "kv-cache", "GGUF: f32, f16 or q8_0 (default: f32 for float, f16 for device)", cxxopts::value<std::string>())(
      "chat-template", "gemma4, gemma4-large or gemma3 instead of the model's own", cxxopts::value<std::string>())(
      "tokenizer", "GGUF: model folder whose tokenizer.json is used (for files without merges: Gemma 3)",
      cxxopts::value<std::string>())("threads", "0 = all cores", cxxopts::value<int>()->default_value("0"));
}

ModelOptions read_model_options(const cxxopts::ParseResult& parsed) {
  ModelOptions options;
  options.plain = parsed.count("plain") > 0;
  options.dtype = parsed["dtype"].as<std::string>();
  options.arithmetic = parsed["arithmetic"].as<std::string>();
  if (parsed.count("kv-cache") > 0) options.kv_cache = parsed["kv-cache"].as<std::string>();
  if (parsed.count("chat-template") > 0) options.chat_template = parsed["chat-template"].as<std::string>();
  if (parsed.count("tokenizer") > 0) options.tokenizer = parsed["tokenizer"].as<std::string>();
  options.threads = parsed["threads"].as<int>();
  if (options.dtype != "float32" && options.dtype != "bfloat16") {
    fail_usage("--dtype ", options.dtype, ": wanted float32 or bfloat16");
  }
  if (options.arithmetic != "float" && options.arithmetic != "device") {
    fail_usage("--arithmetic ", options.arithmetic, ": wanted float or device");
  }
  if (options.threads < 0) fail_usage("--threads ", options.threads, ": wanted 0 or more");
  return options;
}

const Tokenizer& OpenedModel::require_tokenizer(const std::string& path) const {
  if (!tokenizer) fail(path, ": brings no tokenizer that is understood; name a model folder with --tokenizer, or pass ids with generate --tokens");
  return *tokenizer;
}

DatasetOptions OpenedModel::dataset_options() const {
  return training_dataset_options(chat_template, /*enable_thinking=*/false, config.vocabulary_size);
}

namespace {

// What a folder's LibTorch model needs to stay alive.
struct TorchOwner {
  explicit TorchOwner(const fs::path& path, at::ScalarType dtype) : folder(path), model(folder.config(), dtype) {}
  ModelFolder folder;
  Gemma4Model model;
  FakeQuantSet fake_quant;
};

struct GgufOwner {
  explicit GgufOwner(const fs::path& path) : file(path) {}
  GgufFile file;
};

void add_stop_tokens(OpenedModel& opened) {
  opened.stop_tokens.assign(opened.config.eos_tokens.begin(), opened.config.eos_tokens.end());
  if (!opened.tokenizer || !opened.chat_template) return;
  for (const int32_t id : chat_stop_ids(*opened.tokenizer, opened.chat_template->kind)) opened.stop_tokens.push_back(id);
}

void measure_size(OpenedModel& opened, const ModelFolder& folder, bool plain) {
  int64_t bytes = 0;
  int64_t elements = 0;
  for (const WeightSpec& weight : folder.table().weights()) {
    const bool planned = folder.plan() && !plain && is_matrix(weight.role);
    const QuantScheme& row = scheme(planned ? folder.plan()->of(weight.name).scheme : Scheme::BF16);
    bytes += weight.rows() * row.row_bytes(weight.columns());
    elements += weight.elements();
  }
  opened.weight_bytes = static_cast<uint64_t>(bytes);
  opened.bits_per_weight = 8.0 * static_cast<double>(bytes) / static_cast<double>(elements);
}

OpenedModel open_folder(const fs::path& path, const ModelOptions& options) {
  const auto dtype = options.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
  if (options.threads > 0) at::set_num_threads(options.threads);
  auto owner = std::make_shared<TorchOwner>(path, dtype);
  load_weights(owner->model, owner->folder.tensors());
  if (owner->folder.plan() && !options.plain) {
    owner->fake_quant = prepare(owner->model, *owner->folder.plan(), KnownScales::of(owner->folder));
  }
  OpenedModel opened;
  opened.config = owner->folder.config();
  if (fs::exists(path / "tokenizer.json")) opened.tokenizer = Tokenizer::load(path / "tokenizer.json");
  opened.chat_template = load_chat_template(path, options.chat_template);
  measure_size(opened, owner->folder, options.plain);
  opened.model = make_language_model(owner->model);
  opened.owner = std::move(owner);
  add_stop_tokens(opened);
  return opened;
}

std::optional<CacheType> cache_type(const std::string& name) {
  if (name == "default") return std::nullopt;
  if (name == "f32") return CacheType::F32;
  if (name == "f16") return CacheType::F16;
  if (name == "q8_0") return CacheType::Q8_0;
  fail_usage("--kv-cache ", name, ": wanted f32, f16 or q8_0");
}

OpenedModel open_gguf(const fs::path& path, const ModelOptions& options) {
  auto owner = std::make_shared<GgufOwner>(path);
  ReferenceOptions reference;
  reference.arithmetic = options.arithmetic == "device" ? ArithmeticKind::Device : ArithmeticKind::Float;
  reference.cache = cache_type(options.kv_cache);
  reference.threads = options.threads;

  OpenedModel opened;
  opened.config = config_from_gguf(owner->file);
  opened.tokenizer = options.tokenizer.empty() ? tokenizer_from_gguf(owner->file)
                                               : Tokenizer::load(fs::path(options.tokenizer) / "tokenizer.json");
  if (!options.chat_template.empty()) {
    opened.chat_template = chat_template_by_name(options.chat_template);
  } else if (owner->file.metadata().contains("tokenizer.chat_template")) {
    opened.chat_template = recognise_chat_template(owner->file.metadata().text("tokenizer.chat_template"));
  }
  int64_t elements = 0;
  for (const GgufTensor& tensor : owner->file.tensors()) {
    elements += tensor.elements();
    opened.weight_bytes += tensor.bytes.size();
  }
  opened.bits_per_weight = 8.0 * static_cast<double>(opened.weight_bytes) / static_cast<double>(elements);
  opened.model = make_reference_model(owner->file, reference);
  opened.owner = std::move(owner);
  add_stop_tokens(opened);
  return opened;
}

}  // namespace

OpenedModel open_model(const fs::path& path, const ModelOptions& options) {
  if (!fs::exists(path)) fail(path.string(), ": does not exist");
  return fs::is_directory(path) ? open_folder(path, options) : open_gguf(path, options);
}

}  // namespace qat
