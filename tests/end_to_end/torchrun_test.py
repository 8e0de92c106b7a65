#!/usr/bin/env python3
"""A run under torchrun as a user starts it: two processes share the steps, one goes on alone; a killed process ends the run.

usage: torchrun_test.py GEMMA_QAT_PROGRAM SOURCE_FOLDER     (skipped, 77, where this Python has no torchrun)
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM, SOURCE = "", pathlib.Path()
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
LAYERS = ["activation_checkpointing=layers"]  # without it parameters are not shared


class Torchrun(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="gemma-qat-")
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)
        data = self.folder / "data.jsonl"
        data.write_text("".join(json.dumps({"text": f"{a} plus {b} is {a + b}."}) + "\n" for a in range(12) for b in range(9)))
        model = self.folder / "model"
        model.mkdir()
        shutil.copy(SOURCE / "tests/trainers/tiny_model/config.json", model)
        shutil.copy(SOURCE / "tests/golden/data/tokenizer.json", model)
        self.out = self.folder / "run"
        self.config = self.folder / "run.json"
        self.config.write_text(json.dumps({
            "model": str(model), "initialize": "random", "plan": "q4_0", "dtype": "float32", "sequence_length": 64, "out": str(self.out),
            "gradient_accumulation": 2, "steps": 4, "data": {"train": [str(data)], "eval": [str(data)]},
            "eval": {"every_steps": 2, "documents": 4}, "optimizer": {"warmup_steps": 1, "final_ratio": 1}, "checkpoint": {"every_steps": 2}}))

    def lines(self, kind):
        return [line for line in map(json.loads, (self.out / "metrics.jsonl").read_text().splitlines()) if line["kind"] == kind]

    def steps(self):
        return [line["step"] for line in self.lines("step")]

    def test_two_processes_then_one(self):
        losses = {}
        for sharding in ("states", "parameters"):
            shutil.rmtree(self.out, ignore_errors=True)
            done = subprocess.run([*TORCHRUN, PROGRAM, "train", str(self.config), f"sharding={sharding}", *LAYERS],
                                  capture_output=True, text=True, timeout=240)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.count("2 processes of"), 1, done.stdout)
            self.assertEqual(self.steps(), [1, 2, 3, 4])
            done = subprocess.run([PROGRAM, "train", str(self.config), "steps=6", "--resume", *LAYERS],
                                  capture_output=True, text=True, timeout=240)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.steps(), [1, 2, 3, 4, 5, 6])
            losses[sharding] = [line["loss"] for line in self.lines("step")]
        self.assertEqual(losses["states"], losses["parameters"])

    def test_a_killed_process_ends_the_run(self):
        run = subprocess.Popen([*TORCHRUN, PROGRAM, "train", str(self.config), "steps=5000", "eval.every_steps=0"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            while not (self.out / "step-2").exists():
                self.assertIsNone(run.poll())
                time.sleep(0.05)
            mine = [pid for pid in self.descendants(run.pid) if os.readlink(f"/proc/{pid}/exe") == os.path.realpath(PROGRAM)]
            self.assertEqual(len(mine), 2)
            start = time.monotonic()
            os.kill(mine[1], signal.SIGKILL)
            _, told = run.communicate(timeout=60)
            self.assertLess(time.monotonic() - start, 30)
            self.assertNotEqual(run.returncode, 0)
            self.assertEqual(told.count("error: rank "), 1, told)
            self.assertTrue(not any(os.path.exists(f"/proc/{pid}") for pid in mine))
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
        step = self.steps()[-1]
        done = subprocess.run([PROGRAM, "train", str(self.config), f"steps={step + 2}", "eval.every_steps=0", "--resume"],
                              capture_output=True, text=True, timeout=240)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_an_interrupt_of_torchrun_saves(self):
        run = subprocess.Popen([*TORCHRUN, PROGRAM, "train", str(self.config), "steps=5000", "eval.every_steps=0", "checkpoint.every_steps=0"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            while not (self.out / "metrics.jsonl").exists() or not self.steps():
                self.assertIsNone(run.poll())
                time.sleep(0.05)
            run.send_signal(signal.SIGINT)
            _, told = run.communicate(timeout=60)
            self.assertIn("stopped at step", told)
            self.assertTrue((self.out / "state.h5").exists(), told)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)

    def descendants(self, pid):
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
        for child in map(int, children.read_text().split()):
            yield child
            yield from self.descendants(child)


if __name__ == "__main__":
    PROGRAM, SOURCE = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2])
    if subprocess.run([sys.executable, "-c", "import torch.distributed.run"], capture_output=True).returncode != 0:
        print("skipped: this Python has no torchrun")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
