#!/usr/bin/env python3
"""Speed and memory of exporting a model of Gemma 4 E2B's true shape (4.63 B random BF16 parameters, 9.3 GB).

Writes the model folder once (kept with --folder), reads it into the page cache, exports it under the plan q4_0 and prints
weights per second without the final sync, and peak anonymous memory. With --llama-quantize the same masters go through that
program (from a BF16 GGUF) and the ratio is printed; with xllamacpp installed, llama.cpp loads the file.

Usage: export_benchmark.py PATH/TO/qat_export_folder [--folder FOLDER] [--threads 2] [--llama-quantize PROGRAM] [--load]
Exit codes: 0 done, 77 skipped (numpy is missing).
"""
import argparse
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

try:
    import numpy as np
except ImportError:
    print("skipped: numpy is not installed")
    sys.exit(77)

ROOT = Path(__file__).resolve().parents[2]
LAYERS, HIDDEN, VOCABULARY, PER_LAYER = 35, 1536, 262144, 256


def types_of(layers):
    return ["full_attention" if layer % 5 == 4 else "sliding_attention" for layer in range(layers)]


def shared_layers(layers):
    """Layers that read another one's keys and values: the last 20 of 35."""
    return layers * 4 // 7


def config_of(layers):
    return {
        "model_type": "gemma4_text", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": layers,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "global_head_dim": 512, "intermediate_size": 6144,
        "use_double_wide_mlp": True, "hidden_size_per_layer_input": PER_LAYER, "num_kv_shared_layers": shared_layers(layers),
        "sliding_window": 512, "max_position_embeddings": 131072, "tie_word_embeddings": True, "final_logit_softcapping": 30.0,
        "layer_types": types_of(layers),
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}


def weights(layers):
    """(name, shape) of every text weight."""
    yield "embed_tokens.weight", [VOCABULARY, HIDDEN]
    yield "embed_tokens_per_layer.weight", [VOCABULARY, layers * PER_LAYER]
    yield "per_layer_model_projection.weight", [layers * PER_LAYER, HIDDEN]
    yield "per_layer_projection_norm.weight", [PER_LAYER]
    for layer in range(layers):
        p = f"layers.{layer}."
        head = 512 if types_of(layers)[layer] == "full_attention" else 256
        own = layer < layers - shared_layers(layers)
        wide = 6144 if own else 12288
        for norm in ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
                     "post_per_layer_input_norm"):
            yield f"{p}{norm}.weight", [HIDDEN]
        yield p + "self_attn.q_proj.weight", [8 * head, HIDDEN]
        yield p + "self_attn.q_norm.weight", [head]
        if own:
            yield p + "self_attn.k_proj.weight", [head, HIDDEN]
            yield p + "self_attn.v_proj.weight", [head, HIDDEN]
            yield p + "self_attn.k_norm.weight", [head]
        yield p + "self_attn.o_proj.weight", [HIDDEN, 8 * head]
        yield p + "mlp.gate_proj.weight", [wide, HIDDEN]
        yield p + "mlp.up_proj.weight", [wide, HIDDEN]
        yield p + "mlp.down_proj.weight", [HIDDEN, wide]
        yield p + "per_layer_input_gate.weight", [PER_LAYER, HIDDEN]
        yield p + "per_layer_projection.weight", [HIDDEN, PER_LAYER]
        yield p + "layer_scalar", [1]
    yield "norm.weight", [HIDDEN]


def write_folder(folder, layers=LAYERS):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(layers)))
    shutil.copy(ROOT / "tests" / "golden" / "data" / "tokenizer.json", folder / "tokenizer.json")
    header, end = {}, 0
    for name, shape in weights(layers):
        header["model.language_model." + name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + 2 * math.prod(shape)]}
        end += 2 * math.prod(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # 64 MiB of random numbers, repeated from other starting points.
    normal = (0.02 * np.random.default_rng(0).standard_normal(1 << 25)).astype(np.float32).view(np.uint32)
    block = ((normal + 0x7FFF + ((normal >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        written = 0
        while written < end:
            start = (written // len(block) * 131072 * 6) % (len(block) // 2)
            written += file.write(memoryview(block)[start:start + min(len(block) - start, end - written)])
    print(f"{folder}: {end / 2 / 1e9:.3f} B parameters, {end / 1e9:.2f} GB")


def read_into_page_cache(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 26):
            pass


def load_with_llama_cpp(path):
    program = ("import sys, xllamacpp\np = xllamacpp.CommonParams()\np.model.path = sys.argv[1]\np.n_ctx = 64\np.warmup = False\n"
               "p.verbosity = -1\nfrom xllamacpp import Server\nanswer = Server(p).handle_completions("
               "{'prompt': [2, 30, 40], 'n_predict': 2, 'ignore_eos': True})\nprint('completion', answer['usage']['completion_tokens'])")
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    print("llama.cpp:", next((line for line in run.stdout.splitlines() if line.startswith("completion")), "failed " + run.stderr[-500:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-quantize")
    parser.add_argument("--load", action="store_true", help="let llama.cpp load the file (needs xllamacpp)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "e2b"
        if not (folder / "model.safetensors").exists():
            write_folder(folder)
        read_into_page_cache(folder / "model.safetensors")
        output = Path(temporary) / "model.gguf"
        command = [arguments.program, str(folder), "q4_0", str(output), str(arguments.threads)]
        before = os.times()
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        after = os.times()
        figures["cpu_seconds_user"] = round(after.children_user - before.children_user, 2)
        figures["cpu_seconds_system"] = round(after.children_system - before.children_system, 2)
        print(json.dumps(figures))
        if arguments.load:
            load_with_llama_cpp(output)
        if arguments.llama_quantize:
            plain = Path(temporary) / "bf16.gguf"
            subprocess.run([arguments.program, str(folder), "bf16", str(plain), str(arguments.threads)], check=True)
            read_into_page_cache(plain)
            start = time.monotonic()
            subprocess.run([arguments.llama_quantize, "--pure", str(plain), str(output), "Q4_0", str(arguments.threads)], check=True)
            seconds = time.monotonic() - start
            print(f"llama-quantize: {seconds:.1f} s, ratio {seconds / figures['seconds']:.2f}")
        else:
            print("llama-quantize: skipped (no --llama-quantize)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
