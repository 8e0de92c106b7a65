#!/usr/bin/env python3
"""`compare --sensitivity` on the quickstart's model: the plan that it proposes for a size is one that `quantize` takes, and fits.

usage: sensitivity_test.py GEMMA_QAT_PROGRAM SOURCE_FOLDER
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM, SOURCE = "", pathlib.Path()


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300)


class SensitivityTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="gemma-qat-")
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)
        self.data = self.folder / "data.txt"
        self.data.write_text("".join(f"{a} plus {b} is {a + b}, and the fox sleeps under a tree.\n\n" for a in range(9) for b in range(9)))
        self.model = SOURCE / "examples/quickstart/model"

    def measure(self, *more):
        return run("compare", "--sensitivity", self.model, "--data", self.data, "--rows", 4, "--sequence-length", 128, *more)

    def test_the_proposed_plan_fits_and_loses_less(self):
        plan = self.folder / "mixed.json"
        done = self.measure("--plan", "q4_0", "--budget", "2.6MB", "--write-plan", plan, "--report", self.folder / "report.html", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)
        proposal = found["proposal"]
        self.assertLessEqual(proposal["bytes"], 2.6e6)
        self.assertLess(proposal["sum_of_parts"], found["whole"]["sum_of_parts"])
        self.assertLess(proposal["kl"], found["whole"]["kl"])
        self.assertEqual(len(found["layers"]), json.loads((self.model / "config.json").read_text())["num_hidden_layers"])
        self.assertIn("<svg", (self.folder / "report.html").read_text())
        self.assertEqual(json.loads((self.folder / "report.json").read_text()), found)

        out = self.folder / "checkpoint"
        done = run("quantize", "--model", self.model, "--plan", plan, "--method", "mse", "--out", out)
        self.assertEqual(done.returncode, 0, done.stderr)
        compared = run("compare", f"BF16={self.model}", f"MIXED={out}", "--data", self.data, "--documents", 4, "--prompts", 0, "--json")
        self.assertEqual(compared.returncode, 0, compared.stderr)
        stored = json.loads(compared.stdout)["models"][1]["bytes"]
        # Vectors count as fp32 here and as BF16 there.
        self.assertAlmostEqual(stored / proposal["bytes"], 1, delta=0.02)

    def test_bad_wishes_are_named(self):
        for more, told in [(["--plan", "q4_0", "--budget", "1MB"], "2.2 MB at least"), (["--plan", "q4_0", "--budget", "much"], "350MB"),
                           (["--plan", "bf16"], "quantizes no weights"), (["--plan", "q4_0", "--rows", "0"], "--rows 0"),
                           (["--plan", "q4_0", "--write-plan", "plan.json"], "needs --budget"), ([], "--plan is missing"),
                           (["--plan", "q4_0", "--schemes", "q5_k"], "q5_k")]:
            done = self.measure(*more)
            self.assertEqual(done.returncode, 2, (more, done.stderr))
            self.assertIn(told, done.stderr)


if __name__ == "__main__":
    PROGRAM, SOURCE = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    unittest.main(argv=sys.argv[:1])
