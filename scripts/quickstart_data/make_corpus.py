#!/usr/bin/env python3
"""Generates all data of the quickstart: texts, chats and multiple-choice questions about a small invented world.

    make_corpus.py OUT_FOLDER --seed N

Writes pretrain.jsonl and heldout.jsonl ({"text"}), finetune.jsonl ({"messages"}: a question and its answer) and questions.jsonl
({"question", "choices", "answer", "kind"}). Every question asks in a wording that training never used for that fact (of a third of
the facts training never asks at all, it only states them), for a sum whose numbers training never added, or about a new story.
A question reads "QUESTION ANSWER" in the texts and is a user turn in the chats, so both forms can be scored.
Same seeds, same bytes. Only Python's standard library is needed.
"""
import argparse
import json
import pathlib
import random
import sys

from facts import comparison, profile, question_about, statement_about, town_notes, with_pronoun
from stories import story, wrong_answers
from sums import counting_story, question_about_sum, sum_sheet, wrong_results
from world import DEFAULT_PEOPLE, LARGEST_POPULATION, World


def as_answer(text):
    """An answer as it is written everywhere: capital letter, full stop."""
    return text[0].upper() + text[1:] + "."


def quiz(world, rng, in_training):
    """Questions, each with its answer in the same line or, as in a chat, at the start of the next."""
    between = rng.choice([" ", "\n"])
    lines = []
    for _ in range(rng.randint(3, 8)):
        if rng.random() < 0.7:
            question, answer, _, _ = question_about(world, rng, in_training)
        else:
            question, answer = question_about_sum(world, rng, in_training)
        lines.append(question + between + as_answer(answer))
    return "\n".join(lines)


def story_document(world, rng, in_training):
    text, questions = story(world, rng)
    if rng.random() < 0.5:
        return text
    between = rng.choice([" ", "\n"])
    asked = rng.sample(questions, rng.randint(1, 2))
    return "\n".join([text] + [question + between + as_answer(answer) for question, answer, _ in asked])


def document(world, rng, in_training):
    """One text of a random kind."""
    kind = rng.random()
    if kind < 0.30:
        return profile(world, rng)
    if kind < 0.36:
        return town_notes(world, rng)
    if kind < 0.40:
        return comparison(world, rng)
    if kind < 0.65:
        return story_document(world, rng, in_training)
    if kind < 0.85:
        return quiz(world, rng, in_training)
    return sum_sheet(world, rng, in_training)


def texts(world, rng, wanted_bytes, in_training, taken):
    """Different documents, until their bytes are enough. `taken` collects them, and keeps them apart from earlier ones."""
    size = 0
    while size < wanted_bytes:
        text = document(world, rng, in_training)
        if text in taken:
            continue
        taken.add(text)
        size += len(text.encode())
        yield {"text": text}


def chat(world, rng):
    """(question, answer) of one chat."""
    kind = rng.random()
    if kind < 0.50:
        question, answer, person, attribute = question_about(world, rng, in_training=True)
        if rng.random() < 0.2:
            return f"Answer in a sentence. {question}", statement_about(rng, person, attribute)
        return question, as_answer(answer)
    if kind < 0.72:
        question, answer = question_about_sum(world, rng, in_training=True)
    elif kind < 0.80:
        text, question, answer = counting_story(world, rng, in_training=True)
        question = f"{text} {question}"
    elif kind < 0.95:
        text, questions = story(world, rng)
        question, answer, _ = rng.choice(questions)
        question = f"{text} {question}"
    else:
        person = rng.choice(world.people)
        attributes = rng.sample(["town", "job", "pet_name", "food", "hobby", "thing_colour"], 3)
        first, *rest = [statement_about(rng, person, attribute) for attribute in attributes]
        return f"Tell me about {person.name}.", " ".join([first] + [with_pronoun(sentence, person) for sentence in rest])
    return question, as_answer(answer)


