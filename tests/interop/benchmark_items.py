"""Questions and worked problems in the shapes of public benchmarks, made of this repository's texts. Seeded."""
import json
import pathlib
import random

ROOT = pathlib.Path(__file__).resolve().parents[2]
LETTERS = "ABCDEFGH"
SUBJECTS = ["abstract_algebra", "world_history"]


class Texts:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.words = []
        for file in ("README.md", "CONTRIBUTING.md", "LICENSE"):
            self.words += [word for word in (ROOT / file).read_text().split() if not set(word) & set("_{}[]|`")]

    def phrase(self, shortest, longest):
        """Consecutive words; now and then something that is no plain ASCII word."""
        count = self.rng.randint(shortest, longest)
        start = self.rng.randrange(len(self.words) - count)
        words = self.words[start:start + count]
        if self.rng.random() < 0.2:
            words[self.rng.randrange(count)] = self.rng.choice(["Größe", "naïve", "\u4f60\u597d", "3,141.59", "\u2014", "É"])
        return " ".join(words)

    def sentence(self, shortest=4, longest=12):
        return self.phrase(shortest, longest).strip(".,:;") + "."

    def different(self, count, make):
        made = []
        while len(made) < count:
            text = make()
            if text not in made:
                made.append(text)
        return made


def hellaswag(texts):
    rng = texts.rng
    mark = rng.choice(["", "", " [title] ", " [step] ", "  "])
    return {"activity_label": texts.phrase(1, 3), "ctx_a": texts.sentence() + mark, "ctx_b": texts.phrase(1, 4),
            "endings": texts.different(4, texts.sentence), "label": str(rng.randrange(4))}


def arc(texts):
    count = texts.rng.choice([3, 4, 4, 4, 5])
    labels = list(LETTERS[:count]) if texts.rng.random() < 0.8 else [str(i + 1) for i in range(count)]
    return {"question": texts.sentence() + " Which?",
            "choices": {"text": texts.different(count, lambda: texts.phrase(1, 6)), "label": labels},
            "answerKey": texts.rng.choice(labels)}


def mmlu(texts):
    return {"question": texts.sentence(5, 20) + texts.rng.choice(["", " "]), "subject": texts.rng.choice(SUBJECTS),
            "choices": texts.different(4, lambda: texts.phrase(1, 5)), "answer": texts.rng.randrange(4)}


def winogrande(texts):
    first, second = texts.different(2, lambda: texts.phrase(1, 2))
    return {"sentence": f"{texts.phrase(3, 10)} _ {texts.sentence(2, 6)}", "option1": first, "option2": second,
            "answer": texts.rng.choice("12")}


def piqa(texts):
    first, second = texts.different(2, lambda: texts.sentence(3, 10))
    return {"goal": texts.phrase(4, 12), "sol1": first, "sol2": second, "label": texts.rng.randrange(2)}


def gsm8k(texts):
    a, b = texts.rng.randint(2, 60), texts.rng.randint(2, 60)
    return {"question": f"There are {a} of {texts.phrase(1, 3)}, then {b} more come. How many are there?",
            "answer": f"They are {a} + {b} = <<{a}+{b}={a + b}>>{a + b}.\n#### {a + b:,}"}


SHAPES = {"hellaswag": hellaswag, "arc": arc, "mmlu": mmlu, "winogrande": winogrande, "piqa": piqa}


def items_of(make, count, seed):
    texts = Texts(seed)
    return [make(texts) for _ in range(count)]


def write_lines(path, items):
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    return path
