#!/usr/bin/env python3
"""Runs .litertlm files of tiny models in the native LiteRT-LM on the CPU, token by token, and compares texts,
log-probabilities and the codes in the key-value cache with transformers' forward pass; then does the same with files in
which the cache, the mask or a position is wrong, which must be noticed. Skipped (77) without litert-lm.

An activation on the edge between two int8 codes falls either way with the last bit of fp32, about once in twenty tokens of
these models, and changes all that follows a little; how often depends on the order in which the processor's kernels sum. Measured with
100 prompts on AVX2: 92 to 100 texts equal, worst margin 0.032. The bars leave room for other processors; a wrong cache, mask or
position leaves 1 to 3 of 10 texts equal.

usage: litertlm_against_runtime.py EXPORT_DUMP LISTING [PROMPTS [NEW_TOKENS]]
"""
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
try:
    import numpy as np
    import torch

    import litertlm_client as client
    import litertlm_models as models
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

CONTEXT, PREFILL = 256, (8, 32)
# Of the texts must be equal; log-probability by which another choice may be better; what most scores agree to.
EQUAL_TEXTS, LARGEST_MARGIN, SCORE_DIFFERENCE, EQUAL_SCORES = 0.6, 0.3, 5e-3, 0.6
SEQUENCES, EQUAL_SEQUENCES = 6, 1


def compare_texts(path, reference, prompts, new_tokens):
    """-> figures; a text counts as equal if every token is the reference's choice after the same tokens."""
    equal, margins, differences, lengths, kinds = 0, [0.0], [], [], set()
    with client.open_engine(path) as engine:
        for number, prompt in enumerate(prompts):
            tokens = client.generate(engine, prompt, new_tokens)
            lengths.append(len(tokens))
            kinds.add(len(set(tokens)))
            scores = torch.log_softmax(reference.logits([2] + prompt + tokens)[0], -1)
            expected = scores[len(prompt):len(prompt) + len(tokens)]
            first = next((i for i, token in enumerate(tokens) if expected[i].argmax() != token), None)
            equal += first is None
            if first is not None:
                margins.append((expected[first].max() - expected[first][tokens[first]]).item())
            if len(tokens) >= 8:
                found = client.score(engine, prompt, tokens[:8])
                differences += [abs(found[i] - expected[i][tokens[i]].item()) for i in range(8)]
    close = sum(difference < SCORE_DIFFERENCE for difference in differences) / len(differences)
    return dict(texts=len(prompts), equal=equal, margin=round(max(margins), 4), close_scores=round(close, 3),
                worst_score=max(differences), shortest=min(lengths), kinds=max(kinds))


def compare_codes(path, listing, reference, sequences):
    """Both prefills, then decoding -> figures of the caches' codes and the logits."""
    figures = dict(sequences=len(sequences), equal=0, codes=0, differing=0, step=0, logits=0.0)
    for tokens in sequences:
        signatures = client.Signatures(path, listing)
        expected, codes = reference.logits(tokens)
        signatures.run("prefill_32", tokens[:32])
        signatures.run("prefill_8", tokens[32:40])
        for i in range(40, len(tokens)):
            logits = signatures.run("decode", tokens[i:i + 1])[0, 0]
            figures["logits"] = max(figures["logits"], float(np.abs(logits - expected[i].numpy()).max()))
        differing = 0
        for layer, pair in codes.items():
            for kind, wanted in zip("kv", pair):
                found = signatures.caches[f"kv_cache_{kind}_{layer}"][0, :, :len(tokens)]
                difference = np.abs(found.astype(int) - wanted.numpy().astype(int))
                differing += int((difference > 0).sum())
                figures["codes"] += difference.size
                figures["step"] = max(figures["step"], int(difference.max()))
        figures["differing"] += differing
        figures["equal"] += differing == 0
    return figures


def texts_hold(figures):
    return (figures["equal"] >= EQUAL_TEXTS * figures["texts"] and figures["margin"] < LARGEST_MARGIN
            and figures["close_scores"] >= EQUAL_SCORES)


def codes_hold(figures):
    return figures["equal"] >= EQUAL_SEQUENCES


def check_constants(listing, model):
    """Codes' scales in the file are the model's."""
    scales = {line["name"]: line["scales"] for line in listing if line.get("scales")}
    for name, module in models.quantized_linears(model).items():
        weight = name.removeprefix("model.") + ".weight"
        if weight in scales:
            assert np.array_equal(np.float32(scales[weight]), module.weight_scale.detach().numpy().ravel()), weight
            if module.output_activation_scale != 0:
                assert np.float32(scales[weight + ".output"][0]) == module.output_activation_scale.item(), weight


def main(export, listing_program, prompt_count, new_tokens):
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(11)
    lengths = [1, 2, 8, 9, 20, 33, 40, 70, 100, 150]
    prompts = [torch.randint(4, models.VOCABULARY, (lengths[i % len(lengths)],), generator=generator).tolist()
               for i in range(prompt_count)]
    sequences = torch.randint(0, models.VOCABULARY, (SEQUENCES, 60), generator=generator).tolist()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for variant, embedder in (("shared", "separate"), ("shared", "shared"), ("key_is_value", "separate"),
                                  ("plain", "separate")):
            path = pathlib.Path(folder, f"{variant}_{embedder}")
            model, scales = models.make_model(path, variant, seed=3, tied=embedder == "shared")
            reference, file = models.Reference(model, scales), path / "model.litertlm"
            subprocess.run([export, path, file, f"context={CONTEXT}", f"prefill={','.join(map(str, PREFILL))}",
                            f"embedder={embedder}"], check=True, stdout=subprocess.DEVNULL)
            listing = client.read_listing(listing_program, file)
            check_constants(listing, model)
            codes = compare_codes(file, listing, reference, sequences)
            texts = compare_texts(file, reference, prompts, new_tokens)
            held = texts_hold(texts) and codes_hold(codes)
            good = good and held
            print(variant, embedder, "held" if held else "FAILED", codes, texts, flush=True)
            if embedder == "shared":
                continue
            for fault in client.FAULTS:
                texts = compare_texts(client.plant(file, listing, fault), reference, prompts[:10], new_tokens)
                noticed = not texts_hold(texts)
                good = good and noticed
                print(f"  planted in the {fault}:", "noticed" if noticed else "NOT NOTICED", texts, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    counts = [int(number) for number in sys.argv[3:]]
    sys.exit(main(sys.argv[1], sys.argv[2], *(counts + [12, 64][len(counts):])))
