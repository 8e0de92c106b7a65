#!/usr/bin/env python3
"""Size, memory and speed of the mobile exports at Gemma 4 E2B's true shape, and LiteRT-LM running the file.

Makes a checkpoint of a mobile plan over the random BF16 weights of export_benchmark.py (hard-linked; random row scales,
constant static scales), exports it as mobile-hf and as .litertlm with a separate and with a shared table, and prints sizes by
part, seconds and peak anonymous memory. Then the native LiteRT-LM loads each .litertlm on the CPU and generates, and the
reference inference does so from the same file. Needs about 18 GB of disk beside FOLDER; the outputs are deleted.

With --plan mobile-e2b-litert the per-layer model projection is int8 instead of 16 bit.

usage: litertlm_e2b_benchmark.py GEMMA_QAT [FOLDER] [--plan mobile-e2b|mobile-e2b-litert] [--threads 2] [--new 32]
Exit codes: 0 done, 77 skipped (numpy or litert-lm is missing).
"""
import argparse
import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import threading
import time

try:
    import numpy as np
    from litert_lm import Backend, Engine, LogSeverity, SamplerConfig, set_min_log_severity
    from litert_lm_builder import litertlm_peek

    import export_benchmark as shape
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

sys.path.insert(0, str(shape.ROOT / "scripts" / "quickstart_data"))
import tokenizer_file  # noqa: E402

PROMPT_TOKENS = 256
BITS = {"int2": 2, "int4": 4, "int8": 8}


def scheme_of(name, plan):
    """As in configs/plans/PLAN.json; None: left as it is."""
    kind = name.removesuffix(".weight").rpartition(".")[2]
    if kind == "embed_tokens":
        return "int2"
    if kind in ("embed_tokens_per_layer", "q_proj", "k_proj", "v_proj", "o_proj"):
        return "int4"
    if kind in ("per_layer_input_gate", "per_layer_projection"):
        return "int8"
    if kind == "per_layer_model_projection":
        return "int8" if plan == "mobile-e2b-litert" else None
    if kind in ("gate_proj", "up_proj", "down_proj"):
        return "int4" if int(name.split(".")[1]) < shape.LAYERS - shape.shared_layers(shape.LAYERS) else "int2"
    return None


def write_checkpoint(model, folder, plan):
    os.link(model / "model.safetensors", folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(shape.config_of(shape.LAYERS) | {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}))
    tokenizer = tokenizer_file.tokenizer_json("gemma4", [], [chr(code) for code in range(33, 127)], shape.VOCABULARY)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    generator = np.random.default_rng(1)
    entries, tensors = {}, {}
    for name, dimensions in shape.weights(shape.LAYERS):
        scheme = scheme_of(name, plan)
        if scheme is None:
            entries[name] = {"scheme": "bf16" if len(dimensions) == 2 else "f32", "scales": "rule", "frozen": False}
            continue
        entries[name] = {"scheme": scheme, "scales": "stored", "frozen": False}
        count = dimensions[0]
        if name == "embed_tokens_per_layer.weight":
            entries[name]["scale_per"] = "row"
            count *= shape.LAYERS
        # Weights are normal with deviation 0.02.
        tensors[name] = (0.05 / 2 ** (BITS[scheme] - 1) * generator.uniform(0.8, 1.2, count)).astype(np.float32)
        if not name.startswith("embed_tokens"):
            entries[name] |= {"input": "int8", "output": "int8"}
            for end in ("input", "output"):
                tensors[f"{name.removesuffix('weight')}{end}_activation_scale"] = np.float32(4 / 127)
        if name.endswith("k_proj.weight"):
            for kind in "kv":
                tensors[f"{name.removesuffix('k_proj.weight')}{kind}_cache_scale"] = np.float32(6 / 127)
    header, end = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "scales.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.tobytes())
    (folder / "quantization.json").write_text(
        json.dumps({"format": 1, "plan": plan, "kv_cache": "int8", "weights": entries}))


def run(*command):
    """-> (seconds, peak anonymous GiB, peak resident GiB, what it printed)"""
    start = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peaks = {"RssAnon": 0, "VmRSS": 0}

    def watch():
        while process.poll() is None:
            try:
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            for line in status.splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]))
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, errors = process.communicate()
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: ended with {process.returncode}\n{output}{errors[-2000:]}")
    return time.monotonic() - start, peaks["RssAnon"] / 2**20, peaks["VmRSS"] / 2**20, output


def folder_parts(folder):
    parts = {"per-layer table": 0, "all else": 0}
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                parts["per-layer table" if "embed_tokens_per_layer" in name else "all else"] += end - begin
    return parts


