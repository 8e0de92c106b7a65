"""Small sums in digits, in words and as little stories. A fifth of the number pairs never appears in training text."""

HELD_OUT = 0.2
LARGEST = 20
SMALL_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty""".split()
FRUIT = "apples pears eggs stones coins shells nuts candles buttons flowers".split()


def draw_pair(world, rng, in_training):
    """Two numbers; which pairs training may see is fixed by the world, whatever their order."""
    while True:
        first, second = rng.randint(1, LARGEST), rng.randint(1, LARGEST)
        if (world.share("sum", min(first, second), max(first, second)) >= HELD_OUT) == in_training:
            return first, second


def draw_sum(world, rng, in_training):
    """(first, sign, second, result), for a + b or (a + b) - b."""
    first, second = draw_pair(world, rng, in_training)
    if rng.random() < 0.6:
        return first, "+", second, first + second
    return first + second, "-", second, first


def in_words(first, sign, second):
    return f"{SMALL_WORDS[first]} {'plus' if sign == '+' else 'minus'} {SMALL_WORDS[second]}"


def question_about_sum(world, rng, in_training):
    """(question, answer) with the answer in digits, or in words for small numbers."""
    first, sign, second, result = draw_sum(world, rng, in_training)
    if max(first, second, result) <= 20 and rng.random() < 0.3:
        return f"What is {in_words(first, sign, second)}?", SMALL_WORDS[result]
    return rng.choice(["What is {} {} {}?", "How much is {} {} {}?"]).format(first, sign, second), str(result)


def statement_about_sum(world, rng, in_training):
    first, sign, second, result = draw_sum(world, rng, in_training)
    if max(first, second, result) <= 20 and rng.random() < 0.3:
        text = f"{in_words(first, sign, second)} is {SMALL_WORDS[result]}."
        return text[0].upper() + text[1:]
    return f"{first} {sign} {second} = {result}."


def counting_story(world, rng, in_training):
    """(text, question, answer)."""
    giver, taker = rng.sample(world.people, 2)
    first, sign, second, result = draw_sum(world, rng, in_training)
    things = rng.choice(FRUIT)
    if sign == "+":
        text = rng.choice([
            f"{taker.name} has {first} {things}. {giver.name} gives {taker.words()['them']} {second} more.",
            f"{taker.name} found {first} {things} in the morning and {second} {things} in the evening.",
        ])
    else:
        text = rng.choice([
            f"{taker.name} has {first} {things}. {taker.words()['They']} gives {second} of them to {giver.name}.",
            f"There were {first} {things} in the basket of {taker.name}, and {giver.name} took {second} away.",
        ])
    return text, f"How many {things} does {taker.name} have now?", str(result)


def sum_sheet(world, rng, in_training):
    """A document of sums: a line each, or one counting story after another."""
    if rng.random() < 0.35:
        parts = []
        for _ in range(rng.randint(1, 3)):
            text, question, answer = counting_story(world, rng, in_training)
            things, name = question.split()[2], question.split()[4]
            parts.append(f"{text} {question} {answer}." if rng.random() < 0.5 else f"{text} Now {name} has {answer} {things}.")
        return "\n".join(parts)
    return "\n".join(statement_about_sum(world, rng, in_training) for _ in range(rng.randint(4, 10)))


def wrong_results(rng, answer):
    """Three other results, near the right one."""
    in_letters = not answer.isdigit()
    result = SMALL_WORDS.index(answer) if in_letters else int(answer)
    near = [result + step for step in (-10, -2, -1, 1, 2, 10)]
    near = [value for value in near if value >= 0 and (not in_letters or value <= 20)]
    return [SMALL_WORDS[value] if in_letters else str(value) for value in rng.sample(near, 3)]
