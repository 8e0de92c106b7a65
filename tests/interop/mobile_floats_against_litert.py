#!/usr/bin/env python3
"""Compares every output bit of what the reference's device arithmetic computes in fp32 between the linears of a mobile model with
LiteRT's CPU kernels (PyPI ai-edge-litert), in the operations that the .litertlm exporter writes.

    mobile_floats_against_litert.py --dump PATH/qat_mobile_float_dump [--seed 1]

RMSNorm, rotation, gated GELU, soft-cap, fp32 linears, and attention over an int8 cache with and without a window, in shapes that fill
the processor's vectors and that do not; among the inputs are zeros, very small and very large numbers. Both sides compute in the order
of the processor they run on (x86-64 with AVX2 or AVX-512; skipped elsewhere, and without the client: exit code 77).
"""
import argparse
import pathlib
import subprocess
import sys

try:
    import numpy as np

    import processor
    from litert_layers import LayerModel, run_client, schema
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

EPSILON = np.float32(1e-6)
HIDDEN = np.float32(-1e30)


def run_ours(dump, kind, rows, width, parameters, *inputs):
    words = [dump, kind, rows, width, *(float(p).hex() if isinstance(p, np.float32) else p for p in parameters)]
    data = b"".join(np.ascontiguousarray(values, np.float32).tobytes() for values in inputs)
    return np.frombuffer(subprocess.run([str(word) for word in words], input=data, stdout=subprocess.PIPE, check=True).stdout, np.float32)


class Graph(LayerModel):
    """Operations on fp32 values, named by their place."""

    def __init__(self):
        super().__init__()
        self.inputs = []

    def input(self, values, scale=None):
        kind = {"float32": "FLOAT32", "int8": "INT8"}[str(values.dtype)]
        self.inputs.append(self.tensor(f"x{len(self.inputs)}", kind, values.shape, None if scale is None else [scale]))
        return self.inputs[-1]

    def constant(self, values, kind="FLOAT32"):
        return self.tensor(f"c{len(self.graph.tensors)}", kind, values.shape, data=np.frombuffer(values.tobytes(), np.uint8))

    def shape(self, value):
        return tuple(self.graph.tensors[value].shape)

    def apply(self, name, inputs, shape=None, version=1, options=None):
        y = self.tensor(f"y{len(self.graph.tensors)}", "FLOAT32", self.shape(inputs[0]) if shape is None else shape)
        if options is not None:
            name_of_options, fields = options
            settings = getattr(schema, name_of_options + "T")()
            for field, value in fields.items():
                setattr(settings, field, value)
            options = (getattr(schema.BuiltinOptions, name_of_options), settings)
        self.operator(name, inputs, y, version, options)
        return y

    def scale(self, x, factor):
        return self.apply("MUL", [x, self.constant(np.array([factor], np.float32))])

    def half(self, x, begin, width):
        rows = self.shape(x)[0]
        sizes = [self.constant(np.array(pair, np.int32), "INT32") for pair in ([0, begin], [rows, width])]
        return self.apply("SLICE", [x, *sizes], (rows, width))


def norm(x, weight):
    graph = Graph()
    value = graph.input(x)
    axis = graph.constant(np.array([1], np.int32), "INT32")
    mean = graph.apply("MEAN", [graph.apply("MUL", [value, value]), axis], (x.shape[0], 1), options=("ReducerOptions", {"keepDims": True}))
    root = graph.apply("RSQRT", [graph.apply("ADD", [mean, graph.constant(np.array([EPSILON]))])])
    return run_client(graph.finish(graph.inputs, graph.apply("MUL", [graph.apply("MUL", [value, root]), graph.constant(weight)])), x)


def rotate(x, theta, first):
    graph, half = Graph(), x.shape[1] // 2
    value, places = graph.input(x), graph.input(np.zeros((x.shape[0], 1), np.float32))
    exponents = (2 * np.arange(half)).astype(np.float32) / np.float32(x.shape[1])
    turns = np.float32(1) / np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)
    angles = graph.apply("MUL", [places, graph.constant(turns.reshape(1, half))], (x.shape[0], half))
    cosine, sine = graph.apply("COS", [angles]), graph.apply("SIN", [angles])
    left, right = graph.half(value, 0, half), graph.half(value, half, half)
    parts = [graph.apply("SUB", [graph.apply("MUL", [left, cosine]), graph.apply("MUL", [right, sine])]),
             graph.apply("ADD", [graph.apply("MUL", [right, cosine]), graph.apply("MUL", [left, sine])])]
    y = graph.apply("CONCATENATION", parts, x.shape, options=("ConcatenationOptions", {"axis": 1}))
    positions = (first + np.arange(x.shape[0], dtype=np.float32)).reshape(-1, 1)
    return run_client(graph.finish(graph.inputs, y), x, positions)


def gate(x, factor):
    graph = Graph()
    values = [graph.input(x), graph.input(factor)]
    activated = graph.apply("GELU", values[:1], options=("GeluOptions", {"approximate": True}))
    return run_client(graph.finish(graph.inputs, graph.apply("MUL", [activated, values[1]])), x, factor)


def softcap(x, cap):
    graph = Graph()
    y = graph.scale(graph.apply("TANH", [graph.scale(graph.input(x), np.float32(1) / cap)]), cap)
    return run_client(graph.finish(graph.inputs, y), x)


def linear(x, weight):
    """The weight as float16, as the exporter stores what float16 holds."""
    graph = Graph()
    matrix = graph.apply("DEQUANTIZE", [graph.constant(weight.astype(np.float16), "FLOAT16")], version=3)
    value, y = graph.input(x), graph.tensor("y", "FLOAT32", (x.shape[0], weight.shape[0]))
    graph.linear(value, matrix, y)
    return run_client(graph.finish(graph.inputs, y), x)


