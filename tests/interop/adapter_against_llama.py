#!/usr/bin/env python3
"""Compares the reference inference with llama.cpp (PyPI xllamacpp) running a GGUF LoRA adapter of export-adapter beside a quantized base.

    adapter_against_llama.py PATH/gemma-qat --dump PATH/qat_reference_dump --export PATH/qat_export_folder [--plan q4_0] ...

scripts/golden/make_tiny_models.py makes a random model of every kind; each gets a random adapter in PEFT's form on the matrices of its
attention and MLPs, alpha and rank scaled plainly or as rsLoRA does. The figures and their limits are those of reference_against_llama.py.
Beside them at least half of the plain base's choices must be others. Exit code 0: every figure holds; 1: one is missed; 77: a package is
not installed ("skipped").
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from reference_against_llama import (LARGEST_CLOSE_SHARE, LIMITS, GGML_TYPES, WIDTHS, compare, make_files, make_prompts, run_llama,
                                     run_reference, vocabulary_of)

RANK = 8
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapter(model, folder, seed, rank_stabilized):
    """A random adapter of a model folder in PEFT's form; its change is of the size of the weights."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file
    torch.manual_seed(seed)
    tensors, modules = {}, []
    alpha = 16
    scaling = alpha / RANK**0.5 if rank_stabilized else alpha / RANK
    for shard in sorted(model.glob("*.safetensors")):
        with safe_open(shard, "pt") as source:
            for name in source.keys():
                module = name.removesuffix(".weight")
                if module.split(".")[-1] not in ADAPTED or ".experts." in name or not name.endswith(".weight"):
                    continue
                weight = source.get_tensor(name).float()
                a = torch.randn(RANK, weight.shape[1])
                b = torch.randn(weight.shape[0], RANK) * (0.5 * weight.std() / (scaling * RANK**0.5))
                tensors[f"base_model.model.{module}.lora_A.weight"] = a
                tensors[f"base_model.model.{module}.lora_B.weight"] = b.contiguous()
                modules.append(module)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": alpha, "use_rslora": rank_stabilized,
        "target_modules": modules, "bias": "none"}))


def export_adapter(program, adapter, model, out):
    subprocess.run([program, "export-adapter", adapter, "--model", model, "--out", out], check=True, capture_output=True)


def changed_share(with_adapter, without):
    pairs = [(a[0], b[0]) for one, other in zip(with_adapter, without) for a, b in zip(one, other)]
    return sum(a != b for a, b in pairs) / len(pairs)


def check(xllamacpp, options, base, adapter, cache):
    vocabulary, byte_pieces = vocabulary_of(base)
    prompts = make_prompts(options.prompts, vocabulary, options.longest, options.seed)
    plain = run_llama(xllamacpp, base, cache, prompts, options.tokens, byte_pieces)
    answers = run_llama(xllamacpp, base, cache, prompts, options.tokens, byte_pieces, adapter)
    references = run_reference(options.dump, base, "device", cache, prompts, answers, adapter)
    figures = compare(answers, references)
    matters = changed_share(answers, plain)
    ok = (figures["different"] == 0 and figures["close_share"] <= LARGEST_CLOSE_SHARE and figures["mean"] <= LIMITS[cache] and
          matters >= 0.5)
    print(f"{'ok    ' if ok else 'MISSED'} {adapter} cache {cache}: {figures['positions']} positions, {figures['close_share']:.1%} "
          f"within the margin, {figures['different']} choices differ, |difference| mean {figures['mean']:.2e} largest "
          f"{figures['largest']:.2e}; {matters:.0%} of the plain base's choices are others", flush=True)
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--dump", required=True)
    parser.add_argument("--export", required=True)
    parser.add_argument("--plan", choices=sorted(WIDTHS), default="q4_0")
    parser.add_argument("--cache", nargs="+", choices=sorted(GGML_TYPES), default=["f16"])
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--longest", type=int, default=100, help="tokens of the longest prompt")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        import xllamacpp
        import gguf  # noqa: F401
        import safetensors  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as missing:
        print(f"skipped: {missing.name} is not installed")
        return 77
    print(f"{options.prompts} prompts x {options.tokens} tokens, seed {options.seed}, rank {RANK}")
    held = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        bases = make_files(folder, options.export, options.plan)
        for index, base in enumerate(bases):
            model = folder / "models" / base.name.removesuffix(f"-{options.plan}.gguf")
            adapter = folder / f"{model.name}-adapter"
            write_adapter(model, adapter, options.seed + index, rank_stabilized=index % 2 == 1)
            out = folder / f"{model.name}-adapter.gguf"
            export_adapter(options.program, adapter, model, out)
            held += [check(xllamacpp, options, str(base), str(out), cache) for cache in options.cache]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
