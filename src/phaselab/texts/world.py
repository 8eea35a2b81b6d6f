"""A small world, told in two languages: stories whose every word has a known latent state.

Ten characters live in it. Five things about each never change (home, food, job, colour, kind); what
else is true (where the hero is, who holds the story's object, how the hero feels, how the other
characters fare) changes from sentence to sentence and mostly has to be carried along from earlier
sentences. A story is a plot (`plot`: events with the state after each) and its telling (`tell`:
words), so that one plot can be told in ``en``, which looks like English, or in ``vo``, a constructed
language with words of its own, verbs at the end of the clause and particles after nouns for cases.
Characters' names and punctuation are common to both. What there is to tell, and how, stands in ``world.yaml``.

Held-out stories differ from training stories by their random stream and by what they are about:
the combination of hero, goal and object decides by a digest (`is_held_out`) on which side a story
lies, so no held-out combination is ever told in training. Questions about constant facts are divided
in the same way, by what is asked and which options are listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import yaml

from phaselab.errors import expect
from phaselab.texts.base import is_held_out

T = TypeVar("T")
UNKNOWN, NOBODY = "unknown", "nobody"


@cache
def contents() -> dict[str, Any]:
    """What ``world.yaml`` holds, its lists as tuples."""

    def frozen(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: frozen(inner) for key, inner in value.items()}
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    found: dict[str, Any] = frozen(yaml.safe_load(Path(__file__).with_name("world.yaml").read_text(encoding="utf-8")))
    return found


MOODS: dict[str, float] = contents()["moods"]
PLACES: dict[str, str] = contents()["places"]
DETAILS, MANNERS, EVENTS = contents()["details"], contents()["manners"], contents()["events"]
OBJECTS, GOALS, FOODS, JOBS = (contents()[name] for name in ("objects", "goals", "foods", "jobs"))
COLOURS, KINDS, ADJECTIVES, FACTS = (contents()[name] for name in ("colours", "kinds", "adjectives", "facts"))
PUNCTUATION: tuple[str, ...] = contents()["punctuation"]
LANGUAGES: tuple[str, ...] = tuple(contents()["templates"])
LABELS = (
    *("word", "sentence", "event", "who", "pronoun", "place", "object", "holder", "mood", "valence", "goal"),
    *("progress", "language"),
)
#: Share of sentences, as far as the state is known, that tell a detail or a manner.
DETAIL_SHARE, MANNER_SHARE = 0.45, 0.4
#: The lot from which events are drawn, with what must hold for each.
LOT = [(kind, frozenset(rule.get("when", ()))) for kind, rule in EVENTS.items() for _ in range(rule.get("weight", 1))]
#: Slots of templates: how each is filled, with what of a `_Scene`, and the form of a person or pronoun.
SLOTS = {
    slot: (how, attrgetter(what), form[0] if form else 0) for slot, (how, what, *form) in contents()["slots"].items()
}
#: Slots of questions: a character, the object.
NAMED = ("N", "X")


@dataclass(frozen=True)
class Character:
    """Somebody of the world, with what never changes about them."""

    name: str
    gender: str
    home: str
    food: str
    job: str
    colour: str
    kind: str


CHARACTERS = {facts["name"]: Character(**facts) for facts in contents()["characters"]}


def _pick(rng: np.random.Generator, options: Iterable[T]) -> T:
    listed = tuple(options)
    return listed[int(rng.random() * len(listed))]


# --- Plots -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """What has been told so far; ``unknown`` until it has been said.

    ``place`` and ``mood`` are the hero's; ``holder`` is who has the story's object; ``other_place`` is
    where the other character was last seen.
    """

    place: str = UNKNOWN
    object: str = UNKNOWN
    holder: str = UNKNOWN
    mood: str = UNKNOWN
    goal: str = UNKNOWN
    other_place: str = UNKNOWN


@dataclass(frozen=True)
class Event:
    """Something that happens: its class, who does it, and the state before and after."""

    kind: str
    subject: str
    before: State
    after: State
    decoy: str = ""


@dataclass(frozen=True)
class Story:
    """A plot: who wants what, and the events in order."""

    hero: str
    other: str
    goal: str
    object: str
    target: str
    events: tuple[Event, ...] = ()


def plot(rng: np.random.Generator, held_out: bool, sentences: int) -> Story:
    """Draw a story of `sentences` events about a held-out combination, or about one of training."""
    while True:
        hero, goal, thing = _pick(rng, CHARACTERS), _pick(rng, GOALS), _pick(rng, OBJECTS)
        if is_held_out(hero, goal, thing) == held_out:
            break
    # Hero and other differ in gender, so that every pronoun has one possible meaning.
    other = _pick(rng, [c.name for c in CHARACTERS.values() if c.gender != CHARACTERS[hero].gender])
    start = _pick(rng, PLACES)
    story = Story(hero, other, goal, thing, _elsewhere(rng, start))
    state = State(place=start, mood=_pick(rng, MOODS) if rng.random() < 0.5 else UNKNOWN)
    events = [Event("begin" if state.mood == UNKNOWN else "begin_mood", hero, State(), state)]

    holder = {"find": NOBODY, "keep": hero, "bring": hero}.get(goal)
    # An object that does not belong to the goal is told of when somebody takes it.
    known = {"object": thing, "holder": holder} if holder else {}
    events.append(Event(f"want_{goal}", hero, state, replace(state, goal=goal, **known)))
    while len(events) < sentences - 1:
        state = events[-1].after
        holds = _holds(story, state)
        kind = _pick(rng, [kind for kind, when in LOT if when <= holds and kind != events[-1].kind])
        events.append(_event(rng, story, kind, state))
    state = events[-1].after
    reached = {
        "find": state.holder == hero,
        "keep": state.holder == hero,
        "bring": state.holder == other,
        "reach": state.place == story.target,
        "help": any(e.kind == "help" for e in events),
    }[goal]
    events.append(_event(rng, story, "succeed" if reached else "fail", state))
    return replace(story, events=tuple(events))


def _elsewhere(rng: np.random.Generator, place: str) -> str:
    return _pick(rng, [p for p in PLACES if p != place])


def _holds(story: Story, state: State) -> set[str]:
    """Which of the conditions of events hold."""
    object_is = {UNKNOWN: "free", NOBODY: "free", story.hero: "owned"}.get(state.holder, "taken")
    found = {object_is, "together" if state.other_place == state.place else "apart"}
    return found | ({"mood"} if state.mood != UNKNOWN else set()) | ({"helping"} if story.goal == "help" else set())


def _event(rng: np.random.Generator, story: Story, kind: str, state: State) -> Event:
    """An event of a class that may happen in `state`, its open ends drawn."""
    rule = EVENTS[kind]
    values = {"hero": story.hero, "other": story.other, "object": story.object, "nobody": NOBODY, "here": state.place}
    changes, decoy = {"mood": rule.get("mood", state.mood)}, ""
    for field, value in rule.get("set", {}).items():
        if value == "elsewhere":
            arrives = kind == "move" and story.goal == "reach" and state.place != story.target and rng.random() < 0.4
            elsewhere = _elsewhere(rng, state.place)
            changes[field] = story.target if arrives else elsewhere
        else:
            changes[field] = values[value]
    if kind == "see":
        decoy = _pick(rng, [o for o in OBJECTS if o != story.object])
    return Event(kind, values[rule.get("by", "hero")], state, replace(state, **changes), decoy)


# --- Languages -------------------------------------------------------------------------------------


@cache
def words(language: str) -> tuple[str, ...]:
    """All words of a language, sorted."""
    expect(language in LANGUAGES, "language", repr(language), f"one of {', '.join(LANGUAGES)}")
    world = contents()
    if language == "vo":
        return tuple(sorted({*world["lexicon"].values(), *PUNCTUATION, *CHARACTERS}))
    listed = (*DETAILS.values(), *MANNERS.values(), *world["pronouns"]["en"].values())
    found = {NOBODY, "near", "the", *(word for some in listed for word in some)}
    for names in ("places", "objects", "moods", "foods", "jobs", "colours", "kinds", "adjectives", "form"):
        found |= {*world[names]}
    texts = [*world["templates"]["en"].values(), *world["adverbials"]["en"], world["questions"]["en"].values()]
    told = {word.rstrip("*") for group in texts for text in group for word in text.split()}
    return tuple(sorted(found | (told - {*SLOTS, *NAMED}) | {*PUNCTUATION, *CHARACTERS, *PLACES.values()}))


def translate(word: str, language: str) -> str:
    """A word of the world (an option of a question, say) in `language`."""
    return word if language == "en" else contents()["lexicon"].get(word, word)


# --- Telling ---------------------------------------------------------------------------------------

#: A word and what is known at it: sentence, class of event, character referred to, is a pronoun, state.
Token = tuple[str, int, str, str, bool, State]


def tell(story: Story, language: str, rng: np.random.Generator, sentences: int | None = None) -> list[Token]:
    """Words of the first `sentences` events (all when None) with what is known at each."""
    mentioned: set[str] = set()
    scenes = (_Scene(story, e, n, language, rng, mentioned) for n, e in enumerate(story.events[:sentences]))
    return [token for scene in scenes for token in scene.tokens()]


@dataclass
class _Scene:
    """One event of a story, to be told in one sentence; `mentioned` are the characters so far."""

    story: Story
    event: Event
    number: int
    language: str
    rng: np.random.Generator
    mentioned: set[str]

    def __post_init__(self) -> None:
        self.english = self.language == "en"
        self.hero, self.subject = CHARACTERS[self.story.hero], CHARACTERS[self.event.subject]
        self.partner = CHARACTERS[self.story.other] if self.subject is self.hero else self.hero

    def tokens(self) -> list[Token]:
        """The words of the sentence, with what is known at each."""
        told: list[Token] = []
        kind, state = self.event.kind.split("_")[0], self.event.before
        for part in self.template().split():
            said, who, pronoun = self.fill(part.rstrip("*"))
            rows = [(translate(word, self.language), self.number, kind, who, pronoun, state) for word in said]
            if part.endswith("*"):
                state = self.event.after
                rows[-1] = (*rows[-1][:-1], state)
            told += rows
        return told

    def template(self) -> str:
        """A template with the adverbials that it is told with."""
        mood = self.event.after.mood
        templates = contents()["templates"][self.language][self.event.kind]
        chosen = _pick(self.rng, [t for t in templates if mood != UNKNOWN or " M" not in t])
        if self.number == 0 or self.rng.random() < 0.35:
            chosen = f"{_pick(self.rng, contents()['adverbials'][self.language][self.number > 0])} {chosen}"
        added = []
        if self.subject is self.hero and self.rng.random() < DETAIL_SHARE:
            added.append("near the D" if self.english else "D near")
        if self.subject is self.hero and mood != UNKNOWN and self.rng.random() < MANNER_SHARE:
            added.append("B")
        # A clause has its adverbial phrases at its end in `en`, at its beginning in `vo`.
        return " ".join([chosen[:-2], *added, "."] if self.english else [*reversed(added), chosen])

    def fill(self, slot: str) -> tuple[list[str], str, bool]:
        """What is said for a part of a template, whom it refers to, and whether by a pronoun."""
        if slot not in SLOTS:
            return [slot], self.subject.name, False
        how, of, form = SLOTS[slot]
        named = of(self)
        if how in ("person", "pronoun"):
            return self.person(named, form, how == "pronoun")
        if how in ("detail", "manner"):
            said = [_pick(self.rng, (DETAILS if how == "detail" else MANNERS)[named])]
        else:
            said = [named] if how == "word" else self.noun(named)
        if how == "place":
            said = [PLACES[named], *said] if self.english else [*said, "AT"]
        return said, self.subject.name, False

    def noun(self, word: str) -> list[str]:
        described = [_pick(self.rng, ADJECTIVES)] if self.rng.random() < 0.15 else []
        return ["the", *described, word] if self.english else [word, *described]

    def person(self, who: Character, form: int, pronoun: bool) -> tuple[list[str], str, bool]:
        """A character as subject, object or owner, by name, kind or pronoun."""
        pronoun = pronoun or (who.name in self.mentioned and self.rng.random() < 0.5)
        self.mentioned.add(who.name)
        said = [who.name]
        if pronoun:
            said = [contents()["pronouns"][self.language][who.gender][form]]
        elif form == 0 and self.number > 0 and self.rng.random() < 0.06:
            said = ["the", who.kind] if self.english else [who.kind]
        particle = [] if self.english else [["TOP"], [], ["OF"]][form]
        return [*said, *particle], who.name, pronoun


@dataclass(frozen=True)
class Narrative:
    """A told story. ``labels`` has one row per word and the columns of `LABELS`."""

    words: tuple[str, ...]
    labels: pd.DataFrame


def narratives(
    n: int, seed: int, language: str = "en", held_out: bool = False, sentences: tuple[int, int] = (6, 10)
) -> list[Narrative]:
    """Tell `n` stories with labels; the same seed gives the same plots in both languages.

    A word is labelled with the state that holds once it has been said; ``unknown`` stands for what has not
    been told yet, with valence 0. ``progress`` runs from 0 at the first word to 1 at the last.

    Parameters
    ----------
    n, seed : number of stories; seed of the plots and their telling.
    language : ``en`` or ``vo``.
    held_out : from the combinations never told in training, or from those of training.
    sentences : least and greatest number of sentences.
    """
    words(language)
    result = []
    for index in range(n):
        events = np.random.default_rng([seed, int(held_out), index, 0])
        wording = np.random.default_rng([seed, int(held_out), index, 1 + LANGUAGES.index(language)])
        length = int(events.integers(sentences[0], sentences[1] + 1))
        told = tell(plot(events, held_out, length), language, wording)
        rows = [(*known, s.place, s.object, s.holder, s.mood, MOODS.get(s.mood, 0.0), s.goal) for *known, s in told]
        labels = pd.DataFrame(rows, columns=list(LABELS[:11]))
        labels["progress"] = np.linspace(0, 1, len(labels))
        labels["language"] = language
        result.append(Narrative(tuple(labels["word"]), labels))
    return result


# --- Questions -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """Words up to and with the answer mark, three options in the order listed, and which is right."""

    words: tuple[str, ...]
    options: tuple[str, ...]
    answer: int
    kind: str


def reading_question(story: Story, sentences: int, language: str, rng: np.random.Generator) -> Question:
    """A question about the state after the first `sentences` events of a story.

    Where it can, one of the wrong options is a thing that the story has mentioned (a former place or
    mood, another character, an object seen), so that naming what was mentioned is not enough.
    """
    events = story.events[:sentences]
    now = events[-1].after
    met = now.other_place != UNKNOWN
    kinds = ["where", "where"]
    kinds += ["mood", "mood"] * (now.mood != UNKNOWN) + ["holder", "holder"] * (now.holder != UNKNOWN)
    kinds += ["object"] * (now.holder in CHARACTERS)
    kind = _pick(rng, kinds)
    if kind == "where":
        other = met and rng.random() < 0.2
        named, answer = (story.other, now.other_place) if other else (story.hero, now.place)
        seen = [place for e in events for place in (e.after.place, e.after.other_place)]
        seen += [story.target] * (now.goal == "reach")
        return _question(kind, named, answer, seen, PLACES, language, rng)
    if kind == "mood":
        return _question(kind, story.hero, now.mood, [e.after.mood for e in events], MOODS, language, rng)
    if kind == "holder":
        seen = [story.hero, NOBODY, *[story.other] * met]
        return _question(kind, now.object, now.holder, seen, CHARACTERS, language, rng)
    return _question(kind, now.holder, now.object, [e.decoy for e in events], OBJECTS, language, rng)


def fact_question(held_out: bool, language: str, rng: np.random.Generator) -> Question:
    """A question about what never changes, from the held-out eighth of option sets or from the rest."""
    values = {"home": tuple(PLACES), "food": FOODS, "job": JOBS, "colour": COLOURS, "kind": KINDS}
    while True:
        kind, who = _pick(rng, FACTS), _pick(rng, CHARACTERS)
        answer = getattr(CHARACTERS[who], kind)
        wrong = [_pick(rng, values[kind]) for _ in range(2)]
        if len({answer, *wrong}) == 3 and is_held_out(kind, who, *sorted(wrong)) == held_out:
            return _question(kind, who, answer, (), wrong, language, rng)


def _question(
    kind: str,
    named: str,
    answer: str,
    seen: Iterable[str],
    others: Iterable[str],
    language: str,
    rng: np.random.Generator,
) -> Question:
    """List the answer with two wrong options: one of those `seen` if there is one, then any of `others`."""
    pool = [str(o) for o in rng.permutation(sorted({*seen} - {answer, UNKNOWN, ""}))][:1]
    pool += [str(o) for o in rng.permutation([o for o in others if o != answer and o not in pool])]
    options = [str(o) for o in rng.permutation([answer, *pool[:2]])]
    asked = [named if w in NAMED else w for w in contents()["questions"][language][kind].split()]
    question, listed, right = contents()["form"]
    said = [question, ":", *asked, listed, ":", options[0], ",", options[1], ",", options[2], right, ":"]
    spoken, offered = (tuple(translate(w, language) for w in group) for group in (said, options))
    return Question(spoken, offered, options.index(answer), kind)
