#!/usr/bin/env python3
"""Writes tests/golden/quant/codec_*.bin: weights and the blocks that they encode to, by a transcription of the rules in numpy.

The transcription is written from the description of the formats, apart from the C++ code, and is also what
tests/interop/codec_against_python.py compares with on large inputs. Usage: make_codec_goldens.py [FOLDER]
"""
import struct
import sys
from pathlib import Path

import numpy as np

F32 = np.float32


def first_extremum(groups):
    """Signed value of largest magnitude along the last axis, the first one on ties; +0 where all are zero."""
    index = np.argmax(np.abs(groups), axis=-1)
    extremum = np.take_along_axis(groups, index[..., None], -1)[..., 0]
    return np.where(extremum == 0, F32(0), extremum)


def reciprocal(scale):
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(scale != 0, F32(1) / scale, F32(0)).astype(F32)


def encode_q4_0(weights):
    """float32 values -> bytes. Blocks of 32: fp16 scale, then code i in the low and i + 16 in the high nibble of byte i."""
    blocks = np.ascontiguousarray(weights, F32).reshape(-1, 32)
    scale = first_extremum(blocks) / F32(-8)
    inverse = reciprocal(scale)
    finite = np.isfinite(inverse)
    shifted = blocks * np.where(finite, inverse, F32(0))[:, None] + F32(8.5)
    codes = np.minimum(np.trunc(shifted), 15).astype(np.uint8)
    codes[~finite] = 0
    with np.errstate(over="ignore"):
        stored = scale.astype(np.float16)
    packed = codes[:, :16] | (codes[:, 16:] << 4)
    return np.concatenate([stored[:, None].view(np.uint8), packed], axis=1).tobytes()


def encode_q8_0(weights):
    """float32 values -> bytes. Blocks of 32: fp16 scale, then 32 signed codes; halves away from zero."""
    blocks = np.ascontiguousarray(weights, F32).reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1) / F32(127)
    inverse = reciprocal(scale)
    finite = np.isfinite(inverse)
    exact = blocks * np.where(finite, inverse, F32(0))[:, None]
    # |exact| + 0.5 is exact in float64; in float32 the number just below 0.5 would go up.
    codes = (np.sign(exact) * np.floor(np.abs(exact).astype(np.float64) + 0.5)).astype(np.int8)
    codes[~finite] = 0
    with np.errstate(over="ignore"):
        stored = scale.astype(np.float16)
    return np.concatenate([stored[:, None].view(np.uint8), codes.view(np.uint8)], axis=1).tobytes()


def try_scale(groups, weights, inverse, reach):
    """Codes -reach..reach - 1 of every group under its inverse, and the two sums of the search, added value by value in fp32."""
    codes = np.clip(np.rint(inverse[:, None] * groups), F32(-reach), F32(reach - 1))
    along = np.zeros(len(groups), F32)
    square = np.zeros(len(groups), F32)
    for i in range(groups.shape[1]):
        value, code, weight = groups[:, i], codes[:, i], weights[:, i]
        along = along + (weight * value) * code
        square = square + (weight * code) * code
    return codes, along, square


def search_scale(groups, weights, reach):
    """float32 [n, size], weights of their errors -> (scale [n], codes 0..2 * reach - 1): the best of 19 scales near the rule's."""
    extremum = first_extremum(groups)
    counts = ~(np.abs(extremum) < F32(1e-15))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        codes, along, square = try_scale(groups, weights, F32(-reach) / extremum, reach)
        scale = np.where(square != 0, along / square, F32(0)).astype(F32)
        best = scale * along
        for k in [*range(-9, 0), *range(1, 10)]:
            tried, along, square = try_scale(groups, weights, -(F32(reach) + F32(0.1) * F32(k)) / extremum, reach)
            better = (square > 0) & (along * along > best * square)
            tried_scale = along / square
            scale = np.where(better, tried_scale, scale)
            best = np.where(better, tried_scale * along, best)
            codes = np.where(better[:, None], tried, codes)
    codes = np.where(counts[:, None], codes + F32(reach), F32(0))
    return np.where(counts, scale, F32(0)), codes.astype(np.uint8)


