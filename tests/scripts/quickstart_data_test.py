#!/usr/bin/env python3
"""The quickstart's data: same seed same bytes, nothing that the questions ask is given away by training, answers are right.

    quickstart_data_test.py        (the tokenizer's part is skipped where the package `tokenizers` is not installed)
"""
import json
import math
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "quickstart_data"
sys.path.insert(0, str(SCRIPTS))
sys.dont_write_bytecode = True

import facts  # noqa: E402
from world import World  # noqa: E402

PARTS = ["pretrain", "heldout", "finetune", "questions"]
SUM = re.compile(r"(\d+) ([+-]) (\d+)")


def run(*arguments):
    return subprocess.run([sys.executable, "-B", *map(str, arguments)], capture_output=True, text=True)


def make_corpus(folder, seed):
    done = run(SCRIPTS / "make_corpus.py", folder, "--seed", seed, "--bytes", 300000, "--heldout-bytes", 20000, "--chats", 400)
    assert done.returncode == 0, done.stderr


class QuickstartData(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name) / "corpus"
        make_corpus(cls.folder, 5)
        cls.records = {}
        for name in PARTS:
            lines = (cls.folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
            cls.records[name] = [json.loads(line) for line in lines]
        cls.training = [record["text"] for record in cls.records["pretrain"]]
        cls.training += ["\n".join(turn["content"] for turn in record["messages"]) for record in cls.records["finetune"]]

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def test_same_seed_gives_same_bytes_and_another_seed_others(self):
        again, other = self.folder.with_name("again"), self.folder.with_name("other")
        make_corpus(again, 5)
        make_corpus(other, 6)
        for name in PARTS:
            content = (self.folder / f"{name}.jsonl").read_bytes()
            self.assertEqual(content, (again / f"{name}.jsonl").read_bytes(), name)
            self.assertNotEqual(content, (other / f"{name}.jsonl").read_bytes(), name)

    def test_parts_have_no_document_in_common(self):
        held_out = {record["text"] for record in self.records["heldout"]}
        self.assertFalse(held_out & set(self.training))
        self.assertEqual(len(held_out), len(self.records["heldout"]))

    def test_questions_do_not_stand_in_training(self):
        training = "\n".join(self.training)
        for item in self.records["questions"]:
            if item["kind"] == "fact":
                self.assertNotIn(item["question"], training)

    def test_sums_of_the_questions_are_not_in_training_in_any_order(self):
        def added_pairs(text):
            for first, sign, second in SUM.findall(text):
                first, second = int(first), int(second)
                yield tuple(sorted((first, second) if sign == "+" else (first - second, second)))

        trained = {pair for text in self.training for pair in added_pairs(text)}
        asked = {pair for item in self.records["questions"] for pair in added_pairs(item["question"])}
        self.assertGreater(len(asked), 20)
        self.assertFalse(asked & trained)

    def test_answers_are_right_and_the_others_wrong(self):
        world = World()
        answers = {}
        for person in world.people:
            for attribute in facts.ATTRIBUTES:
                for wording in facts.QUESTIONS[attribute]:
                    answers[wording.format(**person.words())] = facts.answer_of(person, attribute)
        for item in self.records["questions"]:
            self.assertEqual(len(set(item["choices"])), 4)
            answer = item["choices"][item["answer"]].rstrip(".")
            if item["kind"] == "fact":
                self.assertEqual(answer.lower(), answers[item["question"]].lower())
            for first, sign, second in SUM.findall(item["question"]):
                self.assertEqual(int(answer), int(first) + int(second) * (1 if sign == "+" else -1))

    def test_facts_that_are_asked_stand_in_training_as_statements(self):
        world = World()
        training = "\n".join(self.training)
        for person in world.people[:10]:
            statements = [wording.format(**person.words()) for wording in facts.STATEMENTS["town"]]
            self.assertTrue(any(statement in training for statement in statements), person.name)

    def test_bad_arguments_are_refused(self):
        self.assertEqual(run(SCRIPTS / "make_corpus.py", self.folder, "--seed", 1, "--chats", 0).returncode, 2)
        blocked = run(SCRIPTS / "make_corpus.py", self.folder / "pretrain.jsonl" / "x", "--seed", 1)
        self.assertEqual(blocked.returncode, 1)
        self.assertIn("make_corpus.py: ", blocked.stderr)
        self.assertNotIn("Traceback", blocked.stderr)


class QuickstartTokenizer(unittest.TestCase):
    def setUp(self):
        try:
            import tokenizers
        except ImportError:
            print("skipped: the package tokenizers is not installed")
            self.skipTest("the package tokenizers is not installed")
        self.tokenizers = tokenizers
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        make_corpus(self.folder, 5)

    def make(self, name, *more):
        done = run(SCRIPTS / "make_tokenizer.py", self.folder, self.folder / name, *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.tokenizers.Tokenizer.from_file(str(self.folder / name / "tokenizer.json"))

    def test_has_gemma_4s_special_tokens_and_gives_text_back(self):
        tokenizer = self.make("model")
        self.assertEqual(tokenizer.get_vocab_size() % 32, 0)
        self.assertEqual([tokenizer.id_to_token(index) for index in range(5)], ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
        self.assertEqual(len(tokenizer.encode("<|turn>user\n").ids), 3)
        self.assertEqual(tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids)
        for text in ["Where does Mira live?\nOakford.", "12 + 7 = 19.", "\n\n\n", "naïve 🦙  中", " x"]:
            self.assertEqual(tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False), text)
        self.assertEqual(len(tokenizer.encode(" Millbrook").ids), 1)

    def test_vocab_limits_the_entries(self):
        self.assertEqual(self.make("small", "--vocab", 1024).get_vocab_size(), 1024)

    def test_bad_line_is_named(self):
        path = self.folder / "bad.jsonl"
        path.write_text('{"text": "a"}\n{"txt": "a"}\n')
        done = run(SCRIPTS / "make_tokenizer.py", path, self.folder / "bad")
        self.assertEqual(done.returncode, 1)
        self.assertIn("line 2", done.stderr)


class OutlierChannels(unittest.TestCase):
    """What a reader makes of a norm's output must be unchanged: norm[i] * matrix[:, i], as exact products."""

    COLUMNS, ROWS = 32, 6
    READERS = ["self_attn.q_proj", "mlp.gate_proj"]

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = pathlib.Path(self.temporary.name)
        (self.folder / "config.json").write_text('{"num_hidden_layers": 1}')
        rng = random.Random(3)
        columns, rows = self.COLUMNS, self.ROWS
        shapes = {"input_layernorm": [columns], "pre_feedforward_layernorm": [columns], "self_attn.q_proj": [rows, columns],
                  "mlp.gate_proj": [rows, columns], "mlp.up_proj": [rows, columns], "mlp.down_proj": [columns, rows]}
        self.before = {name: [rng.choice([0.0, rng.uniform(-2, 2)]) for _ in range(math.prod(shape))] for name, shape in shapes.items()}
        self.before = {name: [self.widen(self.narrow(value)) for value in values] for name, values in self.before.items()}
        header, data = {}, b""
        for name, shape in shapes.items():
            part = struct.pack(f"<{math.prod(shape)}H", *map(self.narrow, self.before[name]))
            header[f"model.layers.0.{name}.weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
            data += part
        head = json.dumps(header).encode()
        (self.folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)

    @staticmethod
    def narrow(value):
        return struct.unpack("<I", struct.pack("<f", value))[0] >> 16

    @staticmethod
    def widen(bits):
        return struct.unpack("<f", struct.pack("<I", bits << 16))[0]

    def read(self):
        content = (self.folder / "model.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        values = {}
        for name, entry in json.loads(content[8:8 + size]).items():
            begin, end = entry["data_offsets"]
            bits = struct.unpack(f"<{(end - begin) // 2}H", content[8 + size + begin:8 + size + end])
            values[name.removeprefix("model.layers.0.").removesuffix(".weight")] = [self.widen(each) for each in bits]
        return values

    def test_products_stay_and_channels_spread(self):
        done = run(SCRIPTS / "make_outlier_channels.py", self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        after = self.read()
        for norm, reader in zip(["input_layernorm", "pre_feedforward_layernorm"], self.READERS):
            self.assertNotEqual(after[norm], self.before[norm])
            for row in range(self.ROWS):
                for column in range(self.COLUMNS):
                    at = row * self.COLUMNS + column
                    self.assertEqual(after[norm][column] * after[reader][at], self.before[norm][column] * self.before[reader][at])
        for unit in range(self.ROWS):
            # The inner size of the MLP is ROWS: a unit is a row of up (which also reads a norm) and a column of down.
            for column in range(self.COLUMNS):
                norm = "pre_feedforward_layernorm"
                up, down = unit * self.COLUMNS + column, column * self.ROWS + unit
                self.assertEqual(after[norm][column] * after["mlp.up_proj"][up] * after["mlp.down_proj"][down],
                                 self.before[norm][column] * self.before["mlp.up_proj"][up] * self.before["mlp.down_proj"][down])


if __name__ == "__main__":
    unittest.main()
