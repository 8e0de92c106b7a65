"""The invented world of the quickstart: who lives where, does what, keeps which pet, owns what. Fixed by a world seed."""
import hashlib
import random
from dataclasses import dataclass

WOMEN = """Mira Ada Nora Lena Ida Tessa Cora Faye Greta Hazel Iris June Kira Luna Maud Nell Opal Petra Rosa Signe Thea Una Vera
Willa Yara Zora Bella Dina Elsa Flora Gilda Hedda Ingrid Jonna Katya Lotta Malin Odile Paula Runa""".split()
MEN = """Finn Abel Boris Caleb Dario Emil Felix Gus Hugo Ivan Jonas Karl Leo Milo Nils Oskar Pavel Quinn Rolf Sven Tom Ugo Viktor
Wim Yannis Zeno Anton Basil Conrad Diego Edgar Fritz Gregor Henrik Isak Jasper Kaspar Ludo Magnus Niko""".split()
PETS = """Pepper Biscuit Button Clover Daisy Dusty Echo Fern Fig Ginger Hobo Inky Jelly Kiwi Lemon Maple Moss Muffin Nibbles Nugget
Olive Onyx Patch Pebble Pickle Plum Pogo Poppy Puddle Quill Radish Rascal Rusty Saffron Scout Shadow Smoky Snowball Socks Sprout
Squeak Storm Sugar Sunny Taffy Tango Thistle Tiger Toffee Truffle Tulip Twig Velvet Waffle Whiskers Willow Ziggy Acorn Bramble
Cinder Domino Ember Flint Gizmo Hickory Jasmine Kettle Lucky Marble Noodle Oreo Pippin Ripple Sable Topaz Umber Violet Walnut
Yoyo Zigzag""".split()

# The possible values of each attribute.
VALUES = {
    "town": "Oakford Millbrook Redhill Stonebay Fernley Goldmere Windham Larkton".split(),
    "job": "baker teacher farmer doctor painter carpenter fisher gardener tailor miller smith clerk driver cook singer weaver".split(),
    "pet_kind": "cat dog rabbit parrot pony goat turtle hamster".split(),
    "pet_colour": "black white brown grey golden spotted".split(),
    "food": "soup bread cheese pears plums rice fish honey noodles cake beans carrots".split(),
    "hobby": "chess swimming singing fishing sewing skating reading drawing dancing running".split(),
    "thing": "kite drum boat lamp bicycle hat clock ladder basket flute umbrella sledge".split(),
    "thing_colour": "red blue green yellow purple orange pink silver".split(),
}


def with_article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


LARGEST_POPULATION = len(WOMEN) + len(MEN)
DEFAULT_PEOPLE = 48


@dataclass
class Person:
    name: str
    is_woman: bool
    facts: dict  # attribute -> value; the attributes of VALUES, and pet_name, friend

    def words(self):
        """Pronouns and facts by name, to fill into a wording."""
        pronouns = ("she", "her", "her") if self.is_woman else ("he", "him", "his")
        words = dict(zip(("they", "them", "their"), pronouns), name=self.name, **self.facts)
        words |= {"a_" + attribute: with_article(self.facts[attribute]) for attribute in ("thing", "thing_colour")}
        return words | {"They": pronouns[0].capitalize()}


class World:
    """Everybody with their facts."""

    def __init__(self, world_seed=1, people=DEFAULT_PEOPLE):
        self.seed = world_seed
        rng = random.Random(f"world {world_seed}")
        names = [name for pair in zip(((name, True) for name in WOMEN), ((name, False) for name in MEN)) for name in pair][:people]
        pets = rng.sample(PETS, len(names))
        self.people = []
        for (name, is_woman), pet in zip(names, pets):
            facts = {attribute: rng.choice(values) for attribute, values in VALUES.items()}
            facts["pet_name"] = pet
            facts["friend"] = rng.choice([other for other, _ in names if other != name])
            self.people.append(Person(name, is_woman, facts))
        self.by_name = {person.name: person for person in self.people}
        self.values = VALUES | {"pet_name": pets, "friend": [name for name, _ in names], "owner": [name for name, _ in names]}

    def share(self, *key):
        """A number in [0, 1) that belongs to the key: splits facts and sums into kept and held-out ones."""
        digest = hashlib.sha256(" ".join([str(self.seed), *map(str, key)]).encode()).digest()
        return int.from_bytes(digest[:6], "little") / 2**48
