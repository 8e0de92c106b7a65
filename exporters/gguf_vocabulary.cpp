#include "exporters/gguf_vocabulary.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"

namespace qat {
namespace fs = std::filesystem;

namespace {

// Delimiters of thoughts and tool calls that llama.cpp must print, since its chat parser looks for them in the text:
// they are typed user-defined although the tokenizer calls them special.
constexpr std::array<std::string_view, 7> kPrintedDelimiters{
    "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|\"|>"};

void set_types(const Tokenizer& tokenizer, const Gemma4Config& config, GgufVocabulary& vocabulary) {
  std::vector<int32_t>& types = vocabulary.types;
  const auto set = [&](int64_t id, GgufTokenType type) {
    if (id < static_cast<int64_t>(types.size())) types[static_cast<size_t>(id)] = static_cast<int32_t>(type);
  };
  for (const int32_t id : tokenizer.byte_ids()) set(id, GgufTokenType::Byte);
  for (const AddedToken& token : tokenizer.added_tokens()) {
    const bool printed =
        std::find(kPrintedDelimiters.begin(), kPrintedDelimiters.end(), token.content) != kPrintedDelimiters.end();
    set(token.id, token.special && !printed ? GgufTokenType::Control : GgufTokenType::UserDefined);
  }
  // The score-based tokenizer asks for an unknown token by type.
  if (config.family == Family::Gemma3 && vocabulary.unknown) set(*vocabulary.unknown, GgufTokenType::Unknown);
}

// The table may have more rows than the tokenizer has pieces; llama.cpp wants a distinct piece for each.
void set_pieces(const Tokenizer& tokenizer, GgufVocabulary& vocabulary, size_t rows) {
  const auto pieces = tokenizer.pieces();
  vocabulary.types.assign(rows, static_cast<int32_t>(GgufTokenType::Normal));
  vocabulary.pieces.reserve(rows);
  std::unordered_set<std::string_view> seen;
  for (size_t id = 0; id < rows; ++id) {
    const bool present = id < pieces.size() && !pieces[id].empty();
    vocabulary.pieces.push_back(present ? pieces[id] : "[PAD" + std::to_string(id) + "]");
    if (!present) vocabulary.types[id] = static_cast<int32_t>(GgufTokenType::Unused);
  }
  for (const std::string& piece : vocabulary.pieces) {
    if (!seen.insert(piece).second) fail(tokenizer.where(), ": the piece \"", piece, "\" comes twice");
  }
}

std::string merge_text(const Tokenizer& tokenizer, const Merge& merge) {
  const std::string& left = tokenizer.piece(merge.left);
  const std::string& right = tokenizer.piece(merge.right);
  if ((left + right).find(' ') != std::string::npos) {
    fail(tokenizer.where(), ": the merge of \"", left, "\" and \"", right, "\" has a space, which GGUF cannot hold");
  }
  return left + " " + right;
}

void set_merges(const Tokenizer& tokenizer, GgufVocabulary& vocabulary) {
  vocabulary.model = "gemma4";
  vocabulary.scores.assign(vocabulary.pieces.size(), -1000.0f);  // not used by this tokenizer
  vocabulary.merges.reserve(tokenizer.merges().size());
  for (const Merge& merge : tokenizer.merges()) vocabulary.merges.push_back(merge_text(tokenizer, merge));
}

void set_scores(const Tokenizer& tokenizer, GgufVocabulary& vocabulary) {
  vocabulary.model = "llama";
  std::unordered_map<std::string, float> rank;
  rank.reserve(tokenizer.merges().size());
  for (const Merge& merge : tokenizer.merges()) {
    rank.emplace(tokenizer.piece(merge.left) + tokenizer.piece(merge.right), static_cast<float>(rank.size()));
  }
  const float last = -static_cast<float>(tokenizer.merges().size());
  for (const std::string& piece : vocabulary.pieces) {
    const auto found = rank.find(piece);
    vocabulary.scores.push_back(found == rank.end() ? last : -found->second);
  }
}

nlohmann::json load_optional(const fs::path& path) {
  return fs::exists(path) ? load_json(path) : nlohmann::json::object();
}

std::string read_chat_template(const fs::path& folder) {
  if (fs::exists(folder / "chat_template.jinja")) return read_text_file(folder / "chat_template.jinja");
  const nlohmann::json config = load_optional(folder / "tokenizer_config.json");
  const auto found = config.find("chat_template");
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return "";
  for (const auto& named : *found) {
    if (named.value("name", "") == "default") return named.value("template", "");
  }
  return "";
}

std::string with_plain_spaces(std::string piece) {
  static constexpr std::string_view kMark = "▁";
  for (size_t at = piece.find(kMark); at != std::string::npos; at = piece.find(kMark, at + 1)) {
    piece.replace(at, kMark.size(), " ");
  }
  return piece;
}

void add_id(GgufWriter& writer, const char* key, const std::optional<int64_t>& id) {
  if (id) writer.add(key, static_cast<uint32_t>(*id));
}

}  // namespace

GgufVocabulary make_gguf_vocabulary(const Tokenizer& tokenizer, const Gemma4Config& config, std::string chat_template) {
  GgufVocabulary vocabulary;
  vocabulary.chat_template = std::move(chat_template);
  vocabulary.bos = config.bos_token;
  vocabulary.padding = config.pad_token;
  const auto eos = tokenizer.id_of("<eos>");
  vocabulary.eos = eos                         ? std::optional<int64_t>(*eos)
                   : config.eos_tokens.empty() ? std::nullopt
                                               : std::optional(config.eos_tokens.front());
  vocabulary.unknown = tokenizer.id_of("<unk>");
  if (config.family == Family::Gemma3) {
    vocabulary.end_of_turn = tokenizer.id_of("<end_of_turn>");
  } else {
    vocabulary.mask = tokenizer.id_of("<mask>");
  }
  for (const auto& id : {vocabulary.bos, vocabulary.padding, vocabulary.eos}) {
    if (id && (*id < 0 || *id >= config.vocabulary_size)) {
      fail(tokenizer.where(), ": special token ", *id, " lies outside the vocabulary of ", config.vocabulary_size);
    }
  }
  set_pieces(tokenizer, vocabulary, static_cast<size_t>(config.vocabulary_size));
  set_types(tokenizer, config, vocabulary);
  if (config.family == Family::Gemma3) {
    set_scores(tokenizer, vocabulary);
  } else {
    set_merges(tokenizer, vocabulary);
  }
  return vocabulary;
}

GgufVocabulary read_gguf_vocabulary(const fs::path& model_folder, const Gemma4Config& config) {
  const auto tokenizer = Tokenizer::load(model_folder / "tokenizer.json");
  GgufVocabulary vocabulary = make_gguf_vocabulary(tokenizer, config, read_chat_template(model_folder));
  const fs::path path = model_folder / "generation_config.json";
  const nlohmann::json generation = load_optional(path);
  const auto found = generation.find("suppress_tokens");
  if (found == generation.end() || found->is_null()) return vocabulary;
  for (const auto& id : *found) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= config.vocabulary_size) {
      fail(path.string(), ": suppress_tokens has ", id.dump(), ", wanted are ids below ", config.vocabulary_size);
    }
    vocabulary.suppress_tokens.push_back(id.get<int32_t>());
  }
  return vocabulary;
}

