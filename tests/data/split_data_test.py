#!/usr/bin/env python3
"""Tests scripts/split_data by running it. Usage: split_data_test.py SCRIPT"""
import hashlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

SCRIPT = ""
PARTS = ("train", "choose", "report")


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


class SplitData(unittest.TestCase):
    def setUp(self):
        self.holder = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.holder.name)
        self.data = self.folder / "data.jsonl"

    def tearDown(self):
        self.holder.cleanup()

    def part(self, name, suffix=".jsonl"):
        return (self.folder / f"data.{name}{suffix}").read_text(encoding="utf-8")

    def write_lines(self, count):
        lines = [json.dumps({"text": f"Größe {i}", "n": i}, ensure_ascii=False) for i in range(count)]
        self.data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return lines

    def test_every_line_lands_in_exactly_one_part_and_shares_are_near_the_fractions(self):
        lines = self.write_lines(2000)
        done = run(self.data, "--fractions", "0.7,0.2,0.1")
        self.assertEqual(done.returncode, 0, done.stderr)
        parts = [self.part(name).splitlines() for name in PARTS]
        self.assertEqual(sorted(sum(parts, [])), sorted(lines))
        for part, share in zip(parts, (0.7, 0.2, 0.1)):
            self.assertLess(abs(len(part) / 2000 - share), 0.05)

    def test_part_follows_from_the_sha256_of_the_canonical_json(self):
        lines = self.write_lines(50)
        run(self.data, "--fractions", "0.5,0.3,0.2")
        for line in lines:
            canonical = json.dumps(json.loads(line), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            position = int(hashlib.sha256(canonical.encode()).hexdigest()[:12], 16) / 16**12
            wanted = "train" if position < 0.5 else "choose" if position < 0.8 else "report"
            self.assertIn(line, self.part(wanted).splitlines())

    def test_same_content_in_another_spelling_lands_in_the_same_part(self):
        seed = random.randrange(1 << 30)
        rng = random.Random(seed)
        for _ in range(8):
            record = {"a": rng.random(), "b": "é", "c": [1, 2]}
            turned = {"c": [1, 2], "b": "é", "a": record["a"]}
            self.data.write_text(json.dumps(record) + "\n" + json.dumps(turned, ensure_ascii=False, indent=None,
                                                                        separators=(", ", " : ")) + "\n")
            self.assertEqual(run(self.data, "--force").returncode, 0)
            counts = sorted(len(self.part(name).splitlines()) for name in PARTS)
            self.assertEqual(counts, [0, 0, 2], f"seed {seed}")

    def test_text_documents_stay_whole(self):
        data = self.folder / "data.txt"
        data.write_text("".join(f"first {i}\nsecond {i}\n\n\n" for i in range(100)))
        self.assertEqual(run(data, "--fractions", "0.5,0.25,0.25").returncode, 0)
        documents = [block for name in PARTS for block in self.part(name, ".txt").split("\n\n") if block]
        self.assertEqual(sorted(documents), sorted(f"first {i}\nsecond {i}" for i in range(100)))
        self.assertEqual(run(data, "--by", "line", "--force").returncode, 0)
        lines = [line for name in PARTS for line in self.part(name, ".txt").splitlines()]
        self.assertEqual(len(lines), 200)

    def test_does_not_overwrite_without_force(self):
        self.write_lines(10)
        target = self.folder / "data.choose.jsonl"
        target.write_text("mine")
        done = run(self.data)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--force", done.stderr)
        self.assertEqual(target.read_text(), "mine")
        self.assertEqual(run(self.data, "--force").returncode, 0)
        self.assertNotEqual(target.read_text(), "mine")

    def test_fraction_zero_gets_nothing(self):
        self.write_lines(300)
        run(self.data, "--fractions", "0.9,0.1,0")
        self.assertEqual(self.part("report"), "")

    def test_bad_input_is_refused_and_leaves_nothing(self):
        self.data.write_text('{"a": 1}\n{broken\n')
        done = run(self.data)
        self.assertEqual(done.returncode, 1)
        self.assertIn("data.jsonl:2", done.stderr)
        self.data.write_text("\n \n")
        self.assertIn("no documents", run(self.data).stderr)
        self.assertIn("cannot be read", run(self.folder / "none.jsonl").stderr)
        self.assertIn("cannot be read", run(self.write_bytes(b"\xff\xfe")).stderr)
        self.assertEqual(run(self.data, "--fractions", "0.5,0.6,0.1").returncode, 2)
        self.assertEqual(run(self.data, "--fractions", "a,b").returncode, 2)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["data.jsonl"])

    def write_bytes(self, content):
        self.data.write_bytes(content)
        return self.data

    def test_help_has_an_example(self):
        self.assertIn("Example:", run("--help").stdout)


if __name__ == "__main__":
    SCRIPT = sys.argv.pop(1)
    unittest.main()
