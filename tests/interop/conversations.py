"""Random conversations, and variants of Gemma 4's published chat template, for comparing chat rendering with transformers.

Used by chat_template_against_transformers.py and by scripts/golden/make_data_goldens.py.
"""
import random
import re

WORDS = ("the a of to in is you that it he was for on are as with his they I at be this have from or one had by word but not "
         "what all were we when your can said there use an each which she do how their if will up other about out many then "
         "them these so some her would make like him into time has look two more write go see number no way could people "
         "my than first water been call who oil its now find long down day did get come made may part").split()
ODD = ["naïve", "Größe", "日本語", "Ωμέγα", "мир", "🦙", "x²", "€5", "\n", "\n\n", "  ", "\t", "»quoted«", "a_b", "<b>", "{}", "C++", "½",
       "'", '"', "\\n", "100%", "e\u0301", "\u200d", "\u2028"]


def text(rng, most=20):
    words = [rng.choice(WORDS) if rng.random() < 0.85 else rng.choice(ODD) for _ in range(rng.randint(1, most))]
    words[rng.randrange(len(words))] = rng.choice(WORDS)  # never only white space
    return rng.choice(["", "", "", " ", "\n", "\u00a0"]) + " ".join(words) + rng.choice(["", "", ".", "?", "\n", " \n\n"])


def name(rng):
    return "_".join(rng.sample(WORDS, rng.randint(1, 2)))


def value(rng, depth=0):
    kind = rng.randrange(9 if depth < 2 else 6)
    if kind <= 1:
        return text(rng, 4)
    if kind == 2:
        return rng.choice([0, 1, -7, 12345678901, 2**53 + 1])
    if kind == 3:
        return rng.choice([0.5, -1.0, 1e-05, 3.14159, 1e16, 123456789.25, 1e22, 0.0001, 1e15, 2.5e-10])
    if kind == 4:
        return rng.choice([True, False])
    if kind == 5:
        return None
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return arguments(rng, depth + 1)


def arguments(rng, depth=0):
    result = {}
    for _ in range(rng.randint(0, 4)):
        key = name(rng)
        result[key.upper() if rng.random() < 0.2 else key] = value(rng, depth)
    return result


def schema(rng, depth=0):
    kind = rng.choice(["string", "integer", "number", "boolean", "array", "object"] if depth < 2 else ["string", "integer"])
    result = {"type": kind}
    if rng.random() < 0.7:
        result["description"] = text(rng, 6).strip()
    if rng.random() < 0.2:
        result["nullable"] = True
    if kind == "string" and rng.random() < 0.4:
        result["enum"] = [rng.choice(WORDS) for _ in range(rng.randint(1, 3))]
    if kind == "array" and rng.random() < 0.8:
        result["items"] = schema(rng, depth + 1)
    if kind == "object":
        result["properties"] = {name(rng): schema(rng, depth + 1) for _ in range(rng.randint(0, 3))}
        if result["properties"] and rng.random() < 0.6:
            result["required"] = rng.sample(sorted(result["properties"]), 1)
    return result


def tool(rng):
    function = {"name": name(rng), "description": text(rng, 8).strip()}
    if rng.random() < 0.85:
        properties = {name(rng): schema(rng) for _ in range(rng.randint(0, 4))}
        function["parameters"] = {"type": "object", "properties": properties}
        if properties and rng.random() < 0.6:
            function["parameters"]["required"] = rng.sample(sorted(properties), rng.randint(1, len(properties)))
    if rng.random() < 0.2:
        function["response"] = {"type": "object", "description": text(rng, 5).strip()}
    return {"type": "function", "function": function}


def content(rng, most=20):
    if rng.random() < 0.15:
        return [{"type": "text", "text": text(rng, most)} for _ in range(rng.randint(1, 3))]
    return text(rng, most)


def assistant(rng):
    message = {"role": "assistant", "content": content(rng, 40)}
    if rng.random() < 0.1:
        message["content"] = "<|channel>thought\n" + text(rng) + "<channel|>" + text(rng)
    if rng.random() < 0.4:
        message[rng.choice(["reasoning", "reasoning_content"])] = text(rng)
    return message


def tool_turn(rng, tools, last):
    """An assistant's calls, their answers in one of the three ways, perhaps followed by the assistant's words."""
    message = assistant(rng)
    message["content"] = rng.choice([None, "", message["content"]])
    calls = []
    for i in range(rng.randint(1, 3)):
        called = rng.choice(tools)["function"]["name"] if tools else name(rng)
        calls.append({"id": f"call_{i}", "type": "function", "function": {"name": called, "arguments": arguments(rng)}})
    message["tool_calls"] = calls
    messages = [message]
    how = rng.randrange(4 if last else 3)
    if how == 0:
        message["tool_responses"] = [{"name": call["function"]["name"], "response": rng.choice([arguments(rng), value(rng)])}
                                     for call in calls]
    elif how in (1, 2):
        for call in calls:
            answer = {"role": "tool", "tool_call_id": call["id"], "content": content(rng)}
            if rng.random() < 0.3:
                answer["name"] = call["function"]["name"]
            messages.append(answer)
    if how != 3 and rng.random() < 0.7:
        messages.append(assistant(rng))
    return messages


