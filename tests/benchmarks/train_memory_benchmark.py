#!/usr/bin/env python3
"""Peak memory of training at Gemma 4 E2B's true size (35 layers, 262,144 tokens, random weights) or with fewer layers: a few real steps of
`gemma-qat train` for each recipe, each with its save at the end. Anonymous memory is sampled from the kernel ten times a second; pages of
mapped files, which the kernel can drop, are counted apart. Prints a JSON line a recipe: peak_anonymous_gib, peak_resident_gib,
predicted_gib (what the run said before it started), seconds per step.

The folder needs 9.3 GB of disk and is reused; a run writes a checkpoint of the same size and removes it again.

usage: train_memory_benchmark.py PATH/TO/gemma-qat FOLDER [--recipes NAME ...] [--layers 35] [--tokens 1024] [--steps 3]
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import export_benchmark

LEAN = ["optimizer.kind=adamw8bit", "optimizer.masters=bfloat16"]
LAYERS = ["activation_checkpointing=layers"]
RECIPES = {
    # The sizes that people have.
    "full": ["plan=q4_0", "optimizer.step_in_backward=true", "optimizer.clip_norm=0", "quantization.keep=codes", *LEAN, *LAYERS],
    "lora": ["plan=q4_0", "lora.rank=16", "lora.keep_merged=false", *LAYERS],
    "packed_lora": ["plan=q4_0", "lora.rank=16", "lora.base=packed", "quantization.keep=codes", *LAYERS],
    # What fake quantization adds: pairs with the same optimizer.
    "bf16_adamw": ["plan=", *LAYERS],
    "qat_adamw_codes": ["plan=q4_0", "quantization.keep=codes", *LAYERS],
    "qat_adamw_nothing": ["plan=q4_0", "quantization.keep=nothing", *LAYERS],
    "bf16_lean": ["plan=", *LEAN, *LAYERS],
    "qat_lean_codes": ["plan=q4_0", "quantization.keep=codes", *LEAN, *LAYERS],
    "qat_lean_nothing": ["plan=q4_0", "quantization.keep=nothing", *LEAN, *LAYERS],
}


def write_data(folder, tokens):
    words = ["river", "green", "hill", "stone", "light", "seven", "north", "house"]
    text = " ".join(words[i * i % 7] for i in range(4 * tokens))
    (folder / "data.jsonl").write_text(json.dumps({"text": text}) + "\n")


def memory_of(process):
    """(anonymous, resident peak) in bytes, or None when it has ended."""
    try:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return None
    numbers = dict(re.findall(r"^(RssAnon|VmHWM):\s+(\d+) kB", status, re.M))
    return (1024 * int(numbers["RssAnon"]), 1024 * int(numbers["VmHWM"])) if len(numbers) == 2 else None


def run(options, name):
    out = options.folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    config = options.folder / "train.json"
    config.write_text(json.dumps({
        "model": str(options.folder / f"model-{options.layers}"), "out": str(out), "data": {"train": [str(options.folder / "data.jsonl")]},
        "dtype": "bfloat16", "freeze_tables": "yes", "sequence_length": options.tokens, "gradient_accumulation": 1,
        "steps": options.steps, "optimizer": {"warmup_steps": 0, "learning_rate": 1e-6}, "checkpoint": {"keep_last": 0, "witness_prompts": 1}}))
    command = [options.program, "train", config, *RECIPES[name]]
    log = open(options.folder / "log", "w+")
    process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=subprocess.STDOUT)
    anonymous = resident = 0
    while process.poll() is None:
        if (found := memory_of(process)) is not None:
            anonymous, resident = max(anonymous, found[0]), max(resident, found[1])
        time.sleep(0.1)
    text = (options.folder / "log").read_text()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: ended with {process.returncode}\n{text[-3000:]}")
    steps = [line for line in map(json.loads, open(out / "metrics.jsonl")) if line["kind"] == "step"]
    shutil.rmtree(out)
    predicted = re.search(r"^memory .*$", text, re.M)
    print(json.dumps({"recipe": name, "layers": options.layers, "tokens": options.tokens, "steps": len(steps),
                      "peak_anonymous_gib": round(anonymous / 2**30, 2), "peak_resident_gib": round(resident / 2**30, 2),
                      "seconds_per_step": round(min(step["seconds"] for step in steps), 1),
                      "predicted": predicted.group(0) if predicted else None}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES)[:3])
    parser.add_argument("--layers", type=int, default=35)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    model = options.folder / f"model-{options.layers}"
    if not (model / "model.safetensors").exists():
        export_benchmark.write_folder(model, options.layers)
    write_data(options.folder, options.tokens)
    for name in options.recipes:
        run(options, name)


if __name__ == "__main__":
    sys.exit(main())
