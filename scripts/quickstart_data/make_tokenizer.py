#!/usr/bin/env python3
"""Learns a tokenizer in exactly Gemma 4's format from the quickstart's texts and chats.

    make_tokenizer.py CORPUS OUT_FOLDER [--vocab 4096]

CORPUS is a folder that make_corpus.py wrote, or one JSONL file with "text" or "messages". Writes tokenizer.json, tokenizer_config.json
and chat_template.jinja. The vocabulary has --vocab entries, or fewer (a multiple of 32) if the texts have no more to learn.
Needs the Python package `tokenizers`.
"""
import argparse
import json
import pathlib
import sys

from tokenizer_file import WORD_START, tokenizer_config, tokenizer_json

try:
    import tokenizers
except ImportError:
    sys.exit("make_tokenizer.py: the Python package tokenizers is missing; scripts/setup installs it")

TRAINING_FILES = ["pretrain.jsonl", "finetune.jsonl"]
MULTIPLE = 32
# A piece that is seen less often is not worth an entry.
LEAST_FREQUENCY = 2
# Words of the chat format, each one piece as in Gemma's vocabulary; learned as if they stood this often in the texts.
TEMPLATE_WORDS = ["user", "model", "system", "thought"]
TEMPLATE_WORD_COUNT = 10000
ASCII_CHARACTERS = [chr(code) for code in range(33, 127)]
ODD_TEXTS = ["", " ", "a  b   c", "\n\n\nnew\n", "12345", "\ttab", "naïve 🦙 中文", "x" * 300, "\n" * 20, " " * 20, "<0x41>"]


def read_texts(path):
    """The texts of a JSONL file, in order. A bad line ends the program with its number."""
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = json.loads(line)
                    texts = [record["text"]] if "text" in record else [turn["content"] for turn in record["messages"]]
                except (ValueError, KeyError, TypeError):
                    sys.exit(f"make_tokenizer.py: {path}: line {number} is no JSON object with text or messages")
                yield from texts
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"make_tokenizer.py: {path}: {error}")


def learn_merges(texts, size):
    """Up to `size` pieces by byte-pair encoding inside words. Digits stay alone, and no piece mixes words, newlines and letters."""
    pre = tokenizers.pre_tokenizers
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.normalizer = tokenizers.normalizers.Replace(" ", WORD_START)
    trained.pre_tokenizer = pre.Sequence([
        pre.Split(tokenizers.Regex(r"\n+"), behavior="isolated"),
        pre.Split(WORD_START, behavior="merged_with_next"),
        pre.Digits(individual_digits=True),
        pre.Punctuation(behavior="isolated"),
    ])
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, min_frequency=LEAST_FREQUENCY, show_progress=False)
    trained.train_from_iterator([*texts, *TEMPLATE_WORDS * TEMPLATE_WORD_COUNT], trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    # Runs of newlines and of word starts have entries and merges of their own.
    merges = [(left, right) for left, right in merges if not set(left + right) <= {"\n"} and not set(left + right) <= {WORD_START}]
    return merges, [piece for piece in model["vocab"] if len(piece) == 1]


def build(texts, size):
    """tokenizer.json as a dictionary, with as many learned pieces as fit."""
    merges, characters = learn_merges(texts, size)
    characters = sorted(set(characters) - {"\n", WORD_START} | set(ASCII_CHARACTERS))
    fixed = sum(not piece.startswith("<unused") for piece in tokenizer_json("gemma4", [], characters, size)["model"]["vocab"])
    merges = merges[:size - fixed]
    needed = fixed + len({left + right for left, right in merges})
    return tokenizer_json("gemma4", merges, characters, -(-needed // MULTIPLE) * MULTIPLE)


def check(tokenizer, texts):
    """Every text must come back from its ids."""
    for text in [*ODD_TEXTS, *texts]:
        if tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) != text:
            sys.exit(f"make_tokenizer.py: the tokenizer does not give {text!r} back")


def vocabulary_size(text):
    value = int(text)
    if value < 512 or value % MULTIPLE != 0:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of {MULTIPLE} from 512 on")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path, help="folder of make_corpus.py, or a JSONL file")
    parser.add_argument("out_folder", type=pathlib.Path, help="made if it does not exist")
    parser.add_argument("--vocab", type=vocabulary_size, default=4096, help="largest number of entries (default: 4096)")
    options = parser.parse_args()

    files = [options.corpus / name for name in TRAINING_FILES] if options.corpus.is_dir() else [options.corpus]
    texts = [text for path in files for text in read_texts(path)]
    if not texts:
        sys.exit(f"make_tokenizer.py: {options.corpus}: has no text to learn from")
    content = build(texts, options.vocab)
    document = json.dumps(content, ensure_ascii=False, indent=2)
    tokenizer = tokenizers.Tokenizer.from_str(document)
    check(tokenizer, texts[:2000])

    template = (pathlib.Path(__file__).resolve().parent / "chat_template.jinja").read_text(encoding="utf-8")
    try:
        options.out_folder.mkdir(parents=True, exist_ok=True)
        (options.out_folder / "tokenizer.json").write_text(document + "\n", encoding="utf-8")
        (options.out_folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config("gemma4"), indent=2) + "\n")
        (options.out_folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    except OSError as error:
        sys.exit(f"make_tokenizer.py: {error.filename}: {error.strerror}")
    print(f"{len(content['model']['vocab'])} entries, {len(content['model']['merges'])} merges, learned from {len(texts)} texts")
    for path in files:
        texts = list(read_texts(path))
        tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False))
        size = sum(len(text.encode()) for text in texts)
        print(f"{path.name:16} {len(texts):6} texts {tokens:9} tokens {size / max(tokens, 1):.2f} bytes per token")


if __name__ == "__main__":
    main()
