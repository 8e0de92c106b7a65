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

MODEL_VERSION = 3
SHAPES = {"int8": (256, 1536), "int4": (2048, 1536), "int2": (1536, 12288)}  # rows, columns
BITS = {"int8": 8, "int4": 4, "int2": 2}


def pack(codes, bits):
    """Two's complement, dense, the first code in the low bits of a byte."""
    import numpy as np
    lanes = 8 // bits
    fields = (codes.astype(np.int16) & ((1 << bits) - 1)).reshape(-1, lanes)
    return np.bitwise_or.reduce(fields << (np.arange(lanes, dtype=np.int16) * bits), axis=1).astype(np.uint8)


class OneLayer:
    """A TFLite model that grows tensor by tensor."""

    def __init__(self, schema):
        self.schema = schema
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators, self.graph.name = [], [], "main"
        self.model = schema.ModelT()
        self.model.version, self.model.description = MODEL_VERSION, "one layer"
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []

    def tensor(self, name, kind, shape, scales=None, data=None):
        tensor = self.schema.TensorT()
        tensor.name, tensor.type, tensor.shape, tensor.hasRank = name, getattr(self.schema.TensorType, kind), list(shape), True
        if scales is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = [float(scale) for scale in scales]
            tensor.quantization.zeroPoint = [0] * len(scales)
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = data
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, name, inputs, output, version=1, options=None):
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
        self.model.operatorCodes.append(code)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.model.operatorCodes) - 1, inputs, [output]
        if options is not None:
            operator.builtinOptionsType, operator.builtinOptions = options
        self.graph.operators.append(operator)

    def linear(self, x, weight, y):
        options = self.schema.FullyConnectedOptionsT()
        options.keepNumDims = True
        self.operator("FULLY_CONNECTED", [x, weight, -1], y, 4, (self.schema.BuiltinOptions.FullyConnectedOptions, options))

    def finish(self, x, y):
        import flatbuffers
        self.graph.inputs, self.graph.outputs, self.model.subgraphs = [x], [y], [self.graph]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def build(schema, kind, scheme, codes, scales, tokens, edges):
    rows, columns = codes.shape
    layer = OneLayer(schema)
    weight = layer.tensor("weight", scheme.upper(), [rows, columns], scales, pack(codes, BITS[scheme]))
    if kind == "lookup":
        x, y = layer.tensor("x", "INT32", [tokens]), layer.tensor("y", "FLOAT32", [tokens, columns])
        layer.operator("EMBEDDING_LOOKUP", [x, weight], y)
        return layer.finish(x, y)
    x, y = layer.tensor("x", "FLOAT32", [1, tokens, columns]), layer.tensor("y", "FLOAT32", [1, tokens, rows])
    if kind == "dynamic":
        layer.linear(x, weight, y)
        return layer.finish(x, y)
    x_codes = layer.tensor("x_codes", "INT8", [1, tokens, columns], edges[:1])
    y_codes = layer.tensor("y_codes", "INT8", [1, tokens, rows], edges[1:])
    layer.operator("QUANTIZE", [x], x_codes)
    layer.linear(x_codes, weight, y_codes)
    layer.operator("DEQUANTIZE", [y_codes], y, 2)
    return layer.finish(x, y)


def run_client(interpreter_class, model, x):
    interpreter = interpreter_class(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def run_ours(dump, kind, scheme, codes, scales, x, edges):
    rows, columns = codes.shape
    words = [dump, kind, scheme, rows, columns, x.size if kind == "lookup" else x.shape[1], *(float(edge).hex() for edge in edges)]
    data = pack(codes, BITS[scheme]).tobytes() + scales.tobytes() + x.tobytes()
    return subprocess.run([str(word) for word in words], input=data, stdout=subprocess.PIPE, check=True).stdout


def activations(random, tokens, columns, scale):
    """Mostly normal rows, and every kind of unusual ones."""
    import numpy as np
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


def check(options, schema, interpreter_class, scheme, random):
    import numpy as np
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
        model = build(schema, kind, scheme, codes, scales, options.inputs, edges)
        wanted = np.frombuffer(run_client(interpreter_class, model, inputs).tobytes(), np.uint32)
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
    try:
        import flatbuffers  # noqa: F401
        import numpy as np
        from ai_edge_litert import schema_py_generated
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as missing:
        print(f"skipped: {missing}")
        return 77
    print(f"{options.inputs} inputs, seed {options.seed}")
    random = np.random.default_rng(options.seed)
    return 0 if all([check(options, schema_py_generated, Interpreter, scheme, random) for scheme in SHAPES]) else 1


if __name__ == "__main__":
    sys.exit(main())
