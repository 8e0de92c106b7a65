#!/usr/bin/env python3
"""Compares `gemma-qat eval` with lm-evaluation-harness (transformers backend, FP32), item by item.

Usage: scores_against_lm_eval.py GEMMA_QAT [MODEL_FOLDER] [--items 500] [--problems 500] [--few-shot 2] [--batch 8] [--seed N]

Without a folder the quickstart's base model is taken. Items in the shapes of HellaSwag, ARC, MMLU, WinoGrande, PIQA and
GSM8K are made of this repository's texts; the tasks include the YAML files that lm-eval brings, so prompts and scoring
are its own. MMLU and GSM8K have solved examples in front. lm-eval is told to normalise in FP64 (its softmax_dtype): PyTorch's
FP32 sum over 262,144 exponentials errs by 3e-5 nats per token, always to one side, which adds up over an ending.
Wanted: log-likelihoods within 1e-3, no other verdict (acc, acc_norm) where the margin exceeds 2e-3, and of worked problems
the same numbers found in the same text. Exit code 1 if not, 77 if lm-eval, transformers or torch is not installed.
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

from benchmark_items import ROOT, SHAPES, SUBJECTS, gsm8k, items_of, write_lines

NEAR = 1e-3
CLEAR_MARGIN = 2e-3
MAX_NEW = 48
NAMES = {"hellaswag": "hellaswag/hellaswag.yaml", "arc": "arc/arc_easy.yaml", "mmlu": "mmlu/default/_default_template_yaml",
         "winogrande": "winogrande/default.yaml", "piqa": "piqa/piqa.yaml", "gsm8k": "gsm8k/gsm8k.yaml"}


def write_task(folder, name, shape, data, examples=None, shots=0, **changes):
    """A task that differs from lm-eval's own in its data only."""
    import lm_eval
    files = {"test": str(data)} | ({"shots": str(examples)} if examples else {})
    task = {"include": str(pathlib.Path(lm_eval.__file__).parent / "tasks" / NAMES[shape]), "task": name, "tag": "local",
            "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files},
            "training_split": None, "validation_split": None, "test_split": "test",
            "fewshot_split": "shots" if examples else None, "num_fewshot": shots}
    if examples:
        task["fewshot_config"] = {"sampler": "first_n"}
    (folder / f"{name}.yaml").write_text(json.dumps(task | changes, indent=1))


def harness_model(folder, batch):
    import tokenizers
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    backend = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    # Gemma's texts begin with <bos>, whatever the folder says of it.
    backend.post_processor = tokenizers.processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", model.config.bos_token_id)])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>",
                                                     padding_side="left")
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, max_length=2048, device="cpu",
                softmax_dtype=torch.float64)


def harness_samples(model, folder, names):
    """By task: its samples in the order of the file."""
    import lm_eval
    from lm_eval.tasks import TaskManager
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = lm_eval.simple_evaluate(model=model, tasks=names, task_manager=manager, log_samples=True, bootstrap_iters=0)
    return {name: sorted(results["samples"][name], key=lambda sample: sample["doc_id"]) for name in names}


def our_answers(program, model, data, *options):
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as items:
        command = [program, "eval", model, "--data", str(data), "--plain-prompts", "--items", items.name, "--json", *options]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{run.stderr}")
        return [json.loads(line) for line in open(items.name)]


def margin(scores):
    best, second = sorted(scores, reverse=True)[:2]
    return best - second


def compare_choices(name, samples, answers, lengths_of):
    """(largest difference, verdicts that differ, of these with a clear margin)"""
    assert len(samples) == len(answers), (name, len(samples), len(answers))
    largest, different, clear = 0.0, 0, 0
    for sample, answer in zip(samples, answers):
        wanted = [float(score[0]) for score in sample["filtered_resps"]]
        found = answer["log_likelihoods"]
        assert len(wanted) == len(found), (name, sample["doc_id"])
        largest = max(largest, *(abs(a - b) for a, b in zip(wanted, found)))
        for metric in ("acc", "acc_norm"):
            if metric not in sample:
                continue
            lengths = lengths_of(sample) if metric == "acc_norm" else [1] * len(wanted)
            if bool(sample[metric]) != answer[metric]["correct"]:
                different += 1
                clear += margin([score / length for score, length in zip(wanted, lengths)]) > CLEAR_MARGIN
    correct = sum(bool(sample["acc"]) for sample in samples)
    print(f"{name:10} {len(samples)} items, {correct} right by lm-eval: largest difference {largest:.2e}, "
          f"{different} verdicts differ, {clear} of them with a clear margin", flush=True)
    return largest <= NEAR and clear == 0


