#!/usr/bin/env python3
"""Holds .litertlm files in the native LiteRT-LM on the CPU against this program's reference inference of the same bytes
(--arithmetic device): every token of the texts, every code in the key-value caches of the prefill and decode signatures (of the
quickstart model), and log-probabilities of given targets. Then the cache, the mask or a position of the quickstart model's file is made
wrong, which must be noticed. Prompts are longer than the longest prefill, contexts longer than the sliding window. Skipped (77)
without litert-lm, and on processors whose order of sums the reference does not know (other than x86-64 with FMA).

A text is the reference's if each of its tokens is the reference's choice after the tokens before it.

usage: litertlm_against_reference.py GEMMA_QAT REFERENCE_DUMP LISTING [--prompts N] [--tokens N] [--model NAME...]
                                     [--checkpoint NAME=FOLDER...]
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
try:
    import numpy as np
    import safetensors.numpy
    import tokenizers
    import torch  # noqa: F401  (of litertlm_models)

    import litertlm_client as client
    import litertlm_models as models
    import processor
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONTEXT, PREFILL = 512, (8, 32, 128)
LENGTHS = (1, 2, 8, 9, 31, 33, 60, 100, 129, 150, 200)  # as many as not divisible by three
SCORED = 16
SCORE_DIFFERENCE = 1e-4  # the runtime takes the softmax over the vocabulary in fp32, this script in fp64
TINY = {"shared": "mobile-e2b", "key_is_value": "mobile-w4", "plain": "mobile-w4"}


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[1]} ended with {done.returncode}\n{done.stdout}{done.stderr}")


def quickstart_data(folder):
    run(sys.executable, ROOT / "scripts/quickstart_data/make_corpus.py", folder, "--seed", 1, "--people", 24, "--bytes", 200000,
        "--chats", 2400, "--questions", 300)
    return folder


def text_prompts(data, tokenizer, count):
    """Held-out texts one after the other, cut to the lengths that are tried; every third prompt is a question in a chat."""
    encode = tokenizers.Tokenizer.from_file(str(tokenizer)).encode
    texts = [json.loads(line)["text"] for line in (data / "heldout.jsonl").open()]
    chats = [json.loads(line)["messages"][0]["content"] for line in (data / "finetune.jsonl").open()]
    choice = random.Random(5)
    prompts = []
    for i in range(count):
        if i % 3 == 2:
            prompts.append(encode(f"<|turn>user\n{choice.choice(chats)}<turn|>\n<|turn>model\n", add_special_tokens=False).ids)
            continue
        start = choice.randrange(len(texts) - 20)
        ids = encode("\n".join(texts[start:start + 20]), add_special_tokens=False).ids
        prompts.append(ids[:LENGTHS[i % len(LENGTHS)]])
    return prompts


def export(program, checkpoint, folder):
    """-> the checkpoint as .litertlm with the tokenizer of numbers, and no end but a token that no model here chooses."""
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.name not in ("config.json", "tokenizer.json", "chat_template.jinja", "witness.safetensors"):
            shutil.copy(path, folder)
    config = json.loads((checkpoint / "config.json").read_text())
    config["eos_token_id"] = config["vocab_size"] - 1
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(models.tokenizer_json(config["vocab_size"]))
    file = folder / "model.litertlm"
    run(program, "export", folder, "--format", "litertlm", "--context", CONTEXT, "--prefill", ",".join(map(str, PREFILL)),
        "--out", file)
    return file


class Reference:
    """Answers of the reference inference, a batch of token sequences at a time."""

    def __init__(self, dump, file):
        self.dump, self.file = dump, file

    def answers(self, sequences):
        """One after the other: dictionaries of logits, activation codes and cache codes."""
        with tempfile.TemporaryDirectory() as out:
            lines = "".join(" ".join(map(str, tokens)) + "\n" for tokens in sequences)
            for begin in range(0, len(sequences), 10):
                part = "".join(lines.splitlines(keepends=True)[begin:begin + 10])
                subprocess.run([self.dump, self.file, "device", "int8", out], input=part, check=True, text=True)
                for i in range(min(10, len(sequences) - begin)):
                    yield safetensors.numpy.load_file(pathlib.Path(out, f"{i}.safetensors"))


def log_softmax(logits):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def compare_texts(file, reference, prompts, new_tokens):
    found = []
    with client.open_engine(file) as engine:
        for i, prompt in enumerate(prompts):
            tokens = client.generate(engine, prompt, new_tokens)
            # Targets are the text itself, or tokens that no model would choose.
            target = tokens[:SCORED] if i % 2 == 0 else prompts[i - 1][:SCORED]
            found.append((tokens, target, client.score(engine, prompt, target)))
    starts = [[2] + prompt for prompt in prompts]
    texts = reference.answers([start + tokens for start, (tokens, _, _) in zip(starts, found)])
    scored = reference.answers([start + target for start, (_, target, _) in zip(starts, found)])
    differing, differences, lengths, kinds = [], [], [], []
    for i, (start, (tokens, target, scores), text, score) in enumerate(zip(starts, found, texts, scored)):
        expected = log_softmax(text["logits"][len(start) - 1:-1])
        choices = expected.argmax(-1)
        lengths.append(len(tokens))
        kinds.append(len(set(tokens)))
        wrong = np.flatnonzero(choices != np.array(tokens))
        if wrong.size:
            at = int(wrong[0])
            differing.append((i, at, float(expected[at].max() - expected[at][tokens[at]])))
        expected = log_softmax(score["logits"][len(start) - 1:-1])
        differences += [abs(a - expected[at][target[at]]) for at, a in enumerate(scores)]
    differences = np.array(differences)
    return dict(texts=len(prompts), equal=len(prompts) - len(differing), margin=max([m for _, _, m in differing], default=0.0),
                scores=differences.size, worst_score=float(differences.max()), shortest=min(lengths), kinds=float(np.mean(kinds)), differing=differing)


def compare_codes(file, listing, reference, sequences):
    """Codes of every cache after a cascade of prefills and single steps, prefilled and decoded positions apart."""
    figures = {part: dict(codes=0, differing=0, step=0) for part in ("prefill", "decode")}
    signatures = client.Signatures(file, listing)
    for tokens, answer in zip(sequences, reference.answers(sequences)):
        signatures.clear()
        for length in (128, 32, 8):
            signatures.run(f"prefill_{length}", tokens[signatures.position:signatures.position + length])
        split = signatures.position
        for token in tokens[split:]:
            signatures.run("decode", [token])
        for name, cache in signatures.caches.items():
            kind, layer = name.split("_")[-2:]
            wanted = answer[f"cache.{layer}.{dict(k='keys', v='values')[kind]}"].astype(int)
            found = cache[0, :, :len(tokens)].transpose(1, 0, 2).reshape(len(tokens), -1).astype(int)
            difference = np.abs(found - wanted)
            for part, rows in (("prefill", difference[:split]), ("decode", difference[split:])):
                figures[part]["codes"] += rows.size
                figures[part]["differing"] += int((rows > 0).sum())
                figures[part]["step"] = max(figures[part]["step"], int(rows.max()))
    return figures


def texts_hold(figures):
    return figures["equal"] == figures["texts"] and figures["worst_score"] < SCORE_DIFFERENCE


def codes_hold(figures):
    return all(part["codes"] > 0 and part["differing"] == 0 for part in figures.values())


def make_checkpoint(program, name, data, folder):
    """The quickstart model under a plan, or a tiny shape with random weights."""
    if name.startswith("quickstart"):
        model, plan = ROOT / "examples/quickstart/model", "mobile-" + name.partition(":")[2]
        calibration = data / "finetune.jsonl"
    else:
        model, plan = folder / "model", TINY[name]
        models.make_plain_folder(model, name, seed=3)
        calibration = data / "heldout.jsonl"
    run(program, "quantize", "--model", model, "--plan", plan, "--method", "mse", "--data", calibration, "--rows", 8,
        "--out", folder / "checkpoint")
    return folder / "checkpoint"


def check(options, name, data, folder, checkpoint):
    start = time.monotonic()
    rng = random.Random(7)
    checkpoint = checkpoint or make_checkpoint(options.program, name, data, folder)
    file = export(options.program, checkpoint, folder / "exported")
    if name in TINY:
        prompts = [[rng.randrange(4, models.VOCABULARY) for _ in range(LENGTHS[i % len(LENGTHS)])] for i in range(options.prompts)]
    else:
        prompts = text_prompts(data, checkpoint / "tokenizer.json", options.prompts)
    reference = Reference(options.dump, file)
    texts = compare_texts(file, reference, prompts, options.tokens)
    good = texts_hold(texts)
    print(f"{name}: texts {'hold' if good else 'FAILED'}", texts, f"{time.monotonic() - start:.0f} s", flush=True)
    if name in TINY:
        return good
    listing = client.read_listing(options.listing, file)
    long = [prompt for prompt in prompts if len(prompt) >= 200][:options.sequences]
    codes = compare_codes(file, listing, reference, [[2] + prompt for prompt in long])
    good = good and codes_hold(codes)
    print(f"  codes {'hold' if codes_hold(codes) else 'FAILED'}", codes, f"{time.monotonic() - start:.0f} s", flush=True)
    for fault in client.FAULTS:
        texts = compare_texts(client.plant(file, listing, fault), reference, prompts[:24], min(options.tokens, 24))
        noticed = not texts_hold(texts)
        good = good and noticed
        print(f"  planted in the {fault}:", "noticed" if noticed else "NOT NOTICED", texts, flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("program", "dump", "listing"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=8, help="texts whose cache codes are compared")
    parser.add_argument("--model", nargs="+", default=["quickstart:w4", *TINY], help="also quickstart:e2b")
    parser.add_argument("--checkpoint", nargs="+", default=[], help="NAME=FOLDER: trained checkpoints of the quickstart model")
    options = parser.parse_args()
    if not processor.adds_in_known_order():
        print("skipped: no x86-64 processor with FMA")
        return 77
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        data = quickstart_data(temporary / "data")
        checkpoints = dict(pair.split("=") for pair in options.checkpoint)
        for name in [*checkpoints, *options.model]:
            folder = temporary / name.replace(":", "_")
            folder.mkdir()
            checkpoint = pathlib.Path(checkpoints[name]) if name in checkpoints else None
            good = check(options, name, data, folder, checkpoint) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
