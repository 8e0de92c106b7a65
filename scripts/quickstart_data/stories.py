"""Little stories about the people of the world: something is lost, somebody looks for it and finds it, or somebody cooks or travels.

What the world fixes (pets, things, colours, homes, jobs) is as there; where a thing lay and who helped is new in each story.
"""

PLACES = """under the bridge|behind the mill|in the barn|near the well|on the roof|in the garden|under the bed|at the market|in the forest
|behind the church|by the river|in the cellar|at the harbour|under the apple tree|on the hill|in the kitchen""".replace("\n", "").split("|")
WEATHER = "rainy sunny windy cold foggy warm snowy quiet".split()
TIMES = "morning afternoon evening day".split()
FEELINGS = "sad worried angry tired upset".split()
GOOD_FEELINGS = "happy glad proud thankful".split()
GIFTS = "a jar of jam|a warm scarf|a new song|a small cake|a bag of nuts|a bunch of flowers|a wooden spoon|an old map".split("|")


def scene(rng, person):
    words = person.words()
    return rng.choice([
        "One {weather} {time} {name} the {job} walked through {town}.",
        "It was a {weather} {time} in {town}, and {name} had no work to do.",
        "On a {weather} {time} {name} came home to {town}.",
        "{name} lived in {town} and worked as a {job}. One {weather} {time} something happened.",
    ]).format(weather=rng.choice(WEATHER), time=rng.choice(TIMES), **words)


def lost_and_found(world, rng):
    """(text, questions): a thing or pet is lost and found at one of two places. Questions are (question, answer, kind of answer)."""
    person = rng.choice(world.people)
    words = person.words()
    helper = world.by_name[words["friend"]] if rng.random() < 0.5 else rng.choice([p for p in world.people if p is not person])
    pet = rng.random() < 0.5
    lost = words["pet_name"] if pet else f"the {words['thing']}"
    full = f"{words['pet_name']}, the {words['pet_colour']} {words['pet_kind']}" if pet else f"the {words['thing_colour']} {words['thing']}"
    empty, found = rng.sample(PLACES, 2)
    feeling, glad, gift = rng.choice(FEELINGS), rng.choice(GOOD_FEELINGS), rng.choice(GIFTS)
    sentences = [
        scene(rng, person),
        rng.choice([f"{full} was gone.", f"But where was {full}?", f"{words['They']} could not find {full}."]),
        rng.choice([f"{words['name']} was {feeling}.", f"That made {words['them']} {feeling}."]),
        rng.choice([f"{words['They']} asked {helper.name} for help.", f"{helper.name} saw it and came to help.",
                    f"{helper.name} the {helper.facts['job']} wanted to help."]),
        rng.choice([f"They looked {empty}, but {lost} was not there.", f"First they went and looked {empty}. Nothing was there."]),
        rng.choice([f"Then {helper.name} found {lost} {found}.", f"At last they found {lost} {found}.",
                    f"In the end {lost} was {found}."]),
        rng.choice([f"{words['name']} was {glad} and gave {helper.name} {gift}.",
                    f"To say thank you, {words['name']} gave {helper.name} {gift}."]),
    ]
    sentences = [sentence[0].upper() + sentence[1:] for sentence in sentences]
    questions = [
        (rng.choice([f"Where was {lost}?", f"Where did they find {lost}?"]), found, "place"),
        (f"Who helped {words['name']}?", helper.name, "person"),
        (f"What did {words['name']} give {helper.name}?", gift, "gift"),
    ]
    return " ".join(sentences), questions


def visit(world, rng):
    """(text, questions): one person visits another and brings something."""
    person = rng.choice(world.people)
    words = person.words()
    host = world.by_name[words["friend"]] if rng.random() < 0.6 else rng.choice([p for p in world.people if p is not person])
    host_words = host.words()
    gift, place, weather = rng.choice(GIFTS), rng.choice(PLACES), rng.choice(WEATHER)
    sentences = [
        rng.choice([f"{words['name']} wanted to visit {host.name} in {host_words['town']}.",
                    f"On a {weather} {rng.choice(TIMES)} {words['name']} went to {host_words['town']} to see {host.name}."]),
        rng.choice([f"{words['They']} took {gift} along.", f"{words['They']} packed {gift} and said goodbye to {words['pet_name']}."]),
        rng.choice([f"{host.name} was waiting {place}.", f"The two met {place}."]),
        rng.choice([f"They ate {host_words['food']}, which {host.name} likes best.",
                    f"{host_words['They']} showed {words['them']} {host_words['their']} {host_words['thing_colour']} {host_words['thing']}.",
                    f"They talked about {host_words['hobby']}, for that is what {host.name} loves."]),
        rng.choice([f"{host_words['pet_name']} the {host_words['pet_kind']} was {rng.choice(GOOD_FEELINGS)} too.",
                    f"It was a good {weather} day.", f"Late at night {words['name']} went home to {words['town']}."]),
    ]
    questions = [
        (f"What did {words['name']} bring?", gift, "gift"),
        (f"Where did {words['name']} and {host.name} meet?", place, "place"),
        (f"Who came to see {host.name}?", words["name"], "person"),
    ]
    return " ".join(sentences), questions


def story(world, rng):
    return (lost_and_found if rng.random() < 0.6 else visit)(world, rng)


def wrong_answers(world, rng, text, answer, kind):
    """Three other answers of the kind; those that the story mentions come first."""
    candidates = {"place": PLACES, "person": world.values["friend"], "gift": GIFTS}[kind]
    others = [candidate for candidate in candidates if candidate != answer]
    mentioned = [candidate for candidate in others if candidate in text.replace(".", " ").replace(",", " ")]
    rest = [candidate for candidate in others if candidate not in mentioned]
    return (mentioned + rng.sample(rest, 3))[:3]
