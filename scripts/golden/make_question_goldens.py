#!/usr/bin/env python3
"""Writes tests/golden/data/questions.json: lines in the shapes of the public benchmarks with the contexts, continuations and
answers that lm-evaluation-harness builds from them, and generated texts with the numbers that its task gsm8k finds.

Transcribed from the task files of lm-eval 0.4.13 (tasks/hellaswag, arc, mmlu/default, winogrande, piqa, gsm8k;
filters/extraction.py; exact_match in api/metrics.py), apart from the C++ code. Usage: make_question_goldens.py [FILE]
"""
import json
import random
import re
import sys
from pathlib import Path

WORDS = "the a cat Stove water  [step] turns [title] over, Paris. é Übung 你好 42 quickly [substeps] (and) it's".split(" ")


def clean_hellaswag(text):
    text = text.strip().replace(" [title]", ". ")
    return re.sub("\\[.*?\\]", "", text).replace("  ", " ")


def built(line):
    """contexts (one per choice), continuations with their delimiter, choices, gold, and what a solved example reads."""
    if "activity_label" in line:
        query = clean_hellaswag(line["activity_label"] + ": " + line["ctx_a"] + " " + line["ctx_b"].capitalize())
        choices, gold, description = [clean_hellaswag(ending) for ending in line["endings"]], int(line["label"]), ""
    elif "answerKey" in line:
        query = f"Question: {line['question']}\nAnswer:"
        choices, gold, description = line["choices"]["text"], line["choices"]["label"].index(line["answerKey"]), ""
    elif "option1" in line:
        blank = line["sentence"].index("_")
        choices = [line["sentence"][:blank] + option for option in (line["option1"], line["option2"])]
        target, gold = line["sentence"][blank + 1:].strip(), {"1": 0, "2": 1}[line["answer"]]
        return choices, [" " + target] * 2, choices, gold, "", choices[gold] + " " + target + "\n\n"
    elif "sol1" in line:
        query = f"Question: {line['goal']}\nAnswer:"
        choices, gold, description = [line["sol1"], line["sol2"]], line["label"], ""
    else:
        c = line["choices"]
        query = f"{line['question'].strip()}\nA. {c[0]}\nB. {c[1]}\nC. {c[2]}\nD. {c[3]}\nAnswer:"
        choices, gold = ["A", "B", "C", "D"], line["answer"]
        description = f"The following are multiple choice questions (with answers) about {line['subject'].replace('_', ' ')}.\n\n"
    return [query] * len(choices), [" " + choice for choice in choices], choices, gold, description, query + " " + choices[gold] + "\n\n"


def text(rng, low=2, high=9):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high))).strip() or "nothing"


def option(rng):
    return re.sub(r"\[.*?\]|\s+", " ", text(rng)).strip() or "none"


def random_line(rng, shape):
    if shape == "hellaswag":
        return {"ind": rng.randint(0, 99), "activity_label": option(rng).capitalize(), "ctx_a": text(rng), "ctx_b": rng.choice(["", "She ", "the MAN in it"]),
                "ctx": "unused", "endings": [text(rng) + " end." for _ in range(4)], "label": str(rng.randint(0, 3))}
    if shape == "arc":
        labels = rng.choice([list("ABCD"), list("1234"), list("ABC")])
        return {"id": "q", "question": option(rng) + "?", "choices": {"text": [option(rng) for _ in labels], "label": labels}, "answerKey": rng.choice(labels)}
    if shape == "mmlu":
        return {"question": rng.choice([" ", ""]) + option(rng) + "?\n", "subject": rng.choice(["high_school_physics", "anatomy"]),
                "choices": [option(rng) for _ in range(4)], "answer": rng.randint(0, 3)}
    if shape == "winogrande":
        return {"sentence": f"{option(rng)} because the _ was {option(rng)}. ", "option1": option(rng), "option2": option(rng), "answer": rng.choice("12")}
    return {"goal": option(rng), "sol1": option(rng), "sol2": option(rng), "label": rng.randint(0, 1)}


def question_goldens(rng, shape):
    examples = [random_line(rng, shape) for _ in range(16)]
    entries = []
    for few_shot in (0, 0, 0, 2, 3):
        line = random_line(rng, shape)
        contexts, continuations, choices, gold, description, _ = built(line)
        shots = [built(e)[5] for e in examples if e.get("subject") == line.get("subject")][:few_shot]
        prefix = description + "".join(shots)
        entries.append({"line": line, "few_shot": few_shot, "contexts": [prefix + context for context in contexts],
                        "continuations": continuations, "choices": choices, "answer": gold})
    return {"shape": shape, "examples": examples, "questions": entries}


def filtered(pattern, group, response):
    found = re.findall(pattern, response)
    if not found:
        return "[invalid]"
    match = found[group]
    if isinstance(match, tuple):
        match = [part for part in match if part][0]
    return match.strip()


def exact_match(prediction, reference):
    for ignored in (",", "\\$", "(?s).*#### ", "\\.$"):
        prediction, reference = re.sub(ignored, "", prediction), re.sub(ignored, "", reference)
    return prediction.lower() == reference.lower()


def number_golden(rng):
    pieces = ["#### ", "####", "-", "$", ",", ".", " ", "\n", "so ", "A", "7", "42", "1,000", "3.5", "$18", "-6", "18.", " is "]
    response = "".join(rng.choice(pieces) for _ in range(rng.randint(0, 12)))
    number = rng.choice(["7", "42", "1,000", "18", "-6", "3.5", "1000"])
    reference = f"He has <<6*7=42>>42.\n#### {number}"
    if rng.random() < 0.4:
        response += "#### " + rng.choice([number, number + ".", "$" + number, number.replace(",", "")])
    strict = filtered(r"#### (\-?[0-9\.\,]+)", 0, response)
    flexible = filtered(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1, response)
    return {"response": response, "reference": reference, "strict": strict, "flexible": flexible,
            "strict_correct": exact_match(strict, reference), "flexible_correct": exact_match(flexible, reference)}


def main():
    root = Path(__file__).resolve().parents[2]
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/golden/data/questions.json"
    rng = random.Random(6)
    goldens = {"shapes": [question_goldens(rng, shape) for shape in ("hellaswag", "arc", "mmlu", "winogrande", "piqa")],
               "numbers": [number_golden(rng) for _ in range(400)]}
    path.write_text(json.dumps(goldens, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
