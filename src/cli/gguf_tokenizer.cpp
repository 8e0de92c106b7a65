#include "cli/gguf_tokenizer.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "exporters/gguf_vocabulary.h"

namespace qat {

std::optional<Tokenizer> tokenizer_from_gguf(const GgufFile& file) {
  const GgufMetadata& metadata = file.metadata();
  if (!metadata.contains(kGgufTokens) || !metadata.contains("tokenizer.ggml.merges")) return std::nullopt;
  const auto& tokens = metadata.texts(kGgufTokens);
  const auto types = metadata.integers("tokenizer.ggml.token_type");
  if (types.size() != tokens.size()) {
    fail(file.where(), ": tokenizer.ggml.token_type has ", types.size(), " entries for ", tokens.size(), " tokens");
  }
  nlohmann::json vocabulary = nlohmann::json::object();
  nlohmann::json added = nlohmann::json::array();
  for (size_t id = 0; id < tokens.size(); ++id) {
    vocabulary[tokens[id]] = id;
    const auto type = static_cast<GgufTokenType>(types[id]);
    if (type != GgufTokenType::Control && type != GgufTokenType::UserDefined) continue;
    added.push_back({{"id", id},
                     {"content", tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const nlohmann::json space = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
  const nlohmann::json decoder = {
      {"type", "Sequence"},
      {"decoders",
       {{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}}, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}};
  const nlohmann::json document = {
      {"version", "1.0"},
      {"added_tokens", std::move(added)},
      {"normalizer", space},
      {"pre_tokenizer", nullptr},
      {"post_processor", nullptr},
      {"decoder", decoder},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", metadata.contains("tokenizer.ggml.unknown_token_id")
                          ? nlohmann::json(tokens.at(static_cast<size_t>(metadata.integer("tokenizer.ggml.unknown_token_id"))))
                          : nlohmann::json()},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"ignore_merges", false},
        {"vocab", std::move(vocabulary)},
        {"merges", metadata.texts("tokenizer.ggml.merges")}}}};
  return Tokenizer::parse(document.dump(), file.where() + ": tokenizer");
}

}  // namespace qat
