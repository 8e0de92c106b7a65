#include "eval/text_units.h"

#include <string>

#include "data/utf8.h"

namespace qat {

TextUnits counted_units(const Tokenizer& tokenizer, const Example& document) {
  TextUnits units;
  std::vector<int32_t> run;
  const auto finish_run = [&] {
    const std::string text = tokenizer.decode(run, /*skip_special=*/true);
    units.words += count_words(text);
    units.bytes += static_cast<int64_t>(text.size());
    run.clear();
  };
  for (size_t i = 1; i < document.tokens.size(); ++i) {
    if (document.trained[i] != 0) {
      run.push_back(document.tokens[i]);
    } else {
      finish_run();
    }
  }
  finish_run();
  return units;
}

}  // namespace qat
