#!/usr/bin/env python3
"""Gives the quickstart's base model the outlier channels of large networks, without changing what it computes.

    make_outlier_channels.py MODEL_FOLDER [--deviation 1.5] [--largest 3] [--seed 1]

Some channels of a large network are many times larger than their neighbours, and its weights differ in size accordingly;
a network of 4 M parameters that was trained for minutes has neither and hardly notices 4 bits. Here every channel of a
norm gets a random power of two, 2^k with k normal, rounded and at most --largest; the columns of the matrices that read
it get the inverse. The same between the MLP's up and down matrices. Powers of two change only exponents, so the BF16
model computes what it did, while a block of 32 weights now holds large and small ones.
Rewrites MODEL_FOLDER/model.safetensors. Only Python's standard library is needed.
"""
import argparse
import array
import json
import pathlib
import random
import struct
import sys

READERS = {
    "input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "pre_feedforward_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
}


class Bfloat16File:
    """A safetensors file whose tensors are all BF16."""

    def __init__(self, path):
        data = path.read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        self.head, self.tensors = data[:8 + size], json.loads(data[8:8 + size])
        self.bits = array.array("H", data[8 + size:])

    def values(self, name):
        """(first index, shape) of a tensor."""
        entry = self.tensors[name]
        if entry["dtype"] != "BF16":
            sys.exit(f"make_outlier_channels.py: {name} is {entry['dtype']}, wanted BF16")
        return entry["data_offsets"][0] // 2, entry["shape"]

    def multiply(self, index, power):
        """Value times 2^power, by its exponent."""
        exponent = self.bits[index] >> 7 & 0xFF
        if exponent == 0 and self.bits[index] & 0x7F == 0:
            return
        if not (0 < exponent < 255 and 0 < exponent + power < 255):
            sys.exit("make_outlier_channels.py: a value leaves the range in which powers of two are exact")
        self.bits[index] += power * 128

    def multiply_vector(self, name, powers):
        first, _ = self.values(name)
        for i, power in enumerate(powers):
            self.multiply(first + i, power)

    def multiply_rows(self, name, powers):
        first, (_, columns) = self.values(name)
        for row, power in enumerate(powers):
            for index in range(first + row * columns, first + (row + 1) * columns):
                self.multiply(index, power)

    def divide_columns(self, name, powers):
        first, (rows, columns) = self.values(name)
        for row in range(rows):
            for column, power in enumerate(powers):
                self.multiply(first + row * columns + column, -power)

    def write(self, path):
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.write_bytes(self.head + self.bits.tobytes())
        unfinished.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--deviation", type=float, default=1.5, help="of the exponents (default: 1.5)")
    parser.add_argument("--largest", type=int, default=3, help="exponent (default: 3, a factor of 8)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)

    def draw_powers(count):
        return [max(-options.largest, min(options.largest, round(rng.gauss(0, options.deviation)))) for _ in range(count)]

    path = options.folder / "model.safetensors"
    file = Bfloat16File(path)
    for layer in range(json.loads((options.folder / "config.json").read_text())["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for norm, readers in READERS.items():
            name = f"{prefix}{norm}.weight"
            powers = draw_powers(file.values(name)[1][0])
            file.multiply_vector(name, powers)
            for reader in readers:
                # Layers that share another layer's keys and values have no projections for them.
                if f"{prefix}{reader}.weight" in file.tensors:
                    file.divide_columns(f"{prefix}{reader}.weight", powers)
        powers = draw_powers(file.values(f"{prefix}mlp.up_proj.weight")[1][0])
        file.multiply_rows(f"{prefix}mlp.up_proj.weight", powers)
        file.divide_columns(f"{prefix}mlp.down_proj.weight", powers)
    file.write(path)


if __name__ == "__main__":
    main()
