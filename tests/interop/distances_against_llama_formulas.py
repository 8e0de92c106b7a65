#!/usr/bin/env python3
"""Compares perplexity and KL of `gemma-qat eval` with llama-perplexity's formulas over transformers' logits.

Usage: distances_against_llama_formulas.py GEMMA_QAT [MODEL_FOLDER] [--documents 12] [--noise 0.02] [--seed N]

The reference is the folder (default: the quickstart's base model), the model a copy with noise on its matrices. The formulas
are transcribed in numpy, with what llama-perplexity does to the reference on its way through a file: log-probabilities in
65,535 steps over the range down to 16 below the largest, and no summand for tokens below that. The texts are drawn from the
reference. Counted are all tokens of windows that begin with <bos>; llama-perplexity itself would count each window's second half.
Wanted: everything within 1e-3 (relative for perplexity and mean KL). Exit code 1 if not, 77 without transformers or torch.
"""
import argparse
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

from benchmark_items import ROOT, write_lines
from distances import count_differences

WINDOW = 64


def noisy_copy(folder, target, noise, seed):
    import safetensors.torch
    import torch
    shutil.copytree(folder, target)
    generator = torch.Generator().manual_seed(seed)
    weights = safetensors.torch.load_file(target / "model.safetensors")
    for name, weight in weights.items():
        if weight.dim() >= 2:
            values = weight.float()
            noisy = values + noise * values.std() * torch.randn(values.shape, generator=generator)
            weights[name] = noisy.to(weight.dtype)
    safetensors.torch.save_file(weights, target / "model.safetensors", {"format": "pt"})
    return target


def log_softmax(logits):
    import numpy
    shifted = logits - logits.max()
    return shifted - numpy.log(numpy.exp(shifted).sum())


def through_the_base_file(log_probabilities):
    """As llama-perplexity stores and reads a reference's row."""
    import numpy
    largest = log_probabilities.max()
    smallest = max(log_probabilities.min(), largest - 16)
    scale = numpy.float32((largest - smallest) / 65535)
    codes = numpy.where(log_probabilities > smallest, numpy.rint((log_probabilities - smallest) / scale), 0)
    return scale * codes + numpy.float32(smallest)


def formulas(logits, reference_logits, correct):
    """Per position: the model's and the reference's loss, KL, probability change of the right token, same most likely token."""
    import numpy
    own = log_softmax(logits.astype(numpy.float64))
    base = through_the_base_file(log_softmax(reference_logits.astype(numpy.float64)))
    counted = base > -16
    divergence = (numpy.exp(base[counted]) * (base[counted] - own[counted])).sum()
    change = numpy.exp(own[correct]) - numpy.exp(base[correct])
    return -own[correct], -base[correct], divergence, change, own.argmax() == base.argmax()


def open_model(folder):
    import torch
    import transformers
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def drawn_texts(model, tokenizer, count, seed):
    import torch
    torch.manual_seed(seed)
    begin = torch.full((count, 1), tokenizer.token_to_id("<bos>"))
    drawn = model.generate(begin, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=200, min_new_tokens=20)
    return [tokenizer.decode(row.tolist()) for row in drawn]


def windows_of(text, tokenizer):
    tokens = [*tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.token_to_id("<eos>")]
    for begin in range(0, len(tokens), WINDOW - 1):
        yield [tokenizer.token_to_id("<bos>"), *tokens[begin:begin + WINDOW - 1]]


def wanted_figures(models, tokenizer, documents):
    import numpy
    import torch
    rows = []
    for text in documents:
        for window in windows_of(text, tokenizer):
            with torch.inference_mode():
                reference, own = [model(torch.tensor([window])).logits[0].numpy() for model in models]
            rows += [formulas(own[i], reference[i], window[i + 1]) for i in range(len(window) - 1)]
    loss, reference_loss, divergence, change, same = numpy.array(rows, dtype=numpy.float64).T
    quantile = lambda share: float(numpy.quantile(divergence, share))  # noqa: E731
    return {"tokens": len(rows), "perplexity": float(numpy.exp(loss.mean())), "reference_perplexity": float(numpy.exp(reference_loss.mean())),
            "mean": float(divergence.mean()), "median": quantile(0.5), "percentile_90": quantile(0.9), "percentile_99": quantile(0.99),
            "maximum": float(divergence.max()), "same_top": float(same.mean()), "mean_probability_change": float(change.mean()),
            "rms_probability_change": float(numpy.sqrt((change ** 2).mean()))}


def our_figures(program, reference, model, data):
    command = [program, "eval", str(model), "--reference", str(reference), "--data", str(data), "--max-tokens", str(WINDOW), "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{run.stderr}")
    figures = json.loads(run.stdout)
    return {"tokens": figures["tokens"], "perplexity": figures["perplexity"]} | figures["kl"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder", nargs="?", default=str(ROOT / "examples/quickstart/model"))
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--noise", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    arguments = parser.parse_args()
    try:
        import tokenizers
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        print(f"skipped: {error}")
        return 77

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        noisy = noisy_copy(arguments.folder, scratch / "noisy", arguments.noise, arguments.seed)
        models = [open_model(arguments.folder), open_model(noisy)]
        tokenizer = tokenizers.Tokenizer.from_file(f"{arguments.folder}/tokenizer.json")
        documents = drawn_texts(models[0], tokenizer, arguments.documents, arguments.seed)
        data = write_lines(scratch / "texts.jsonl", [{"text": text} for text in documents])
        wanted = wanted_figures(models, tokenizer, documents)
        found = our_figures(arguments.program, arguments.folder, noisy, data)
    print(f"seed {arguments.seed}: {wanted['tokens']} positions")
    return 1 if count_differences(found, wanted, "wanted") else 0


if __name__ == "__main__":
    sys.exit(main())
