#!/usr/bin/env python3
"""Writes tests/golden/data: a small tokenizer in Gemma's format, what Hugging Face's `tokenizers` makes of some text with it
and with variants of it, and what transformers makes of random conversations with Gemma 4's and Gemma 3's templates.

Usage: make_data_goldens.py --gemma3 JINJA_OR_TOKENIZER_CONFIG
Needs the Python packages tokenizers and transformers. tests/golden/data/gemma4_31b_chat_template.jinja must be there.
"""
import argparse
import collections
import json
import pathlib
import random
import sys

import tokenizers
from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/data"
sys.path.insert(0, str(ROOT / "tests/interop"))
import chat_template_against_transformers as chat  # noqa: E402
import conversations  # noqa: E402
import tokenizer_against_hf as interop  # noqa: E402

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>",
           "<tool_response|>", '<|"|>', "<|think|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>", "<start_of_turn>",
           "<end_of_turn>"]
PLAIN = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)


def learn_merges(words, count):
    """Plain byte-pair training: joins the most frequent neighbours, the first of equals in order of appearance."""
    words = collections.Counter(tuple(word) for word in words)
    merges = []
    while len(merges) < count:
        pairs = collections.Counter()
        for word, times in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += times
        best = max(pairs, key=pairs.get)
        merges.append(best)
        joined = collections.Counter()
        for word, times in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i:i + 2] == best:
                    out.append("".join(best))
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            joined[tuple(out)] += times
        words = joined
    return merges


def run_merges(character, longest):
    """Runs of one character, longest first as in Gemma's file."""
    for size in range(longest, 1, -1):
        yield character * (size - 1), character
        if size > 3:
            yield character * (size // 2), character * (size - size // 2)


def make_tokenizer():
    rng = random.Random(7)
    words = ["▁" + rng.choice(conversations.WORDS) for _ in range(3000)]
    merges = [*run_merges("\n", 31), *run_merges("▁", 8), *learn_merges(words, 130),
              ("<", "/"), ("▁", "</"), (">", "▁</"), ("é", "é"), ("日", "本")]
    characters = sorted({c for c in map(chr, range(0x20, 0x7F)) if c != " "} | set("▁\n\téßЖ日本語½🦙"))
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    for left, right in merges:
        if left + right not in pieces:
            pieces.append(left + right)
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": piece, **PLAIN, "special": True} for i, piece in enumerate(SPECIAL)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                                                     {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": [list(merge) for merge in merges]},
    }


def variants(base):
    """Merge patches (RFC 7386) of the tokenizer."""
    added = base["added_tokens"]
    size = len(base["model"]["vocab"])
    yield {"added_tokens": added + [{"id": base["model"]["vocab"]["\n" * n], "content": "\n" * n, **PLAIN, "special": False}
                                    for n in (1, 2, 3)]
           + [{"id": size, "content": "<table>", **PLAIN, "special": False},
              {"id": size + 1, "content": "two words", **PLAIN, "normalized": True, "special": False},
              {"id": size + 2, "content": "<tab", **PLAIN, "special": False}]}
    yield {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, base["normalizer"]]},
           "pre_tokenizer": None,
           "decoder": {"type": "Sequence", "decoders": [*base["decoder"]["decoders"],
                                                        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}}


def cases(tokenizer_json, lines):
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json))
    result = []
    for line in lines:
        tokenizer.encode_special_tokens = False
        ids = tokenizer.encode(line, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        as_text = tokenizer.encode(line, add_special_tokens=False).ids
        golden = {"text": line, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                  "plain": tokenizer.decode(ids, skip_special_tokens=True), "ids_without_specials": as_text}
        for key, usual in (("decoded", line), ("plain", golden["decoded"]), ("ids_without_specials", ids)):
            if golden[key] == usual:
                del golden[key]
        result.append(golden)
    return result


def text_lines(base, rng, count):
    vocabulary = list(base["model"]["vocab"])
    fixed = ["", " ", "Hello world", "\n" * 31, "\n" * 32, "\n" * 40, "\n" * 70, " " * 9, "<a> </a>", "> </", ">▁</", "<bos><bos>",
             "x<|turn>user\nhi<turn|>\n", "<|turn", "<table>", "<tab", "two words", "a two words b", "<0x41>", "\x00", "🦙🦣", "éé", "日本語",
             "<start_of_turn>model\n", "<|\"|>", "\r\n", "\ufffd"]
    real = [conversations.text(rng) for _ in range(count)]
    lines = fixed + interop.make_lines(rng, count, real, vocabulary, SPECIAL)
    return [line[:72] for line in lines]


def invalid_utf8(rng, count):
    """Broken bytes and what Python makes of them."""
    fixed = [b"a\x80b", b"\xc3", b"\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\xa6", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80", b"\xff\xfe",
             b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xe0\x9f\xbf", "é🦙".encode()]
    pool = [0x41, 0x80, 0xBF, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xED, 0xA0, 0xF0, 0x9F, 0x90, 0xF4, 0x8F, 0xFF]
    made = fixed + [bytes(rng.choice(pool) for _ in range(rng.randint(1, 10))) for _ in range(count)]
    return [{"hex": data.hex(), "repaired": data.decode("utf-8", errors="replace")} for data in made]


def chat_goldens(tokenizer_path, base, gemma3_template):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_path), bos_token="<bos>", eos_token="<eos>")
    published = (OUT / "gemma4_31b_chat_template.jinja").read_text(encoding="utf-8")
    vocabulary = base["model"]["vocab"]
    templates = [("gemma4-large", False, published), ("gemma4", False, conversations.small(published)),
                 ("gemma4-large", True, conversations.july(published)),
                 ("gemma4", True, conversations.small(conversations.july(published)))]
    result = []
    for index, (name, july, template) in enumerate(templates):
        requests = chat.in_vocabulary_at_end(conversations.make(100 + index, 8), vocabulary)
        marked = conversations.marked_gemma4(template)
        for request in requests:
            result.append({"template": name, "july": july, "request": request, **chat.expected(tokenizer, template, marked, request)})
    requests = chat.in_vocabulary_at_end(conversations.make(200, 8, gemma3=True), vocabulary)
    marked = conversations.marked_gemma3(gemma3_template)
    for request in requests:
        result.append({"template": "gemma3", "july": False, "request": request,
                       **chat.expected(tokenizer, gemma3_template, marked, request)})
    for golden in result:
        # Ids follow from the text; the mask is kept as lengths of runs, untrained first.
        golden["token_count"] = len(golden.pop("tokens"))
        runs, value = [0], 0
        for trained in golden["trained"]:
            if trained != value:
                runs, value = runs + [0], trained
            runs[-1] += 1
        golden["trained"] = runs
    return result


def write(name, content):
    path = OUT / name
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(path.relative_to(ROOT), path.stat().st_size, "bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gemma3", required=True)
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    base = make_tokenizer()
    write("tokenizer.json", base)
    rng = random.Random(11)
    lines = text_lines(base, rng, 120)
    patched = []
    for patch in variants(base):
        whole = {**base, **{key: value for key, value in patch.items() if value is not None}}
        for key, value in patch.items():
            if value is None:
                whole.pop(key)
        patched.append({"patch": patch, "cases": cases({**dict.fromkeys(base), **whole}, lines[:70])})
    write("encode.json", {"cases": cases(base, lines), "variants": patched, "invalid_utf8": invalid_utf8(rng, 80)})
    write("chat.json", chat_goldens(OUT / "tokenizer.json", base, chat.read_template(arguments.gemma3)))


if __name__ == "__main__":
    main()
