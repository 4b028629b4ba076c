"""Generates `builtin:stories`: children's stories for trying Tidal without a network.

A story depends only on (seed, index). Each story follows one of the plots with a hero, a friend, a grown-up, a place
and a thing, and all its sentences refer to these. The vocabulary is that of a small child, and the variety is far below
that of natural text, so results on this corpus cannot be compared with results on others. Every change of the words
needs a new VERSION.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from common.data import story_words as words

VERSION = 1
"""Version of plots and word lists, part of the corpus digest."""
DEFAULT_SEED = 7
STORY_COUNT = 20_000
"""Number of stories in the corpus."""

T = TypeVar("T")


def story(index: int, seed: int = DEFAULT_SEED) -> str:
    """Return story number `index`: 100 to 220 words in paragraphs separated by an empty line."""
    writer = _StoryWriter(random.Random(f"{seed}:{index}"))
    return writer.write()


@dataclass(frozen=True)
class Character:
    """A character of a story, with the pronouns for it."""

    name: str
    they: str
    them: str
    their: str
    kind: str
    """What the character is, for example "little girl" or "young fox"."""


class _StoryWriter:
    """Writes one story, using only `random()` of `random.Random`, whose numbers are the same in all Python versions."""

    def __init__(self, generator: random.Random) -> None:
        self._generator = generator
        self.hero = self._person()
        self.friend = self._person(other_than=self.hero.name)
        self.elder, self.elder_subject = self.pick(words.ELDERS)
        self.place = self.pick(words.PLACES)
        self.thing = self.pick(words.THINGS)
        self.colour = self.pick(words.COLOURS)
        self.size = self.pick(words.SIZES)
        self.trait = self.pick(words.TRAITS)

    def write(self) -> str:
        """Return the story: opening, plot and ending."""
        plot = self.pick((self.lost, self.share, self.learn, self.help_animal, self.storm, self.make, self.find))
        paragraphs = [self._opening(), *plot(), self._ending(words.MORALS[plot.__name__])]
        return "\n\n".join(" ".join(sentence for sentence in part if sentence) for part in paragraphs)

    def pick(self, choices: Sequence[T]) -> T:
        """Return a random member of `choices`."""
        return choices[int(self._generator.random() * len(choices))]

    def maybe(self, *choices: str) -> str:
        """Return one of the sentences or an empty text, all with equal probability."""
        return self.pick((*choices, ""))

    def _person(self, other_than: str = "") -> Character:
        while True:
            name, they = self.pick(words.NAMES)
            if name != other_than:
                break
        them, their = ("her", "her") if they == "she" else ("him", "his")
        child = "girl" if they == "she" else "boy"
        kind = f"{self.pick(words.AGES)} {child if self._generator.random() < 0.55 else self.pick(words.ANIMALS)}"
        return Character(name, they, them, their, kind)

    def _opening(self) -> list[str]:
        h, f = self.hero, self.friend
        start = self.pick(
            (
                f"Once upon a time, there was {a(h.kind)} named {h.name}.",
                f"Once upon a time, {a(h.kind)} named {h.name} lived near {self.place}.",
                f"One day, {a(h.kind)} named {h.name} woke up early.",
                f"There once was {a(h.kind)} called {h.name}.",
                f"{h.name} was {a(h.kind)} who lived with {h.their} {self.elder}.",
            )
        )
        return [
            start,
            f"{h.name} was very {self.trait} and loved to {self.pick(words.HOBBIES)}.",
            self.maybe(
                f"{h.their.capitalize()} best friend was {a(f.kind)} named {f.name}.",
                f"Every {self.pick(words.TIMES)}, {h.they} went to {self.place} with {f.name}.",
                f"{h.name} had {a(self.colour)} {self.pick(words.CLOTHES)} and wore it all the time.",
            ),
            f"It was {a(self.pick(words.WEATHER))} {self.pick(words.TIMES)}.",
        ]

    def lost(self) -> list[list[str]]:
        """Plot: a favourite thing is lost and found again."""
        h, f, thing = self.hero, self.friend, f"{self.colour} {self.thing}"
        spots = [self.pick(words.SPOTS), self.pick(words.SPOTS), self.pick(words.HIDING)]
        return [
            [
                f"{h.name} had {a(self.size)} {thing}, and {h.they} took it everywhere.",
                f"But that day, the {self.thing} was gone!",
                f"{h.name} felt {self.pick(words.SAD)}.",
                f'"Where is my {self.thing}?" {h.they} {self.pick(("asked", "cried", "said"))}.',
                f'"I will help you look," said {f.name}.',
            ],
            [
                f"They looked {spots[0]}, but it was not there.",
                f"They looked {spots[1]}, but they only saw {a(self.pick(words.SMALL_THINGS))}.",
                f"Then {f.name} heard {a(self.pick(words.NOISES))} and ran to see what it was.",
                f"The {thing} was {spots[2]}, next to {a(self.pick(words.ANIMALS))}!",
                self.maybe(f'"You found it!" {h.name} shouted.', f"{h.name} jumped up and down."),
                f'{h.name} gave {f.name} a big hug and said, "Thank you for helping me."',
            ],
        ]

    def share(self) -> list[list[str]]:
        """Plot: two friends want the same thing and learn to share it."""
        h, f = self.hero, self.friend
        return [
            [
                f"{h.name} and {f.name} went to {self.place}.",
                f"There they saw {a(self.size)} {self.colour} {self.thing}.",
                f'"It is mine! I saw it first!" said {f.name}.',
                f'"No, it is mine!" said {h.name}.',
                f"They both pulled the {self.thing}, and soon they were {self.pick(words.ANGRY)}.",
            ],
            [
                f'{h.name}\'s {self.elder} came and asked, "Why are you so loud?"',
                f"{h.name} looked down and told {self.elder_object} what had happened.",
                f'"A {self.thing} is more fun with a friend," said {h.their} {self.elder}. "You can take turns."',
                f"So {f.name} played first, and {h.name} waited {self.pick(words.HOW)}.",
                f"Then it was {h.name}'s turn.",
                f"They laughed and {self.pick(words.PLAYED)} until the {self.pick(words.TIMES)} was over.",
            ],
        ]

    def learn(self) -> list[list[str]]:
        """Plot: something is hard at first and succeeds after many attempts."""
        h, f, skill = self.hero, self.friend, self.pick(words.SKILLS)
        return [
            [
                f"{h.name} wanted to {skill}, but it was very hard.",
                f"{h.they.capitalize()} tried once and {self.pick(words.FAILED)}.",
                f"{h.they.capitalize()} tried again and {self.pick(words.FAILED)}.",
                f'"I can not do it," {h.name} said, and {h.they} felt {self.pick(words.SAD)}.',
            ],
            [
                f'{f.name} sat down next to {h.them}. "I could not {skill} at first," {f.they} said.',
                f'"You have to go slow and try {self.pick(words.HOW)}."',
                f"{h.name} took a deep breath and thought of {h.their} {self.colour} {self.thing} to feel brave.",
                f"The next {self.pick(words.TIMES)}, {h.they} went to {self.place} and tried once more.",
                f'This time it worked! "Look, {f.name}! I can {skill}!" {h.they} shouted.',
                f"{h.their.capitalize()} {self.elder} clapped and was very proud.",
            ],
        ]

    def help_animal(self) -> list[list[str]]:
        """Plot: the hero helps an animal in need."""
        h, animal = self.hero, self.pick(words.WILD)
        return [
            [
                f"{h.name} walked to {self.place} to play with {h.their} {self.colour} {self.thing}.",
                f"On the way, {h.they} heard {a(self.pick(words.NOISES))}.",
                f"It was {a(self.size)} {animal}, and it was {self.pick(words.TROUBLES)}.",
                f'"Do not be afraid," said {h.name}. "I will help you."',
            ],
            [
                f"{h.name} ran home and came back with {h.their} {self.elder} and {self.pick(words.TOOLS)}.",
                f"Together they worked {self.pick(words.HOW)}, and soon the {animal} was safe.",
                f"{h.name} gave the {animal} some {self.pick(words.FOODS)} and stroked it {self.pick(words.HOW)}.",
                f"The {animal} looked at {h.name} with {self.pick(words.EYES)} eyes.",
                self.maybe(
                    f'"You are very {self.pick(words.GOOD)}," said {h.their} {self.elder}.',
                    f'"Can it stay with us?" {h.name} asked. "It has to go home," said {h.their} {self.elder}.',
                ),
                f"From that day on, the {animal} came to see {h.name} every {self.pick(words.TIMES)}.",
            ],
        ]

    def storm(self) -> list[list[str]]:
        """Plot: two friends are afraid of a storm and comfort each other."""
        h, f = self.hero, self.friend
        return [
            [
                f"{h.name} and {f.name} were playing with {a(self.colour)} {self.thing} at {self.place}.",
                f"Suddenly, the sky turned dark, and {self.pick(words.STORMS)}.",
                f'"I am scared," said {f.name}.',
                f"{h.name} was scared too, but {h.they} wanted to be {self.pick(words.GOOD)}.",
            ],
            [
                f'"Hold my hand," said {h.name}. They ran and hid {self.pick(words.SHELTERS)}.',
                f"While they waited, they {self.pick(words.PASTIMES)} and ate some {self.pick(words.FOODS)}.",
                f"Then {h.name}'s {self.elder} came with {a(self.size)} {self.pick(words.LIGHTS)}.",
                f'"There you are!" {self.elder_subject} said. "I looked for you everywhere."',
                f"Soon the sun came out, and they saw {a(self.pick(words.SIGHTS))}.",
                f"They picked up the {self.thing} and walked home {self.pick(words.HOW)}.",
            ],
        ]

    def make(self) -> list[list[str]]:
        """Plot: the hero makes a birthday present."""
        h, f, made = self.hero, self.friend, self.pick(words.MADE)
        return [
            [
                f"The next day was {f.name}'s birthday, and {h.name} had no present.",
                f'"I will make {a(made)}," {h.they} thought.',
                f"{h.they.capitalize()} went to {self.place} to look for what {h.they} needed.",
                f"There {h.they} found {a(self.pick(words.SMALL_THINGS))} and {a(self.colour)} ribbon.",
            ],
            [
                f"At home, {h.name}'s {self.elder} helped {h.them} with {self.pick(words.TOOLS)}.",
                f"First, they {self.pick(words.STEPS)}. Then they {self.pick(words.STEPS)}, {self.pick(words.HOW)}.",
                f"Oh no! The {made} fell down, and {self.pick(words.MISHAPS)}.",
                f'"We can fix it," said {h.their} {self.elder}, and they did.',
                f"When {f.name} saw the {made}, {f.they} smiled {self.pick(words.HOW)}.",
                f'"This is even better than {a(self.size)} {self.thing}!" {f.they} said.',
            ],
        ]

    def find(self) -> list[list[str]]:
        """Plot: the hero finds a thing and returns it to its owner."""
        h, f, thing = self.hero, self.friend, f"{self.colour} {self.thing}"
        return [
            [
                f"{h.name} went for a walk to {self.place}.",
                f"{self.pick(words.HIDING).capitalize()}, {h.they} saw something {self.pick(words.SHINY)}.",
                f"It was {a(self.size)} {thing}!",
                f'"I want to keep it," {h.name} thought. {h.they.capitalize()} put it in {h.their} bag.',
            ],
            [
                f"On the way home, {h.they} met {f.name}, who looked {self.pick(words.SAD)}.",
                f'"I lost my {thing}," said {f.name}. "My {self.pick(words.ELDERS)[0]} gave it to me."',
                f"{h.name} felt {self.pick(words.QUEASY)}. {h.they.capitalize()} did not know what to do.",
                f"Then {h.they} remembered what {h.their} {self.elder} always said about telling the truth.",
                f'"I found it. Here you are," said {h.name}.',
                f'{f.name} was so happy. "You are a true friend," {f.they} said. "Let us play with it together."',
            ],
        ]

    @property
    def elder_object(self) -> str:
        """Return the object pronoun of the grown-up."""
        return "her" if self.elder_subject == "she" else "him"

    def _ending(self, morals: Sequence[str]) -> list[str]:
        h, f = self.hero, self.friend
        return [
            self.maybe(
                f"In the evening, {h.name} told {h.their} {self.elder} all about it.",
                f"That night, {h.name} lay in bed and thought about {self.place}.",
                f"They all went home and ate {self.pick(words.FOODS)}.",
            ),
            self.pick(
                (
                    f"{h.name} learned that {self.pick(morals)}.",
                    f"And {h.name} never forgot that {self.pick(morals)}.",
                    f"After that day, {h.name} and {f.name} {self.pick(words.AFTER)}.",
                    f"{h.name} fell asleep with a {self.pick(('big', 'little', 'happy'))} smile.",
                    f"It was the best {self.pick(words.TIMES)} ever. The end.",
                )
            ),
        ]


def a(noun: str) -> str:
    """Return the noun with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
