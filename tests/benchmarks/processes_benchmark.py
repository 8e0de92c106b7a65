#!/usr/bin/env python3
"""Throughput of two processes of one thread under torchrun against one process of two threads: the same run at layer shapes of Gemma 4
E2B (random weights, tables frozen, plan q4_0), two packed rows of --tokens tokens a step, so that each process has one. The two take
turns, --rounds times; the fastest step of each counts, the first of a run left out. Prints one JSON line: tokens a second of both, and
`ratio` of the two processes to the one.

usage: processes_benchmark.py PATH/TO/gemma-qat [--tokens 2048] [--layers 4] [--steps 3] [--rounds 3] [--sharding states] [--plan q4_0]
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def model_folder(folder, layers):
    folder.mkdir()
    shutil.copy(SOURCE / "tests/golden/data/tokenizer.json", folder)
    tiny = json.loads((SOURCE / "tests/trainers/tiny_model/config.json").read_text())
    tiny = tiny.get("text_config", tiny)
    period = 5
    (folder / "config.json").write_text(json.dumps({
        "model_type": "gemma4_text", "hidden_size": 1536, "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 1,
        "layer_types": ["full_attention" if i % period == period - 1 else "sliding_attention" for i in range(layers)],
        "head_dim": 256, "global_head_dim": 512, "intermediate_size": 6144, "use_double_wide_mlp": True, "sliding_window": 512,
        "num_kv_shared_layers": 0 if layers < period else min(layers // 2, layers - period),
        "hidden_size_per_layer_input": 256, "vocab_size": tiny["vocab_size"],
        "vocab_size_per_layer_input": tiny["vocab_size"], "max_position_embeddings": 131072,
        "final_logit_softcapping": 30.0}))


def run_once(options, folder, processes):
    out = folder / "run"
    command = [options.program, "train", folder / "run.json", f"out={out}", f"threads={2 // processes}", f"sharding={options.sharding}"]
    if processes > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, "--no-python", *command]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(out)
    return [line["tokens_per_second"] for line in lines if line["kind"] == "step"][1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sharding", choices=["none", "states"], default="states")
    parser.add_argument("--plan", default="q4_0")
    options = parser.parse_args()
    options.program = options.program.resolve()
    with tempfile.TemporaryDirectory(prefix="gemma-qat-") as name:
        folder = pathlib.Path(name)
        model_folder(folder / "model", options.layers)
        # Every document is cut to a full row.
        words = "the river runs to a green hill and sings again ".split()
        with open(folder / "data.jsonl", "w") as data:
            for i in range(8):
                data.write(json.dumps({"text": " ".join(words[(i + j * j) % len(words)] for j in range(2 * options.tokens))}) + "\n")
        (folder / "run.json").write_text(json.dumps({
            "model": str(folder / "model"), "initialize": "random", "plan": options.plan, "freeze_tables": "yes",
            "data": {"train": [str(folder / "data.jsonl")]}, "sequence_length": options.tokens, "gradient_accumulation": 2,
            "steps": options.steps, "optimizer": {"warmup_steps": 1}, "checkpoint": {"every_steps": 0, "keep_last": 0, "keep_best": False},
            "memory_check": "warn"}))
        fastest = {1: 0.0, 2: 0.0}
        for _ in range(options.rounds):
            for processes in fastest:
                fastest[processes] = max(fastest[processes], *run_once(options, folder, processes))
    print(json.dumps({"layers": options.layers, "tokens_per_process": options.tokens, "plan": options.plan, "sharding": options.sharding,
                      "one_process_two_threads": round(fastest[1], 1), "two_processes_one_thread": round(fastest[2], 1),
                      "ratio": round(fastest[2] / fastest[1], 3)}))


if __name__ == "__main__":
    main()
