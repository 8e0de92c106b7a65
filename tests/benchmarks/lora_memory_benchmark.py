#!/usr/bin/env python3
"""Anonymous memory of LoRA runs at Gemma 4 E2B's true shape (4.63 B random BF16 parameters, 9.3 GB): on a BF16 base that stays in its
file, and on a packed one.

    lora_memory_benchmark.py PATH/gemma-qat [--folder FOLDER] [--layers 35] [--steps 2] [--tokens 1024] [--save]

Writes the model folder once (kept with --folder), trains a few steps of rank 16 with Q4_0 in BF16 for each base and prints a JSON line:
the largest anonymous memory of the process sampled ten times a second, the prediction, seconds a step. Without --save the run is stopped
before it writes its checkpoint, which needs 9.3 GB of disk more. Exit codes: 0 done, 1 a run failed, 77 numpy is missing.
"""
import argparse
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import export_benchmark

BASES = {
    "bfloat16": ["lora.base=bfloat16", "lora.keep_merged=false"],
    "packed": ["lora.base=packed"],
}


def anonymous_bytes(pid):
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    return int(found.group(1)) * 1024 if found else 0


def steps_of(run):
    metrics = run / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    return [line for line in lines if line["kind"] == "step"]


def measure(options, folder, base, work):
    run = work / base
    data = work / "data.jsonl"
    data.write_text("".join(json.dumps({"text": "the river runs to a green hill and sings again " * options.tokens}) + "\n"
                            for _ in range(8)))
    config = work / f"{base}.json"
    config.write_text(json.dumps({
        "model": str(folder), "out": str(run), "plan": "q4_0", "dtype": "bfloat16", "data": {"train": [str(data)]},
        "sequence_length": options.tokens, "gradient_accumulation": 1, "steps": options.steps + (0 if options.save else 1),
        "threads": options.threads, "activation_checkpointing": "layers", "lora": {"rank": 16}, "memory_check": "warn",
        "optimizer": {"warmup_steps": 1}, "checkpoint": {"every_steps": 0, "witness_prompts": 1}}))
    log = open(work / f"{base}.log", "w+")
    process = subprocess.Popen([options.program, "train", config, *BASES[base], *options.settings], stdout=log, stderr=log)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        if not options.save and len(steps_of(run)) >= options.steps:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.1)
    process.wait()
    log.seek(0)
    text = log.read()
    steps = steps_of(run)
    if len(steps) < options.steps:
        print(text, file=sys.stderr)
        return False
    memory = next(line for line in text.splitlines() if line.startswith("memory"))
    print(json.dumps({"base": base, "anonymous_gib": round(peak / 2**30, 2), "seconds_per_step": round(steps[-1]["seconds"], 1),
                      "losses": [round(step["loss"], 3) for step in steps], "memory": memory}), flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=35)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--bases", nargs="+", choices=sorted(BASES), default=list(BASES))
    parser.add_argument("--settings", nargs="*", default=[], help="further key=value")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        folder = options.folder or work / "model"
        if not (folder / "model.safetensors").exists():
            export_benchmark.write_folder(folder, options.layers)
        return 0 if all([measure(options, folder, base, work) for base in options.bases]) else 1


if __name__ == "__main__":
    sys.exit(main())
