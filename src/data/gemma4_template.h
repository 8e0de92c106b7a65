// Gemma 4's chat template. Private to the chat templates' own sources.
#pragma once

#include "data/chat_template.h"
#include "data/template_values.h"

namespace qat {

void render_gemma4(const ChatTemplate& chat_template, const Conversation& conversation, const RenderOptions& options,
                   SpanWriter& out);

// A tool's declaration: declaration:NAME{description:…,parameters:{…}}. `tool` is JSON text.
void write_tool_declaration(const std::string& tool, const char* null_text, SpanWriter& out);

}  // namespace qat
