#!/usr/bin/env python3
"""Trains small E2B- and E4B-like models in the mobile format, exports the folder, and lets transformers run it.

Usage: mobile_export_against_transformers.py GEMMA_QAT [--inputs 50]

Compares the witness, which is training's fake-quantized forward pass in FP32 (KV cache not quantized: transformers ignores its
scales), with what transformers computes from the exported folder, loaded as it is: the codes of every static edge, each from
training's codes before it, and the largest logits. Codes that differ are listed and counted; none may be more than one step aside.
Exit codes: 0 within the bars, 1 a difference, 77 skipped (torch or transformers is missing).
"""
import argparse
import importlib.util
import json
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = {"e2b": "mobile-e2b", "e4b": "mobile-e4b"}
LARGEST_SHARE_OF_CODES = 1e-4
LARGEST_LOGIT_DIFFERENCE = 1e-3


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[1]} ended with {done.returncode}\n{done.stdout}{done.stderr}")


def write_texts(path, count, seed):
    words = "the grid is one and same in training export reference inference nothing else rounds keys values scale".split()
    draw = random.Random(seed)
    with path.open("w") as file:
        for _ in range(count):
            file.write(json.dumps({"text": " ".join(draw.choice(words) for _ in range(draw.randint(4, 14)))}) + "\n")


class ForcedEdges:
    """Compares the codes that transformers comes to at every static edge with training's, and goes on with training's: one code on
    the other side of a rounding edge would move all later ones."""

    def __init__(self, model, prefix, witness):
        import transformers.integrations.gemma_quant as gemma_quant
        self.witness, self.positions = witness, int(witness["prompt_lengths"].sum())
        self.first, self.length = 0, 0
        self.compared, self.differing, self.larger = 0, 0, 0
        for name, module in model.named_modules():
            if not isinstance(module, gemma_quant.QuantizedLinear) or not name.startswith(prefix):
                continue
            if float(module.input_activation_scale) == 0:
                continue
            part = name[len(prefix):]
            parent, leaf = part.rsplit(".", 1)
            shared = leaf in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
            module.register_forward_pre_hook(self.before((parent if shared else part) + ".input"))
            module.register_forward_hook(self.after(part + ".output"))

    def force(self, edge, values, scale):
        import torch
        expected = self.witness["codes." + edge].view(self.positions, -1)[self.first:self.first + self.length].float()
        codes = torch.clamp(torch.round(values / scale), -128, 127)[0]
        steps = (codes - expected).abs()
        self.compared += steps.numel()
        self.differing += int((steps > 0).sum())
        self.larger += int((steps > 1).sum())
        if (steps > 0).any():
            print(f"    {edge}: {int((steps > 0).sum())} codes differ in a prompt of {self.length} tokens")
        return (expected * scale)[None]

    def before(self, edge):
        return lambda module, inputs: (self.force(edge, inputs[0], module.input_activation_scale),)

    def after(self, edge):
        return lambda module, inputs, output: self.force(edge, output, module.output_activation_scale)


def compare(folder, checkpoint):
    import safetensors.torch
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    witness = safetensors.torch.load_file(checkpoint / "witness.safetensors")
    edges = ForcedEdges(model, "model.", witness)
    worst = 0.0
    for length in witness["prompt_lengths"].tolist():
        edges.length = length
        here = slice(edges.first, edges.first + length)
        with torch.no_grad():
            logits = model(witness["tokens"][here].long()[None]).logits[0]
        tokens = witness["top_tokens"][here].long()
        worst = max(worst, float((logits.gather(1, tokens) - witness["top_logits"][here]).abs().max()))
        edges.first += length
    print(f"  {edges.compared} codes, {edges.differing} differ, {edges.larger} of them by more than a step; largest logit difference "
          f"{worst:.1e} at {edges.positions} positions", flush=True)
    return edges.larger == 0 and edges.differing <= LARGEST_SHARE_OF_CODES * edges.compared and worst <= LARGEST_LOGIT_DIFFERENCE


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--inputs", type=int, default=50)
    arguments = parser.parse_args()
    for module in ("torch", "transformers", "safetensors"):
        if importlib.util.find_spec(module) is None:
            print(f"skipped: {module} is not installed")
            return 77
    sys.path.insert(0, str(ROOT / "tests" / "end_to_end"))
    from train_each_kind import calm_attention
    good = True
    with tempfile.TemporaryDirectory() as name:
        temporary = pathlib.Path(name)
        run(sys.executable, ROOT / "scripts/golden/make_tiny_models.py", temporary / "models", "--width", "wide")
        write_texts(temporary / "train.jsonl", 40, 1)
        write_texts(temporary / "eval.jsonl", arguments.inputs, 2)
        for kind, plan in KINDS.items():
            model, out, folder = temporary / "models" / kind, temporary / f"run-{kind}", temporary / f"mobile-{kind}"
            calm_attention(model)
            run(arguments.program, "train", ROOT / "configs/train/gemma4_e2b_mobile.json", f"model={model}", f"out={out}",
                f"plan={plan}", "objective=cross_entropy", "eval.metric=loss", "kv_cache=none", "steps=3", "optimizer.warmup_steps=1",
                "quantization.activation_start_step=0", "quantization.cache_start_step=0", "optimizer.learning_rate=1e-3",
                "sequence_length=64", "gradient_accumulation=1", "dtype=float32", "freeze_tables=no", "data.chat_template=gemma4",
                f"data.train={temporary / 'train.jsonl'}", f"data.eval={temporary / 'eval.jsonl'}",
                f"checkpoint.witness_prompts={arguments.inputs}", "eval.every_steps=0")
            run(arguments.program, "export", out / "checkpoint", "--format", "mobile-hf", "--out", folder)
            print(f"{kind}, plan {plan}, {arguments.inputs} inputs:")
            good &= compare(folder, out / "checkpoint")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
