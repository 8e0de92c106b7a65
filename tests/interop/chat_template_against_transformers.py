#!/usr/bin/env python3
"""Compares rendered text, ids and loss masks of this project's chat templates with transformers' apply_chat_template.

Usage: chat_template_against_transformers.py QAT_CHAT_DUMP TOKENIZER_JSON [--gemma4 JINJA] [--gemma3 JINJA_OR_CONFIG]
           [--count 500] [--seed 1]

Gemma 4's template (default: the published 31B one in tests/golden/data) is used in four variants: 31B and E2B/E4B (which
differ in one place), each in the published edition and in that of July 2026 (conversations.july). --gemma3 is
a chat_template.jinja or a tokenizer_config.json with one; TOKENIZER_JSON must be of the same family, so give --gemma4 ""
to compare Gemma 3 alone.

The masks' oracle is transformers' own assistant mask of a copy of the template with {% generation %} markers, which
conversations.marked_gemma4 and marked_gemma3 insert. Text and ids are compared with the template as it is.
Exit code 1 if anything differs, 77 if transformers is not installed.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import conversations

ROOT = pathlib.Path(__file__).resolve().parents[2]


def in_vocabulary_at_end(requests, vocabulary):
    """transformers masks only the first of the byte tokens of a last character, so answers end with a whole piece."""
    def mend(text):
        stripped = text.rstrip()
        return text if stripped and stripped[-1] in vocabulary else stripped + "."

    for request in requests:
        for message in request["messages"]:
            if message["role"] == "assistant" and isinstance(message["content"], str) and message["content"]:
                message["content"] = mend(message["content"])
            elif message["role"] == "assistant" and message["content"]:
                for part in message["content"]:
                    part["text"] = mend(part["text"])
    return requests


def expected(tokenizer, template, marked, request):
    options = {key: request[key] for key in ("enable_thinking", "preserve_thinking", "add_generation_prompt")}
    options["tools"] = request["tools"] or None
    text = tokenizer.apply_chat_template(request["messages"], chat_template=template, tokenize=False, **options)
    ids = tokenizer.apply_chat_template(request["messages"], chat_template=template, tokenize=True, return_dict=True, **options)
    masked = tokenizer.apply_chat_template(request["messages"], chat_template=marked, tokenize=True, return_dict=True,
                                           return_assistant_tokens_mask=True, **options)
    assert masked["input_ids"] == ids["input_ids"], "the markers changed the text"
    return {"text": text, "tokens": list(ids["input_ids"]), "trained": list(masked["assistant_masks"])}


def compare(dump, tokenizer_json, tokenizer, name, template, marked, requests):
    """Number of requests whose text, ids or mask differ."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "chat_template.jinja"
        path.write_text(template, encoding="utf-8")
        run = subprocess.run([dump, tokenizer_json, str(path)], input="".join(json.dumps(r) + "\n" for r in requests),
                             capture_output=True, text=True)
    if run.returncode != 0:
        print(f"{name}: {run.stderr.strip()}")
        return len(requests)
    if run.stderr.strip() != name:
        print(f"{name}: recognised as {run.stderr.strip()}")
        return len(requests)
    found = [json.loads(line) for line in run.stdout.split("\n") if line]
    assert len(found) == len(requests)
    counts = {"text": 0, "tokens": 0, "trained": 0}
    shown = 0
    for request, answer in zip(requests, found):
        wanted = expected(tokenizer, template, marked, request)
        for key in counts:
            if answer.get(key) != wanted[key]:
                counts[key] += 1
                if shown < 2:
                    shown += 1
                    print(f"{name}: {key} differs\n  request {json.dumps(request)}\n  found  {answer.get(key, answer)}\n"
                          f"  wanted {wanted[key]}")
    trained = sum(sum(answer.get("trained", [])) for answer in found)
    total = sum(len(answer.get("tokens", [])) for answer in found)
    print(f"{name}: {len(requests)} conversations, {total} tokens, {trained} trained;",
          ", ".join(f"{key}: {count} differ" for key, count in counts.items()))
    return sum(counts.values())


def read_template(path):
    content = pathlib.Path(path).read_text(encoding="utf-8")
    return json.loads(content)["chat_template"] if path.endswith(".json") else content


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump")
    parser.add_argument("tokenizer")
    parser.add_argument("--gemma4", default=str(ROOT / "tests/golden/data/gemma4_31b_chat_template.jinja"))
    parser.add_argument("--gemma3")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        from transformers import PreTrainedTokenizerFast
    except ImportError:
        print("skipped: the Python package transformers is not installed")
        return 77
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=arguments.tokenizer, bos_token="<bos>", eos_token="<eos>")
    vocabulary = tokenizer.get_vocab()
    different = 0
    if arguments.gemma4:
        published = read_template(arguments.gemma4)
        requests = in_vocabulary_at_end(conversations.make(arguments.seed, arguments.count), vocabulary)
        for name, template in (("gemma4-large", published), ("gemma4", conversations.small(published)),
                               ("gemma4-large, July edition", conversations.july(published)),
                               ("gemma4, July edition", conversations.small(conversations.july(published)))):
            different += compare(arguments.dump, arguments.tokenizer, tokenizer, name, template,
                                 conversations.marked_gemma4(template), requests)
    if arguments.gemma3:
        template = read_template(arguments.gemma3)
        requests = in_vocabulary_at_end(conversations.make(arguments.seed, arguments.count, gemma3=True), vocabulary)
        different += compare(arguments.dump, arguments.tokenizer, tokenizer, "gemma3", template,
                             conversations.marked_gemma3(template), requests)
    print(f"seed {arguments.seed}: {'all equal' if different == 0 else f'{different} differences'}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
