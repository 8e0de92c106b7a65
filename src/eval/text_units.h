// Words and bytes of the text that a document's counted tokens spell: perplexities per word and per byte can be
// compared between tokenizers.
#pragma once

#include <cstdint>

#include "data/dataset.h"
#include "data/tokenizer.h"

namespace qat {

struct TextUnits {
  int64_t words = 0;  // separated by white space, as Python's str.split() gives
  int64_t bytes = 0;  // UTF-8
};

// Of the tokens i > 0 with trained[i] set. Special tokens spell nothing; a run of counted tokens is one text.
TextUnits counted_units(const Tokenizer& tokenizer, const Example& document);

}  // namespace qat
