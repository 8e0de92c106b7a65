#!/usr/bin/env python3
"""Compares perplexity and KL of `gemma-qat eval` with llama-perplexity itself, on two GGUF files of one model.

Usage: distances_against_llama_perplexity.py GEMMA_QAT LLAMA_PERPLEXITY [MODEL_FOLDER] [--chunks 24] [--seed N]

The reference is the folder (default: the quickstart's base model) as BF16, the model is its Q4_0. llama-perplexity cuts one
text into chunks and counts each chunk's second half: here each chunk is a document whose second half is the completion. The
text is drawn from the reference, and both programs see the same tokens. What `eval` counts beyond that, the <eos> after a document,
falls into a window of its own behind <bos>, is measured alone and subtracted.
Wanted: everything within 1e-3 (relative for perplexities and mean KL). Exit code 1 if not, 77 without transformers or torch.
"""
import argparse
import json
import math
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

from benchmark_items import ROOT, write_lines
from distances import count_differences

CHUNK = 128


def run(*command):
    command = [str(part) for part in command]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{result.stdout[-2000:]}{result.stderr[-4000:]}")
    return result.stdout


def without_chat_template(folder, target):
    """So that a prompt and its completion are measured as plain text."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("chat_template*"))
    config = target / "tokenizer_config.json"
    if config.exists():
        settings = json.loads(config.read_text())
        settings.pop("chat_template", None)
        config.write_text(json.dumps(settings))
    return target


def drawn_pieces(folder, tokenizer, chunks, seed):
    """The text's pieces behind <bos>, drawn from the model: CHUNK - 1 for each chunk, with a word between them that <bos> will
    take the place of. Kept are rows whose text is read as the pieces that were drawn, whole and in halves."""
    import torch
    import transformers
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(seed)
    special = sorted(number for number, token in tokenizer.get_added_tokens_decoder().items())
    ids_of = lambda text: tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731
    text_of = lambda ids: "".join(tokenizer.id_to_token(number) for number in ids).replace("\u2581", " ")  # noqa: E731
    between = ids_of(" the")
    assert len(between) == 1, "\" the\" is no single piece of this tokenizer"
    kept = []
    for _ in range(20):
        begin = torch.full((chunks, 1), tokenizer.token_to_id("<bos>"))
        rows = model.generate(begin, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, min_new_tokens=CHUNK - 1,
                              max_new_tokens=CHUNK - 1, suppress_tokens=special)
        for row in rows[:, 1:].tolist():
            together = kept + (between if kept else []) + row
            if all(ids_of(text_of(ids)) == ids for ids in (row[:CHUNK // 2], row[CHUNK // 2:], together + between)):
                kept = together
            if len(kept) == CHUNK * chunks - 1:
                return [text_of([number]) for number in kept]
    sys.exit(f"only {(len(kept) + 1) // CHUNK} of {chunks} drawn chunks are read as the pieces that were drawn")


def chunk_documents(pieces):
    """As llama-perplexity cuts: the first token of every chunk but the first gives way to <bos>."""
    tokens = [None, *pieces]
    for begin in range(0, len(tokens), CHUNK):
        yield {"prompt": "".join(tokens[begin + 1:begin + CHUNK // 2 + 1]),
               "completion": "".join(tokens[begin + CHUNK // 2 + 1:begin + CHUNK])}


def our_totals(program, folder, model, reference, data, window):
    """Sums over the counted tokens."""
    figures = json.loads(run(program, "eval", model, "--reference", reference, "--data", data, "--max-tokens", window,
                             "--arithmetic", "device", "--tokenizer", folder, "--json"))
    count = figures["tokens"]
    kl = figures["kl"]
    return {"tokens": count, "loss": count * math.log(figures["perplexity"]),
            "reference_loss": count * math.log(kl["reference_perplexity"]), "divergence": count * kl["mean"],
            "same_top": count * kl["same_top"], "change": count * kl["mean_probability_change"],
            "change_squared": count * kl["rms_probability_change"] ** 2}


def our_figures(program, folder, model, reference, scratch, pieces):
    documents = list(chunk_documents(pieces))
    total = our_totals(program, folder, model, reference, write_lines(scratch / "chunks.jsonl", documents), CHUNK)
    one, two = [our_totals(program, folder, model, reference, write_lines(scratch / "few.jsonl", [{"text": " the" * count}]), 2)
                for count in (1, 2)]
    # One is a word and <eos> behind <bos> each, two the word twice.
    ends = {name: 2 * one[name] - two[name] for name in total}
    sums = {name: value - len(documents) * ends[name] for name, value in total.items()}
    mean = {name: value / sums["tokens"] for name, value in sums.items()}
    return {"tokens": round(sums["tokens"]), "perplexity": math.exp(mean["loss"]),
            "reference_perplexity": math.exp(mean["reference_loss"]), "mean": mean["divergence"],
            "same_top": mean["same_top"], "mean_probability_change": mean["change"],
            "rms_probability_change": math.sqrt(mean["change_squared"])}


def their_figures(program, model, reference, scratch, text):
    (scratch / "text.txt").write_text(text)
    base = scratch / "base.kld"
    # Flash attention is llama.cpp's default where it can, and what the arithmetic of `device` follows.
    context = ["-c", CHUNK, "-b", CHUNK, "-fa", "on"]
    run(program, "-m", reference, "-f", scratch / "text.txt", "--kl-divergence-base", base, *context)
    for _ in range(5):
        output = run(program, "-m", model, "--kl-divergence-base", base, "--kl-divergence", *context)
        # Now and then it ends before its log is written.
        if "RMS \u0394p" in output:
            break

    def value(name, share=1.0):
        found = re.search(re.escape(name) + r"\s*:\s*(-?[0-9.]+)", output)
        if not found:
            sys.exit(f"llama-perplexity prints no \"{name}\":\n{output}")
        return share * float(found[1])

    return {"perplexity": value("Mean PPL(Q)"), "reference_perplexity": value("Mean PPL(base)"), "mean": value("Mean    KLD"),
            "same_top": value("Same top p", 0.01), "mean_probability_change": value("Mean    \u0394p", 0.01),
            "rms_probability_change": value("RMS \u0394p", 0.01)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("llama_perplexity")
    parser.add_argument("folder", nargs="?", default=str(ROOT / "examples/quickstart/model"))
    parser.add_argument("--chunks", type=int, default=24)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    arguments = parser.parse_args()
    try:
        import tokenizers
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        print(f"skipped: {error}")
        return 77
    tokenizer = tokenizers.Tokenizer.from_file(f"{arguments.folder}/tokenizer.json")
    pieces = drawn_pieces(arguments.folder, tokenizer, arguments.chunks, arguments.seed)

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        folder = without_chat_template(arguments.folder, scratch / "folder")
        run(arguments.program, "quantize", "--model", folder, "--plan", "q4_0", "--method", "rtn", "--out", scratch / "rtn")
        reference, model = scratch / "bf16.gguf", scratch / "q4_0.gguf"
        for source, target in [(folder, reference), (scratch / "rtn", model)]:
            run(arguments.program, "export", source, "--format", "gguf", "--out", target)
        wanted = their_figures(arguments.llama_perplexity, model, reference, scratch, "".join(pieces))
        found = our_figures(arguments.program, folder, model, reference, scratch, pieces)
    print(f"seed {arguments.seed}: {found['tokens']} tokens")
    wanted["tokens"] = arguments.chunks * (CHUNK // 2 - 1)
    return 1 if count_differences(found, wanted, "llama-perplexity") else 0


if __name__ == "__main__":
    sys.exit(main())
