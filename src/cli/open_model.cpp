#include "cli/open_model.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>

#include "cli/gguf_tokenizer.h"
#include "cli/stored_bytes.h"
#include "core/error.h"
#include "fake_quant/prepare.h"
#include "gemma4/mobile_folder.h"
#include "gemma4/model_folder.h"
#include "io/gguf.h"
#include "io/litertlm.h"
#include "model/gemma4_model.h"
#include "model/torch_language_model.h"
#include "reference/gguf_model.h"
#include "reference/litertlm_model.h"
#include "reference/reference_model.h"

namespace qat {
namespace fs = std::filesystem;

void describe_model_options(cxxopts::Options& options) {
  options.add_options()("plain", "checkpoints: compute with the BF16 masters, without fake quantization")(
      "dtype", "model folders and checkpoints: bfloat16 or float32",
      cxxopts::value<std::string>()->default_value("float32"))(
      "arithmetic", "exported files: float (what training computed) or device (llama.cpp's or LiteRT's)",
      cxxopts::value<std::string>()->default_value("float"))(
      "kv,kv-cache",
      "exported files: f32 (or float), f16, q8_0 or int8 (default: GGUF f32 for float and f16 for device, "
      "mobile int8 where it has the scales)",
      cxxopts::value<std::string>())("chat-template", "gemma4, gemma4-large or gemma3 instead of the model's own",
                                     cxxopts::value<std::string>())(
      "tokenizer", "GGUF: model folder whose tokenizer.json is used (for files without merges: Gemma 3)",
      cxxopts::value<std::string>())("threads", "0 = all cores", cxxopts::value<int>()->default_value("0"));
}

void describe_adapter_option(cxxopts::Options& options) {
  options.add_options()("adapter", "GGUF: LoRA adapter that is added (a file of export-adapter)",
                        cxxopts::value<std::string>());
}

ModelOptions read_model_options(const cxxopts::ParseResult& parsed) {
  ModelOptions options;
  options.plain = parsed.count("plain") > 0;
  options.dtype = parsed["dtype"].as<std::string>();
  options.arithmetic = parsed["arithmetic"].as<std::string>();
  if (parsed.count("kv-cache") > 0) options.kv_cache = parsed["kv-cache"].as<std::string>();
  if (parsed.count("chat-template") > 0) options.chat_template = parsed["chat-template"].as<std::string>();
  if (parsed.count("tokenizer") > 0) options.tokenizer = parsed["tokenizer"].as<std::string>();
  if (parsed.count("adapter") > 0) options.adapter = parsed["adapter"].as<std::string>();
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
  if (!tokenizer)
    fail(path,
         ": brings no tokenizer that is understood; name a model folder with --tokenizer, or pass ids with generate "
         "--tokens");
  return *tokenizer;
}

DatasetOptions OpenedModel::dataset_options() const {
  return training_dataset_options(chat_template, /*enable_thinking=*/false, config.vocabulary_size);
}

namespace {

// What a folder's LibTorch model needs to stay alive.
struct TorchOwner {
  explicit TorchOwner(const fs::path& path, at::ScalarType dtype)
      : folder(path), model(folder.config(), dtype, readable_in_file(folder.table(), dtype)) {}
  ModelFolder folder;
  Gemma4Model model;
  FakeQuantSet fake_quant;
};

template <class File>
struct FileOwner {
  explicit FileOwner(const fs::path& path) : file(path) {}
  File file;
};

void add_stop_tokens(OpenedModel& opened) {
  opened.stop_tokens.assign(opened.config.eos_tokens.begin(), opened.config.eos_tokens.end());
  if (!opened.tokenizer || !opened.chat_template) return;
  for (const int32_t id : chat_stop_ids(*opened.tokenizer, opened.chat_template->kind))
    opened.stop_tokens.push_back(id);
}

void measure_size(OpenedModel& opened, const ModelFolder& folder, bool plain) {
  int64_t bytes = 0;
  int64_t elements = 0;
  for (const WeightSpec& weight : folder.table().weights()) {
    const bool planned = folder.plan() && !plain && is_matrix(weight.role);
    bytes += stored_bytes(weight, planned ? folder.plan()->of(weight.name) : WeightPlan{.scheme = Scheme::BF16});
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
  if (name == "f32" || name == "float") return CacheType::F32;
  if (name == "f16") return CacheType::F16;
  if (name == "q8_0") return CacheType::Q8_0;
  if (name == "int8") return CacheType::Int8;
  fail_usage("--kv-cache ", name, ": wanted f32 (or float), f16, q8_0 or int8");
}

ReferenceOptions reference_options(const ModelOptions& options) {
  ReferenceOptions reference;
  reference.arithmetic = options.arithmetic == "device" ? ArithmeticKind::Device : ArithmeticKind::Float;
  reference.cache = cache_type(options.kv_cache);
  reference.threads = options.threads;
  return reference;
}

struct GgufOwner {
  GgufOwner(const fs::path& path, const std::string& adapter_path) : file(path) {
    if (!adapter_path.empty()) adapter.emplace(adapter_path);
  }
  GgufFile file;
  std::optional<GgufAdapter> adapter;
};

OpenedModel open_gguf(const fs::path& path, const ModelOptions& options) {
  auto owner = std::make_shared<GgufOwner>(path, options.adapter);
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
  ReferenceOptions reference = reference_options(options);
  if (owner->adapter) reference.adapter = &*owner->adapter;
  opened.model = make_reference_model(owner->file, reference);
  opened.owner = std::move(owner);
  add_stop_tokens(opened);
  return opened;
}

// Codes with their scales, and what is not quantized; each weight once, also where a head repeats the table.
void measure_size(OpenedModel& opened, const WeightTable& table,
                  const std::function<uint64_t(const WeightSpec&)>& bytes_of) {
  int64_t elements = 0;
  for (const WeightSpec& weight : table.weights()) {
    if (weight.role == WeightRole::OutputHead) continue;
    elements += weight.elements();
    opened.weight_bytes += bytes_of(weight);
  }
  opened.bits_per_weight = 8.0 * static_cast<double>(opened.weight_bytes) / static_cast<double>(elements);
}

OpenedModel open_mobile_folder(const fs::path& path, const ModelOptions& options) {
  auto owner = std::make_shared<FileOwner<MobileFolder>>(path);
  OpenedModel opened;
  opened.config = owner->file.config();
  if (fs::exists(path / "tokenizer.json")) opened.tokenizer = Tokenizer::load(path / "tokenizer.json");
  opened.chat_template = load_chat_template(path, options.chat_template);
  measure_size(opened, owner->file.table(), [&](const WeightSpec& weight) {
    const MobileWeight& stored = owner->file.weight(weight.name);
    return stored.bytes.size() + stored.scales.size_bytes();
  });
  opened.model = make_reference_model(owner->file, reference_options(options));
  opened.owner = std::move(owner);
  add_stop_tokens(opened);
  return opened;
}

OpenedModel open_litertlm(const fs::path& path, const ModelOptions& options) {
  auto owner = std::make_shared<FileOwner<LitertlmFile>>(path);
  const LitertlmModel description(owner->file);
  OpenedModel opened;
  opened.config = description.config();
  if (!options.tokenizer.empty()) {
    opened.tokenizer = Tokenizer::load(fs::path(options.tokenizer) / "tokenizer.json");
  } else if (const auto* section = owner->file.find(LitertlmSectionType::HfTokenizerZlib)) {
    opened.tokenizer = Tokenizer::parse(decompress_tokenizer(section->bytes, path.string()), path.string());
  }
  opened.chat_template = chat_template_by_name(options.chat_template.empty() ? "gemma4" : options.chat_template);
  measure_size(opened, WeightTable(opened.config), [&](const WeightSpec& weight) {
    if (weight.role == WeightRole::PerLayerEmbedding) {
      uint64_t bytes = 0;
      for (const WeightView& table : description.per_layer_tables())
        bytes += table.blocks.size() + table.scales.size_bytes();
      return bytes;
    }
    const WeightView& stored = description.weight(weight.name);
    return stored.blocks.size() + stored.scales.size_bytes();
  });
  opened.model = make_reference_model(owner->file, reference_options(options));
  opened.owner = std::move(owner);
  add_stop_tokens(opened);
  return opened;
}

}  // namespace

OpenedModel open_model(const fs::path& path, const ModelOptions& options) {
  if (!fs::exists(path)) fail(path.string(), ": does not exist");
  const bool is_gguf = !fs::is_directory(path) && path.extension() != ".litertlm";
  if (!options.adapter.empty() && !is_gguf) {
    fail_usage("--adapter: is for GGUF files, and ", path.string(), " is none; merge adds an adapter to a folder");
  }
  if (fs::is_directory(path)) {
    return MobileFolder::is_one(path) ? open_mobile_folder(path, options) : open_folder(path, options);
  }
  return path.extension() == ".litertlm" ? open_litertlm(path, options) : open_gguf(path, options);
}

}  // namespace qat
