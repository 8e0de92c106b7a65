// The tokenizer of a model as a GGUF file holds it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "gemma4/config.h"
#include "io/gguf.h"

namespace qat {

// The metadata key of the list of pieces.
inline constexpr const char* kGgufTokens = "tokenizer.ggml.tokens";

// llama.cpp's token types.
enum class GgufTokenType : int32_t { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };

struct GgufVocabulary {
  // "gemma4": byte-pair encoding by `merges`. "llama" (Gemma 3): the piece with the highest score is merged first; with
  // the negated rank of the merge as score that gives the same tokens.
  std::string model;
  // One entry per row of the embedding table.
  std::vector<std::string> pieces;
  std::vector<float> scores;
  std::vector<int32_t> types;
  std::vector<std::string> merges;  // "left right"
  std::optional<int64_t> bos, eos, end_of_turn, unknown, padding, mask;
  bool add_bos = true;
  std::string chat_template;             // Jinja; empty for base models
  std::vector<int32_t> suppress_tokens;  // ids that are never generated
};

// general.sampling.*: what the model's makers generate with.
struct SamplingDefaults {
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> temperature;
};

// From the tokenizer and the text of the model's Jinja template ("" for none). Throws Error for ids beyond the table or
// pieces that GGUF cannot hold.
GgufVocabulary make_gguf_vocabulary(const Tokenizer& tokenizer, const Gemma4Config& config, std::string chat_template);

// The same from a model folder: tokenizer.json, chat_template.jinja (or tokenizer_config.json), generation_config.json.
GgufVocabulary read_gguf_vocabulary(const std::filesystem::path& model_folder, const Gemma4Config& config);

// From generation_config.json of a model folder; empty if there is none.
SamplingDefaults read_sampling_defaults(const std::filesystem::path& model_folder);

// Writes the tokenizer.* keys.
void add_vocabulary(GgufWriter& writer, const GgufVocabulary& vocabulary);

// llama.cpp's converter writes the "▁" of added tokens as a space.
enum class PieceSpaces { AsTheyAre, OfEitherKind };

// Where a file's list of pieces leaves the tokenizer's, for a table of so many rows: "token 5 is "a", tokenizer.json has
// "b""; nothing where they agree. Rows that the tokenizer has no piece for may hold any.
std::optional<std::string> first_differing_token(const std::vector<std::string>& pieces, const Tokenizer& tokenizer,
                                                 int64_t rows, PieceSpaces spaces = PieceSpaces::AsTheyAre);

}  // namespace qat