SamplingDefaults read_sampling_defaults(const fs::path& model_folder) {
  const nlohmann::json generation = load_optional(model_folder / "generation_config.json");
  const auto number = [&](const char* key) -> std::optional<double> {
    const auto found = generation.find(key);
    return found != generation.end() && found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
  };
  SamplingDefaults defaults;
  if (const auto value = number("top_k")) defaults.top_k = static_cast<int32_t>(*value);
  if (const auto value = number("top_p")) defaults.top_p = static_cast<float>(*value);
  if (const auto value = number("temperature")) defaults.temperature = static_cast<float>(*value);
  return defaults;
}

void add_vocabulary(GgufWriter& writer, const GgufVocabulary& vocabulary) {
  writer.add("tokenizer.ggml.model", vocabulary.model);
  writer.add(kGgufTokens, GgufArray(vocabulary.pieces));
  writer.add("tokenizer.ggml.scores", GgufArray(vocabulary.scores));
  writer.add("tokenizer.ggml.token_type", GgufArray(vocabulary.types));
  if (vocabulary.model == "gemma4") writer.add("tokenizer.ggml.merges", GgufArray(vocabulary.merges));
  add_id(writer, "tokenizer.ggml.bos_token_id", vocabulary.bos);
  add_id(writer, "tokenizer.ggml.eos_token_id", vocabulary.eos);
  add_id(writer, "tokenizer.ggml.eot_token_id", vocabulary.end_of_turn);
  add_id(writer, "tokenizer.ggml.unknown_token_id", vocabulary.unknown);
  add_id(writer, "tokenizer.ggml.padding_token_id", vocabulary.padding);
  add_id(writer, "tokenizer.ggml.mask_token_id", vocabulary.mask);
  writer.add("tokenizer.ggml.add_bos_token", vocabulary.add_bos);
  writer.add("tokenizer.ggml.add_space_prefix", false);
  if (!vocabulary.suppress_tokens.empty()) {
    writer.add("tokenizer.ggml.suppress_tokens", GgufArray(vocabulary.suppress_tokens));
  }
  if (!vocabulary.chat_template.empty()) writer.add("tokenizer.chat_template", vocabulary.chat_template);
}

std::optional<std::string> first_differing_token(const std::vector<std::string>& pieces, const Tokenizer& tokenizer,
                                                 int64_t rows, PieceSpaces spaces) {
  const auto wanted = tokenizer.pieces().first(std::min(tokenizer.pieces().size(), static_cast<size_t>(rows)));
  const auto agree = [&](const std::string& found, const std::string& piece) {
    return found == piece || (spaces == PieceSpaces::OfEitherKind && with_plain_spaces(found) == with_plain_spaces(piece));
  };
  for (size_t id = 0; id < wanted.size(); ++id) {
    if (wanted[id].empty() || (id < pieces.size() && agree(pieces[id], wanted[id]))) continue;
    return join("token ", id, " is \"", id < pieces.size() ? pieces[id] : "", "\", tokenizer.json has \"", wanted[id],
                "\"");
  }
  return std::nullopt;
}

}  // namespace qat
