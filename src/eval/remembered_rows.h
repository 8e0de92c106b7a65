// A model that several others are measured against: each batch goes through its layers once, however often it is asked.
#pragma once

#include <cstdint>
#include <memory>

#include "gemma4/language_model.h"

namespace qat {

// The same model, but hidden_rows() of a batch is kept and given again when the same batch comes back. `most_bytes`
// bounds what is kept; batches beyond are computed every time. Logits are computed from hidden values every time: they
// are some hundred times larger.
std::unique_ptr<LanguageModel> remember_hidden_rows(std::unique_ptr<LanguageModel> model, int64_t most_bytes);

}  // namespace qat
