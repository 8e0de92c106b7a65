#!/usr/bin/env python3
"""Compares this project's tokenizer with Hugging Face's `tokenizers`, line by line: ids, and decoding of those ids.

Usage: tokenizer_against_hf.py QAT_TOKENIZER_DUMP TOKENIZER_JSON [--lines 10000] [--seed 1] [--text FILE ...]

The lines are mixed: real text (the --text files, else files of this repository), random Unicode of every plane, runs of
newlines, spaces and tabs, pieces of the vocabulary glued together, added tokens inside text, and code.
Prints the numbers of differing lines; exit code 1 if there are any, 77 if `tokenizers` is not installed.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
RANGES = [(0x20, 0x7E), (0x00, 0x1F), (0x80, 0xFF), (0x100, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF),
          (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x2000, 0x206F), (0x2500, 0x259F),
          (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xFF00, 0xFFEF),
          (0x10000, 0x100FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0x10FF00, 0x10FFFF)]


def random_unicode(rng):
    ranges = rng.sample(RANGES, rng.randint(1, 4))
    text = []
    for _ in range(rng.randint(1, 80)):
        low, high = rng.choice(ranges)
        text.append(chr(rng.randint(low, high)) * (1 if rng.random() < 0.9 else rng.randint(2, 6)))
    return "".join(text)


def runs(rng):
    pieces = ["\n", " ", "\t", "▁", "\r\n", "a", ">", "</", "!", "=", "-", "'", "1"]
    return "".join(rng.choice(pieces) * rng.choice([1, 1, 2, 3, 7, 30, 31, 32, 33, 64, 70]) for _ in range(rng.randint(1, 12)))


def glued(rng, vocabulary, added):
    parts = [rng.choice(added if added and rng.random() < 0.3 else vocabulary).replace("▁", rng.choice(" ▁ "))
             for _ in range(rng.randint(1, 25))]
    return rng.choice(["", " ", "\n"]).join(parts)


def make_lines(rng, count, texts, vocabulary, added):
    real = [line for text in texts for line in text.split("\n")] or [""]
    whole = "\n".join(texts)
    lines = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.35:
            lines.append(rng.choice(real))
        elif kind < 0.5:
            start = rng.randrange(max(1, len(whole)))
            lines.append(whole[start:start + rng.randint(1, 1500)])
        elif kind < 0.7:
            lines.append(random_unicode(rng))
        elif kind < 0.8:
            lines.append(runs(rng))
        elif kind < 0.95:
            lines.append(glued(rng, vocabulary, added))
        else:
            lines.append(rng.choice(real) + random_unicode(rng) + rng.choice(added or [""]) + runs(rng))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dump")
    parser.add_argument("tokenizer")
    parser.add_argument("--lines", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text", nargs="*", default=[])
    arguments = parser.parse_args()
    try:
        import tokenizers
    except ImportError:
        print("skipped: the Python package tokenizers is not installed")
        return 77
    if not pathlib.Path(arguments.tokenizer).exists():
        print(f"skipped: no file {arguments.tokenizer}")
        return 77

    reference = tokenizers.Tokenizer.from_file(arguments.tokenizer)
    # In the order of ids: Python's own order of this dictionary differs from run to run.
    vocabulary = [piece for piece, _ in sorted(reference.get_vocab().items(), key=lambda item: item[1])]
    added = [token.content for _, token in sorted(reference.get_added_tokens_decoder().items())]
    files = [pathlib.Path(name) for name in arguments.text]
    files = files or sorted([*ROOT.glob("*.md"), *ROOT.glob("src/**/*.cpp"), *ROOT.glob("scripts/**/*.py")])
    texts = [file.read_text(encoding="utf-8") for file in files]
    lines = make_lines(random.Random(arguments.seed), arguments.lines, texts, vocabulary, added)

    different = {}
    for mode, text_specials in (("", False), (" with special tokens as text", True)):
        reference.encode_special_tokens = text_specials
        command = [arguments.dump, arguments.tokenizer, "--decode", "--time", *(["--text-specials"] if text_specials else [])]
        run = subprocess.run(command, input="".join(json.dumps(line) + "\n" for line in lines), capture_output=True, text=True)
        if run.returncode != 0:
            print(run.stderr)
            return 1
        print(run.stderr.strip())
        answers = [json.loads(line) for line in run.stdout.split("\n") if line]
        assert len(answers) == len(lines), (len(answers), len(lines))
        counts = {"encode": 0, "decode": 0, "decode without specials": 0}
        for line, (ids, text, plain) in zip(lines, answers):
            wanted = reference.encode(line, add_special_tokens=False).ids
            wrong = [ids != wanted, text != reference.decode(wanted, skip_special_tokens=False),
                     plain != reference.decode(wanted, skip_special_tokens=True)]
            for name, is_wrong in zip(counts, wrong):
                counts[name] += is_wrong
            if any(wrong) and sum(counts.values()) <= 3:
                print("first differences:", json.dumps(line), "\n  found ", ids, "\n  wanted", wanted)
        for name, count in counts.items():
            different[name + mode] = count
    print(f"seed {arguments.seed}: {len(lines)} lines;", ", ".join(f"{name}: {count} differ" for name, count in different.items()))
    return 1 if any(different.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
