#!/usr/bin/env python3
"""Exports model folders under every plan that their shapes allow and asks real clients about the files:

  gguf        GGUFReader reads the file, and gguf-dump prints it
  numpy       every tensor's bytes equal those of encoders written apart from this program (Q4_0, Q8_0, Q6_K, BF16, F32)
  xllamacpp   llama.cpp loads the file and generates; from an F32 file it gives the log-probabilities of transformers

The last comparison is a coarse one, for wrong metadata or names: small random models amplify llama.cpp's fp16 GELU table, so
medians over prompts are held against bounds that a wrong theta or window exceeds several times.

Usage: gguf_against_clients.py PATH/TO/qat_export_folder [MODEL_FOLDER...]
Without folders, scripts/golden/make_tiny_models.py makes a wide random model of every kind (needs torch and transformers).
Exit codes: 0 all good, 1 a difference, 77 skipped (numpy or gguf is missing). A missing client is named as skipped.
"""
import argparse
import importlib.util
import json
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import numpy as np
    from gguf import GGUFReader, quants
except ImportError as error:
    print(f"skipped: {error.name} is not installed")
    sys.exit(77)

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "golden"))
import make_codec_goldens as rules  # noqa: E402

PLANS = ["q4_0", "q4_0-google", "q4_0-q8-tables", "bf16"]
# Length of the prompts (one below and one beyond the sliding window of the test models) -> largest median difference.
LOG_PROBABILITY_BOUNDS = {4: 0.1, 40: 1.0}

# Hugging Face name -> GGUF name, from the format's description.
GLOBAL_NAMES = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
    "per_layer_model_projection.weight": "per_layer_model_proj.weight",
    "per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
}
LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
    "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight",
    "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
    "layer_scalar": "layer_output_scale.weight",
    "per_layer_input_gate.weight": "inp_gate.weight",
    "per_layer_projection.weight": "proj.weight",
    "post_per_layer_input_norm.weight": "post_norm.weight",
    "router.proj.weight": "ffn_gate_inp.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
}


def gguf_name(name):
    """None for tensors that are no part of the text model."""
    bare = re.sub(r"^(model\.)?(language_model\.)?(model\.)?", "", name)
    layer = re.fullmatch(r"layers\.(\d+)\.(.*)", bare)
    if layer:
        known = LAYER_NAMES.get(layer[2])
        return known and f"blk.{layer[1]}.{known}"
    return GLOBAL_NAMES.get(bare)


