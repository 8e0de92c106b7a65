#include "exporters/litertlm_exporter.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/mapped_file.h"
#include "data/chat_template.h"
#include "data/tokenizer.h"
#include "exporters/litertlm_chat_template.h"
#include "exporters/litertlm_constants.h"
#include "exporters/litertlm_decoder.h"
#include "exporters/litertlm_metadata.h"
#include "exporters/litertlm_weight_bytes.h"
#include "io/litertlm.h"

namespace qat {

namespace {

constexpr int64_t kDefaultContext = 4096;
constexpr int64_t kDefaultPrefillLengths[] = {8, 32, 128, 512};

bool is_prime(int64_t number) {
  for (int64_t divisor = 2; divisor * divisor <= number; ++divisor) {
    if (number % divisor == 0) return false;
  }
  return number >= 2;
}

struct Lengths {
  int64_t context = 0;
  std::vector<int64_t> prefill;
};

Lengths choose_lengths(const LitertlmExportInputs& inputs) {
  const int64_t limit = inputs.weights->config().max_positions;
  Lengths lengths{inputs.context, inputs.prefill_lengths};
  if (lengths.context == 0) lengths.context = std::min(kDefaultContext, limit);
  if (lengths.context < 1 || lengths.context > limit) {
    fail("context of ", lengths.context, " positions: the model has at most ", limit);
  }
  if (lengths.prefill.empty()) {
    for (const int64_t length : kDefaultPrefillLengths) {
      if (length < lengths.context || lengths.prefill.empty()) lengths.prefill.push_back(length);
    }
  }
  std::sort(lengths.prefill.begin(), lengths.prefill.end());
  for (const int64_t length : lengths.prefill) {
    // The runtime takes lengths that are primes for places to rewrite.
    if (length < 1 || length > lengths.context || (length > 2 && is_prime(length))) {
      fail("prefill length ", length, ": wanted 1 to the context of ", lengths.context, ", and no prime");
    }
  }
  const int64_t smallest = lengths.prefill.front();
  if (inputs.context == 0) lengths.context -= lengths.context % smallest;
  // Rests of a prompt are padded to the smallest length and must still fit; primes would be taken for "any length".
  if (lengths.context % smallest != 0 || is_prime(lengths.context)) {
    const int64_t below = std::max(lengths.context / smallest * smallest - (smallest == 1 ? 1 : 0), smallest);
    fail("context of ", lengths.context, " positions: wanted a multiple of the smallest prefill length ", smallest,
         " that is no prime, for example ", below);
  }
  return lengths;
}

void check_model(const Gemma4Config& config) {
  if (config.family != Family::Gemma4)
    fail("a .litertlm file can hold Gemma 4 models only so far; export this one as GGUF");
  if (config.experts > 0) fail("a .litertlm file cannot hold a model with experts");
}

LitertlmMetadata describe(const LitertlmExportInputs& inputs, const Lengths& lengths, const Tokenizer& tokenizer) {
  const Gemma4Config& config = inputs.weights->config();
  LitertlmMetadata metadata;
  metadata.context = lengths.context;
  metadata.start_token = config.bos_token;
  std::set<int64_t> stops(config.eos_tokens.begin(), config.eos_tokens.end());
  if (const auto chat_template = load_chat_template(inputs.model_folder, "")) {
    for (const int32_t id : chat_stop_ids(tokenizer, chat_template->kind)) stops.insert(id);
    metadata.chat_template = litertlm_chat_template(*chat_template);
  }
  metadata.stop_tokens.assign(stops.begin(), stops.end());
  if (stops.empty()) fail(inputs.model_folder.string(), ": no end token in config.json, and no chat template");
  stops.insert(metadata.start_token);
  for (const int64_t id : stops) {
    if (id >= config.vocabulary_size) fail("token id ", id, " is outside the vocabulary of ", config.vocabulary_size);
  }
  metadata.sampling = read_sampling_defaults(inputs.model_folder);
  return metadata;
}

// One section: either bytes, or a model whose constants are converted while they are written.
struct Part {
  LitertlmSection section;
  std::vector<std::byte> bytes;
  std::unique_ptr<LitertlmConstants> constants;
  TfliteLayout layout;
};

class Export {
 public:
  explicit Export(const LitertlmExportInputs& inputs) : inputs_(inputs), weights_(*inputs.weights) {}

