#!/usr/bin/env python3
"""Trains a small random model of every kind for a few steps with QAT, exports it, and lets `verify` compare the file.

Usage: train_each_kind.py GEMMA_QAT [--steps 4] [KIND...]

Weights and cache are quantized (plan q4_0, KV cache q8_0, as GGUF; dense Gemma 4 kinds also by plan mobile-w4, as a mobile folder and
a .litertlm file); some kinds once more with LoRA, whose adapter, merged into the base, must give the masters of the run. verify compares codes, scales and the matrix that the GEMM read of
every weight, the codes of keys and values, and the witness logits (to 1e-3). The query norms of the models are divided by 8:
with random norms of about 1, attention is so sharp that even transformers' own two implementations differ by more than that.
Exit codes: 0 all equal, 1 a difference, 77 skipped (torch or transformers is missing).
"""
import argparse
import array
import importlib.util
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = [
    "The grid is one and the same in training, export and reference inference, and nothing else rounds.",
    "A block of thirty-two weights shares one scale; its codes are integers from zero to fifteen.",
    "Keys and values are rotated, stored in eight bits and turned back, as the device does it.",
]


def calm_attention(folder):
    """Divides the query norms of a Gemma 4 by 8: three less in the exponent of BF16. Gemma 3's norms store w - 1 and are left."""
    if "gemma3" in json.loads((folder / "config.json").read_text())["model_type"]:
        return
    for path in folder.glob("*.safetensors"):
        data = path.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        values = array.array("H", data[8 + size:])
        for name, entry in json.loads(data[8:8 + size]).items():
            if not name.endswith("q_norm.weight"):
                continue
            assert entry["dtype"] == "BF16", name
            begin, end = (offset // 2 for offset in entry["data_offsets"])
            for i in range(begin, end):
                values[i] -= 3 << 7
        path.write_bytes(data[:8 + size] + values.tobytes())


# Per-layer embeddings and shared keys in a multimodal wrapper, experts and values that are keys, norms with an offset.
LORA_KINDS = ("e2b-multimodal", "26b", "gemma3")
FULL = ["freeze_tables=no"]
LORA = ["lora.rank=8", "lora.dropout=0.1"]


def check(program, folder, data, temporary, steps, plan, cache, formats, trained=FULL):
    run = temporary / f"run-{folder.name}-{plan}-{'lora' if trained == LORA else 'full'}"
    commands = [
        [program, "train", ROOT / "configs/train/gemma4_e2b_q4_0.json", f"model={folder}", f"out={run}", f"data.train={data}",
         f"plan={plan}", f"kv_cache={cache}", f"steps={steps}", "optimizer.warmup_steps=1", "optimizer.learning_rate=1e-3",
         "eval.metric=loss", "sequence_length=64", "gradient_accumulation=1", "dtype=float32", "data.chat_template=gemma4", *trained],
    ]
    for form, ending in formats:
        artifact = run / f"model{ending}"
        commands.append([program, "export", run / "checkpoint", "--format", form, "--out", artifact])
        commands.append([program, "verify", artifact, "--checkpoint", run / "checkpoint"])
    for command in commands:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            print(f"{folder.name}: {command[1]} ended with {done.returncode}\n{done.stdout}{done.stderr}", flush=True)
            return False
        if command[1] == "verify":
            print(f"{folder.name}, {plan}{', LoRA' if trained == LORA else ''}:",
                  "; ".join(" ".join(line.split()) for line in done.stdout.splitlines()[1:]), flush=True)
    return trained == FULL or check_merge(program, folder, run)


def check_merge(program, folder, run):
    merged = run / "merged"
    command = [program, "merge", "--model", folder, "--adapter", run / "adapter", "--out", merged]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    equal = done.returncode == 0 and all(
        (merged / file.name).read_bytes() == file.read_bytes() for file in (run / "checkpoint").glob("model*.safetensors"))
    print(f"{folder.name}: merging the adapter gives {'the' if equal else 'OTHER'} masters {done.stderr}", flush=True)
    return equal


def is_dense_gemma4(folder):
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    return "gemma4" in text["model_type"] and not text.get("enable_moe_block")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            print(f"skipped: {module} is not installed")
            return 77
    with tempfile.TemporaryDirectory() as name:
        temporary = pathlib.Path(name)
        script = ROOT / "scripts" / "golden" / "make_tiny_models.py"
        subprocess.run([sys.executable, script, temporary / "models", "--width", "wide"], check=True, stdout=subprocess.DEVNULL)
        data = temporary / "texts.jsonl"
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        folders = [folder for folder in sorted((temporary / "models").iterdir())
                   if folder.is_dir() and (not arguments.kinds or folder.name in arguments.kinds)]
        for folder in folders:
            calm_attention(folder)
        equal = [check(arguments.program, folder, data, temporary, arguments.steps, "q4_0", "q8_0", [("gguf", ".gguf")])
                 for folder in folders]
        equal += [check(arguments.program, folder, data, temporary, arguments.steps, "mobile-w4", "plan",
                        [("mobile-hf", "-mobile"), ("litertlm", ".litertlm")])
                  for folder in folders if is_dense_gemma4(folder)]
        equal += [check(arguments.program, folder, data, temporary, arguments.steps, "q4_0", "q8_0", [("gguf", ".gguf")], LORA)
                  for folder in folders if folder.name in LORA_KINDS]
    print(f"{sum(equal)} of {len(equal)} runs equal")
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
