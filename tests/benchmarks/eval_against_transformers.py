#!/usr/bin/env python3
"""Speed of `gemma-qat eval` beside transformers', on the same items, in the same dtype, in turns on the same machine.

Usage: eval_against_transformers.py GEMMA_QAT MODEL_FOLDER DATA [--documents 8] [--questions 24] [--rounds 3] [--threads 0] [--dtype float32]
                                    [--processor-time]

DATA is a JSONL file of texts ({"text": ...}). Measured are their perplexity, and the log-likelihoods of generated
questions in the shape and length of HellaSwag's (30 to 60 words, four endings of 10 to 25 words). transformers reads the texts one at a time and in padded batches of similar length, and the
questions choice by choice as lm-evaluation-harness does, alone and in such batches; its best counts. Time to load is left
out on both sides: ours is that of a run minus that of a run over one item. --processor-time counts the time that
processors worked instead of time by the clock: for machines with other work, with --threads 1. Prints one JSON line.
"""
import argparse
import json
import math
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interop"))
from benchmark_items import Texts, write_lines  # noqa: E402


def processor_time():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


clock = time.perf_counter


def question(texts):
    return {"question": texts.phrase(30, 60), "choices": texts.different(4, lambda: texts.sentence(10, 25)), "answer": 0}


class Transformers:
    def __init__(self, folder, dtype, threads):
        import tokenizers
        import torch
        import transformers
        self.torch = torch
        if threads:
            torch.set_num_threads(threads)
        self.tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self.bos, self.eos = (self.tokenizer.token_to_id(name) for name in ("<bos>", "<eos>"))

    def tokens(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def log_likelihoods(self, sequences, firsts, batch):
        """Summed log-probabilities of the tokens from `firsts` on, reading `batch` sequences at a time, longest first."""
        torch = self.torch
        order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
        sums = [0.0] * len(sequences)
        with torch.inference_mode():
            for begin in range(0, len(order), batch):
                chosen = order[begin:begin + batch]
                longest = max(len(sequences[i]) for i in chosen)
                ids = torch.zeros((len(chosen), longest), dtype=torch.long)
                mask = torch.zeros_like(ids)
                for row, i in enumerate(chosen):
                    ids[row, :len(sequences[i])] = torch.tensor(sequences[i])
                    mask[row, :len(sequences[i])] = 1
                logits = self.model(ids, attention_mask=mask if batch > 1 else None, use_cache=False).logits
                for row, i in enumerate(chosen):
                    first, length = firsts[i], len(sequences[i])
                    scores = torch.log_softmax(logits[row, first - 1:length - 1].float(), dim=-1)
                    sums[i] = scores.gather(1, ids[row, first:length, None]).double().sum().item()
        return sums


def eval_seconds(program, folder, data, arguments, count):
    command = [program, "eval", folder, "--data", str(data), "--plain-prompts", "--json", "--dtype", arguments.dtype,
               "--documents", str(count), "--max-tokens", "0", "--threads", str(arguments.threads)]
    start = clock()
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{run.stderr}")
    return clock() - start, json.loads(run.stdout)


def in_turns(rounds, ways):
    """By name: the shortest of `rounds` times, every round measuring all."""
    best = {name: math.inf for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            best[name] = min(best[name], way())
    return best


def timed(work):
    start = clock()
    work()
    return clock() - start


def compare(program, folder, theirs, data, sequences, firsts, batches, arguments):
    """Figures of one kind of items. Tokens are those of the sequences after <bos>, each choice with its context."""
    count = len(open(data).readlines())
    ways = {"ours": lambda: eval_seconds(program, folder, data, arguments, count)[0],
            "start": lambda: eval_seconds(program, folder, data, arguments, 1)[0]}
    for batch in batches:
        ways[f"batch_{batch}"] = lambda batch=batch: timed(lambda: theirs.log_likelihoods(sequences, firsts, batch))
    best = in_turns(arguments.rounds, ways)
    tokens = sum(len(sequence) - 1 for sequence in sequences)
    # One item is computed in both runs.
    ours = (best["ours"] - best["start"]) * count / (count - 1)
    fastest = min((f"batch_{batch}" for batch in batches), key=best.get)
    return {"items": count, "tokens": tokens, "tokens_per_second": round(tokens / ours, 1),
            "transformers_tokens_per_second": round(tokens / best[fastest], 1), "transformers_best": fastest,
            "ratio": round(best[fastest] / ours, 2), "seconds": {name: round(seconds, 2) for name, seconds in best.items()}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder")
    parser.add_argument("data")
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--processor-time", action="store_true")
    arguments = parser.parse_args()
    if arguments.processor_time:
        global clock
        clock = processor_time
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    theirs = Transformers(arguments.folder, arguments.dtype, arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        texts = [{"text": json.loads(line)["text"]} for line in open(arguments.data).readlines()[:arguments.documents]]
        documents = [[theirs.bos, *theirs.tokens(item["text"]), theirs.eos] for item in texts]
        data = write_lines(scratch / "texts.jsonl", texts)
        # Both read the same: their losses agree.
        loss = eval_seconds(arguments.program, arguments.folder, data, arguments, 0)[1]["loss"]
        sums = theirs.log_likelihoods(documents, [1] * len(documents), 1)
        wanted = -sum(sums) / sum(len(document) - 1 for document in documents)
        figures = {"dtype": arguments.dtype, "loss": loss, "transformers_loss": wanted,
                   "text": compare(arguments.program, arguments.folder, theirs, data, documents, [1] * len(documents), (1, 4),
                                arguments)}

        words = Texts(1)
        data = write_lines(scratch / "questions.jsonl", [question(words) for _ in range(arguments.questions)])
        sequences, firsts = [], []
        for line in open(data):
            item = json.loads(line)
            context = [theirs.bos, *theirs.tokens(item["question"])]
            for choice in item["choices"]:
                sequences.append([theirs.bos, *theirs.tokens(f"{item['question']} {choice}")])
                firsts.append(len(context))
        figures["questions"] = compare(arguments.program, arguments.folder, theirs, data, sequences, firsts, (1, 4), arguments)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
