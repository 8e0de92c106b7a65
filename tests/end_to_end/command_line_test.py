#!/usr/bin/env python3
"""The verbs as a user runs them, on a tiny model that is trained from random weights, and every kind of bad input.

usage: command_line_test.py GEMMA_QAT_PROGRAM SOURCE_FOLDER
"""
import json
import math
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""
SOURCE = pathlib.Path()
DONE, FAILED, USAGE, DIFFERENT = 0, 1, 2, 3


def run(*arguments, **options):
    """The finished process; a crash or a hang is a test failure wherever it happens."""
    process = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=240, **options)
    assert process.returncode >= 0, f"{arguments}: killed by signal {-process.returncode}\n{process.stderr}"
    return process


class Journey(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="gemma-qat-")
        cls.folder = pathlib.Path(cls.temporary.name)
        cls.data = cls.folder / "data.jsonl"
        cls.data.write_text("".join(json.dumps({"text": f"{a} plus {b} is {a + b}."}) + "\n" for a in range(12) for b in range(9)))
        cls.model = cls.folder / "model"
        cls.model.mkdir()
        shutil.copy(SOURCE / "tests/trainers/tiny_model/config.json", cls.model)
        shutil.copy(SOURCE / "tests/golden/data/tokenizer.json", cls.model)
        cls.config = cls.folder / "run.json"
        cls.config.write_text(json.dumps({
            "model": str(cls.model), "initialize": "random", "plan": "q4_0", "kv_cache": "q8_0",
            "dtype": "float32", "threads": 1, "sequence_length": 64, "gradient_accumulation": 1, "steps": 4,
            "data": {"train": [str(cls.data)], "eval": [str(cls.data)]}, "eval": {"every_steps": 2, "documents": 4}, "optimizer": {"warmup_steps": 1},
            "checkpoint": {"every_steps": 2}}))
        cls.run_folder = cls.folder / "run"
        process = run("train", cls.config, f"out={cls.run_folder}")
        assert process.returncode == DONE, process.stderr
        cls.checkpoint = cls.run_folder / "checkpoint"
        cls.gguf = cls.folder / "model.gguf"
        process = run("export", cls.checkpoint, "--format", "gguf", "--out", cls.gguf)
        assert process.returncode == DONE, process.stderr

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def expect(self, process, code, *parts):
        self.assertEqual(process.returncode, code, process.stderr + process.stdout)
        for part in parts:
            self.assertIn(part, process.stderr + process.stdout)

    def copy_checkpoint(self, name):
        copy = self.folder / name
        shutil.copytree(self.checkpoint, copy)
        return copy

    # ---- the main path

    def test_export_equals_training(self):
        process = run("verify", self.gguf, "--checkpoint", self.checkpoint)
        self.expect(process, DONE, "equals", "largest logit difference")
        self.assertTrue(self.gguf.with_suffix(".Modelfile").exists())

    def test_a_changed_byte_is_found(self):
        listing = json.loads(run("inspect", self.gguf, "--json").stdout)
        total = sum(tensor["bytes"] for tensor in listing["tensors"])
        self.assertGreater(total, 0)
        damaged = self.folder / "damaged.gguf"
        content = bytearray(self.gguf.read_bytes())
        content[-2000] ^= 0x10
        damaged.write_bytes(content)
        self.expect(run("verify", damaged, "--checkpoint", self.checkpoint), DIFFERENT, "different:", ".weight")

    def test_metrics_have_a_line_per_step(self):
        lines = [json.loads(line) for line in (self.run_folder / "metrics.jsonl").read_text().splitlines()]
        self.assertEqual([line["step"] for line in lines if line["kind"] == "step"], [1, 2, 3, 4])
        self.assertTrue((self.run_folder / "config.resolved.json").exists())

    def test_a_report_is_written_by_training_and_again(self):
        report = self.run_folder / "report.html"
        by_training = report.read_text()
        self.assertIn("Step 4 of 4: complete.", by_training)
        again = self.folder / "again.html"
        self.expect(run("report", self.run_folder, "--out", again), DONE, str(again))
        self.assertEqual(again.read_text(), by_training)
        self.expect(run("report", self.folder), USAGE, "is no run folder", "metrics.jsonl")
        broken = self.folder / "broken"
        broken.mkdir()
        shutil.copy(self.run_folder / "config.resolved.json", broken)
        (broken / "metrics.jsonl").write_text('{"kind": "step"\n{}\n')
        self.expect(run("report", broken), FAILED, "metrics.jsonl line 1")
        self.assertFalse((broken / "report.html").exists())

    def test_generate_gives_tokens_text_and_steps(self):
        for model in (self.checkpoint, self.gguf):
            process = run("generate", model, "--tokens", "2,30,40", "--max-new", 5, "--top", 3, "--json")
            self.expect(process, DONE)
            result = json.loads(process.stdout)
            self.assertEqual(result["prompt_tokens"], [2, 30, 40])
            self.assertLessEqual(len(result["tokens"]), 5)
            self.assertEqual(len(result["steps"]), len(result["tokens"]))
            for token, step in zip(result["tokens"], result["steps"]):
                self.assertEqual(step["top"][0]["token"], token)
                self.assertEqual(len(step["top"]), 3)
                self.assertLess(step["top"][0]["logprob"], 0)

    def test_quantize_gives_the_same_kind_of_checkpoint(self):
        out = self.folder / "rtn"
        self.expect(run("quantize", "--model", self.checkpoint, "--plan", "q4_0", "--out", out), DONE)
        self.expect(run("quantize", "--model", self.checkpoint, "--plan", "q4_0", "--out", out), USAGE, "--force")
        file = self.folder / "rtn.gguf"
        self.expect(run("export", out, "--out", file), DONE)
        self.expect(run("verify", file, "--checkpoint", out), DONE, "equals")

    def test_methods_that_look_at_activations(self):
        arguments = ("--model", self.checkpoint, "--data", self.data, "--rows", 8, "--sequence-length", 64)
        for method in ("imatrix", "gptq", "awq", "autoround"):
            out, file = self.folder / method, self.folder / f"{method}.gguf"
            process = run("quantize", *arguments, "--plan", "q4_0", "--method", method, "--out", out)
            self.expect(process, DONE, "linears have a lower output error than by rounding")
            self.expect(run("export", out, "--out", file), DONE)
            self.expect(run("verify", file, "--checkpoint", out), DONE, "equals")
        no = ("--out", self.folder / "no-ptq")
        quantize = ("quantize", "--model", self.checkpoint, "--method", "gptq", "--plan")
        self.expect(run(*quantize, "q4_0", *no), USAGE, "--data FILE")
        self.expect(run("quantize", *arguments, "--method", "gptq", "--plan", "mobile-w4", *no), USAGE, "has none", "mse")
        self.expect(run(*quantize, "q4_0", "--data", self.data, "--rows", 3, *no), USAGE, "wants 4 rows")
        self.assertEqual(list(self.folder.glob("no-ptq*")), [])

    def test_compare_makes_what_a_configuration_names_and_keeps_it(self):
        plain, out, config = self.folder / "plain", self.folder / "comparison", self.folder / "comparison.json"
        plain.mkdir()
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            shutil.copy(self.checkpoint / name, plain)
        choose = self.folder / "choose.jsonl"
        choose.write_text("".join(json.dumps({"text": f"{a} times {a} is {a * a}."}) + "\n" for a in range(8)))
        settings = {"model": str(plain), "out": str(out), "qat": str(self.config), "qat_starts_from": "best",
                    "settings": ["initialize=pretrained", "kv_cache=none", "objective=forward_kl", "steps=2", "threads=1",
                                 "quantization.block_scales=learned"],
                    "methods": ["rtn", "gptq"], "calibration": str(self.data), "calibration_rows": 8,
                    "calibration_length": 64, "choose": [str(choose)], "report": [str(self.data)], "documents": 40,
                    "sensitivity_rows": 2}
        config.write_text(json.dumps(settings))
        self.expect(run("compare", config), DONE, "BF16", "RTN", "GPTQ", "QAT", "(contamination)", "== gemma-qat train")
        chosen = json.loads((out / "chosen.json").read_text())
        self.assertEqual(chosen["best"], min(chosen["kl"], key=chosen["kl"].get))
        resolved = json.loads((out / "qat-1/config.resolved.json").read_text())
        self.assertEqual(resolved["model"], str(out / f"ptq-{chosen['best']}"))
        self.assertEqual(resolved["teacher"], str(plain))
        figures = json.loads((out / "report.json").read_text())
        self.assertEqual(figures["origin"], {"seeds": ["QAT"], "methods": 2, "chosen_on": [str(choose)]})
        self.assertEqual([model["name"] for model in figures["models"]][:3:2], ["BF16", "QAT"])
        self.assertEqual(len(figures["sensitivity"]["layers"]), json.loads((plain / "config.json").read_text())["num_hidden_layers"])
        self.assertIn("Which parts suffer", (out / "report.html").read_text())
        steps = json.loads((out / "environment.json").read_text())["steps"]
        self.assertIn("qat-1", steps)
        self.assertGreater(steps["measure-QAT"]["tokens_per_second"], 0)
        before = [(out / name).read_bytes() for name in ("report.html", "report.json")]
        (out / "report.json").unlink()
        process = run("compare", config)
        self.expect(process, DONE)
        self.assertNotIn("== gemma-qat", process.stdout)
        self.assertEqual([(out / name).read_bytes() for name in ("report.html", "report.json")], before)
        process = run("compare", config, "artifact=gguf")
        self.expect(process, DONE, "export", "exported/qat-1.gguf")
        self.assertNotIn("== gemma-qat train", process.stdout)
        exported = json.loads((out / "report.json").read_text())
        self.assertEqual(exported["models"][2]["path"], str(out / "exported/qat-1.gguf"))
        for kept, again in zip(figures["models"], exported["models"]):
            self.assertAlmostEqual(kept["text"]["kl"]["mean"], again["text"]["kl"]["mean"], delta=1e-5)
        process = run("compare", config, "artifact=gguf", "stride=20", "max_tokens=40")
        self.expect(process, DONE, "KL on the choose files")
        self.assertNotIn("== gemma-qat", process.stdout)
        self.expect(run("compare", config, "artifact=mobile-hf"), FAILED, "is no scheme of the mobile format")
        self.expect(run("compare", config, "stride=2048"), USAGE, "less than max_tokens")
        self.expect(run("compare", config, "calibration_rows=4"), FAILED, "ptq-rtn was made with other settings", "--rows 4")
        self.expect(run("compare", config, f"choose={json.dumps(settings['report'])}"), USAGE, "would flatter the figures")
        self.expect(run("compare", config, "methode=rtn", "seeds=0"), USAGE, "methods", "methode")
        self.expect(run("compare", config, "seeds=0", "model=nowhere"), USAGE, "wanted 1 or more", "nowhere does not exist")
        self.expect(run("compare", config, 'methods=["gptQ","mse+median","rtn+"]'), USAGE, "there is no gptQ", "there is no median", "there is no  (known: least_error")
        self.expect(run("compare", config, 'choose=["nowhere","elsewhere"]'), USAGE, "nowhere does not exist", "elsewhere does not exist")
        self.expect(run("compare", self.folder / "none.json"), USAGE, "no such configuration")

    def make_lattice_model(self, dtype):
        """The checkpoint's weights as if they had been trained on -7..7 under fp16 steps, as a plain folder of this type."""
        folder = self.folder / f"lattice-{dtype}"
        if not folder.exists():
            folder.mkdir()
            for name in ("config.json", "tokenizer.json"):
                shutil.copy(self.checkpoint / name, folder)
            tensors = tensors_of(self.checkpoint / "model.safetensors")
            for name, (_, shape, data) in tensors.items():
                values = from_bfloat16(data)
                values = on_lattice(values) if len(shape) == 2 and shape[1] % 32 == 0 else values
                tensors[name] = (dtype, shape, to_bfloat16(values) if dtype == "BF16" else struct.pack(f"<{len(values)}e", *values))
            write_tensors(folder / "model.safetensors", tensors)
        return folder

    def test_masters_on_a_lattice_are_recovered_and_trained_on(self):
        for dtype in ("BF16", "F16"):
            model, out, file = self.make_lattice_model(dtype), self.folder / f"recovered-{dtype}", self.folder / f"recovered-{dtype}.gguf"
            process = run("quantize", "--model", model, "--plan", "q4_0", "--method", "recover", "--out", out)
            self.expect(process, DONE, "layers.0.mlp.up_proj.weight")
            self.assertRegex(process.stdout, r"\nall +\d+ +100\.00 % +0 +0\n")
            self.expect(run("export", out, "--out", file), DONE)
            self.expect(run("verify", file, "--checkpoint", out), DONE, "equals")
        again, out = self.folder / "recovered-again", self.folder / "recovered-BF16"
        self.expect(run("quantize", "--model", out, "--plan", "q4_0", "--method", "recover", "--out", again), DONE)
        for name in ("scales.safetensors", "witness.safetensors"):
            self.assertEqual((again / name).read_bytes(), (out / name).read_bytes())
        scales = tensors_of(out / "scales.safetensors")
        train = ("train", self.config, f"model={out}", "initialize=pretrained", "plan=model", "kv_cache=plan", "steps=2")
        self.expect(run(*train, f"out={self.folder / 'kept'}"), DONE)
        self.assertEqual(tensors_of(self.folder / "kept/checkpoint/scales.safetensors"), scales)
        self.expect(run(*train, f"out={self.folder / 'learned'}", "quantization.block_scales=learned", "optimizer.learning_rate=1e-9",
                        "quantization.scale_learning_rate=1e-9"), DONE)
        learned = tensors_of(self.folder / "learned/checkpoint/scales.safetensors")
        for name, (_, shape, data) in scales.items():
            before, after = (struct.unpack(f"<{shape[0]}e", d) for d in (data, learned[name][2]))
            self.assertEqual([a for a, b in zip(after, before) if b != 0], [b for b in before if b != 0], name)

    def test_masters_on_no_lattice_are_rounded_as_without_recovery(self):
        digests = []
        for method in ("rtn", "recover"):
            out = self.folder / f"no-lattice-{method}"
            process = run("quantize", "--model", self.checkpoint, "--plan", "q4_0", "--method", method, "--out", out)
            self.expect(process, DONE)
            digests.append(digests_of(out))
        self.assertIn("on no lattice", process.stdout)
        self.assertRegex(process.stdout, r"\n(\d+) of \1 weights were not trained for q4_0 blocks")
        # The padding token's row has scales below 2^-17, which the rule rounds for the file but not for its codes.
        names = [name for name in digests[0] if name.startswith("layers.")]
        self.assertGreater(len(names), 20)
        self.assertEqual(*({name: all_of[name] for name in names} for all_of in digests))

    def test_packed_4_bit_weights_are_imported_as_they_are(self):
        packed, out, file = self.folder / "packed", self.folder / "imported-packed", self.folder / "imported-packed.gguf"
        packed.mkdir()
        shutil.copy(self.checkpoint / "tokenizer.json", packed)
        config = json.loads((self.checkpoint / "config.json").read_text())
        weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
        config["quantization_config"] = {"quant_method": "compressed-tensors", "format": "pack-quantized",
                                         "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}
        (packed / "config.json").write_text(json.dumps(config))
        tensors = tensors_of(self.checkpoint / "model.safetensors")
        for name in [name for name in tensors if name.endswith("_proj.weight") and ".layers." in name]:
            _, (rows, columns), _ = tensors.pop(name)
            codes = bytes((37 * i * i + 11 * i) % 256 for i in range(rows * columns // 2))
            tensors[name + "_packed"] = ("I32", [rows, columns // 8], codes)
            tensors[name + "_scale"] = ("BF16", [rows, columns // 32], to_bfloat16([0.01 + i % 7 / 900 for i in range(rows * columns // 32)]))
        write_tensors(packed / "model.safetensors", tensors)
        self.expect(run("import", packed, "--out", out), DONE)
        self.expect(run("export", out, "--format", "gguf", "--out", file), DONE)
        self.expect(run("verify", file, "--checkpoint", out), DONE, "equals")
        config["quantization_config"]["config_groups"]["group_0"]["weights"]["symmetric"] = False
        (packed / "config.json").write_text(json.dumps(config))
        self.expect(run("import", packed, "--out", self.folder / "no"), FAILED, "config.json", "symmetric is false, wanted true")

    def test_recovery_that_cannot_be_done(self):
        out = self.folder / "no-recovery"
        recover = ("quantize", "--method", "recover", "--out", out)
        self.expect(run(*recover, "--model", self.checkpoint, "--plan", "bf16"), USAGE, "has no q4_0 weights")
        self.expect(run("merge", "--model", self.checkpoint, "--adapter", self.train_adapter("q4_0") / "adapter", "--plan", "q4_0",
                        "--method", "recover", "--out", out), USAGE, "lie on no lattice")
        broken = self.folder / "nan-lattice"
        shutil.copytree(self.make_lattice_model("BF16"), broken)
        tensors = tensors_of(broken / "model.safetensors")
        name = next(name for name in tensors if name.endswith("layers.0.mlp.up_proj.weight"))
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, shape, data[:10] + struct.pack("<H", 0x7fc0) + data[12:])
        write_tensors(broken / "model.safetensors", tensors)
        self.expect(run(*recover, "--model", broken, "--plan", "q4_0"), FAILED, "mlp.up_proj.weight", "NaN")
        self.assertEqual(list(self.folder.glob("no-recovery*")), [])

    def train_adapter(self, plan):
        """A LoRA run on the checkpoint, made once."""
        out = self.folder / f"lora-{plan}"
        if not out.exists():
            self.expect(run("train", self.config, f"model={self.checkpoint}", "initialize=pretrained", f"out={out}", f"plan={plan}",
                            "kv_cache=plan", "lora.rank=4", "lora.dropout=0.1", "optimizer.learning_rate=1e-2"), DONE)
        return out

    def test_an_adapters_training_export_and_merge_are_one(self):
        for plan, form in (("q4_0", "gguf"), ("mobile-w4", "mobile-hf")):
            out = self.train_adapter(plan)
            artifact, merged = self.folder / f"lora-{plan}.{form}", self.folder / f"merged-{plan}"
            self.expect(run("export", out / "checkpoint", "--format", form, "--out", artifact), DONE)
            self.expect(run("verify", artifact, "--checkpoint", out / "checkpoint"), DONE, "equals")
            self.expect(run("merge", "--model", self.checkpoint, "--adapter", out / "adapter", "--out", merged), DONE)
            self.assertEqual((merged / "model.safetensors").read_bytes(), (out / "checkpoint/model.safetensors").read_bytes())
            self.assertNotEqual((merged / "model.safetensors").read_bytes(), (self.checkpoint / "model.safetensors").read_bytes())
            self.assertFalse((merged / "quantization.json").exists())

    def test_a_merged_model_is_quantized_as_training_did(self):
        out, merged, artifact = self.train_adapter("q4_0"), self.folder / "merged-q4", self.folder / "merged-q4.gguf"
        merge = ("merge", "--model", self.checkpoint, "--adapter", out / "adapter", "--out", merged, "--plan", "q4_0")
        self.expect(run(*merge), DONE)
        self.expect(run(*merge), USAGE, "--force")
        self.expect(run("export", merged, "--out", artifact), DONE)
        self.expect(run("verify", artifact, "--checkpoint", out / "checkpoint"), DONE, "equals")

    def test_an_adapter_of_another_base_is_refused(self):
        adapter, out = self.train_adapter("q4_0") / "adapter", self.folder / "no-merge"
        merge = ("merge", "--adapter", adapter, "--out", out)
        self.expect(run(*merge, "--model", self.train_adapter("q4_0") / "checkpoint"), FAILED, "was trained on", "weights differ")
        self.expect(run(*merge, "--model", SOURCE / "tests/golden/mobile_folder"), FAILED)
        self.expect(run(*merge), USAGE, "--model is missing")
        self.expect(run(*merge, "--model", self.checkpoint, "--kv-cache", "q8_0"), USAGE, "--kv-cache: needs --plan")
        self.expect(run("merge", "--model", self.checkpoint, "--adapter", self.checkpoint, "--out", out), FAILED, "adapter_config.json")
        cut = self.folder / "cut-adapter"
        shutil.copytree(adapter, cut)
        (cut / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes()[:-100])
        self.expect(run("merge", "--model", self.checkpoint, "--adapter", cut, "--out", out), FAILED, "adapter_model.safetensors")
        self.assertEqual(list(self.folder.glob("no-merge*")), [])

    def test_a_cached_teacher_trains_as_the_running_one(self):
        cache = self.folder / "teacher.h5"
        distil = ["objective=reverse_kl", f"teacher={self.checkpoint}", "distillation.temperature=2", "seed=3"]
        with_cache = [*distil, f"distillation.cache={cache}"]
        self.expect(run("train", self.config, f"out={self.folder / 'cached'}", *with_cache), USAGE, "cache-teacher")
        self.expect(run("cache-teacher", self.config, f"out={self.folder / 'cached'}", *with_cache), DONE, "wrote", "108 documents")
        self.expect(run("cache-teacher", self.config, f"out={self.folder / 'cached'}", *with_cache), USAGE, "--force")
        self.expect(run("cache-teacher", self.config, f"out={self.folder / 'cached'}", *with_cache, "--force"), DONE, "wrote")
        self.expect(run("train", self.config, f"out={self.folder / 'cached'}", *with_cache, "sequence_length=32"), USAGE, "sequence_length: 64 in the cache, 32 now")
        self.expect(run("train", self.config, f"out={self.folder / 'running'}", *distil), DONE)
        self.expect(run("train", self.config, f"out={self.folder / 'cached'}", *with_cache), DONE)
        for name in ("model.safetensors", "witness.safetensors"):
            self.assertEqual((self.folder / "cached/checkpoint" / name).read_bytes(), (self.folder / "running/checkpoint" / name).read_bytes())

    def test_eval_measures_text_and_divergence(self):
        process = run("eval", self.checkpoint, "--data", self.data, "--documents", 3, "--reference", self.gguf, "--json")
        self.expect(process, DONE)
        result = json.loads(process.stdout)
        self.assertGreater(result["perplexity"], 1)
        self.assertLess(abs(result["kl"]["mean"]), 1.0)
        self.assertLess(abs(result["reverse_kl"]["mean"]), 1.0)
        self.assertAlmostEqual(result["bits_per_byte"], math.log2(result["byte_perplexity"]), places=9)
        self.assertEqual([warning["name"] for warning in result["warnings"]], ["few-documents"])

    def test_eval_takes_several_files_and_keeps_items(self):
        other = self.folder / "other.txt"
        other.write_text("Quite another text.\n")
        items = self.folder / "documents.jsonl"
        process = run("eval", self.checkpoint, "--data", self.data, "--data", other, "--documents", 40, "--reference", self.gguf,
                      "--items", items, "--json")
        self.expect(process, DONE)
        result = json.loads(process.stdout)
        self.assertEqual([entry["documents"] for entry in result["files"]], [40, 1])
        self.assertEqual(result["documents"], 41)
        lines = [json.loads(line) for line in items.read_text().splitlines()]
        self.assertEqual([line["line"] for line in lines if line["file"] == str(other)], [1])
        loss = sum(line["loss"] * line["tokens"] for line in lines) / sum(line["tokens"] for line in lines)
        self.assertAlmostEqual(loss, result["loss"], places=9)
        self.expect(run("eval", self.checkpoint, "--data", self.data, "--data", other, "--documents", 3), DONE, "all files", "bits per byte")

    def test_data_that_were_trained_on_are_named(self):
        process = run("eval", self.checkpoint, "--data", self.data, "--documents", 2, "--training-data", self.data)
        self.expect(process, DONE, "warning (contamination): 108 of 108 documents")
        clean = self.folder / "clean.jsonl"
        clean.write_text(json.dumps({"text": "nothing that was trained on"}) + "\n")
        self.assertNotIn("contamination", run("eval", self.checkpoint, "--data", clean, "--training-data", self.data).stderr)
        clean.write_text((json.dumps({"text": "twice the same"}) + "\n") * 2)
        self.expect(run("eval", self.checkpoint, "--data", clean), DONE, "warning (duplicate-items): 1 documents")
        self.expect(run("eval", self.checkpoint, "--data", clean, "--training-data", self.folder / "none"), FAILED, "cannot be opened")

    def questions(self, shape, count):
        lines = []
        for i in range(count):
            lines.append({
                "plain": {"question": f"{i} plus 1 is", "choices": ["one", "two", "three"], "answer": i % 3},
                "hellaswag": {"activity_label": "Sums", "ctx_a": f"He adds {i}.", "ctx_b": "he", "endings": ["stops.", "goes on."], "label": str(i % 2)},
                "arc": {"question": f"{i} plus 1?", "choices": {"text": ["a", "bb"], "label": ["1", "2"]}, "answerKey": "12"[i % 2]},
                "mmlu": {"question": f"{i} plus 1?", "subject": "sums", "choices": ["1", "2", "3", "4"], "answer": i % 4},
                "winogrande": {"sentence": f"{i} is less than the _ which is more.", "option1": "sum", "option2": "part", "answer": "12"[i % 2]},
                "piqa": {"goal": f"Add {i}.", "sol1": "Use fingers.", "sol2": "Use a pan.", "label": i % 2},
            }[shape])
        file = self.folder / f"{shape}.{count}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return file

    def test_eval_scores_questions_of_every_shape(self):
        for shape in ("plain", "hellaswag", "arc", "mmlu", "winogrande", "piqa"):
            items = self.folder / f"{shape}.items.jsonl"
            data, examples = self.questions(shape, 6), self.questions(shape, 9)
            process = run("eval", self.gguf, "--data", data, "--few-shot", 2, "--few-shot-data", examples, "--items", items, "--json")
            self.expect(process, DONE)
            result = json.loads(process.stdout)
            answers = [json.loads(line) for line in items.read_text().splitlines()]
            self.assertEqual([answer["line"] for answer in answers], [1, 2, 3, 4, 5, 6])
            for answer in answers:
                self.assertEqual(answer["acc"]["choice"], max(range(len(answer["log_likelihoods"])), key=answer["log_likelihoods"].__getitem__))
            self.assertEqual(result["accuracy"]["correct"], sum(answer["acc"]["correct"] for answer in answers))
        data = self.questions("plain", 4)
        self.expect(run("eval", self.gguf, "--data", data, "--few-shot", 2), USAGE, "--few-shot-data")
        self.expect(run("eval", self.gguf, "--data", data, "--few-shot", 9, "--few-shot-data", data), FAILED, "9 solved examples")
        self.expect(run("eval", self.gguf, "--data", data, "--data", self.data), USAGE, "mixes multiple choice with text")
        data.write_text("".join(json.dumps({"question": f"{i}?", "choices": ["a", "b"], "answer": 0}) + "\n" for i in range(3)))
        self.expect(run("eval", self.gguf, "--data", data), DONE, "warning (one-class)", "acc_norm")
        data.write_text(json.dumps({"question": "?", "choices": ["a", "b"], "answer": 2}) + "\n")
        self.expect(run("eval", self.gguf, "--data", data), FAILED, "the answer is 2")

    def test_eval_matches_generated_numbers(self):
        data = self.folder / "problems.jsonl"
        data.write_text("".join(json.dumps({"question": f"{i} plus 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"}) + "\n" for i in range(4)))
        items = self.folder / "problems.items.jsonl"
        process = run("eval", self.gguf, "--data", data, "--exact-match", "--max-new", 6, "--few-shot", 2, "--few-shot-data", data,
                      "--items", items, "--json")
        self.expect(process, DONE)
        self.assertEqual(json.loads(process.stdout)["strict_match"]["items"], 4)
        self.assertEqual(len(items.read_text().splitlines()), 4)
        self.expect(run("eval", self.gguf, "--data", self.data, "--exact-match"), FAILED, "question is missing")

    def test_compare_says_what_can_be_said(self):
        rtn = self.folder / "compared-rtn"
        self.expect(run("quantize", "--model", self.checkpoint, "--plan", "q4_0", "--out", rtn), DONE)
        report = self.folder / "comparison.html"
        models = [f"BF16={self.checkpoint}", f"RTN={rtn}", f"FILE={self.gguf}"]
        options = ["--data", self.data, "--documents", 40, "--questions", self.questions("plain", 12), "--prompts", 2, "--max-new", 4]
        items = self.folder / "items.jsonl"
        process = run("compare", *models, *options, "--report", report, "--items", items)
        self.expect(process, DONE, "KL to BF16", "greedy agreement", "RMS Δp", "right → wrong", "FILE against RTN", "p (Holm)", "lost by RTN")
        for heading in ("What can be said", "What would have made the claims fail", "Worst tokens to read", "Flipped answers to read"):
            self.assertIn(heading, report.read_text())
        figures = json.loads(report.with_suffix(".json").read_text())
        self.assertEqual(len(figures["models"][1]["worst_tokens"]), 10)
        self.assertEqual([len(model["files"]) for model in figures["models"]], [1, 1, 1])
        lines = [json.loads(line) for line in items.read_text().splitlines()]
        self.assertEqual([sum(line["model"] == name for line in lines) for name in ("BF16", "RTN", "FILE")], [52, 52, 52])
        self.assertEqual(lines[-1]["acc"]["correct"], lines[-1]["acc"]["choice"] == lines[-1]["answer"])
        result = json.loads(run("compare", *models, *options, "--training-data", self.data, "--json").stdout)
        self.assertEqual([model["name"] for model in result["models"]], ["BF16", "RTN", "FILE"])
        self.assertEqual([line["measure"] for line in result["verdicts"]], ["KL", "loss", "accuracy"])
        self.assertIn("contamination", [warning["name"] for warning in result["warnings"]])

    def test_models_with_other_tokenizers_are_compared_by_their_answers(self):
        other = self.copy_checkpoint("other-tokenizer")
        tokenizer = json.loads((other / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.expect(run("eval", other, "--data", self.data, "--documents", 2, "--reference", self.checkpoint), FAILED, "its tokenizer", "per byte")
        process = run("compare", f"ONE={self.checkpoint}", f"OTHER={other}", "--data", self.data, "--documents", 3,
                      "--questions", self.questions("plain", 6), "--json")
        self.expect(process, DONE, "warning (own-tokenizer)")
        result = json.loads(process.stdout)
        self.assertEqual([line["measure"] for line in result["verdicts"]], ["accuracy"])
        self.assertNotIn("kl", result["models"][1]["text"])

    def test_inspect_and_configs(self):
        self.expect(run("inspect", self.checkpoint), DONE, "q4_0", "plan q4_0")
        self.expect(run("configs", "list"), DONE, "q4_0-google")
        self.expect(run("configs", "explain"), DONE, "optimizer.learning_rate")
        self.expect(run("configs", "show", "q4_0"), DONE, "token_embedding")

    # ---- bad input

    def test_usage_errors_name_the_nearest_word(self):
        self.expect(run("tran"), USAGE, 'did you mean "train"')
        self.expect(run("verify", self.gguf, "--checkpont", "x"), USAGE, "--checkpoint")
        self.expect(run("verify", self.gguf), USAGE, "--checkpoint is missing")
        self.expect(run("generate", self.gguf), USAGE, "--prompt or --tokens")
        self.expect(run("generate", self.gguf, "--tokens", "1,x"), USAGE, "token ids")
        self.expect(run("generate", self.gguf, "--tokens", "99999999"), USAGE, "outside the vocabulary")
        self.expect(run("export", self.checkpoint, "--format", "onnx", "--out", "x"), USAGE, "onnx")

    def test_config_faults_are_reported_together(self):
        process = run("train", self.config, f"out={self.folder / 'bad'}", "optimizer.learning_rat=1", "steps=-3", "plan=q4_O")
        self.expect(process, USAGE, "learning_rate", "steps", "q4_0")
        self.assertFalse((self.folder / "bad").exists())

    def test_a_second_run_into_the_same_folder_is_refused(self):
        before = sorted(self.run_folder.rglob("*"))
        self.expect(run("train", self.config, f"out={self.run_folder}"), USAGE, "resume")
        self.assertEqual(sorted(self.run_folder.rglob("*")), before)

    def test_missing_and_damaged_models(self):
        self.expect(run("generate", self.folder / "nowhere", "--tokens", "2"), FAILED, "does not exist")
        copy = self.copy_checkpoint("truncated")
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        self.expect(run("inspect", copy), FAILED, "model.safetensors", "truncated")
        (copy / "config.json").write_text("{")
        self.expect(run("inspect", copy), FAILED, "config.json")
        for size in (0, 3, 20, 1000, self.gguf.stat().st_size - 50000):
            cut = self.folder / f"cut{size}.gguf"
            cut.write_bytes(self.gguf.read_bytes()[:size])
            self.expect(run("inspect", cut), FAILED, cut.name)

    def test_a_config_that_contradicts_the_weights(self):
        copy = self.copy_checkpoint("contradiction")
        config = json.loads((copy / "config.json").read_text())
        config["intermediate_size"] *= 2
        (copy / "config.json").write_text(json.dumps(config))
        self.expect(run("inspect", copy), FAILED, "mlp.gate_proj.weight", "config.json wants")

    def test_a_nan_weight_is_named(self):
        copy = self.copy_checkpoint("nan")
        weights = bytearray((copy / "model.safetensors").read_bytes())
        header_size = struct.unpack("<Q", weights[:8])[0]
        header = json.loads(weights[8:8 + header_size])
        name = next(key for key in header if key.endswith("layers.0.mlp.up_proj.weight"))
        begin = 8 + header_size + header[name]["data_offsets"][0]
        weights[begin + 10:begin + 12] = struct.pack("<H", 0x7fc0)
        (copy / "model.safetensors").write_bytes(weights)
        out = self.folder / "nan.gguf"
        self.expect(run("export", copy, "--out", out), FAILED, "mlp.up_proj.weight")
        self.assertEqual(list(self.folder.glob("nan.gguf*")), [])
        self.expect(run("generate", copy, "--tokens", "2,3"), FAILED, "mlp.up_proj.weight")

    def test_bad_data_lines_are_named(self):
        bad = self.folder / "bad.jsonl"
        bad.write_text('{"text": "fine"}\n{"text": \n')
        self.expect(run("train", self.config, f"out={self.folder / 'b'}", f'data.train=["{bad}"]'), FAILED, "bad.jsonl", "2")
        bad.write_text("")
        self.expect(run("train", self.config, f"out={self.folder / 'b'}", f'data.train=["{bad}"]'), FAILED, "bad.jsonl")

    def test_a_full_disk_leaves_nothing_half_written(self):
        def limit_file_size():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        import signal
        out = self.folder / "full.gguf"
        process = run("export", self.checkpoint, "--out", out,
                      preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), limit_file_size()))
        self.expect(process, FAILED, "full.gguf", "cannot be written")
        self.assertEqual(list(self.folder.glob("full.gguf*")), [])

    def test_an_output_folder_that_does_not_exist(self):
        self.expect(run("export", self.checkpoint, "--out", self.folder / "no" / "x.gguf"), FAILED, "x.gguf")

    def quantize_for_phones(self):
        """A checkpoint of plan mobile-w4, made once."""
        checkpoint = self.folder / "mobile"
        if not checkpoint.exists():
            process = run("quantize", "--model", self.checkpoint, "--plan", "mobile-w4", "--method", "mse", "--data", self.data,
                          "--rows", 4, "--sequence-length", 64, "--out", checkpoint)
            self.expect(process, DONE)
        return checkpoint

    def test_both_mobile_artifacts_equal_training_and_run(self):
        checkpoint = self.quantize_for_phones()
        folder, file = self.folder / "mobile-hf", self.folder / "model.litertlm"
        self.expect(run("export", checkpoint, "--format", "mobile-hf", "--out", folder), DONE)
        self.expect(run("export", checkpoint, "--format", "litertlm", "--out", file), DONE)
        for artifact in (folder, file):
            process = run("verify", artifact, "--checkpoint", checkpoint)
            self.expect(process, DONE)
            self.assertIn("static int8", process.stdout)
            self.assertIn("int4", run("inspect", artifact).stdout)
        texts = [run("generate", artifact, "--prompt", "1 plus 2", "--max-new", 6, "--arithmetic", "device").stdout
                 for artifact in (folder, file)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], "")
        # A file cut short is an error, not a crash.
        cut = self.folder / "cut.litertlm"
        cut.write_bytes(file.read_bytes()[:-5000])
        self.expect(run("inspect", cut), FAILED, "cut.litertlm")
        cut.write_bytes(file.read_bytes()[:100])
        self.expect(run("verify", cut, "--checkpoint", checkpoint), FAILED, "cut.litertlm")

    def test_mobile_exports_that_cannot_be_made(self):
        checkpoint = self.quantize_for_phones()
        out = self.folder / "refused"
        self.expect(run("export", checkpoint, "--format", "gguf", "--out", out), FAILED, "int4", "mobile-hf")
        self.expect(run("export", self.checkpoint, "--format", "mobile-hf", "--out", out), FAILED, "q4_0")
        self.expect(run("export", checkpoint, "--format", "litertlm", "--context", 1 << 20, "--out", out), FAILED, "context")
        self.expect(run("quantize", "--model", self.checkpoint, "--plan", "mobile-w4", "--out", out), USAGE, "--data")
        self.assertFalse(out.exists())

    def test_an_imported_folder_is_exported_as_it_came(self):
        golden = SOURCE / "tests/golden/mobile_folder"
        imported, again = self.folder / "imported", self.folder / "imported-hf"
        self.expect(run("import", golden, "--out", imported), DONE)
        self.expect(run("export", imported, "--format", "mobile-hf", "--out", again), DONE)
        self.expect(run("verify", again, "--checkpoint", imported), DONE)
        before, after = tensors_of(golden / "model.safetensors"), tensors_of(again / "model.safetensors")
        # What no model reads stays behind: projections of layers that share another's keys and values.
        self.assertGreater(len(after), 300)
        self.assertEqual({name: before[name] for name in after}, after)
        self.expect(run("import", self.model, "--out", self.folder / "no"), FAILED, "quant_method")


def tensors_of(path):
    """Type, shape and bytes of every tensor, by name."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], data[8 + size + entry["data_offsets"][0]:8 + size + entry["data_offsets"][1]])
            for name, entry in header.items()}


def digests_of(checkpoint):
    """SHA-256 of codes, scales and values of every quantized weight, by name."""
    data = (checkpoint / "witness.safetensors").read_bytes()
    header = json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])
    return json.loads(header["__metadata__"]["digests"])


def write_tensors(path, tensors):
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def from_bfloat16(data):
    wide = bytearray(2 * len(data))
    wide[2::4], wide[3::4] = data[::2], data[1::2]
    return struct.unpack(f"<{len(data) // 2}f", wide)


def to_bfloat16(values):
    bits = struct.unpack(f"<{len(values)}I", struct.pack(f"<{len(values)}f", *values))
    return struct.pack(f"<{len(values)}H", *((b + 0x7fff + (b >> 16 & 1)) >> 16 for b in bits))


def on_lattice(values):
    """Codes -7..7 of blocks of 32 times an fp16 step."""
    result = []
    for first in range(0, len(values), 32):
        block = values[first:first + 32]
        (step,) = struct.unpack("<e", struct.pack("<e", max(map(abs, block)) / 7))
        result += [max(-7, min(7, round(value / step))) * step if step else 0.0 for value in block]
    return result


if __name__ == "__main__":
    PROGRAM, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
    os.environ["OMP_NUM_THREADS"] = "1"
    unittest.main(argv=[sys.argv[0]], verbosity=2)
