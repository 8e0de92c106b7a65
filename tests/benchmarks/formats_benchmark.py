#!/usr/bin/env python3
"""What a model takes in BF16, Q4_0 and the mobile format: size on disk, memory in use, tokens a second of prefill and of decoding, by the
real clients (llama.cpp through xllamacpp, LiteRT-LM) and by the reference inference.

Two models: the quickstart's, and one of Gemma 4 E2B's true shape with random weights (export_benchmark.py writes it into FOLDER once,
9.3 GB; another 20 GB of disk are needed beside it, and given back). Prints a JSON line per file and client, then a table.

Memory is the largest resident size of the process that loads the file and answers, split into anonymous and file-backed pages: the latter
can be dropped by the kernel. The reference runs `device` arithmetic.

usage: formats_benchmark.py GEMMA_QAT QAT_EXPORT_FOLDER [FOLDER] [--threads 2] [--only quickstart|e2b]
Exit codes: 0 done, 77 skipped (numpy, xllamacpp or litert-lm is missing).
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

try:
    import xllamacpp

    import export_benchmark as shape
    import litertlm_e2b_benchmark as mobile
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

PROMPT_TOKENS, NEW_TOKENS = 256, 32


def ask_llama_cpp(path, threads):
    """Runs in a process of its own."""
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 512
    params.warmup = False
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    start = time.monotonic()
    server = xllamacpp.Server(params)
    loaded = time.monotonic()
    prompt = [2] + [300 + i % 50 for i in range(PROMPT_TOKENS - 1)]
    answer = server.handle_completions({"prompt": prompt, "n_predict": NEW_TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": False})
    timings = answer["timings"]
    print(json.dumps({"load_seconds": round(loaded - start, 2), "prefill_tokens_a_second": round(timings["prompt_per_second"], 2),
                      "decode_tokens_a_second": round(timings["predicted_per_second"], 2)}))


def measured(command):
    """What a client in a process of its own says, and its memory."""
    _, anonymous, resident, output = mobile.run(sys.executable, *command)
    return json.loads(output.splitlines()[-1]) | {"anonymous_gib": round(anonymous, 3), "resident_gib": round(resident, 3)}


def reference(program, path, threads, **lengths):
    _, anonymous, resident, _ = mobile.run(program, "generate", path, "--tokens", ",".join(["300"] * 65), "--max-new", 9, "--json", "--arithmetic",
                                           "device", "--threads", threads)
    return mobile.reference_speed(program, str(path), threads, **lengths) | {"anonymous_gib": round(anonymous, 3), "resident_gib": round(resident, 3)}


def quickstart_files(program, export_folder, threads, folder):
    model = shape.ROOT / "examples/quickstart/model"
    data = folder / "data.txt"
    data.write_text("".join(f"{a} plus {b} is {a + b}, and the fox sleeps under a tree.\n\n" for a in range(20) for b in range(20)))
    for plan in ("bf16", "q4_0"):
        mobile.run(export_folder, model, plan, folder / f"{plan}.gguf", threads)
        yield plan, folder / f"{plan}.gguf"
    mobile.run(program, "quantize", "--model", model, "--plan", "mobile-e2b", "--method", "mse", "--data", data, "--out", folder / "mobile")
    mobile.run(program, "export", folder / "mobile", "--format", "litertlm", "--out", folder / "mobile.litertlm")
    yield "mobile", folder / "mobile.litertlm"


def e2b_files(program, export_folder, threads, folder, model):
    if not (model / "model.safetensors").exists():
        shape.write_folder(model)
    for plan in ("bf16", "q4_0"):
        mobile.run(export_folder, model, plan, folder / f"{plan}.gguf", threads)
        yield plan, folder / f"{plan}.gguf"
    checkpoint = folder / "mobile"
    checkpoint.mkdir()
    mobile.write_checkpoint(model, checkpoint, "mobile-e2b")
    mobile.run(program, "export", checkpoint, "--format", "litertlm", "--embedder", "shared", "--out", folder / "mobile.litertlm")
    yield "mobile", folder / "mobile.litertlm"


def rows_of(name, files, options, **lengths):
    for format, path in files:
        shape.read_into_page_cache(path)
        client = "LiteRT-LM" if path.suffix == ".litertlm" else "llama.cpp"
        command = [mobile.__file__, "--load", path, options.threads, NEW_TOKENS] if client == "LiteRT-LM" else [__file__, "--llama", path, options.threads]
        for who, found in ((client, lambda: measured(command)), ("reference", lambda: reference(options.program, path, options.threads, **lengths))):
            row = {"model": name, "format": format, "gigabytes": round(path.stat().st_size / 1e9, 4), "client": who} | found()
            print(json.dumps(row), flush=True)
            yield row
        path.unlink()


def main():
    if sys.argv[1:2] == ["--llama"]:
        ask_llama_cpp(sys.argv[2], int(sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("export_folder")
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["quickstart", "e2b"])
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder.parent if options.folder else None) as temporary:
        if options.only != "e2b":
            small = pathlib.Path(temporary) / "quickstart"
            small.mkdir()
            rows += rows_of("quickstart", quickstart_files(options.program, options.export_folder, options.threads, small), options,
                            prompt_tokens=1000, new_tokens=40, repetitions=5)
        if options.only != "quickstart":
            large = pathlib.Path(temporary) / "e2b"
            large.mkdir()
            model = options.folder or pathlib.Path(temporary) / "model"
            rows += rows_of("E2B's shape", e2b_files(options.program, options.export_folder, options.threads, large, model), options)
    print("| model | format | size | run by | anonymous + mapped | prefill | decode |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['model']} | {row['format']} | {row['gigabytes']} GB | {row['client']} | {row['anonymous_gib']} + "
              f"{round(row['resident_gib'] - row['anonymous_gib'], 3)} GiB | {row['prefill_tokens_a_second']} | {row['decode_tokens_a_second']} tokens/s |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