def lengths_of_choices(sample):
    doc = sample["doc"]
    if "endings" in doc:
        return [len(choice) for choice in doc["choices"]]
    if "goal" in doc:
        return [len(doc["sol1"]), len(doc["sol2"])]
    return [len(text) for text in doc["choices"]["text"]]


def compare_problems(samples, answers):
    by_filter = {}
    for sample in samples:
        by_filter.setdefault(sample["filter"], []).append(sample)
    same_text = wrong = 0
    for key, field in (("strict-match", "strict_match"), ("flexible-extract", "flexible_extract")):
        assert len(by_filter[key]) == len(answers)
        for sample, answer in zip(by_filter[key], answers):
            if sample["resps"][0][0] != answer["text"]:
                continue
            same_text += key == "strict-match"
            if answer[field]["found"] != sample["filtered_resps"][0] or answer[field]["correct"] != bool(sample["exact_match"]):
                wrong += 1
                print(f"  {key}: lm-eval {sample['filtered_resps'][0]!r}, ours {answer[field]!r} in {answer['text']!r}")
    found = {key: sum(sample["filtered_resps"][0] != "[invalid]" for sample in by_filter[key]) for key in by_filter}
    print(f"gsm8k      {len(answers)} problems: {same_text} generated texts are the same (numbers found: {found}), in which {wrong} numbers "
          "or verdicts differ", flush=True)
    # A tie of two tokens within rounding may end some texts differently.
    return wrong == 0 and same_text >= 0.9 * len(answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("folder", nargs="?", default=str(ROOT / "examples/quickstart/model"))
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--few-shot", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8, help="sequences that lm-eval reads at a time")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    arguments = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        import lm_eval  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        print(f"skipped: {error}")
        return 77

    print(f"seed {arguments.seed}, {arguments.folder}", flush=True)
    model = harness_model(arguments.folder, arguments.batch)
    fine = True
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        os.environ["HF_DATASETS_CACHE"] = str(scratch / "cache")
        shots = str(arguments.few_shot)
        files, shapes, options = {}, {}, {}

        def add(name, shape, items, examples=None, **changes):
            files[name] = write_lines(scratch / f"{name}.jsonl", items)
            shapes[name] = shape
            options[name] = []
            if examples:
                options[name] = ["--few-shot", shots, "--few-shot-data", str(write_lines(scratch / f"{name}.shots.jsonl", examples))]
            write_task(scratch, name, shape, files[name], scratch / f"{name}.shots.jsonl" if examples else None,
                       arguments.few_shot if examples else 0, **changes)

        for shape, make in SHAPES.items():
            items = items_of(make, arguments.items, arguments.seed)
            if shape != "mmlu":
                add(shape, shape, items)
                continue
            for subject in SUBJECTS:
                of_subject = [item for item in items_of(make, 40, arguments.seed + 1) if item["subject"] == subject]
                add(f"mmlu_{subject}", shape, [item for item in items if item["subject"] == subject], of_subject,
                    description=f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n")
        add("gsm8k", "gsm8k", items_of(gsm8k, arguments.problems, arguments.seed), items_of(gsm8k, 8, arguments.seed + 1),
            generation_kwargs={"until": ["Question:", "</s>", "<|im_end|>"], "do_sample": False, "temperature": 0.0, "max_gen_toks": MAX_NEW})

        samples = harness_samples(model, scratch, list(files))
        for name, file in files.items():
            if name == "gsm8k":
                answers = our_answers(arguments.program, arguments.folder, file, "--exact-match", "--max-new", str(MAX_NEW), *options[name])
                fine &= compare_problems(samples[name], answers)
            else:
                answers = our_answers(arguments.program, arguments.folder, file, *options[name])
                fine &= compare_choices(name, samples[name], answers, lengths_of_choices)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
