#!/usr/bin/env python3
"""Compares blocks of the codec with those that llama-quantize writes, from one BF16 GGUF file, without and with an importance
matrix of random squares.

Usage: blocks_against_llama_quantize.py GEMMA_QAT LLAMA_QUANTIZE PATH/TO/qat_codec_dump [MODEL_FOLDER] [--seed N]

Of the folder (default: the quickstart's base model) llama-quantize makes a Q4_0 file, which has Q6_K tables too, and a Q8_0
file. Exit codes: 0 all bytes equal, 1 a difference or nothing compared, 77 skipped (numpy or gguf is missing).
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile
from collections import Counter

try:
    import numpy as np
    from gguf import GGUFReader, GGUFWriter
except ImportError as error:
    print(f"skipped: {error.name} is not installed")
    sys.exit(77)

from benchmark_items import ROOT

BLOCK_BYTES = {"Q4_0": 18, "Q8_0": 34, "Q6_K": 210}


def run(*command, **options):
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stdout[-2000:].decode(errors='replace')}{result.stderr[-2000:].decode()}")
    return result.stdout


def tensors_of(path):
    """Name -> (type, raw bytes, width of a row)."""
    return {tensor.name: (tensor.tensor_type.name, np.asarray(tensor.data).tobytes(), int(tensor.shape[0]))
            for tensor in GGUFReader(path).tensors}


def write_importance(path, widths, generator):
    """As llama-imatrix writes it, for one token: its sums are the importance itself."""
    importance = {name: generator.standard_t(3, width).astype(np.float32) ** 2 for name, width in sorted(widths.items())}
    writer = GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["random"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 1)
    for name, values in importance.items():
        writer.add_tensor(f"{name}.in_sum2", values.reshape(1, -1))
        writer.add_tensor(f"{name}.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return importance


def our_blocks(dump, kind, masters, width, importance):
    if importance is None:
        return run(dump, kind.lower(), "bf16", input=masters)
    rows = (np.frombuffer(masters, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(-1, width)
    pairs = np.stack([rows, np.broadcast_to(importance, rows.shape)], axis=1)
    return run(dump, "importance", width, input=pairs.tobytes())


def compare(dump, masters, quantized, importance):
    """By type: blocks compared and blocks that differ."""
    compared, differing = Counter(), Counter()
    for name, (kind, theirs, width) in quantized.items():
        if kind not in BLOCK_BYTES:
            continue
        ours = our_blocks(dump, kind, masters[name][1], width, importance.get(name))
        ours, theirs = [np.frombuffer(blocks, np.uint8).reshape(-1, BLOCK_BYTES[kind]) for blocks in (ours, theirs)]
        key = kind + (" by importance" if name in importance else "")
        compared[key] += len(ours)
        differing[key] += int((ours != theirs).any(axis=1).sum())
    return compared, differing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("llama_quantize")
    parser.add_argument("dump")
    parser.add_argument("folder", nargs="?", default=str(ROOT / "examples/quickstart/model"))
    parser.add_argument("--seed", type=int, default=int(np.random.SeedSequence().entropy % 2**32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    generator = np.random.default_rng(arguments.seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        source = scratch / "bf16.gguf"
        run(arguments.program, "export", arguments.folder, "--format", "gguf", "--out", source)
        masters = tensors_of(source)

        def check(label, ftype, importance, options=()):
            target = scratch / "quantized.gguf"
            run(arguments.llama_quantize, *options, source, target, ftype)
            quantized = tensors_of(target)
            compared, differing = compare(arguments.dump, masters, quantized, importance)
            for key, count in compared.items():
                print(f"{label}: {key}: {count} blocks, {differing[key]} differ")
            return quantized, sum(differing.values()) + (not compared)

        _, different = check("llama-quantize", "Q8_0", {})
        wrong += different
        plain, different = check("llama-quantize", "Q4_0", {})
        wrong += different
        widths = {name: width for name, (kind, _, width) in plain.items() if kind == "Q4_0"}
        importance = write_importance(scratch / "imatrix.gguf", widths, generator)
        _, different = check("llama-quantize --imatrix", "Q4_0", importance, ["--imatrix", scratch / "imatrix.gguf"])
        wrong += different
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