def conversation(rng, gemma3=False):
    """One request: messages, tools and the template's options."""
    messages = []
    tools = [] if gemma3 or rng.random() < 0.6 else [tool(rng) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.4:
        messages.append({"role": "system" if gemma3 else rng.choice(["system", "developer"]), "content": text(rng)})
    turns = rng.randint(1, 4)
    for turn in range(turns):
        messages.append({"role": "user", "content": content(rng)})
        if not gemma3 and rng.random() < (0.5 if tools else 0.1):
            messages += tool_turn(rng, tools, turn == turns - 1)
        else:
            messages.append(assistant(rng))
            if not gemma3 and rng.random() < 0.1:
                messages.append(assistant(rng))
    if rng.random() < 0.15 and messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
        messages.pop()
    if gemma3:
        for message in messages:
            message.pop("reasoning", None)
            message.pop("reasoning_content", None)
        if messages[-1]["role"] != "user" and len(messages) == 1:
            messages.append({"role": "user", "content": text(rng)})
    return {"messages": messages, "tools": tools, "enable_thinking": not gemma3 and rng.random() < 0.3,
            "preserve_thinking": not gemma3 and rng.random() < 0.3, "add_generation_prompt": rng.random() < 0.3}


def make(seed, count, gemma3=False):
    rng = random.Random(seed)
    return [conversation(rng, gemma3) for _ in range(count)]


def only_once(template, old, new):
    assert template.count(old) == 1, (template.count(old), old)
    return template.replace(old, new)


def small(template):
    """E2B's and E4B's: no empty thought channel in the generation prompt."""
    changed, count = re.subn(r"\{%- if not enable_thinking \| default\(false\) -%\}\s*\{\{- '<\|channel>thought\\n<channel\|>' -\}\}"
                             r"\s*\{%- endif -%\}", "", template)
    assert count == 1, count
    return changed


def july(template):
    """The edition of July 2026, from the published earlier one: the changes are those that its release notes list."""
    template = only_once(template, "{%- if argument is string -%}",
                         "{%- if argument is none -%}{{- 'null' -}}{%- elif argument is string -%}")
    template = only_once(template, "{%- if thinking_text and loop.index0 > ns_turn.last_user_idx and message.get('tool_calls') -%}",
                         "{%- if thinking_text and (loop.index0 > ns_turn.last_user_idx or "
                         "(preserve_thinking | default(false) and message.get('tool_calls'))) -%}")
    template = only_once(template, "        {{- messages[0]['content'] | trim -}}\n",
                         "{%- if messages[0]['content'] is string -%}{{- messages[0]['content'] | trim -}}{%- else -%}"
                         "{%- for part in messages[0]['content'] -%}{{- part['text'] | trim + ' ' -}}{%- endfor -%}{%- endif -%}\n")
    shown = ("{%- set shown = namespace(text='') -%}"
             "{%- if message.get('content') is string -%}{%- set shown.text = strip_thinking(message['content']) -%}"
             "{%- elif message.get('content') -%}{%- for part in message['content'] -%}"
             "{%- set shown.text = shown.text + strip_thinking(part['text']) -%}{%- endfor -%}{%- endif -%}")
    following = ("{%- set following = namespace(role=none) -%}{%- for later in loop_messages[loop.index0 + 1:] -%}"
                 "{%- if following.role is none and later['role'] != 'tool' -%}{%- set following.role = later['role'] -%}"
                 "{%- endif -%}{%- endfor -%}"
                 "{%- set continues_into_next = role == 'model' and following.role == 'assistant' and "
                 "(not message.get('tool_calls') or ns_tr_out.flag) -%}")
    template = only_once(template, "{%- if ns.prev_message_type == 'tool_call' and not ns_tr_out.flag -%}",
                         shown + following + "{%- if ns.prev_message_type == 'tool_call' and not ns_tr_out.flag -%}")
    template = only_once(template, "{%- elif not (ns_tr_out.flag and not message.get('content')) -%}",
                         "{%- elif continues_into_next -%}"
                         "{%- elif not (ns_tr_out.flag and not shown.text and following.role is none) -%}")
    # The last "endif" pair of the generation prompt: after a tool's answer, thinking goes on.
    head, tail = template.rsplit("{%- endif -%}\n{%- endif -%}", 1)
    return head + ("{%- elif ns.prev_message_type == 'tool_response' and enable_thinking | default(false) -%}"
                   "{{- '<|channel>thought\\n' -}}{%- endif -%}\n{%- endif -%}") + tail


def marked_gemma4(template):
    """The template with {% generation %} around what the model itself writes, for transformers' assistant mask."""
    def generation(inside):
        return "{%- generation -%}" + inside + "{%- endgeneration -%}"

    thought = "{{- '<|channel>thought\\n' + thinking_text + '\\n<channel|>' -}}"
    template = only_once(template, thought, generation(thought))
    call = re.search(r"\{%- for tool_call in message\['tool_calls'\] -%\}.*?\{%- endfor -%\}(?=\s*\{%- set ns.prev_message_type = 'tool_call')",
                     template, re.S).group(0)
    template = only_once(template, call, generation(call))
    for source in ("message['content']", "item['text']"):
        shown = "{{- strip_thinking(" + source + ") -}}"
        template = only_once(template, shown, "{%- if strip_thinking(" + source + ") -%}" + generation(shown) + "{%- endif -%}")
    head, tail = template.rsplit("{{- '<turn|>\\n' -}}", 1)
    close = ("{%- if role == 'model' -%}" + generation("{{- '<turn|>' -}}") + "{{- '\\n' -}}{%- else -%}{{- '<turn|>\\n' -}}{%- endif -%}")
    return head + close + tail


def marked_gemma3(template):
    """The same for Gemma 3's template."""
    def generation(expression):
        inside = "{%- generation -%}{{ " + expression + " }}{%- endgeneration -%}"
        return "{%- if role == 'model' -%}" + inside + "{%- else -%}{{ " + expression + " }}{%- endif -%}"

    for source in ("message['content'] | trim", "item['text'] | trim"):
        template = only_once(template, "{{ " + source + " }}", generation(source))
    found = re.search(r"\{\{ '<end_of_turn>(\\n|\n)' \}\}", template).group(0)
    return only_once(template, found, generation("'<end_of_turn>'") + "{{ '\\n' }}")
