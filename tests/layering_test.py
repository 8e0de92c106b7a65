#!/usr/bin/env python3
"""Checks who may include whom (CONTRIBUTING.md, "Layers"), and that nobody but the grid rounds.

usage: layering_test.py SOURCE_FOLDER
"""
import pathlib
import re
import sys

# folder -> folders of this project that it may include (itself always).
MAY_INCLUDE = {
    "core": set(),
    "quant": {"core"},
    "io": {"core", "quant"},
    "data": {"core"},
    "gemma4": {"core", "quant", "io"},
    "eval": {"core", "quant", "io", "gemma4", "data"},
    "reference": {"core", "quant", "io", "gemma4", "data"},
    "model": {"core", "quant", "io", "gemma4", "data"},
    "ptq": {"core", "quant", "gemma4", "model", "fake_quant"},
    "fake_quant": {"core", "quant", "io", "gemma4", "data", "model"},
    "trainers": {"core", "quant", "io", "gemma4", "data", "eval", "model", "fake_quant"},
    "exporters": {"core", "quant", "io", "gemma4", "data", "reference"},
    "cli": {"core", "quant", "io", "gemma4", "data", "eval", "reference", "model", "ptq", "fake_quant", "trainers", "exporters"},
}
# third-party include prefix -> where it may appear (folder, or a path prefix inside the source folder).
THIRD_PARTY = {
    ("torch/", "ATen/", "c10/"): ("src/model", "src/ptq", "fake_quant", "trainers", "src/cli"),
    ("torch/csrc/distributed/", "gloo/"): ("trainers/distributed.cpp", "trainers/collective_sums.cpp", "trainers/device_links.cpp"),
    ("Eigen/",): ("src/reference",),
    ("hdf5",): ("src/io/hdf5",),
    ("hwy/",): ("src/eval", "src/model", "src/quant", "src/reference"),
    ("cxxopts",): ("src/cli",),
    ("openssl/",): ("src/core/sha256.cpp",),
    ("flatbuffers/",): ("src/io/tflite", "src/io/litertlm"),
    ("zlib",): ("src/io/litertlm",),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)
# Calls that put a number on an integer grid. Quantization rounds in grid.h and in the kernels that are tested against it.
ROUNDING = re.compile(r"\b(std::)?(nearbyint|nearbyintf|lrint|lrintf|llrint|rint|roundf|lroundf|roundeven|truncf)\s*\(")
MAY_ROUND = ("src/quant/",)


def folder_of(path: str) -> str:
    parts = path.split("/")
    return parts[1] if parts[0] == "src" else parts[0]


def faults_of(path: str, text: str) -> list[str]:
    faults = []
    folder = folder_of(path)
    for include in INCLUDE.findall(text):
        top = include.split("/")[0]
        if "/" in include and top in MAY_INCLUDE and top != folder and top not in MAY_INCLUDE[folder]:
            faults.append(f"{path}: includes {include}, but {folder} may not include {top}")
        for prefixes, places in THIRD_PARTY.items():
            if include.startswith(prefixes) and not path.startswith(places):
                faults.append(f"{path}: includes <{include}>, which belongs in {', '.join(places)}")
        if include == "nlohmann/json.hpp" and path.endswith(".h"):
            faults.append(f"{path}: a header includes nlohmann/json.hpp, use json_fwd.hpp")
    if not path.startswith(MAY_ROUND):
        faults += [f"{path}: calls {match.group(0)}: only src/quant rounds to a grid" for match in ROUNDING.finditer(text)]
    return faults


def main(root: pathlib.Path) -> int:
    faults, count = [], 0
    for top in ("src", "fake_quant", "trainers", "exporters"):
        for file in sorted((root / top).rglob("*")):
            if file.suffix in (".h", ".cpp"):
                count += 1
                faults += faults_of(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8"))
    print("\n".join(faults) or f"{count} files keep the layers")
    return 1 if faults or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
