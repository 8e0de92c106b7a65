#!/usr/bin/env python3
"""Compares every output bit of the reference's integer products with LiteRT's CPU kernels (PyPI ai-edge-litert).

    mobile_kernels_against_litert.py --dump PATH/qat_mobile_product_dump [--inputs 1000] [--seed 1]

One-layer models at the shapes of Gemma 4 E2B, written here with the schema that comes with the client: a linear with static int8
ends, a linear with a float input and output, an embedding lookup; int8, int4 and int2 weights. Among the inputs are zeros, rows of one
sign, rounding ties, outliers and numbers near the ends of fp32. Exit code 0: no bit differs; 1: some do; 77: the client is not
installed ("skipped").
"""
import argparse
import subprocess
import sys

try:
    import numpy as np

    from litert_layers import LayerModel, run_client
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

SHAPES = {"int8": (256, 1536), "int4": (2048, 1536), "int2": (1536, 12288)}  # rows, columns
BITS = {"int8": 8, "int4": 4, "int2": 2}


def pack(codes, bits):
    """Two's complement, dense, the first code in the low bits of a byte."""
    lanes = 8 // bits
    fields = (codes.astype(np.int16) & ((1 << bits) - 1)).reshape(-1, lanes)
    return np.bitwise_or.reduce(fields << (np.arange(lanes, dtype=np.int16) * bits), axis=1).astype(np.uint8)


def build(kind, scheme, codes, scales, tokens, edges):
    rows, columns = codes.shape
    layer = LayerModel()
    weight = layer.tensor("weight", scheme.upper(), [rows, columns], scales, pack(codes, BITS[scheme]))
    if kind == "lookup":
        x, y = layer.tensor("x", "INT32", [tokens]), layer.tensor("y", "FLOAT32", [tokens, columns])
        layer.operator("EMBEDDING_LOOKUP", [x, weight], y)
        return layer.finish([x], y)
    x, y = layer.tensor("x", "FLOAT32", [1, tokens, columns]), layer.tensor("y", "FLOAT32", [1, tokens, rows])
    if kind == "dynamic":
        layer.linear(x, weight, y)
        return layer.finish([x], y)
    x_codes = layer.tensor("x_codes", "INT8", [1, tokens, columns], edges[:1])
    y_codes = layer.tensor("y_codes", "INT8", [1, tokens, rows], edges[1:])
    layer.operator("QUANTIZE", [x], x_codes)
    layer.linear(x_codes, weight, y_codes)
    layer.operator("DEQUANTIZE", [y_codes], y, 2)
    return layer.finish([x], y)


def run_ours(dump, kind, scheme, codes, scales, x, edges):
    rows, columns = codes.shape
    words = [dump, kind, scheme, rows, columns, x.size if kind == "lookup" else x.shape[1], *(float(edge).hex() for edge in edges)]
    data = pack(codes, BITS[scheme]).tobytes() + scales.tobytes() + x.tobytes()
    return subprocess.run([str(word) for word in words], input=data, stdout=subprocess.PIPE, check=True).stdout


def activations(random, tokens, columns, scale):
    """Mostly normal rows, and every kind of unusual ones."""
    x = (random.standard_normal((tokens, columns)) * 1.3).astype(np.float32)
    unusual = [
        np.zeros(columns), np.abs(x[0]), -np.abs(x[0]), x[0] * 1e-3, x[0] * 1e-30, x[0] * 1e30, np.full(columns, 0.7),
        np.round(x[0] / scale) * scale + np.float32(0.5) * scale,              # ties
        np.where(np.arange(columns) == 5, 300.0, x[0] * 0.1),                  # one spike
        np.where(np.arange(columns) == 5, -300.0, x[0] * 0.1),
        np.where(np.arange(columns) % 2 == 0, 1.0, -1.0), np.full(columns, -1e-42),
    ]
    for index, row in enumerate(unusual):
        x[index] = row.astype(np.float32)
    return x[np.newaxis]


def check(options, scheme, random):
    rows, columns = SHAPES[scheme]
    half = 1 << (BITS[scheme] - 1)
    codes = random.integers(-half, half, size=(rows, columns)).astype(np.int8)
    scales = (random.random(rows) * 0.02 + 0.003).astype(np.float32)
    input_scale = np.float32(0.02137)
    x = activations(random, options.inputs, columns, input_scale)
    largest = np.abs(x[0, 12:] @ (codes * scales[:, np.newaxis]).T.astype(np.float32)).max()
    edges = (input_scale, np.float32(largest / 110))
    ids = random.integers(0, rows, size=options.inputs).astype(np.int32)
    held = True
    for kind in ("static", "dynamic", "lookup"):
        inputs = ids if kind == "lookup" else x
        model = build(kind, scheme, codes, scales, options.inputs, edges)
        wanted = np.frombuffer(run_client(model, inputs).tobytes(), np.uint32)
        found = np.frombuffer(run_ours(options.dump, kind, scheme, codes, scales, inputs, edges), np.uint32)
        different = np.flatnonzero(wanted != found) if wanted.size == found.size else np.arange(max(wanted.size, found.size))
        width = wanted.size // options.inputs
        at = f", the first in input {different[0] // width} at {different[0] % width}" if different.size else ""
        print(f"{'MISSED' if different.size else 'ok    '} {kind:7} {scheme} {columns} -> {rows}: {different.size} of {wanted.size} outputs "
              f"differ{at}", flush=True)
        held = held and different.size == 0
    return held


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", required=True)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"{options.inputs} inputs, seed {options.seed}")
    random = np.random.default_rng(options.seed)
    return 0 if all([check(options, scheme, random) for scheme in SHAPES]) else 1


if __name__ == "__main__":
    sys.exit(main())
