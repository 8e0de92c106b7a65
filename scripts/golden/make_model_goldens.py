#!/usr/bin/env python3
"""Writes what transformers computes with tiny random Gemma models: the goldens of tests/model.

    make_model_goldens.py [--out tests/golden/model]

One folder per kind of make_tiny_models.py, narrower still so that all of them fit into 2.5 MB: config.json, model.safetensors
(BF16) and expected.safetensors with
    tokens, targets      int64 [T]; a target below 0 is not counted; the tokens include the pad token and exceed the window
    logits               fp32 [T, vocabulary] of an FP32 run (weights upcast)
    logits_bfloat16      fp32 [T, vocabulary] of a BF16 run
    loss                 fp32 [1]: the sum of -log p(target), FP32 run
    gradient.NAME        fp32: its gradient; of a tensor with more than 256 elements every fifth, flattened
    norm.NAME            fp32 [1]: the Euclidean norm of the whole gradient
layer_scalar is a buffer in transformers; it is made to require a gradient like the parameters.
"""
import argparse
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import make_tiny_models  # noqa: E402

TOKENS = 48
VOCABULARY_SIZE = 96
LARGEST_WHOLE_GRADIENT = 256
SAMPLE_STEP = 5
NARROW = {
    "e2b": {"hidden_size": 32, "intermediate_size": 40, "head_dim": 16, "global_head_dim": 32,
            "hidden_size_per_layer_input": 8},
    "e4b": {"hidden_size": 32, "intermediate_size": 48, "head_dim": 16, "global_head_dim": 32,
            "hidden_size_per_layer_input": 8},
    "12b": {"hidden_size": 32, "intermediate_size": 64, "head_dim": 16, "global_head_dim": 32},
    "31b": {"hidden_size": 32, "intermediate_size": 56, "head_dim": 8, "global_head_dim": 16},
    "26b": {"hidden_size": 32, "intermediate_size": 40, "head_dim": 8, "global_head_dim": 16, "num_experts": 8,
            "top_k_experts": 3, "moe_intermediate_size": 16},
    "gemma3": {"hidden_size": 32, "intermediate_size": 48, "head_dim": 16, "query_pre_attn_scalar": 24,
               "rope_parameters": {
                   "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                   "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}},
}


def narrow_model(kind):
    make_tiny_models.VOCABULARY_SIZE = VOCABULARY_SIZE
    make_tiny_models.TEXT_FACTS[kind] |= NARROW[kind]
    model = make_tiny_models.model_class(kind)(make_tiny_models.text_config(kind, "small"))
    model = make_tiny_models.fill(model, kind, seed=3).eval()
    calm_attention(model)
    return model


def calm_attention(model):
    """Attention scaled by 1 is so sharp with random norms that rounding errors grow a hundredfold from layer to layer."""
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            for norm in (attention.q_norm, getattr(attention, "k_norm", None)):
                if norm is not None and attention.scaling == 1:
                    norm.weight.mul_(attention.head_dim**-0.25)


def inputs():
    generator = torch.Generator().manual_seed(11)
    tokens = torch.randint(1, VOCABULARY_SIZE, (TOKENS,), generator=generator)
    tokens[0] = 2
    tokens[20] = 0
    targets = torch.roll(tokens, -1)
    targets[30:34] = -100
    targets[-1] = -100
    return tokens, targets


def logits_and_gradients(model, tokens, targets):
    named = dict(model.named_parameters())
    named |= {name: value for name, value in model.named_buffers() if name.endswith("layer_scalar")}
    named = {name.removeprefix("model."): tensor.requires_grad_(True) for name, tensor in named.items()}
    logits = model(input_ids=tokens.unsqueeze(0), use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=-100, reduction="sum")
    gradients = torch.autograd.grad(loss, list(named.values()))
    return logits.detach(), loss.detach(), dict(zip(named, gradients))


def expected(folder):
    tokens, targets = inputs()
    load = transformers.AutoModelForCausalLM.from_pretrained
    logits, loss, gradients = logits_and_gradients(load(folder, dtype=torch.float32).eval(), tokens, targets)
    with torch.no_grad():
        rounded = load(folder, dtype=torch.bfloat16).eval()(input_ids=tokens.unsqueeze(0), use_cache=False).logits[0]
    result = {"tokens": tokens, "targets": targets, "logits": logits, "logits_bfloat16": rounded.float(),
              "loss": loss.reshape(1)}
    for name, gradient in gradients.items():
        whole = gradient.numel() <= LARGEST_WHOLE_GRADIENT
        result["gradient." + name] = (gradient.flatten() if whole else gradient.flatten()[::SAMPLE_STEP]).contiguous()
        result["norm." + name] = gradient.double().norm().float().reshape(1)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "model"
    parser.add_argument("--out", type=pathlib.Path, default=default)
    out = parser.parse_args().out
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for kind in NARROW:
        folder = out / kind
        folder.mkdir(parents=True, exist_ok=True)
        narrow_model(kind).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        tensors = expected(folder)
        save_file(tensors, folder / "expected.safetensors")
        size = sum(file.stat().st_size for file in folder.iterdir())
        difference = (tensors["logits"] - tensors["logits_bfloat16"]).norm() / tensors["logits"].norm()
        print(f"{kind:8} {size:9,} bytes  loss {tensors['loss'].item():.4f}  BF16 against FP32 {difference:.4f}")


if __name__ == "__main__":
    main()
