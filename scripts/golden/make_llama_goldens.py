#!/usr/bin/env python3
"""Writes a tiny random Gemma 4 GGUF and what llama.cpp computes with it, for tests/reference/llama_golden_test.cpp.

    make_llama_goldens.py [OUTPUT_FOLDER]       (default: tests/golden/reference)

The file is written by the PyPI package gguf and run by xllamacpp; nothing of this project takes part. It has per-layer inputs, shared keys,
sliding and full layers, Q4_0 and Q8_0 matrices, a BF16 projection, and heads of 64 values so that a q8_0 cache is rotated.
"""
import json
import pathlib
import random
import sys

import gguf
import numpy as np

VOCABULARY, HIDDEN, PER_LAYER, HEADS = 256, 64, 32, 2
SLIDING = [True, False, True, False]
OWN_LAYERS = 2
HEAD_SIZE = {True: 64, False: 128}
WIDTH = [96, 96, 192, 192]
PROMPT_LENGTHS = [1, 5, 23, 63, 64, 90]
STEPS, LISTED = 8, 8
CACHES = {"f16": 1, "q8_0": 8}


def write_model(path):
    draw = np.random.default_rng(20261122)
    writer = gguf.GGUFWriter(path, "gemma4")
    layers = len(SLIDING)
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(HEAD_SIZE[False])
    writer.add_value_length(HEAD_SIZE[False])
    writer.add_key_length_swa(HEAD_SIZE[True])
    writer.add_value_length_swa(HEAD_SIZE[True])
    writer.add_rope_dimension_count(HEAD_SIZE[False])
    writer.add_rope_dimension_count_swa(HEAD_SIZE[True])
    writer.add_rope_freq_base(1e6)
    writer.add_rope_freq_base_swa(1e4)
    writer.add_sliding_window(16)
    writer.add_array("gemma4.attention.sliding_window_pattern", SLIDING)
    writer.add_shared_kv_layers(layers - OWN_LAYERS)
    writer.add_embedding_length_per_layer_input(PER_LAYER)
    writer.add_float32("gemma4.final_logit_softcapping", 30.0)
    writer.add_tokenizer_model("gemma4")
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    writer.add_token_list(special + [f"t{i}" for i in range(len(special), VOCABULARY)])
    writer.add_token_scores([-1000.0] * VOCABULARY)
    writer.add_token_types([3] * len(special) + [1] * (VOCABULARY - len(special)))
    writer.add_token_merges(["t 4"])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)

    def put(name, values, kind=gguf.GGMLQuantizationType.F32):
        values = np.asarray(values, np.float32)
        writer.add_tensor(name, values if kind == gguf.GGMLQuantizationType.F32 else gguf.quants.quantize(values, kind),
                          raw_dtype=kind)

    def matrix(name, rows, columns, kind=gguf.GGMLQuantizationType.Q4_0):
        put(name, draw.standard_normal((rows, columns)) / np.sqrt(columns), kind)

    def vector(name, width):
        put(name, draw.uniform(0.7, 1.3, width))

    half = HEAD_SIZE[False] // 2
    put("rope_freqs.weight", [1.0] * (half // 4) + [1e30] * (half - half // 4))
    matrix("token_embd.weight", VOCABULARY, HIDDEN, gguf.GGMLQuantizationType.Q8_0)
    matrix("per_layer_token_embd.weight", VOCABULARY, layers * PER_LAYER)
    matrix("per_layer_model_proj.weight", layers * PER_LAYER, HIDDEN, gguf.GGMLQuantizationType.BF16)
    vector("per_layer_proj_norm.weight", PER_LAYER)
    vector("output_norm.weight", HIDDEN)
    for layer, sliding in enumerate(SLIDING):
        prefix, size = f"blk.{layer}.", HEAD_SIZE[sliding]
        matrix(prefix + "attn_q.weight", HEADS * size, HIDDEN)
        vector(prefix + "attn_q_norm.weight", size)
        if layer < OWN_LAYERS:
            matrix(prefix + "attn_k.weight", size, HIDDEN)
            matrix(prefix + "attn_v.weight", size, HIDDEN)
            vector(prefix + "attn_k_norm.weight", size)
        matrix(prefix + "attn_output.weight", HIDDEN, HEADS * size)
        matrix(prefix + "ffn_gate.weight", WIDTH[layer], HIDDEN)
        matrix(prefix + "ffn_up.weight", WIDTH[layer], HIDDEN)
        matrix(prefix + "ffn_down.weight", HIDDEN, WIDTH[layer])
        matrix(prefix + "inp_gate.weight", PER_LAYER, HIDDEN)
        matrix(prefix + "proj.weight", HIDDEN, PER_LAYER)
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm"):
            vector(prefix + name + ".weight", HIDDEN)
        vector(prefix + "layer_output_scale.weight", 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run(path, cache):
    """Greedy continuations: per prompt the tokens and, per step, llama.cpp's best tokens with their log-probabilities."""
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = 1
    params.n_ctx = 512
    params.warmup = False
    params.verbosity = 0
    params.n_ctx_checkpoints = 0  # with checkpoints the server cuts a prompt into several batches
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type(CACHES[cache])
    server = xllamacpp.Server(params)
    draw = random.Random(7)
    answers = []
    for length in PROMPT_LENGTHS:
        prompt = [2] + [draw.randrange(4, VOCABULARY) for _ in range(length - 1)]
        answer = server.handle_completions({"prompt": prompt, "n_predict": STEPS, "temperature": 0, "n_probs": LISTED,
                                            "ignore_eos": True, "cache_prompt": False})
        steps = answer["choices"][0]["logprobs"]["content"]
        assert len(steps) == STEPS
        answers.append({"prompt": prompt, "steps": [
            {"token": step["id"], "top": [[top["id"], round(top["logprob"], 7)] for top in step["top_logprobs"]]}
            for step in steps]})
    return answers


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/golden/reference"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny_gemma4.gguf"
    write_model(path)
    goldens = {cache: run(path, cache) for cache in CACHES}
    text = json.dumps(goldens, separators=(",", ":")).replace('{"prompt"', '\n{"prompt"').replace('{"token"', '\n {"token"')
    (folder / "llama_log_probabilities.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
