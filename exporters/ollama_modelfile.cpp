#include "exporters/ollama_modelfile.h"

#include "core/error.h"

namespace qat {

namespace {

// The delimiters of a family's turns, and what follows the header of the turn that is to be generated.
struct Turns {
  std::string open, close, generation;
  bool has_system_role;
};

Turns turns_of(ChatTemplateKind kind) {
  switch (kind) {
    case ChatTemplateKind::Gemma4Small:
      return {"<|turn>", "<turn|>", "", true};
    case ChatTemplateKind::Gemma4Large:
      return {"<|turn>", "<turn|>", "<|channel>thought\n<channel|>", true};
    case ChatTemplateKind::Gemma3:
      return {"<start_of_turn>", "<end_of_turn>", "", false};
  }
  QAT_CHECK(false);
  return {};
}

// A text/template over .System and .Messages. Gemma 3 has no system role: its text stands before the first user
// message.
std::string go_template(const Turns& turns) {
  std::string text;
  if (turns.has_system_role)
    text += "{{- if .System }}" + turns.open + "system\n{{ .System }}" + turns.close + "\n{{ end }}";
  text += "{{- $system := .System }}{{- range $i, $_ := .Messages }}";
  text += "{{- $last := eq (len (slice $.Messages $i)) 1 }}";
  text += "{{- if eq .Role \"user\" }}" + turns.open + "user\n";
  if (!turns.has_system_role) text += "{{ if $system }}{{ $system }}\n\n{{ $system = \"\" }}{{ end }}";
  text +=
      "{{ .Content }}" + turns.close + "\n{{ else if eq .Role \"assistant\" }}" + turns.open + "model\n{{ .Content }}";
  text += "{{ if not $last }}" + turns.close + "\n{{ end }}{{ end }}";
  text += "{{- if and $last (ne .Role \"assistant\") }}" + turns.open + "model\n" + turns.generation +
          "{{ end }}{{- end }}";
  return text;
}

}  // namespace

std::string ollama_modelfile(const std::string& gguf_name, std::optional<ChatTemplateKind> chat_template) {
  std::string text = "FROM ./" + gguf_name + "\n";
  if (!chat_template) return text + "TEMPLATE \"\"\"{{ .Prompt }}\"\"\"\n";
  const Turns turns = turns_of(*chat_template);
  text += "TEMPLATE \"\"\"" + go_template(turns) + "\"\"\"\n";
  text += "PARAMETER stop \"" + turns.close + "\"\n";
  if (*chat_template != ChatTemplateKind::Gemma3) text += "PARAMETER stop \"<|tool_response>\"\n";
  return text;
}

}  // namespace qat