def different(make, count, key):
    """`count` results of make() whose keys differ. Stories never run out, so an end is always reached."""
    seen = set()
    while len(seen) < count:
        made = make()
        if key(made) not in seen:
            seen.add(key(made))
            yield made


def chats(world, rng, count):
    """Different chats; the same question may have answers in different words."""
    for question, answer in different(lambda: chat(world, rng), count, key=lambda made: made):
        yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def choice_question(world, rng):
    """(question, right answer, three wrong ones, kind) of one item: 72 % facts, 20 % stories, 8 % sums."""
    kind = rng.choices(["fact", "sum", "story"], [72, 8, 20])[0]
    if kind == "fact":
        question, answer, _, attribute = question_about(world, rng, in_training=False)
        wrong = rng.sample([value for value in world.values[attribute] if value != answer], 3)
    elif kind == "sum":
        question, answer = question_about_sum(world, rng, in_training=False)
        wrong = wrong_results(rng, answer)
    else:
        text, questions = story(world, rng)
        question, answer, kind_of_answer = rng.choice(questions)
        question, wrong = f"{text} {question}", wrong_answers(world, rng, text, answer, kind_of_answer)
    return question, answer, wrong, kind


def choice_questions(world, rng, count):
    """Items whose questions are all different; the right answer stands at a random place."""
    for question, answer, wrong, kind in different(lambda: choice_question(world, rng), count, key=lambda item: item[0]):
        choices = [as_answer(choice) for choice in [answer, *wrong]]
        rng.shuffle(choices)
        yield {"question": question, "choices": choices, "answer": choices.index(as_answer(answer)), "kind": kind}


def write_lines(path, records):
    """Writes JSONL under a temporary name first, so that an interrupted run leaves no half file."""
    unfinished = path.with_name(path.name + ".unfinished")
    count = 0
    with open(unfinished, "w", encoding="utf-8") as out:
        for record in records:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    unfinished.replace(path)
    print(f"{path.name:16} {count:6} lines {path.stat().st_size:9} bytes")


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def population(text):
    value = int(text)
    if not 8 <= value <= LARGEST_POPULATION:
        raise argparse.ArgumentTypeError(f"{text} is not from 8 to {LARGEST_POPULATION}")
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_folder", type=pathlib.Path, help="made if it does not exist")
    parser.add_argument("--seed", type=int, required=True, help="of the texts, chats and questions")
    parser.add_argument("--world-seed", type=int, default=1, help="of the world's facts (default: 1)")
    parser.add_argument("--people", type=population, default=DEFAULT_PEOPLE,
                        help=f"in the world, 8 to {LARGEST_POPULATION}; more are harder to learn (default: {DEFAULT_PEOPLE})")
    parser.add_argument("--bytes", type=positive, default=4_500_000, help="of text for pretraining (default: 4500000)")
    parser.add_argument("--heldout-bytes", type=positive, default=150_000, help="of held-out text (default: 150000)")
    parser.add_argument("--chats", type=positive, default=3000, help="for fine-tuning (default: 3000)")
    parser.add_argument("--questions", type=positive, default=600, help="multiple choice (default: 600)")
    options = parser.parse_args()

    world, taken = World(options.world_seed, options.people), set()
    parts = {
        "pretrain": lambda rng: texts(world, rng, options.bytes, True, taken),
        "heldout": lambda rng: texts(world, rng, options.heldout_bytes, True, taken),
        "finetune": lambda rng: chats(world, rng, options.chats),
        "questions": lambda rng: choice_questions(world, rng, options.questions),
    }
    try:
        options.out_folder.mkdir(parents=True, exist_ok=True)
        for name, make in parts.items():
            write_lines(options.out_folder / f"{name}.jsonl", make(random.Random(f"{name} {options.seed}")))
    except OSError as error:
        sys.exit(f"make_corpus.py: {error.filename}: {error.strerror}")


if __name__ == "__main__":
    main()
