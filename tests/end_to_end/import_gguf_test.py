#!/usr/bin/env python3
"""`import FILE.gguf --like FOLDER`: what training exported comes back as a checkpoint that verifies, exports as the same bytes and trains
on; and every kind of bad input.

usage: import_gguf_test.py GEMMA_QAT_PROGRAM SOURCE_FOLDER
"""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

PROGRAM, SOURCE = "", pathlib.Path()
DONE, FAILED, USAGE, DIFFERENT = 0, 1, 2, 3
SHARED = {"model_type": "gemma4_text", "num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1,
          "head_dim": 32, "global_head_dim": 64, "intermediate_size": 96, "sliding_window": 16, "vocab_size": 576,
          "hidden_size_per_layer_input": 64, "num_kv_shared_layers": 2, "use_double_wide_mlp": True, "final_logit_softcapping": 30.0,
          "layer_types": ["sliding_attention", "full_attention"] * 2}
EXPERTS = {**SHARED, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "use_double_wide_mlp": False, "attention_k_eq_v": True,
           "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32}
GEMMA3 = {"model_type": "gemma3_text", "vocab_size": 576, "hidden_size": 64, "num_hidden_layers": 7, "num_attention_heads": 2,
          "num_key_value_heads": 1, "head_dim": 32, "query_pre_attn_scalar": 32, "intermediate_size": 96, "sliding_window": 16,
          "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"]}
KINDS = {"multimodal": {"model_type": "gemma4", "text_config": SHARED}, "experts": EXPERTS, "gemma3": GEMMA3}


def run(*arguments):
    process = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=240)
    assert process.returncode >= 0, f"{arguments}: killed by signal {-process.returncode}\n{process.stderr}"
    return process


