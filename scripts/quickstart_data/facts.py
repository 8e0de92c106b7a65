"""Wordings of facts: statements, questions, and the documents made of them."""

# attribute -> wordings of a statement. Words in braces are a person's (world.Person.words).
STATEMENTS = {
    "town": ["{name} lives in {town}.", "{name} has a house in {town}.", "The home of {name} is in {town}.",
             "You can find {name} in {town}.", "{name} comes from {town}."],
    "job": ["{name} is a {job}.", "{name} works as a {job}.", "{name} earns {their} living as a {job}.",
            "Everybody knows {name} the {job}.", "The {job} {name} gets up early to work."],
    "pet_kind": ["{name} has a {pet_kind}.", "{name} keeps a {pet_kind} at home.", "The pet of {name} is a {pet_kind}.",
                 "{name} looks after a {pet_kind}."],
    "pet_name": ["{name} has a {pet_kind} called {pet_name}.", "The {pet_kind} of {name} is called {pet_name}.",
                 "{name} calls {their} pet {pet_name}.", "{name} often plays with {pet_name}, {their} {pet_kind}."],
    "pet_colour": ["{name} has a {pet_colour} {pet_kind}.", "The {pet_kind} of {name} is {pet_colour}.",
                   "{pet_name}, the pet of {name}, is {pet_colour}."],
    "food": ["{name} likes {food} best of all.", "The favourite food of {name} is {food}.", "{name} would eat {food} every day.",
             "When {name} is hungry, {they} wants {food}."],
    "hobby": ["{name} loves {hobby}.", "The hobby of {name} is {hobby}.", "In the evening {name} enjoys {hobby}.",
              "{name} spends {their} free time with {hobby}."],
    "thing": ["{name} owns {a_thing}.", "The {thing} in the shed belongs to {name}.", "{name} bought {a_thing} last year.",
              "{name} is proud of {their} {thing}."],
    "thing_colour": ["{name} owns {a_thing_colour} {thing}.", "The {thing} of {name} is {thing_colour}.",
                     "{name} painted {their} {thing} {thing_colour}."],
    "friend": ["{name} is a good friend of {friend}.", "The best friend of {name} is {friend}.",
               "{name} often visits {their} friend {friend}.", "{name} tells {friend} everything."],
    "owner": ["{pet_name} is the {pet_kind} of {name}.", "{pet_name} belongs to {name}.", "{pet_name} the {pet_kind} lives with {name}."],
}

# attribute -> wordings of a question whose answer is the value alone.
QUESTIONS = {
    "town": ["Where does {name} live?", "In which town does {name} live?", "Which town is the home of {name}?",
             "Where is the house of {name}?", "Where can you find {name}?"],
    "job": ["What is the job of {name}?", "What does {name} work as?", "How does {name} earn a living?",
            "Which work does {name} do?", "What is {name} by trade?"],
    "pet_kind": ["What pet does {name} have?", "Which animal does {name} keep?", "What kind of animal is the pet of {name}?",
                 "Which animal does {name} look after?"],
    "pet_name": ["What is the pet of {name} called?", "What is the name of the pet of {name}?", "How does {name} call the pet?",
                 "What is the {pet_kind} of {name} called?"],
    "pet_colour": ["What colour is the pet of {name}?", "Which colour does the pet of {name} have?",
                   "What colour is the {pet_kind} of {name}?", "What colour is {pet_name}, the pet of {name}?"],
    "food": ["What does {name} like to eat?", "What is the favourite food of {name}?", "Which food does {name} like best?",
             "What does {name} want when hungry?"],
    "hobby": ["What is the hobby of {name}?", "What does {name} love to do?", "What does {name} enjoy in the evening?",
              "What does {name} do in free time?"],
    "thing": ["What does {name} own?", "Which thing belongs to {name}?", "What did {name} buy last year?",
              "What is {name} proud of?"],
    "thing_colour": ["What colour is the {thing} of {name}?", "Which colour has the {thing} of {name}?",
                     "Which colour did {name} paint the {thing}?", "What is the colour of the {thing} that {name} owns?"],
    "friend": ["Who is the best friend of {name}?", "Who is a good friend of {name}?", "Whom does {name} often visit?",
               "Which friend does {name} have?"],
    "owner": ["Who owns {pet_name}?", "Whose pet is {pet_name}?", "To whom does {pet_name} belong?", "Who lives with {pet_name}?"],
}
ATTRIBUTES = list(QUESTIONS)

# This share of the facts is never asked in training: only statements tell them.
NEVER_ASKED = 0.35


def answer_of(person, attribute):
    return person.name if attribute == "owner" else person.facts[attribute]


def is_never_asked(world, person, attribute):
    return world.share("never asked", person.name, attribute) < NEVER_ASKED


def wordings_for(world, person, attribute, in_training):
    """The questions about one fact that training may ask, or those that it may not: about half of them each."""
    wordings = QUESTIONS[attribute]
    if is_never_asked(world, person, attribute):
        return [] if in_training else wordings
    order = sorted(wordings, key=lambda wording: world.share("wording", person.name, wording))
    half = len(order) // 2
    return order[half:] if in_training else order[:half]


def question_about(world, rng, in_training):
    """(question, answer, person, attribute) of a random fact."""
    while True:
        person, attribute = rng.choice(world.people), rng.choice(ATTRIBUTES)
        wordings = wordings_for(world, person, attribute, in_training)
        if wordings:
            question = rng.choice(wordings).format(**person.words())
            return question, answer_of(person, attribute), person, attribute


def statement_about(rng, person, attribute):
    return rng.choice(STATEMENTS[attribute]).format(**person.words())


def with_pronoun(statement, person):
    """The statement about "she" or "he" where it begins with the person's name."""
    if statement.startswith(person.name + " "):
        return person.words()["They"] + statement[len(person.name):]
    return statement


def profile(world, rng):
    """What is known of one person."""
    person = rng.choice(world.people)
    attributes = rng.sample(ATTRIBUTES, rng.randint(4, 8))
    sentences = [statement_about(rng, person, attribute) for attribute in attributes]
    return " ".join([sentences[0]] + [with_pronoun(s, person) if rng.random() < 0.5 else s for s in sentences[1:]])


def town_notes(world, rng):
    """Some inhabitants of one town, a line each."""
    town = rng.choice(world.values["town"])
    inhabitants = [person for person in world.people if person.facts["town"] == town]
    lines = [rng.choice(["These people live in {}:", "Notes from {}:", "A walk through {}:"]).format(town)]
    for person in rng.sample(inhabitants, min(len(inhabitants), rng.randint(3, 6))):
        attribute = rng.choice([attribute for attribute in ATTRIBUTES if attribute != "town"])
        lines.append(f"{person.name} the {person.facts['job']}. " + statement_about(rng, person, attribute))
    return "\n".join(lines)


def comparison(world, rng):
    """Two people and what they have in common or not."""
    first, second = rng.sample(world.people, 2)
    attribute = rng.choice(["town", "job", "food", "hobby", "pet_kind"])
    sentences = [statement_about(rng, first, attribute), statement_about(rng, second, attribute)]
    same = first.facts[attribute] == second.facts[attribute]
    ends = {
        "town": ["So they live in the same town.", "So they live in different towns."],
        "job": ["So they have the same job.", "So they have different jobs."],
        "food": ["So they like the same food.", "So they like different food."],
        "hobby": ["So they have the same hobby.", "So they have different hobbies."],
        "pet_kind": ["So they have the same kind of pet.", "So they have different pets."],
    }
    return " ".join(sentences + [ends[attribute][0 if same else 1]])
