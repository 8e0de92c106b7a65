#!/usr/bin/env python3
"""Compares the block codec with encoders in numpy on many weights: the transcription of scripts/golden/make_codec_goldens.py
and, where it is installed, `gguf.quants.quantize` of the PyPI package gguf.

Usage: codec_against_python.py PATH/TO/qat_codec_dump [--seed N]
Exit codes: 0 all bytes equal, 1 a difference, 77 skipped (numpy is missing).
"""
import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

try:
    import numpy as np
except ImportError:
    print("skipped: numpy is not installed")
    sys.exit(77)
try:
    from gguf import GGMLQuantizationType, quants
except ImportError:
    quants = None

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "golden"))
import make_codec_goldens as rules  # noqa: E402

BLOCK_BYTES = {"q4_0": 18, "q8_0": 34, "q6_k": 210}


def encode_with_program(program, scheme, weights, element):
    data = rules.to_bfloat16_bits(weights) if element == "bf16" else weights
    result = subprocess.run([program, scheme, element], input=data.tobytes(), stdout=subprocess.PIPE, check=True)
    return result.stdout


def differing_blocks(scheme, found, wanted):
    size = BLOCK_BYTES[scheme]
    a = np.frombuffer(found, np.uint8).reshape(-1, size)
    b = np.frombuffer(wanted, np.uint8).reshape(-1, size)
    assert a.shape == b.shape, (a.shape, b.shape)
    return np.nonzero((a != b).any(axis=1))[0]


def compare_with_gguf(scheme, weights, found):
    """gguf's encoder differs from the reference in two places: with numpy 1 it computes Q4_0 codes in float64, where the reference
    rounds the product to fp32 (that moves codes at ties), and it takes -0 for the extremum of a block that begins with it.
    Where a reciprocal overflows fp32 it has other codes for a block that decodes to zeros. All such blocks are counted."""
    kind = {"q4_0": GGMLQuantizationType.Q4_0, "q8_0": GGMLQuantizationType.Q8_0}[scheme]
    with np.errstate(all="ignore"):
        theirs = quants.quantize(weights, kind).tobytes()
    reasons = Counter(difference_reason(scheme, weights[i], found, theirs, i) for i in differing_blocks(scheme, found, theirs))
    print(f"  gguf.quants.quantize: {sum(reasons.values())} of {len(weights)} blocks differ {dict(reasons) or ''}")
    return reasons["unexplained"]


def difference_reason(scheme, block, found, theirs, index):
    if not block.any():
        return "zero block"
    if scheme == "q4_0":
        scale = rules.first_extremum(block[None])[0] / np.float32(-8)
    else:
        scale = np.abs(block).max() / np.float32(127)
    if abs(scale) < 2.0**-126:
        return "subnormal scale"
    size = BLOCK_BYTES[scheme]
    ours, other = found[index * size:(index + 1) * size], theirs[index * size:(index + 1) * size]
    if scheme != "q4_0" or ours[:2] != other[:2]:
        return "unexplained"
    moved = np.nonzero(q4_0_codes(ours) != q4_0_codes(other))[0]
    exact = block[moved].astype(np.float64) / np.float64(scale)
    at_tie = np.abs(exact - np.floor(exact) - 0.5) < 1e-6
    one_step = np.abs(q4_0_codes(ours)[moved].astype(int) - q4_0_codes(other)[moved].astype(int)) == 1
    return "tie" if (at_tie & one_step).all() else "unexplained"


def q4_0_codes(block):
    packed = np.frombuffer(block, np.uint8)[2:]
    return np.concatenate([packed & 15, packed >> 4])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--seed", type=int, default=int(np.random.SeedSequence().entropy % 2**32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    generator = np.random.default_rng(arguments.seed)
    failures = 0
    for scheme, blocks, size in [("q4_0", 131072, 32), ("q8_0", 131072, 32), ("q6_k", 65536, 256)]:
        gaussian = (0.02 * generator.standard_normal((blocks // 2, size))).astype(np.float32)
        weights = np.concatenate([gaussian, rules.hard_weights(generator, blocks // 2, size)])
        for element in ("f32", "bf16"):
            if element == "bf16":
                weights = rules.widen_bfloat16(rules.to_bfloat16_bits(weights))
            found = encode_with_program(arguments.program, scheme, weights, element)
            different = differing_blocks(scheme, found, rules.ENCODERS[scheme][0](weights))
            print(f"{scheme} from {element}: {blocks} blocks, {len(different)} differ from the transcription")
            failures += len(different)
            if quants is not None and scheme != "q6_k":
                failures += compare_with_gguf(scheme, weights, found)
    width = 256
    rows = (0.02 * generator.standard_t(5, (8192, width))).astype(np.float32)
    importance = generator.exponential(1, (8192, width)).astype(np.float32) ** 2
    pairs = np.stack([rows, importance], axis=1)
    found = subprocess.run([arguments.program, "importance", str(width)], input=pairs.tobytes(), stdout=subprocess.PIPE,
                           check=True).stdout
    different = differing_blocks("q4_0", found, rules.encode_q4_0_by_importance(rows, importance))
    print(f"q4_0 by importance: {rows.size // 32} blocks, {len(different)} differ from the transcription")
    failures += len(different)
    if quants is None:
        print("gguf.quants: skipped (gguf is not installed)")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