class ImportGguf(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="gemma-qat-")
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.data = cls.folder / "data.jsonl"
        cls.data.write_text("".join(json.dumps({"text": f"{a} plus {b} is {a + b}."}) + "\n" for a in range(12) for b in range(9)))
        for kind, config in KINDS.items():
            model = cls.folder / kind
            model.mkdir()
            (model / "config.json").write_text(json.dumps(config))
            shutil.copy(SOURCE / "tests/golden/data/tokenizer.json", model)
            cls.train(kind, model=str(model), initialize="random", plan="q4_0-q8-tables")
            cls.export(kind)

    @classmethod
    def train(cls, name, **settings):
        """Two steps into the run NAME-run."""
        config = cls.folder / f"{name}.json"
        config.write_text(json.dumps({
            "dtype": "float32", "threads": 1, "sequence_length": 64, "gradient_accumulation": 1, "steps": 2, "kv_cache": "q8_0",
            "data": {"train": [str(cls.data)]}, "eval": {"every_steps": 0}, "optimizer": {"warmup_steps": 1}, **settings}))
        process = run("train", config, f"out={cls.folder / name}-run")
        assert process.returncode == DONE, process.stderr

    @classmethod
    def export(cls, name, checkpoint=None):
        file = cls.folder / f"{name}.gguf"
        process = run("export", checkpoint or cls.folder / f"{name}-run/checkpoint", "--name", "tiny", "--out", file)
        assert process.returncode == DONE, process.stderr
        return file.read_bytes()

    def expect(self, process, code, *parts):
        self.assertEqual(process.returncode, code, process.stderr + process.stdout)
        for part in parts:
            self.assertIn(part, process.stderr + process.stdout)

    def expect_refused(self, code, *parts, file="multimodal.gguf", like="multimodal"):
        before = sorted(self.folder.iterdir())
        self.expect(run("import", self.folder / file, "--like", self.folder / like, "--out", self.folder / "no"), code, *parts)
        self.assertEqual(sorted(self.folder.iterdir()), before)

    def test_every_kind_comes_back_as_it_was(self):
        for kind in KINDS:
            with self.subTest(kind):
                file, out = self.folder / f"{kind}.gguf", self.folder / f"{kind}-imported"
                process = run("import", file, "--like", self.folder / kind, "--out", out)
                self.expect(process, DONE, "layers.0.mlp.up_proj.weight", str(out))
                self.assertRegex(process.stdout, r"\nall +\d+ +100\.00 % +0\n")
                self.assertNotIn("warning", process.stdout)
                self.assertEqual(self.export(f"{kind}-again", out), file.read_bytes())
                self.expect(run("verify", file, "--checkpoint", out), DONE, "equals", "largest logit difference")

    def test_training_goes_on(self):
        out = self.folder / "to-train"
        self.expect(run("import", self.folder / "multimodal.gguf", "--like", self.folder / "multimodal", "--out", out), DONE)
        self.train("more", model=str(out), plan="model", optimizer={"warmup_steps": 1, "learning_rate": 1e-2})
        self.assertNotEqual(self.export("more"), (self.folder / "multimodal.gguf").read_bytes())
        self.expect(run("verify", self.folder / "more.gguf", "--checkpoint", self.folder / "more-run/checkpoint"), DONE, "equals")
        before, after = ((folder / "scales.safetensors").read_bytes() for folder in (out, self.folder / "more-run/checkpoint"))
        self.assertEqual(before, after)

    def test_what_is_rounded_is_told(self):
        content = bytearray((self.folder / "gemma3.gguf").read_bytes())
        listing = json.loads(run("inspect", self.folder / "gemma3.gguf", "--json").stdout)
        sizes = {tensor["name"]: -(-tensor["bytes"] // 32) * 32 for tensor in listing["tensors"]}
        start = len(content) - sum(sizes.values())
        for name, changed in (("output_norm.weight", struct.pack("<f", 1 / 3)), ("token_embd.weight", bytes([1, 48]))):
            offset = start + sum(size for other, size in list(sizes.items())[:list(sizes).index(name)])
            content[offset:offset + len(changed)] = changed
        file, out = self.folder / "changed.gguf", self.folder / "changed"
        file.write_bytes(content)
        self.expect(run("import", file, "--like", self.folder / "gemma3", "--out", out), DONE,
                    "norm.weight: 1 of 64 f32 values are not kept by a BF16 master and were rounded", "q8_0 and q6_k find their scales by a rule")
        self.expect(run("verify", file, "--checkpoint", out), DIFFERENT, "different: token_embd.weight", "different: output_norm.weight: element 0")
        again = self.export("changed-again", out)
        self.assertEqual(len(again), len(content))
        self.assertNotEqual(again, content)

    def test_bad_input(self):
        self.expect(run("import", self.folder / "experts.gguf", "--out", self.folder / "no"), USAGE, "--like is missing", "usage:")
        self.expect_refused(USAGE, "does not exist", file="none.gguf")
        self.expect_refused(USAGE, "is no folder with a config.json", like="none")
        self.expect_refused(USAGE, "--like: is for GGUF files", file="multimodal")
        self.expect_refused(FAILED, "is no GGUF file", file="data.jsonl")
        self.expect_refused(FAILED, "architecture is \"gemma4\"", "gemma3 model", like="gemma3")
        self.expect_refused(FAILED, "blk.2.ffn_gate.weight is q4_0 [192, 64], wanted [96, 64]", "blk.0.ffn_gate_inp.weight is missing", like="experts")
        like = self.folder / "multimodal"
        self.expect(run("import", self.folder / "multimodal.gguf", "--like", like, "--out", like, "--force"), USAGE, "is the folder of --like")
        self.assertTrue((like / "config.json").exists())
        whole = (self.folder / "multimodal.gguf").read_bytes()
        (self.folder / "cut.gguf").write_bytes(whole[:len(whole) // 2])
        self.expect_refused(FAILED, "cut.gguf", "truncated?", file="cut.gguf")
        name = b"blk.0.ffn_up.weight"
        at = whole.index(name) + len(name) + 4 + 2 * 8
        (self.folder / "q4_k.gguf").write_bytes(whole[:at] + struct.pack("<i", 12) + whole[at + 4:])
        self.expect_refused(FAILED, "blk.0.ffn_up.weight", "type 12 (Q4_K) is not supported", "Q8_0", file="q4_k.gguf")


if __name__ == "__main__":
    PROGRAM, SOURCE = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    unittest.main(argv=sys.argv[:1])