  LitertlmExportFigures run() {
    check_model(weights_.config());
    lengths_ = choose_lengths(inputs_);
    add_texts();
    add_models();
    const auto start = std::chrono::steady_clock::now();
    std::vector<LitertlmSection> sections;
    for (const Part& part : parts_) sections.push_back(part.section);
    LitertlmWriter writer(inputs_.output, {{"author", "gemma-qat"}}, sections);
    for (size_t i = 0; i < parts_.size(); ++i) write_part(writer, i);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    writer.commit();
    return {writer.file_bytes(), lengths_.context, lengths_.prefill, seconds.count()};
  }

 private:
  void add_bytes(LitertlmSectionType type, std::span<const std::byte> bytes, LitertlmItems items = {}) {
    parts_.push_back({{type, std::move(items), bytes.size()}, {bytes.begin(), bytes.end()}, nullptr, {}});
  }

  void add_bytes(LitertlmSectionType type, const std::string& text, LitertlmItems items = {}) {
    add_bytes(type, std::as_bytes(std::span(text)), std::move(items));
  }

  void add_texts() {
    const auto tokenizer_path = inputs_.model_folder / "tokenizer.json";
    const std::string tokenizer_text = read_text_file(tokenizer_path);
    const Tokenizer tokenizer = Tokenizer::parse(tokenizer_text, tokenizer_path.string());
    add_bytes(LitertlmSectionType::LlmMetadata, write_llm_metadata(describe(inputs_, lengths_, tokenizer)));
    add_bytes(LitertlmSectionType::HfTokenizerZlib, compress_tokenizer(tokenizer_text));
    // The runtime passes over it; readers of the model find its facts here.
    add_bytes(LitertlmSectionType::GenericBinary, read_text_file(inputs_.model_folder / "config.json"),
              {{"name", "config.json"}});
  }

  template <class AddGraphs>
  void add_model(const char* type, AddGraphs add_graphs) {
    auto constants = std::make_unique<LitertlmConstants>(weights_);
    constants->model().description = "gemma-qat";
    add_graphs(*constants);
    TfliteLayout layout = lay_out_tflite(constants->model());
    const LitertlmSection section{LitertlmSectionType::TfliteModel, {{"model_type", type}}, layout.bytes};
    parts_.push_back({section, {}, std::move(constants), std::move(layout)});
  }

  void add_models() {
    const bool shared = inputs_.embedder == EmbedderLayout::Shared;
    if (!shared) {
      add_model("tf_lite_embedder", [&](LitertlmConstants& constants) { add_embedder(weights_, constants); });
      if (weights_.config().has_per_layer_inputs()) {
        add_model("tf_lite_per_layer_embedder",
                  [&](LitertlmConstants& constants) { add_per_layer_embedder(weights_, constants); });
      }
    }
    const DecoderShape shape{lengths_.context, shared,
                             weights_.config().tied_head || (shared && head_is_table(weights_))};
    add_model("tf_lite_prefill_decode", [&](LitertlmConstants& constants) {
      const auto add = [&](const std::string& key, int64_t tokens, bool with_logits) {
        constants.model().graphs.push_back(DecoderGraph(weights_, constants, shape, key, tokens, with_logits).build());
      };
      for (const int64_t length : lengths_.prefill) add("prefill_" + std::to_string(length), length, false);
      add("decode", 1, true);
    });
  }

  void write_part(LitertlmWriter& writer, size_t index) const {
    const Part& part = parts_[index];
    if (part.constants == nullptr) return writer.write(index, 0, part.bytes);
    part.constants->write(
        part.layout, [&](uint64_t offset, std::span<const std::byte> bytes) { writer.write(index, offset, bytes); });
  }

  const LitertlmExportInputs& inputs_;
  const LitertlmWeights& weights_;
  Lengths lengths_;
  std::vector<Part> parts_;
};

}  // namespace

LitertlmExportFigures export_litertlm(const LitertlmExportInputs& inputs) { return Export(inputs).run(); }

}  // namespace qat
