#!/usr/bin/env python3
"""Compares greedy continuations with transformers', token by token, both in FP32.

Usage: generate_against_transformers.py GEMMA_QAT [MODEL_FOLDER] [--prompts 20] [--new 32] [--seed 1]

Without a folder the quickstart's base model is taken. The prompts are beginnings of lines of this repository's texts.
Prints the number of differing continuations; exit code 1 if there are any, 77 if transformers or torch is not installed.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def prompts_from_texts(rng, count):
    lines = [line.strip() for file in ("README.md", "CONTRIBUTING.md", "LICENSE") for line in (ROOT / file).read_text().split("\n")]
    lines = [line for line in lines if len(line) > 40 and line[0].isalpha()]
    return [" ".join(line.split()[:rng.randint(3, 8)]) for line in rng.sample(lines, count)]


def our_answer(program, folder, tokens, new):
    command = [program, "generate", folder, "--tokens", ",".join(map(str, tokens)), "--max-new", str(new), "--json", "--dtype", "float32"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{run.stderr}")
    return json.loads(run.stdout)["tokens"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder", nargs="?", default=str(ROOT / "examples/quickstart/model"))
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        import tokenizers
        import torch
        import transformers
    except ImportError as error:
        print(f"skipped: {error}")
        return 77

    tokenizer = tokenizers.Tokenizer.from_file(f"{arguments.folder}/tokenizer.json")
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=torch.float32)
    different = 0
    for prompt in prompts_from_texts(random.Random(arguments.seed), arguments.prompts):
        tokens = [model.config.bos_token_id, *tokenizer.encode(prompt, add_special_tokens=False).ids]
        with torch.no_grad():
            wanted = model.generate(torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
                                    do_sample=False, max_new_tokens=arguments.new)[0, len(tokens):].tolist()
        found = our_answer(arguments.program, arguments.folder, tokens, arguments.new)
        stop = model.generation_config.eos_token_id
        if found != wanted and not (wanted and wanted[:-1] == found and wanted[-1] in (stop if isinstance(stop, list) else [stop])):
            different += 1
            print(f"{json.dumps(prompt)}\n  found  {found}\n  wanted {wanted}")
    print(f"seed {arguments.seed}: {arguments.prompts} prompts of up to {arguments.new} new tokens: {different} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
