#!/usr/bin/env python3
"""Compares adapters with PEFT's, both ways, on small random models.

Usage: adapter_against_peft.py GEMMA_QAT [KIND...]

1. A LoRA run of `train`: PEFT loads its adapter folder onto the base in transformers and merges it; the result in BF16 is compared
   with the run's checkpoint.
2. An adapter that PEFT saves (rsLoRA, random A and B, some modules): `merge` adds it to the base; compared with PEFT's own merge.

Both multiply in FP32, in different orders of addition: at most 1 value in 1,000 may round to the neighbouring BF16 number.
Exit codes: 0 equal, 1 a difference, 77 skipped (peft, torch or transformers is missing).
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ["e2b-multimodal", "26b", "gemma3"]
TEXTS = ["One grid for training, export and inference.", "A block of thirty-two weights shares one scale.", "Nothing else rounds."]


def call(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def load_base(folder):
    import torch
    import transformers
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, architecture).from_pretrained(folder, dtype=torch.float32)


def tensors_of(folder):
    from safetensors import safe_open
    file = safe_open(folder / "model.safetensors", "pt")
    return {name: file.get_tensor(name) for name in file.keys()}


def compare(what, base, merged, ours):
    """Whether the same weights changed, and to the same values but for rounding edges: next to each other in BF16, or as far apart as
    fp32 sums are that cancel to almost nothing. What transformers does not load (keys of layers that share others') must stay."""
    import torch
    wanted = {**base, **{name: value.to(torch.bfloat16) for name, value in merged.state_dict().items()}}
    changed, values, edges, faults = 0, 0, 0, 0
    for name, before in base.items():
        if torch.equal(ours[name], before):
            faults += 0 if torch.equal(wanted[name], before) else 1
            continue
        difference = (ours[name].float() - wanted[name].float()).abs()
        changed += 1
        values += difference.numel()
        edges += int((difference > 0).sum())
        faults += int((difference > 2**-7 * wanted[name].float().abs() + 1e-6).sum())
    good = faults == 0 and changed > 0 and edges <= values / 1000
    print(f"{what}: {changed} weights changed, {edges} of {values} values on a rounding edge, {faults} differ", flush=True)
    return good


def our_adapter_in_peft(program, folder, data, temporary):
    import peft
    import torch
    run = temporary / f"run-{folder.name}"
    call(program, "train", ROOT / "configs/train/bf16_control.json", f"model={folder}", f"out={run}", f"data.train={data}", "steps=4",
         "optimizer.warmup_steps=1", "optimizer.learning_rate=1e-2", "eval.metric=loss", "sequence_length=64", "freeze_tables=plan",
         "gradient_accumulation=1", "dtype=float32", "data.chat_template=gemma4", "lora.rank=8")
    model = peft.PeftModel.from_pretrained(load_base(folder), run / "adapter")
    from safetensors.torch import load_file
    saved = load_file(run / "adapter/adapter_model.safetensors")
    loaded = {name.replace(".default", ""): value for name, value in model.state_dict().items() if ".lora_" in name}
    if set(saved) != set(loaded) or not all(torch.equal(saved[name], loaded[name]) for name in saved):
        print(f"{folder.name}: PEFT loaded {len(loaded)} matrices, the folder has {len(saved)}")
        return False
    return compare(f"{folder.name}, trained here", tensors_of(folder), model.merge_and_unload(), tensors_of(run / "checkpoint"))


def peft_adapter_here(program, folder, temporary):
    import peft
    import torch
    adapter, merged = temporary / f"peft-{folder.name}", temporary / f"merged-{folder.name}"
    base = load_base(folder)
    names = [name for name, module in base.named_modules()
             if isinstance(module, torch.nn.Linear) and name.endswith(("q_proj", "o_proj", "down_proj")) and "layers." in name
             and not any(part in name for part in ("vision", "audio"))]
    torch.manual_seed(5)
    model = peft.get_peft_model(base, peft.LoraConfig(r=6, lora_alpha=9, use_rslora=True, target_modules=names,
                                                      init_lora_weights=False, task_type="CAUSAL_LM"))
    for name, value in model.named_parameters():
        if ".lora_B." in name:
            value.data.mul_(0.1)
    model.save_pretrained(adapter)
    call(program, "merge", "--model", folder, "--adapter", adapter, "--out", merged)
    return compare(f"{folder.name}, saved by PEFT", tensors_of(folder), model.merge_and_unload(), tensors_of(merged))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("kinds", nargs="*")
    arguments = parser.parse_args()
    try:
        import peft  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        print(f"skipped: {error}")
        return 77
    with tempfile.TemporaryDirectory() as name:
        temporary = pathlib.Path(name)
        kinds = [part for kind in arguments.kinds or KINDS for part in ("--kind", kind)]
        call(sys.executable, ROOT / "scripts/golden/make_tiny_models.py", temporary / "models", "--width", "wide", *kinds)
        data = temporary / "texts.jsonl"
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
        equal = []
        for folder in sorted((temporary / "models").iterdir()):
            equal.append(our_adapter_in_peft(arguments.program, folder, data, temporary))
            equal.append(peft_adapter_here(arguments.program, folder, temporary))
    print(f"{sum(equal)} of {len(equal)} comparisons equal")
    return 0 if equal and all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
