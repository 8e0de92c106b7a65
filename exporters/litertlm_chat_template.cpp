#include "exporters/litertlm_chat_template.h"

#include "core/error.h"

namespace qat {

namespace {

// How values, tools' declarations and tools' answers are written. JSON's null does not pass the engine's test `is
// none`; its text tells it.
constexpr const char* kMacros = R"jinja({#- Gemma 4's chat format for LiteRT-LM's template engine -#}
{%- macro quoted(text) -%}<|"|>{{ text }}<|"|>{%- endmacro -%}
{%- macro argument(value, quote_keys) -%}
  {%- if value is string -%}{{ quoted(value) }}
  {%- elif value is boolean -%}{{ 'true' if value else 'false' }}
  {%- elif value is mapping -%}{{ '{' }}
    {%- for key, item in value | dictsort -%}
      {{ '' if loop.first else ',' }}{{ quoted(key) if quote_keys else key }}:{{ argument(item, quote_keys) }}
    {%- endfor -%}{{ '}' }}
  {%- elif value is sequence -%}[
    {%- for item in value -%}{{ '' if loop.first else ',' }}{{ argument(item, quote_keys) }}{%- endfor -%}]
  {%- elif value ~ '' == 'none' -%}{{ null_text }}
  {%- else -%}{{ value }}
  {%- endif -%}
{%- endmacro -%}
{%- macro required(names) -%}required:[
  {%- for name in names -%}{{ '' if loop.first else ',' }}{{ quoted(name) }}{%- endfor -%}]
{%- endmacro -%}
{%- macro type_of(type) -%}
  {%- if type is string -%}{{ quoted(type | upper) }}
  {%- else -%}[{%- for one in type -%}{{ '' if loop.first else ',' }}{{ quoted(one | upper) }}{%- endfor -%}]
  {%- endif -%}
{%- endmacro -%}
{%- macro array_items(items) -%}items:{{ '{' }}
  {%- set ns = namespace(comma='') -%}
  {%- for key, value in items | dictsort -%}{%- if value is string or value ~ '' != 'none' -%}
    {{ ns.comma }}{%- set ns.comma = ',' -%}
    {%- if key == 'properties' -%}properties:{{ '{' }}{%- if value is mapping -%}{{ parameters(value) }}{%- endif -%}{{ '}' }}
    {%- elif key == 'required' -%}{{ required(value) }}
    {%- elif key == 'type' -%}type:{{ type_of(value) }}
    {%- else -%}{{ key }}:{{ argument(value, true) }}
    {%- endif -%}
  {%- endif -%}{%- endfor -%}{{ '}' }}
{%- endmacro -%}
{%- macro parameter(schema) -%}
  {%- set type = schema.type | default('') | upper -%}
  {%- if schema.description -%}description:{{ quoted(schema.description) }},{%- endif -%}
  {%- if type == 'STRING' and schema.enum -%}enum:{{ argument(schema.enum, true) }},{%- endif -%}
  {%- if type == 'ARRAY' and schema['items'] is mapping and schema['items'] -%}{{ array_items(schema['items']) }},{%- endif -%}
  {%- if schema.nullable -%}nullable:true,{%- endif -%}
  {%- if type == 'OBJECT' -%}properties:{{ '{' }}
    {%- if schema.properties is mapping -%}{{ parameters(schema.properties) }}{%- else -%}{{ parameters(schema) }}{%- endif -%}
    {{ '},' }}{%- if schema.required -%}{{ required(schema.required) }},{%- endif -%}
  {%- endif -%}
  type:{{ quoted(type) }}
{%- endmacro -%}
{%- macro parameters(properties) -%}
  {%- set ns = namespace(comma='') -%}
  {%- for key, value in properties | dictsort -%}
    {%- if key not in ['description', 'type', 'properties', 'required', 'nullable'] -%}
      {{ ns.comma }}{%- set ns.comma = ',' -%}{{ key }}:{{ '{' }}{{ parameter(value) }}{{ '}' }}
    {%- endif -%}
  {%- endfor -%}
{%- endmacro -%}
{%- macro declaration(function) -%}
  declaration:{{ function.name }}{{ '{' }}description:{{ quoted(function.description) }}
  {%- if function.parameters -%}{%- set schema = function.parameters -%},parameters:{{ '{' }}
    {%- if schema.properties -%}properties:{{ '{' }}{{ parameters(schema.properties) }}{{ '},' }}{%- endif -%}
    {%- if schema.required -%}{{ required(schema.required) }},{%- endif -%}
    {%- if schema.type -%}type:{{ quoted(schema.type | upper) }}{{ '}' }}{%- endif -%}
  {%- endif -%}
  {%- if function.response is mapping -%}{%- set schema = function.response -%},response:{{ '{' }}
    {%- if schema.description -%}description:{{ quoted(schema.description) }},{%- endif -%}
    {%- if schema.type | default('') | upper == 'OBJECT' -%}type:{{ quoted(schema.type | upper) }}{{ '}' }}{%- endif -%}
  {%- endif -%}{{ '}' }}
{%- endmacro -%}
{%- macro members(object) -%}
  {%- for key, value in object | dictsort -%}{{ '' if loop.first else ',' }}{{ key }}:{{ argument(value, false) }}{%- endfor -%}
{%- endmacro -%}
{%- macro answer(name, response) -%}<|tool_response>response:{{ name }}{{ '{' }}
  {%- if response is mapping -%}{{ members(response) }}{%- else -%}value:{{ argument(response, false) }}{%- endif -%}
  {{ '}' }}<tool_response|>
{%- endmacro -%}
{%- macro without_thoughts(text) -%}
  {%- set ns = namespace(kept='') -%}
  {%- for part in text | split('<channel|>') -%}{%- set ns.kept = ns.kept ~ (part | split('<|channel>') | first) -%}{%- endfor -%}
  {{ ns.kept | trim }}
{%- endmacro -%}
{%- macro content_of(message, from_model) -%}
  {%- if message.content is string -%}
    {{ without_thoughts(message.content) if from_model else message.content | trim }}
  {%- elif message.content is sequence -%}
    {%- for part in message.content -%}{%- if part.text is defined -%}
      {{ without_thoughts(part.text) if from_model else part.text | trim }}
    {%- endif -%}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{#- Plain text comes as a list of one part. -#}
{%- macro has_content(message) -%}
  {%- if message.content is string -%}{{ 'yes' if message.content else 'no' }}
  {%- elif message.content is sequence and message.content -%}
    {{ 'yes' if message.content | length > 1 or message.content[0].text else 'no' }}
  {%- endif -%}
{%- endmacro -%}
)jinja";

// The system turn. A part that stands alone is how the runtime hands over plain text.
constexpr const char* kSystem = R"jinja(
{%- set thinking = enable_thinking is defined and enable_thinking -%}
{%- set has_tools = tools is defined and tools -%}
{%- set has_system = messages and messages[0].role in ['system', 'developer'] -%}
{%- if thinking or has_tools or has_system -%}
  {{ '<|turn>system\n' }}{{ '<|think|>\n' if thinking else '' }}
  {%- if has_system -%}
    {%- if messages[0].content is string -%}{{ messages[0].content | trim }}
    {%- else -%}
      {%- for part in messages[0].content -%}
        {{ part.text | trim }}{{ ' ' if messages[0].content | length > 1 else '' }}
      {%- endfor -%}
    {%- endif -%}
  {%- endif -%}
  {%- if has_tools -%}{%- for tool in tools -%}<|tool>{{ declaration(tool.function) }}<tool|>{%- endfor -%}{%- endif -%}
  {{ '<turn|>\n' }}
{%- endif -%}
{%- set turns = messages[1:] if has_system else messages -%}
{%- set state = namespace(last_user=-1, previous='', last='text') -%}
{%- for message in turns -%}{%- if message.role == 'user' -%}{%- set state.last_user = loop.index0 -%}{%- endif -%}{%- endfor -%}
)jinja";

constexpr const char* kTurns = R"jinja(
{%- for message in turns -%}{%- if message.role != 'tool' -%}
  {%- set index = loop.index0 -%}
  {%- set from_model = message.role in ['assistant', 'model'] -%}
  {%- set turn = namespace(answered=false, stopped=false, following='') -%}
  {%- set state.last = 'text' -%}
  {%- if not (from_model and state.previous == 'model') -%}{{ '<|turn>' ~ ('model' if from_model else message.role) ~ '\n' }}{%- endif -%}
  {%- set reasoning = message.reasoning or message.reasoning_content -%}
  {%- set current = index > state.last_user -%}
  {%- if july -%}{%- set shown = current or (preserve_thinking is defined and preserve_thinking and message.tool_calls) -%}
  {%- else -%}{%- set shown = current and message.tool_calls -%}{%- endif -%}
  {%- if reasoning and shown -%}{{ '<|channel>thought\n' ~ reasoning ~ '\n<channel|>' }}{%- endif -%}
  {%- if message.tool_calls -%}
    {%- set state.last = 'call' -%}
    {%- for call in message.tool_calls -%}<|tool_call>call:{{ call.function.name }}{{ '{' }}
      {%- if call.function.arguments is mapping -%}{{ members(call.function.arguments) }}
      {%- elif call.function.arguments is string -%}{{ call.function.arguments }}{%- endif -%}
    {{ '}' }}<tool_call|>{%- endfor -%}
  {%- endif -%}
  {%- if message.tool_responses -%}
    {%- for response in message.tool_responses -%}{{ answer(response.name | default('unknown'), response.response) }}{%- endfor -%}
    {%- set turn.answered = true -%}
  {%- elif message.tool_calls -%}
    {%- for follow in turns[index + 1:] -%}
      {%- if follow.role != 'tool' -%}{%- set turn.stopped = true -%}{%- endif -%}
      {%- if not turn.stopped -%}
        {%- set turn.answered = true -%}
        {%- set reply = namespace(name=follow.name or 'unknown', text='', parts=false) -%}
        {%- for call in message.tool_calls -%}
          {%- if follow.tool_call_id and call.id == follow.tool_call_id -%}{%- set reply.name = call.function.name -%}{%- endif -%}
        {%- endfor -%}
        {%- if follow.content is string or follow.content is mapping or follow.content is not sequence -%}{{ answer(reply.name, follow.content) }}
        {%- else -%}
          {%- for part in follow.content -%}
            {%- if part.type == 'tool_response' -%}{{ answer(part.name or reply.name, part.response) }}{%- set reply.parts = true -%}
            {%- elif part.text is defined -%}{%- set reply.text = reply.text ~ part.text -%}{%- endif -%}
          {%- endfor -%}
          {%- if not reply.parts -%}{{ answer(reply.name, reply.text) }}{%- endif -%}
        {%- endif -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if turn.answered -%}{%- set state.last = 'answer' -%}{%- endif -%}
  {%- set text = content_of(message, from_model) -%}
  {{ text }}
  {%- for later in turns[index + 1:] -%}
    {%- if later.role != 'tool' and turn.following == '' -%}{%- set turn.following = 'model' if later.role == 'assistant' else later.role -%}{%- endif -%}
  {%- endfor -%}
  {%- if state.last == 'call' -%}<|tool_response>
  {%- elif july -%}
    {%- set continues = from_model and turn.following == 'model' -%}
    {%- if not continues and not (turn.answered and text == '' and turn.following == '') -%}{{ '<turn|>\n' }}{%- endif -%}
  {%- elif not turn.answered or has_content(message) == 'yes' -%}{{ '<turn|>\n' }}
  {%- endif -%}
  {%- set state.previous = 'model' if from_model else message.role -%}
{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt is not defined or add_generation_prompt -%}
  {%- if state.last == 'text' -%}{{ '<|turn>model\n' }}{{ '<|channel>thought\n<channel|>' if large and not thinking else '' }}
  {%- elif state.last == 'answer' and july and thinking -%}{{ '<|channel>thought\n' }}
  {%- endif -%}
{%- endif -%}
)jinja";

std::string replaced(std::string text, std::string_view old, std::string_view by) {
  for (size_t at = text.find(old); at != std::string::npos; at = text.find(old, at + by.size())) {
    text.replace(at, old.size(), by);
  }
  return text;
}

}  // namespace

std::string litertlm_chat_template(const ChatTemplate& chat_template) {
  if (chat_template.kind == ChatTemplateKind::Gemma3) {
    fail("a .litertlm file can hold Gemma 4's chat template only so far; this model has Gemma 3's");
  }
  const bool large = chat_template.kind == ChatTemplateKind::Gemma4Large;
  const auto set = [](const char* name, bool value) {
    return join("{%- set ", name, " = ", value ? "true" : "false", " -%}\n");
  };
  return set("july", chat_template.july_edition) + set("large", large) +
         replaced(kMacros, "{{ null_text }}", chat_template.july_edition ? "null" : "None") + kSystem + kTurns;
}

}  // namespace qat
