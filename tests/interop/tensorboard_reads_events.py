#!/usr/bin/env python3
"""Reads the event files of a tiny run with TensorBoard and compares them with metrics.jsonl. Skipped (77) without tensorboard.

usage: tensorboard_reads_events.py GEMMA_QAT_PROGRAM
"""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

SOURCE = pathlib.Path(__file__).resolve().parents[2]
# Folder -> kind of line in metrics.jsonl and its scalars.
PARTS = {"train": ("step", ["loss", "learning_rate", "gradient_norm", "tokens_per_second"]), "eval": ("eval", ["loss"])}


def as_float(value):
    """As a 32-bit float holds it."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def train(program, folder, *overrides):
    process = subprocess.run([program, "train", str(folder / "run.json"), f"out={folder / 'run'}", *overrides], capture_output=True, text=True, timeout=240)
    if process.returncode != 0:
        sys.exit(f"train failed: {process.stderr}")


def make_run(program, folder):
    """Six steps, the last three of them resumed."""
    model = folder / "model"
    model.mkdir()
    shutil.copy(SOURCE / "tests/trainers/tiny_model/config.json", model)
    shutil.copy(SOURCE / "tests/golden/data/tokenizer.json", model)
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"text": f"{a} plus {b} is {a + b}."}) + "\n" for a in range(6) for b in range(9)))
    (folder / "run.json").write_text(json.dumps({
        "model": str(model), "initialize": "random", "plan": "q4_0", "dtype": "float32", "threads": 1, "sequence_length": 64,
        "gradient_accumulation": 1, "data": {"train": [str(data)], "eval": [str(data)]}, "eval": {"every_steps": 2, "documents": 4},
        "optimizer": {"warmup_steps": 1}, "tensorboard": True}))
    train(program, folder, "steps=3")
    train(program, folder, "steps=6", "--resume")


def main(program):
    with tempfile.TemporaryDirectory(prefix="gemma-qat-") as name:
        folder = pathlib.Path(name)
        make_run(program, folder)
        lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
        compared = 0
        for part, (kind, tags) in PARTS.items():
            events = EventAccumulator(str(folder / "run/tensorboard" / part))
            events.Reload()
            if sorted(events.Tags()["scalars"]) != sorted(tags):
                sys.exit(f"{part}: tags {events.Tags()['scalars']}, wanted {tags}")
            for tag in tags:
                found = [(event.step, event.value) for event in events.Scalars(tag)]
                wanted = [(line["step"], as_float(line[tag])) for line in lines if line["kind"] == kind]
                if found != wanted:
                    sys.exit(f"{part}/{tag}: TensorBoard reads {found}, metrics.jsonl says {wanted}")
                compared += len(found)
        print(f"{compared} scalars equal metrics.jsonl")
        return 0 if compared > 20 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