def section_parts(path):
    """Bytes of the sections by their model type, or by the number of their type."""
    sections = litertlm_peek.read_litertlm_header(str(path), io.StringIO()).SectionMetadata()
    parts = {}
    for i in range(sections.ObjectsLength()):
        section = sections.Objects(i)
        name = litertlm_peek.get_model_type(section) or f"section of type {section.DataType()}"
        parts[name] = parts.get(name, 0) + section.EndOffset() - section.BeginOffset()
    return parts


def load_and_generate(path, threads, new_tokens):
    """Runs in a process of its own."""
    set_min_log_severity(LogSeverity.ERROR)
    start = time.monotonic()
    with Engine(path, backend=Backend.CPU(thread_count=threads), cache_dir=":nocache") as engine:
        loaded = time.monotonic()
        greedy = SamplerConfig(top_k=1, top_p=1.0, temperature=1.0, seed=0)
        with engine.create_session(apply_prompt_template=False, sampler_config=greedy, max_output_tokens=new_tokens) as session:
            session.run_prefill(["abcdefgh" * (PROMPT_TOKENS // 8)])
            filled = time.monotonic()
            text = session.run_decode().texts[0]
            done = time.monotonic()
        # A model that has learned to stop makes fewer.
        tokens = min(new_tokens, len(engine.tokenize(text)))
    print(json.dumps({"load_seconds": round(loaded - start, 2), "prefill_tokens_a_second": round(PROMPT_TOKENS / (filled - loaded), 2),
                      "new_tokens": tokens, "decode_tokens_a_second": round(tokens / (done - filled), 2)}))


def reference_speed(program, path, threads, prompt_tokens=64, new_tokens=8, repetitions=1):
    """Tokens a second of prefill and of decoding, by differences, so that loading does not count. Small models want more tokens and
    the least time of several runs."""
    def seconds(prompt, new):
        start = time.monotonic()
        done = subprocess.run([program, "generate", path, "--tokens", ",".join(["2"] + ["300"] * (prompt - 1)), "--max-new", str(new), "--json",
                               "--arithmetic", "device", "--threads", str(threads)], check=True, capture_output=True, text=True)
        took = time.monotonic() - start
        if (made := len(json.loads(done.stdout)["tokens"])) != new:
            raise SystemExit(f"{path}: stopped after {made} of {new} tokens")
        return took

    runs = [(seconds(1, 1), seconds(1 + prompt_tokens, 1), seconds(1, 1 + new_tokens)) for _ in range(repetitions)]
    least, filled, decoded = (min(times) for times in zip(*runs))
    return {"load_and_first_token_seconds": round(least, 2), "prefill_tokens_a_second": round(prompt_tokens / (filled - least), 2),
            "decode_tokens_a_second": round(new_tokens / (decoded - least), 2)}


def main():
    if sys.argv[1:2] == ["--load"]:
        load_and_generate(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--plan", choices=["mobile-e2b", "mobile-e2b-litert"], default="mobile-e2b")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new", type=int, default=32)
    options = parser.parse_args()
    if options.folder:
        options.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder.parent if options.folder else None) as temporary:
        temporary = pathlib.Path(temporary)
        model = options.folder or temporary / "e2b"
        if not (model / "model.safetensors").exists():
            shape.write_folder(model)
        checkpoint = temporary / "checkpoint"
        checkpoint.mkdir()
        write_checkpoint(model, checkpoint, options.plan)
        shape.read_into_page_cache(model / "model.safetensors")
        for name, format, more in (("mobile-hf", "mobile-hf", []), ("separate", "litertlm", ["--embedder", "separate"]),
                                   ("shared", "litertlm", ["--embedder", "shared"])):
            out = temporary / (name if format == "mobile-hf" else name + ".litertlm")
            seconds, anonymous, _, _ = run(options.program, "export", checkpoint, "--format", format, "--out", out, *more)
            parts = folder_parts(out) if out.is_dir() else section_parts(out)
            print(json.dumps({"export": name, "gigabytes": {part: round(size / 1e9, 4) for part, size in parts.items()},
                              "seconds": round(seconds, 1), "peak_anonymous_gib": round(anonymous, 3)}), flush=True)
            if out.is_dir():
                continue
            _, anonymous, resident, output = run(sys.executable, __file__, "--load", out, options.threads, options.new)
            print(json.dumps({"litert_lm": name} | json.loads(output.splitlines()[-1]) |
                             {"peak_anonymous_gib": round(anonymous, 2), "peak_resident_gib": round(resident, 2)}), flush=True)
            print(json.dumps({"reference": name} | reference_speed(options.program, str(out), options.threads)), flush=True)
            out.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
