#!/usr/bin/env python3
"""Runs `gemma-qat compare configs/eval/quickstart.json` from nothing and holds its report against the committed one, in
examples/quickstart/comparison: the same bytes on a processor of the same name, elsewhere the same words with numbers that agree to 1e-3.
Takes a few minutes on two cores, so ctest leaves it alone.

usage: committed_comparison.py GEMMA_QAT_PROGRAM [--folder FOLDER] [--update]
  --folder  where to run instead of a temporary folder; what is finished there is kept
  --update  commit to what was found: writes report.json and environment.json into examples/quickstart/comparison
"""
import argparse
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
COMMITTED = SOURCE / "examples/quickstart/comparison"
TOLERANCE = 1e-3  # relative; of numbers below 1 absolute


def run_comparison(program, folder):
    """In a folder of its own, so that paths in the report are those of the configuration."""
    for name in ("configs", "examples"):
        if not (folder / name).exists():
            (folder / name).symlink_to(SOURCE / name)
    data = folder / "runs/quickstart/data"
    make = [sys.executable, SOURCE / "scripts/quickstart_data/make_corpus.py", data, "--seed", 1, "--people", 24, "--bytes", 200000, "--chats", 2400,
            "--questions", 300]
    split = [sys.executable, SOURCE / "scripts/split_data", data / "finetune.jsonl", "--fractions", "0.8,0.05,0.15", "--force"]
    for command in (make, split):
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([program, "compare", "configs/eval/quickstart.json"], check=True, cwd=folder)
    return folder / "runs/quickstart-comparison"


def processors(environment):
    return sorted({step["processor"] for step in json.loads(environment.read_text())["steps"].values()})


def differences(found, committed, where=""):
    if isinstance(found, dict) and isinstance(committed, dict):
        for key in sorted(found.keys() | committed.keys()):
            if (key in found) != (key in committed):
                yield f"{where}.{key}: is only in the {'new' if key in found else 'committed'} report"
            else:
                yield from differences(found[key], committed[key], f"{where}.{key}")
    elif isinstance(found, list) and isinstance(committed, list) and len(found) == len(committed):
        for index, pair in enumerate(zip(found, committed)):
            yield from differences(*pair, f"{where}[{index}]")
    elif all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (found, committed)):
        if not math.isclose(found, committed, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{where}: {found}, committed {committed}"
    elif found != committed:
        yield f"{where}: {json.dumps(found)[:200]}, committed {json.dumps(committed)[:200]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gemma-qat-") as temporary:
        folder = (options.folder or pathlib.Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        out = run_comparison(os.path.abspath(options.program), folder)
        if options.update:
            COMMITTED.mkdir(exist_ok=True)
            for name in ("report.json", "environment.json"):
                shutil.copy(out / name, COMMITTED / name)
            print(f"written: {COMMITTED.relative_to(SOURCE)}")
            return 0
        found, committed = (out / "report.json").read_bytes(), (COMMITTED / "report.json").read_bytes()
        if found == committed:
            print(f"the committed report, byte for byte ({len(found)} bytes)")
            return 0
        if processors(out / "environment.json") == processors(COMMITTED / "environment.json"):
            print("the bytes differ from the committed report's, on a processor of the same name:")
            allowed = False
        else:
            print("another processor than the committed report's: numbers may differ by 1e-3, words may not")
            allowed = True
        faults = list(differences(json.loads(found), json.loads(committed)))
        print("\n".join(faults) or "no number differs by more than 1e-3, no word differs")
        return 0 if allowed and not faults else 1


if __name__ == "__main__":
    sys.exit(main())
