#!/usr/bin/env python3
"""Compares the reference inference with llama.cpp (PyPI xllamacpp) on GGUF files, teacher-forced on llama.cpp's greedy tokens.

    reference_against_llama.py FILE.gguf ... --dump PATH/qat_reference_dump [--cache f16 q8_0] [--prompts 200] [--tokens 32]
    reference_against_llama.py --dump PATH/qat_reference_dump --export PATH/qat_export_folder [--plan q4_0] ...

Without files, scripts/golden/make_tiny_models.py makes a random model of every kind and --export exports it under the plan.
Prints per file and cache: positions, the share where llama.cpp's two best tokens differ by at most the margin, choices that differ
elsewhere, mean and largest |difference| of log-probability over llama.cpp's best tokens. Exit code 0: every figure holds; 1: one is
missed; 77: a package is not installed ("skipped").
"""
import argparse
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

MARGIN = 0.01           # choices must agree where llama.cpp's two best tokens differ by more than this in log-probability
LARGEST_CLOSE_SHARE = 0.10  # at most this share of positions may lie below the margin
LIMITS = {"f16": 1e-3, "f32": 1e-3, "q8_0": 5e-3}  # mean |difference| of log-probability
GGML_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}
WIDTHS = {"q4_0": "small", "q4_0-q8-tables": "small", "q4_0-google": "wide"}  # of the models made for a plan
BYTE_TOKEN = 6          # tokenizer.ggml.token_type
LISTED = 10             # best tokens that llama.cpp reports per position


def make_prompts(count, vocabulary, longest, seed):
    """Random token ids after one BOS, a quarter of them long enough for llama.cpp's tiled attention (64 rows and more)."""
    draw = random.Random(seed)
    prompts = []
    for index in range(count):
        length = draw.randint(64, longest) if index % 4 == 3 else draw.randint(1, 63)
        prompts.append([2] + [draw.randrange(16, vocabulary) for _ in range(length)])
    return prompts


def vocabulary_of(path):
    """Size of the vocabulary and the ids of its byte pieces."""
    from gguf import GGUFReader
    types = GGUFReader(path).get_field("tokenizer.ggml.token_type").contents()
    return len(types), [token for token, kind in enumerate(types) if kind == BYTE_TOKEN]


def run_llama(xllamacpp, path, cache, prompts, tokens, barred, adapter=None):
    """Per prompt: the greedy tokens and, per token, llama.cpp's best ids with their log-probabilities. `adapter`: a GGUF LoRA file.

    `barred` tokens are never chosen (byte pieces: the server merges those that are no whole UTF-8 character into one step); the listed
    log-probabilities are those of the whole vocabulary all the same."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel = 1
    params.n_ctx = 2048
    params.warmup = False
    params.verbosity = 0
    params.n_ctx_checkpoints = 0  # with checkpoints the server cuts a prompt into several batches
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = 1  # more threads wait for each other busily
    params.cpuparams_batch.n_threads = 1
    if adapter is not None:
        lora = xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)
        params.lora_adapters = [lora]
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type(GGML_TYPES[cache])
    server = xllamacpp.Server(params)
    answers = []
    for prompt in prompts:
        answer = server.handle_completions({
            "prompt": prompt, "n_predict": tokens, "temperature": 0, "n_probs": LISTED, "ignore_eos": True,
            "cache_prompt": False, "logit_bias": [[token, False] for token in barred]})
        answer = answer if isinstance(answer, dict) else json.loads(answer)
        steps = answer["choices"][0]["logprobs"]["content"]
        if len(steps) != tokens:
            raise RuntimeError(f"{path}: llama.cpp gave {len(steps)} tokens, wanted {tokens}")
        answers.append([(step["id"], [(top["id"], top["logprob"]) for top in step["top_logprobs"]]) for step in steps])
    return answers


def run_reference(dump, path, arithmetic, cache, prompts, answers, adapter=None):
    """Per prompt and token: the reference's best tokens as [id, log-probability], best first."""
    requests = []
    for prompt, answer in zip(prompts, answers):
        requests.append(" ".join(map(str, [len(prompt), *prompt, *(step[0] for step in answer)])))
    done = subprocess.run([dump, path, arithmetic, cache, *([adapter] if adapter else [])], input="\n".join(requests) + "\n", capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{path}: {dump} failed: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(answers, references):
    figures = {"positions": 0, "close": 0, "different": 0, "largest": 0.0}
    differences = []
    for answer, reference in zip(answers, references):
        for (_, best), ours in zip(answer, reference):
            figures["positions"] += 1
            choice = ours[0][0]
            ours = dict(ours)
            if best[0][1] - best[1][1] <= MARGIN:
                figures["close"] += 1
            elif choice != best[0][0]:
                figures["different"] += 1
            differences += [abs(logprob - ours.get(token, -math.inf)) for token, logprob in best]
    figures["mean"] = sum(differences) / len(differences)
    figures["largest"] = max(differences)
    figures["close_share"] = figures["close"] / figures["positions"]
    return figures


def make_files(folder, export, plan):
    """A GGUF file of every kind of model."""
    script = ROOT / "scripts/golden/make_tiny_models.py"
    subprocess.run([sys.executable, script, folder / "models", "--width", WIDTHS[plan]], check=True, capture_output=True)
    files = []
    for model in sorted(path for path in (folder / "models").iterdir() if path.is_dir()):
        files.append(folder / f"{model.name}-{plan}.gguf")
        subprocess.run([export, model, ROOT / "configs/plans" / f"{plan}.json", files[-1]], check=True, capture_output=True)
    return files


def check(xllamacpp, options, path, cache):
    vocabulary, byte_pieces = vocabulary_of(path)
    prompts = make_prompts(options.prompts, vocabulary, options.longest, options.seed)
    answers = run_llama(xllamacpp, path, cache, prompts, options.tokens, byte_pieces)
    references = run_reference(options.dump, path, options.arithmetic, cache, prompts, answers)
    figures = compare(answers, references)
    ok = (figures["different"] == 0 and figures["close_share"] <= LARGEST_CLOSE_SHARE and figures["mean"] <= LIMITS[cache])
    print(f"{'ok    ' if ok else 'MISSED'} {path} cache {cache}: {figures['positions']} positions, {figures['close_share']:.1%} "
          f"within the margin, {figures['different']} choices differ, |difference| mean {figures['mean']:.2e} largest "
          f"{figures['largest']:.2e}", flush=True)
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--dump", required=True)
    parser.add_argument("--export")
    parser.add_argument("--plan", choices=sorted(WIDTHS), default="q4_0")
    parser.add_argument("--arithmetic", choices=["device", "float"], default="device")
    parser.add_argument("--cache", nargs="+", choices=sorted(GGML_TYPES), default=["f16"])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--longest", type=int, default=100, help="tokens of the longest prompt")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        import xllamacpp
        import gguf  # noqa: F401
        if not options.files:
            import torch  # noqa: F401
            import transformers  # noqa: F401
    except ImportError as missing:
        print(f"skipped: {missing.name} is not installed")
        return 77
    if not options.files and not options.export:
        parser.error("wanted files, or --export")
    print(f"{options.prompts} prompts x {options.tokens} tokens, seed {options.seed}, arithmetic {options.arithmetic}")
    with tempfile.TemporaryDirectory() as temporary:
        files = options.files or make_files(pathlib.Path(temporary), options.export, options.plan)
        held = [check(xllamacpp, options, str(path), cache) for path in files for cache in options.cache]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