def read_masters(folder):
    """GGUF name -> (float32 values, shape)."""
    masters = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        size = struct.unpack_from("<Q", data)[0]
        header = json.loads(data[8:8 + size])
        for name, entry in header.items():
            if name == "__metadata__" or gguf_name(name) is None:
                continue
            begin, end = entry["data_offsets"]
            raw = data[8 + size + begin:8 + size + end]
            if entry["dtype"] == "BF16":
                values = rules.widen_bfloat16(np.frombuffer(raw, np.uint16))
            else:
                values = np.frombuffer(raw, {"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
            masters[gguf_name(name)] = (values, entry["shape"])
    return masters


def encode(kind, values):
    if kind == "F32":
        return values.tobytes()
    if kind == "BF16":
        return rules.to_bfloat16_bits(values).tobytes()
    return rules.ENCODERS[kind.lower()][0](values)


def expected_type(plan, name, shape):
    """The type that the plan's description promises for a tensor."""
    if len(shape) == 1 or name.endswith("_norm.weight") or name.endswith("ffn_gate_inp.weight"):
        return "F32"
    if plan == "bf16" or name == "per_layer_model_proj.weight":
        return "BF16"
    if name in ("token_embd.weight", "per_layer_token_embd.weight", "output.weight"):
        return {"q4_0": "Q4_0", "q4_0-google": "Q6_K", "q4_0-q8-tables": "Q8_0"}[plan]
    return "Q4_0"


def check_tensors(reader, masters, plan, is_gemma3):
    problems = []
    present = set()
    for tensor in reader.tensors:
        name, kind = tensor.name, tensor.tensor_type.name
        present.add(name)
        if name == "rope_freqs.weight":
            values = np.asarray(tensor.data)
            if kind != "F32" or not set(values.tolist()) <= {1.0, float(np.float32(1e30))}:
                problems.append("rope_freqs.weight: other values than 1 and 1e30")
            continue
        if name not in masters:
            problems.append(f"{name}: is no weight of the model")
            continue
        values, shape = masters[name]
        if [int(size) for size in tensor.shape] != shape[::-1]:
            problems.append(f"{name}: shape {tensor.shape} for {shape}")
        if is_gemma3 and name.endswith("norm.weight"):
            values = np.float32(1) + values
        if kind != expected_type(plan, name, shape):
            problems.append(f"{name}: type {kind}, the plan promises {expected_type(plan, name, shape)}")
        stored = np.asarray(tensor.data).tobytes()
        if stored != encode(kind, values):
            problems.append(f"{name}: bytes differ from the encoder's")
        if kind == "Q8_0" and stored != quants.quantize(values.reshape(shape), tensor.tensor_type).tobytes():
            problems.append(f"{name}: bytes differ from gguf.quants.quantize")
    unwritten = [name for name in masters if name not in present]
    redundant = [name for name in unwritten if re.search(r"attn_(k|v|k_norm)\.weight$", name)]
    problems += [f"{name}: is missing" for name in unwritten if name not in redundant]
    return problems, len(present), len(redundant)


def generate(path):
    """Runs in a process of its own: prints, per prompt, the log-probabilities of the likeliest next tokens as JSON."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 256
    params.warmup = False
    params.verbosity = -1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    # One thread: the busy waiting of several is slow beside other programs.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    answers = []
    for prompt in prompts():
        answer = server.handle_completions({"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 5})
        # A token that ends the text, or half of a character, comes without log-probabilities.
        steps = (answer["choices"][0]["logprobs"] or {"content": []})["content"]
        answers.append([(top["id"], top["logprob"]) for step in steps for top in step["top_logprobs"]])
    longer = server.handle_completions({"prompt": prompts()[-1], "n_predict": 24, "temperature": 0, "ignore_eos": True})
    print("answers " + json.dumps({"steps": answers, "tokens": longer["usage"]["completion_tokens"]}))


def prompts():
    generator = np.random.default_rng(1)
    return [[2, *generator.integers(260, 500, length - 1).tolist()] for length in LOG_PROBABILITY_BOUNDS for _ in range(6)]


def ask_llama_cpp(path):
    run = subprocess.run([sys.executable, __file__, "--generate", str(path)], capture_output=True, text=True)
    lines = [line for line in run.stdout.splitlines() if line.startswith("answers ")]
    if not lines:
        return None, (run.stdout + run.stderr)[-600:]
    return json.loads(lines[0][8:]), ""


def compare_with_transformers(folder, answers):
    """Median difference per length of prompt."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    differences = {length: [] for length in LOG_PROBABILITY_BOUNDS}
    with torch.no_grad():
        for prompt, tops in zip(prompts(), answers["steps"]):
            logits = model(torch.tensor([prompt])).logits[0, -1]
            wanted = torch.log_softmax(logits.float(), -1)
            if tops:
                differences[len(prompt)].append(max(abs(wanted[token].item() - value) for token, value in tops))
    return {length: float(np.median(found)) for length, found in differences.items()}


def check_log_probabilities(program, folder, temporary):
    """Exports without any rounding of weights and compares llama.cpp with transformers. Returns the number of problems."""
    plan = json.loads((ROOT / "configs" / "plans" / "bf16.json").read_text())
    plan["weights"] = {role: "f32" for role in plan["weights"]}
    (temporary / "f32.json").write_text(json.dumps(plan))
    path = temporary / "f32.gguf"
    subprocess.run([program, str(folder), str(temporary / "f32.json"), str(path)], check=True, stdout=subprocess.DEVNULL)
    answers, log = ask_llama_cpp(path)
    if answers is None:
        print(f"{folder.name} f32: llama.cpp: {log}")
        return 1
    medians = compare_with_transformers(folder, answers)
    text = ", ".join(f"{length} tokens {median:.4f}" for length, median in medians.items())
    print(f"{folder.name} f32: median difference of log-probabilities to transformers: {text}", flush=True)
    # A median of nothing is no number, and fails too.
    return sum(not medians[length] <= bound for length, bound in LOG_PROBABILITY_BOUNDS.items())


def check_file(program, folder, plan, path, clients):
    run = subprocess.run([program, str(folder), plan, str(path)], capture_output=True, text=True)
    if run.returncode != 0 and "needs a multiple of" in run.stderr:
        print(f"{folder.name} {plan}: not for these shapes")
        return 0
    if run.returncode != 0:
        print(f"{folder.name} {plan}: {run.stderr.strip()}")
        return 1
    reader = GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    problems, tensors, redundant = check_tensors(reader, read_masters(folder), plan, architecture == "gemma3")
    dump = subprocess.run([sys.executable, "-m", "gguf.scripts.gguf_dump", "--no-tensors", str(path)], capture_output=True, text=True)
    if dump.returncode != 0 or "general.architecture" not in dump.stdout:
        problems.append(f"gguf-dump: {dump.stderr[-300:]}")
    notes = [f"{tensors} tensors equal"] if not problems else []
    if redundant:
        notes.append(f"{redundant} redundant masters omitted")
    if clients["xllamacpp"]:
        answers, log = ask_llama_cpp(path)
        if answers is None or answers["tokens"] != 24:
            problems.append(f"llama.cpp: {log or answers}")
        else:
            notes.append("llama.cpp generates")
    print(f"{folder.name} {plan}: {', '.join(notes)}", flush=True)
    for problem in problems:
        print(f"  {problem}")
    return len(problems)


def make_models(folder):
    script = ROOT / "scripts" / "golden" / "make_tiny_models.py"
    run = subprocess.run([sys.executable, str(script), str(folder), "--width", "wide"], capture_output=True, text=True)
    if run.returncode != 0:
        if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
            print("skipped: making models needs torch and transformers")
            sys.exit(77)
        sys.exit(f"make_tiny_models.py failed: {run.stderr[-1000:]}")
    return sorted(path for path in folder.iterdir() if path.is_dir())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--generate", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.generate:
        generate(arguments.generate)
        return 0
    clients = {name: importlib.util.find_spec(name) is not None for name in ("xllamacpp", "transformers")}
    for name, present in clients.items():
        if not present:
            print(f"{name}: skipped (not installed)")
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        for folder in arguments.folders or make_models(Path(temporary) / "models"):
            for plan in PLANS:
                failures += check_file(arguments.program, folder, plan, Path(temporary) / "model.gguf", clients)
            if all(clients.values()):
                failures += check_log_probabilities(arguments.program, folder, Path(temporary))
    print(f"{failures} problems")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