def attention(queries, heads, window, context, keys, values, scales):
    """One key-value head; queries [tokens, heads * width] at the last positions."""
    tokens, width, held = queries.shape[0], keys.shape[1], keys.shape[0]
    rows = queries.reshape(tokens, heads, width).transpose(1, 0, 2).reshape(1, 1, heads * tokens, width)
    caches = [np.zeros((1, 1, context, width), np.int8) for _ in range(2)]
    for cache, codes in zip(caches, (keys, values)):
        cache[0, 0, :held] = codes
        cache[0, 0, held:] = 77  # nobody sees what is not written yet
    position, place = np.arange(held - tokens, held)[:, None], np.arange(context)[None]
    sees = (place <= position) & ((place > position - window) if window else True)
    mask = np.tile(np.where(sees, np.float32(0), HIDDEN), (heads, 1)).reshape(1, 1, heads * tokens, context)
    graph = Graph()
    given = [graph.input(rows), graph.input(caches[0], scales[0]), graph.input(caches[1], scales[1]), graph.input(mask)]
    decoded = [graph.apply("DEQUANTIZE", [cache], version=2) for cache in given[1:3]]
    scores = graph.apply("BATCH_MATMUL", [given[0], decoded[0]], mask.shape, options=("BatchMatMulOptions", {"adjX": False, "adjY": True}))
    shares = graph.apply("SOFTMAX", [graph.apply("ADD", [scores, given[3]])], options=("SoftmaxOptions", {"beta": 1.0}))
    mixed = graph.apply("BATCH_MATMUL", [shares, decoded[1]], rows.shape, options=("BatchMatMulOptions", {"adjX": False, "adjY": False}))
    found = run_client(graph.finish(graph.inputs, mixed), rows, *caches, mask)
    return found.reshape(heads, tokens, width).transpose(1, 0, 2)


def unusual(random, rows, width, size=1.0):
    x = (random.standard_normal((rows, width)) * size).astype(np.float32)
    for index, row in enumerate((x[0] * 0, x[0] * 1e-12, x[0] * 1e12, np.full(width, 0.7), np.where(np.arange(width) == 1, 300, x[0]))):
        x[index] = row.astype(np.float32)
    return x


class Check:
    def __init__(self, dump):
        self.dump, self.held = dump, True

    def compare(self, what, found, wanted):
        found, wanted = found.ravel().view(np.uint32), np.ascontiguousarray(wanted, np.float32).ravel().view(np.uint32)
        # A sum of nothing but zeros may have either sign.
        different = np.flatnonzero((found != wanted) & ((found | wanted) != 0x80000000)) if found.size == wanted.size else np.arange(1)
        self.held = self.held and different.size == 0
        print(f"{'MISSED' if different.size else 'ok    '} {what}: {different.size} of {wanted.size} outputs differ", flush=True)

    def run(self, random):
        for width in (4, 20, 64, 100, 256, 1536):
            x, weight = unusual(random, 200, width), random.random(width, np.float32) + np.float32(0.5)
            self.compare(f"norm {width}", run_ours(self.dump, "norm", 200, width, [EPSILON], x, weight), norm(x, weight))
        for width, theta, first in ((16, 1e4, 0), (256, 1e4, 700), (512, 1e6, 120000)):
            x = unusual(random, 200, width)
            self.compare(f"rotate {width} from {first}", run_ours(self.dump, "rotate", 200, width, [np.float32(theta), first], x),
                         rotate(x, theta, first))
        for width in (24, 6144):
            x, factor = unusual(random, 64, width, 2), unusual(random, 64, width)
            self.compare(f"gate {width}", run_ours(self.dump, "gate", 64, width, [], x, factor), gate(x, factor))
        x = unusual(random, 64, 3000, 40)
        self.compare("softcap", run_ours(self.dump, "softcap", 64, 3000, [np.float32(30)], x, x), softcap(x, np.float32(30)))
        for rows, width, outputs in ((1, 1536, 300), (6, 96, 35)):
            x, weight = unusual(random, max(rows, 5), width)[:rows], (random.standard_normal((outputs, width)) * 0.05).astype(np.float16)
            self.compare(f"linear {width} -> {outputs}, {rows} rows",
                         run_ours(self.dump, "linear", rows, width, [outputs], x, weight.astype(np.float32)), linear(x, weight))
        for tokens, heads, width, window, context, held in ((1, 8, 256, 0, 512, 300), (1, 4, 16, 0, 100, 97), (5, 2, 32, 16, 96, 40),
                                                            (70, 2, 64, 0, 640, 630), (1, 2, 64, 512, 4000, 3990)):
            codes = [random.integers(-128, 128, (held, width)).astype(np.int8) for _ in range(2)]
            scales = (np.float32(0.0213), np.float32(6 / 127))
            queries = (random.standard_normal((tokens, heads * width)) * 0.3).astype(np.float32)
            ours = run_ours(self.dump, "attention", tokens, width, [heads, window, context, held, *scales], queries,
                            *(c.astype(np.float32) * s for c, s in zip(codes, scales)))
            self.compare(f"attention {tokens} tokens, {heads} heads of {width}, window {window}, {held} of {context} positions", ours,
                         attention(queries, heads, window, context, *codes, scales))
        return self.held


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if not processor.adds_in_known_order():
        print("skipped: no x86-64 processor with FMA")
        return 77
    print(f"seed {options.seed}")
    return 0 if Check(options.dump).run(np.random.default_rng(options.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
