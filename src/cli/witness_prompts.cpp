#include "cli/witness_prompts.h"

#include <filesystem>

#include "data/tokenizer.h"

namespace qat {
namespace fs = std::filesystem;

std::vector<std::vector<int32_t>> witness_prompts(const ModelFolder& folder) {
  const auto vocabulary = static_cast<int32_t>(folder.config().vocabulary_size);
  std::vector<std::vector<int32_t>> prompts;
  const fs::path file = folder.path() / "tokenizer.json";
  if (fs::exists(file)) {
    const Tokenizer tokenizer = Tokenizer::load(file);
    for (const char* text :
         {"The quick brown fox jumps over the lazy dog, and then it rests in the shade of an old tree.",
          "Question: what is 17 + 25?\nAnswer: 17 + 25 = 42. Check: 42 - 25 = 17.",
          "Es war einmal ein König, der hatte drei Töchter. Il était une fois trois sœurs."}) {
      std::vector<int32_t> prompt{static_cast<int32_t>(folder.config().bos_token)};
      for (const int32_t id : tokenizer.encode(text)) prompt.push_back(id % vocabulary);
      prompts.push_back(std::move(prompt));
    }
    return prompts;
  }
  for (const int32_t stride : {7, 31, 101}) {
    std::vector<int32_t> prompt{static_cast<int32_t>(folder.config().bos_token)};
    for (int32_t i = 1; i < 48; ++i) prompt.push_back(i * stride % vocabulary);
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace qat