def encode_q4_0_by_importance(rows, importance):
    """float32 [n, width], both -> bytes: how llama.cpp encodes Q4_0 with an importance matrix."""
    total = np.zeros(len(rows), F32)
    for i in range(rows.shape[1]):
        total = total + rows[:, i] * rows[:, i]
    mean = (total / F32(rows.shape[1]))[:, None]
    weights = importance * np.sqrt(mean + rows * rows)
    scale, codes = search_scale(rows.reshape(-1, 32), weights.reshape(-1, 32), 8)
    stored = scale.astype(np.float16)
    packed = codes[:, :16] | (codes[:, 16:] << 4)
    return np.concatenate([stored[:, None].view(np.uint8), packed], axis=1).tobytes()


def encode_q6_k(weights):
    """float32 values -> bytes. Blocks of 256: 128 low-nibble bytes, 64 bytes of high bit pairs, 16 sub-scales, fp16 scale."""
    values = np.ascontiguousarray(weights, F32).reshape(-1, 256)
    with np.errstate(all="ignore"):
        groups = values.reshape(-1, 16)
        scales, codes = search_scale(groups, groups * groups, 32)
        scales, codes = scales.reshape(-1, 16), codes.reshape(-1, 16, 16)
        largest = first_extremum(scales)
        empty = np.abs(largest) < F32(1e-15)
        inverse = F32(-128) / largest
        stored = (F32(1) / inverse).astype(np.float16)
        sub_scales = np.minimum(np.rint(inverse[:, None] * scales), 127)
        sub_scales = np.where(empty[:, None], 0, sub_scales).astype(np.int8)
        step = stored.astype(F32)[:, None] * sub_scales.astype(F32)
        nearest = np.clip(np.rint(values.reshape(-1, 16, 16) / step[..., None]), -32, 31) + 32
        codes = np.where((step == 0)[..., None], codes, nearest).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = codes & 15, codes >> 4
    low_bytes = np.stack([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], axis=2).reshape(-1, 128)
    high_bytes = (high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6).reshape(-1, 64)
    blocks = np.concatenate([low_bytes, high_bytes, sub_scales.view(np.uint8), stored[:, None].view(np.uint8)], axis=1)
    blocks[empty] = 0
    return blocks.tobytes()


ENCODERS = {"q4_0": (encode_q4_0, 32), "q8_0": (encode_q8_0, 32), "q6_k": (encode_q6_k, 256)}


def to_bfloat16_bits(values):
    bits = np.ascontiguousarray(values, F32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widen_bfloat16(bits):
    return (bits.astype(np.uint32) << 16).view(F32)


def hard_weights(generator, blocks, size):
    """Blocks of every difficult kind in turn: ordinary, mixed magnitudes, tiny, underflowing, ties, outliers, zeros."""
    normal = generator.standard_normal((blocks, size))
    signs = generator.choice([-1.0, 1.0], (blocks, size))
    kinds = [
        0.02 * normal,
        normal * 2.0 ** generator.integers(-30, 6, (blocks, size)),
        normal * 2.0 ** generator.integers(-40, -20, (blocks, 1)),
        normal * 2.0 ** generator.integers(-149, -120, (blocks, 1)),
        signs * generator.integers(0, 9, (blocks, size)) / 64,
        np.where(generator.random((blocks, size)) < 0.05, normal, 1e-4 * normal),
        signs * (1 + generator.integers(0, 128, (blocks, size)) / 128) * 2.0 ** generator.integers(-9, -5, (blocks, size)),
        signs * 0.0,
    ]
    picked = np.arange(blocks) % len(kinds)
    return np.choose(picked[:, None], kinds).astype(F32)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "tests" / "golden" / "quant"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(20)
    for name, (encode, size) in ENCODERS.items():
        blocks = 320 if size == 32 else 48
        weights = hard_weights(generator, blocks, size)
        # Half of the blocks have few significant bits, like masters.
        weights[blocks // 2:] = widen_bfloat16(to_bfloat16_bits(weights[blocks // 2:]))
        path = folder / f"codec_{name}.bin"
        path.write_bytes(struct.pack("<II", blocks, size) + weights.tobytes() + encode(weights))
        print(f"{path.name}: {blocks} blocks")


if __name__ == "__main__":
    main()
