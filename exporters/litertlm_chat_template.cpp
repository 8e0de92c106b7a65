#include "exporters/litertlm_chat_template.h"

#include "core/error.h"

namespace qat {

std::string litertlm_chat_template(const ChatTemplate& chat_template) {
  if (chat_template.kind == ChatTemplateKind::Gemma3) fail("a .litertlm file knows Gemma 4's chat template only");
  return "{% for message in messages %}<|turn>{{ message.role }}\n{% for part in message.content %}{{ part.text | trim }}{% endfor %}<turn|>\n{% endfor %}<|turn>model\n";
}

}  // namespace qat
