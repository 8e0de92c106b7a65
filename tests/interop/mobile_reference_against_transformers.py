#!/usr/bin/env python3
"""Compares the reference inference of mobile folders with transformers running the same folders in FP32.

    mobile_reference_against_transformers.py --dump PATH/qat_mobile_reference_dump [FOLDER ...] [--inputs 50] [--tokens 24] [--seed 1]

Without folders scripts/golden/make_mobile_folder.py makes an E2B-like and an E4B-like one. The cache is fp32: transformers ignores the
scales of the cache. fp32 sums in another order put an activation on the other side of a rounding edge now and then, and a code that
differs changes what comes after it. So a token counts as long as all earlier codes of it and of the tokens before it agree:
  - among the codes of such tokens at most 1e-4 differ, each by one step;
  - the logits of tokens whose codes all agree differ by at most 1e-3.
--arithmetic device holds XNNPACK's integer products against transformers' float emulation by the same codes; its head quantizes the
final hidden values token by token, which moves the logits by up to 0.2.
Exit code 0: every figure holds; 1: one is missed; 77: a package is not installed ("skipped").
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
LARGEST_SHARE = 1e-4
LARGEST_LOGIT_DIFFERENCE = {"float": 1e-3, "device": 0.2}
SMALLEST_AGREEING_SHARE = 0.2  # of tokens: fewer would say little
LISTED = 10


def transformers_run(model, prefix, tokens):
    """Logits, and by "WEIGHT.input" and "WEIGHT.output" the codes of every calibrated end, in the order of computation."""
    import torch
    from transformers.integrations.gemma_quant import QuantizedLinear
    codes = {}

    def encode(values, scale):
        return torch.clamp(torch.round(values / scale), -128, 127).to(torch.int8)[0]

    def watch(name):
        def hook(module, inputs, output):
            if module.input_activation_scale != 0:
                codes[name + ".weight.input"] = encode(inputs[0], module.input_activation_scale)
            if module.output_activation_scale != 0:
                codes[name + ".weight.output"] = encode(output, module.output_activation_scale)
        return hook

    hooks = [module.register_forward_hook(watch(name.removeprefix(prefix)))
             for name, module in model.named_modules() if isinstance(module, QuantizedLinear)]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return logits, codes


def compare(figures, request, ours, logits, codes):
    """Adds one input's figures."""
    import torch
    tokens = len(logits)
    agreeing = torch.ones(tokens, dtype=torch.bool)
    ours_codes = {name for name in ours if name != "logits"}
    if ours_codes != set(codes):
        raise SystemExit(f"other linears are quantized: {sorted(ours_codes ^ set(codes))[:5]}")
    for name, wanted in codes.items():
        difference = (ours[name].int() - wanted.int())[agreeing].abs()
        figures["codes"] += difference.numel()
        figures["different"] += int((difference != 0).sum())
        figures["largest_step"] = max(figures["largest_step"], int(difference.max()) if difference.numel() else 0)
        rows = (ours[name] != wanted).any(-1)
        for token in torch.nonzero(rows & agreeing).flatten().tolist():
            figures["listed"].append(f"input {request} token {token} {name}")
        if rows.any():
            agreeing[int(torch.nonzero(rows)[0]):] = False
    figures["tokens"] += tokens
    figures["agreeing"] += int(agreeing.sum())
    if agreeing.any():
        largest = float((ours["logits"] - logits)[agreeing].abs().max())
        figures["logit"] = max(figures["logit"], largest)


def check(options, folder, make_mobile_folder):
    import torch
    from safetensors.torch import load_file
    model = make_mobile_folder.load(folder)
    text = model.config.get_text_config()
    prefix = "model.language_model." if hasattr(model.model, "language_model") else "model."
    generator = torch.Generator().manual_seed(options.seed)
    requests = [make_mobile_folder.random_tokens(text, options.tokens, generator).tolist() for _ in range(options.inputs)]
    figures = {"codes": 0, "different": 0, "largest_step": 0, "listed": [], "tokens": 0, "agreeing": 0, "logit": 0.0}
    with tempfile.TemporaryDirectory() as out:
        lines = "".join(" ".join(map(str, tokens)) + "\n" for tokens in requests)
        subprocess.run([options.dump, folder, options.arithmetic, "f32", out], input=lines, text=True, check=True)
        for index, tokens in enumerate(requests):
            compare(figures, index, load_file(pathlib.Path(out) / f"{index}.safetensors"), *transformers_run(model, prefix, tokens))
    share = figures["different"] / figures["codes"]
    ok = (share <= LARGEST_SHARE and figures["largest_step"] <= 1 and figures["logit"] <= LARGEST_LOGIT_DIFFERENCE[options.arithmetic]
          and figures["agreeing"] >= SMALLEST_AGREEING_SHARE * figures["tokens"])
    print(f"{'ok    ' if ok else 'MISSED'} {folder} {options.arithmetic}: {figures['codes']} codes, {figures['different']} differ "
          f"({share:.1e}), by at most {figures['largest_step']}; {figures['agreeing']} of {figures['tokens']} tokens agree in all, their "
          f"logits differ by at most {figures['logit']:.1e}")
    for line in figures["listed"][:LISTED]:
        print("  differs:", line)
    if len(figures["listed"]) > LISTED:
        print(f"  and {len(figures['listed']) - LISTED} more")
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    parser.add_argument("--dump", required=True)
    parser.add_argument("--arithmetic", choices=["float", "device"], default="float")
    parser.add_argument("--inputs", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        import torch
        import safetensors  # noqa: F401
        import transformers
        from transformers.integrations import gemma_quant  # noqa: F401
    except ImportError as missing:
        print(f"skipped: {missing}")
        return 77
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    sys.path.insert(0, str(ROOT / "scripts/golden"))
    import make_mobile_folder
    print(f"{options.inputs} inputs of {options.tokens} tokens, seed {options.seed}")
    with tempfile.TemporaryDirectory() as temporary:
        folders = options.folders
        if not folders:
            folders = [pathlib.Path(temporary) / kind for kind in make_mobile_folder.KINDS]
            for folder in folders:
                make_mobile_folder.write(folder, folder.name, "small", options.seed)
        held = [check(options, folder, make_mobile_folder) for folder in folders]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
