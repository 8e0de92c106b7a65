#!/usr/bin/env python3
"""Speed and memory of a training step at layer shapes of Gemma 4 E2B and E4B: this program with plan q4_0 and without, transformers in
BF16, and torchao's QAT (int4, groups of 32, symmetric) on transformers. The four take turns, each a process of its own that warms up and
then does a few steps; the fastest step of all rounds counts. Prints one JSON line a shape: tokens, ours_qat, ours_bf16, torchao_qat and
transformers_bf16 (tokens a second), and *_rss_mib (peak resident memory of the process).

All train every matrix with AdamW (tables frozen), random weights, one sequence, no recomputation. Ours keeps FP32 masters and moments; the
peers' AdamW keeps BF16 ones, as their users run it. Skipped (77) if --python has no transformers or torchao.

usage: train_step_vs_torchao.py PATH/TO/qat_train_step [--python PYTHON] [--shape e2b e4b] [--tokens 512 2048] [--layers 6]
                                [--vocabulary 16384] [--threads 2] [--rounds 3] [--steps 2]
"""
import argparse
import json
import os
import subprocess
import sys
import time

SHAPES = {
    "e2b": dict(hidden_size=1536, intermediate_size=6144, num_key_value_heads=1, use_double_wide_mlp=True, period=5),
    "e4b": dict(hidden_size=2560, intermediate_size=10240, num_key_value_heads=2, use_double_wide_mlp=False, period=6),
}


def transformers_model(options):
    import torch
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig
    facts = dict(SHAPES[options.shape[0]])
    period, layers = facts.pop("period"), options.layers
    types = ["full_attention" if layer % period == period - 1 else "sliding_attention" for layer in range(layers)]
    config = Gemma4TextConfig(
        vocab_size=options.vocabulary, vocab_size_per_layer_input=options.vocabulary, num_hidden_layers=layers, layer_types=types,
        num_attention_heads=8, head_dim=256, global_head_dim=512, sliding_window=512, hidden_size_per_layer_input=256,
        num_kv_shared_layers=0 if layers < period else min(layers // 2, layers - period), final_logit_softcapping=30.0,
        tie_word_embeddings=True, use_cache=False, **facts)
    torch.manual_seed(1)
    with torch.device("cpu"):
        return Gemma4ForCausalLM(config).to(torch.bfloat16).train()


def work(options):
    """One contender of the peers, in this process."""
    import resource

    import torch
    torch.set_num_threads(options.threads)
    model = transformers_model(options)
    if options.worker == "torchao_qat":
        from torchao.quantization import quantize_
        from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig
        quantize_(model, QATConfig(weight_config=IntxFakeQuantizeConfig(torch.int4, group_size=32, is_symmetric=True), step="prepare"))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("embed_tokens" not in name)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6, fused=True)
    tokens = torch.randint(3, options.vocabulary, (1, options.tokens[0]))

    def step():
        start = time.monotonic()
        model(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.monotonic() - start

    step()
    seconds = min(step() for _ in range(options.steps))
    print(json.dumps({"tokens_per_second": options.tokens[0] / seconds,
                      "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


def last_json(command, environment=None):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(options, shape, tokens, plan):
    line = last_json([options.program, "--shape", shape, "--layers", options.layers, "--vocabulary", options.vocabulary, "--tokens", tokens,
                      "--plan", plan, "--steps", options.steps, "--threads", options.threads])
    return {"tokens_per_second": line["plain" if plan == "none" else "qat"]["tokens_per_second"], "rss_mib": line["peak_resident_mib"]}


def peer(options, shape, tokens, kind):
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(options.threads)}
    return last_json([options.python, __file__, options.program, "--worker", kind, "--shape", shape, "--tokens", tokens, "--layers",
                      options.layers, "--vocabulary", options.vocabulary, "--threads", options.threads, "--steps", options.steps], environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["e2b"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[512, 2048])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=16384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--worker", choices=["torchao_qat", "transformers_bf16"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return 0
    if subprocess.run([options.python, "-c", "import transformers, torchao.quantization.qat"], capture_output=True).returncode != 0:
        print(f"skipped: {options.python} cannot import transformers and torchao")
        return 77
    for shape in options.shape:
        for tokens in options.tokens:
            contenders = {
                "ours_qat": lambda: ours(options, shape, tokens, "q4_0"),
                "torchao_qat": lambda: peer(options, shape, tokens, "torchao_qat"),
                "ours_bf16": lambda: ours(options, shape, tokens, "none"),
                "transformers_bf16": lambda: peer(options, shape, tokens, "transformers_bf16"),
            }
            line = {"shape": shape, "layers": options.layers, "tokens": tokens}
            for _ in range(options.rounds):
                for name, run in contenders.items():
                    figures = run()
                    line[name] = max(line.get(name, 0), round(figures["tokens_per_second"], 1))
                    line[f"{name}_rss_mib"] = min(line.get(f"{name}_rss_mib", 1 << 60), figures["rss_mib"])
            print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
