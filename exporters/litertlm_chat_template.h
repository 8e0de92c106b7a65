// Gemma 4's chat template as LiteRT-LM's template engine (minijinja) can render it: the templates of the model folders
// use methods that the engine does not have. Renders what data/gemma4_template.cpp renders, without <bos>, which the
// runtime puts in front itself; numbers that Python writes with an exponent are written out.
#pragma once

#include <string>

#include "data/chat_template.h"

namespace qat {

// Throws Error for a template that is not Gemma 4's.
std::string litertlm_chat_template(const ChatTemplate& chat_template);

}  // namespace qat
