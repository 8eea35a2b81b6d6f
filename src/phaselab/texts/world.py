"""A small world, told in two languages: stories whose every word has a known latent state.

Five things about each character never change; what else is true mostly has to be carried along from earlier sentences.
A story is a plot (`plot`) and its telling (`tell`) in ``en``, which looks like English, or in ``vo``, a constructed
language with words of its own, verbs at the end of the clause and particles after nouns for cases; ``world.yaml`` has
what there is to tell. Held-out stories have a random stream of their own, and combinations of hero, goal and object
that training never has (`is_held_out`), as do questions about constant facts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, count
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from phaselab.errors import expect
from phaselab.files import parse_yaml, read_text
from phaselab.study import digest_of
from phaselab.texts.base import BOS, EOS, PAD, TASKS, UNK, Item, TextSource, is_held_out

T = TypeVar("T")
UNKNOWN, NOBODY = "unknown", "nobody"
_FILE = Path(__file__).with_name("world.yaml")
WORLD: dict[str, Any] = parse_yaml(read_text(_FILE), _FILE)[0]
PLACES: dict[str, str] = WORLD["places"]
OBJECTS, MOODS, EVENTS, SLOTS = WORLD["objects"], WORLD["moods"], WORLD["events"], WORLD["slots"]
PUNCTUATION: list[str] = WORLD["punctuation"]
LANGUAGES = tuple(WORLD["templates"])
#: Name -> somebody of the world: name, gender and the constant facts.
CHARACTERS: dict[str, Any] = {facts["name"]: SimpleNamespace(**facts) for facts in WORLD["characters"]}
#: Share of sentences, as far as the state is known, that tell a detail or a manner; slots of questions.
DETAIL_SHARE, MANNER_SHARE, NAMED = 0.45, 0.4, ("N", "X")
#: Mix -> its languages, and shares of the kinds of document: off-domain lines, stories, and stories with questions; the
#: others are questions about facts.
MIXES = {"en": (("en",), (0.0, 0.3, 0.5)), "en+vo": (("en", "vo"), (0.0, 0.3, 0.5))}
MIXES |= {"narrative": (("en",), (0.0, 0.85, 0.1)), "off-domain": (("en",), (0.9, 0.05, 0.05))}
#: The lot from which events are drawn, with what must hold for each.
LOT = [(kind, {*rule.get("when", ())}) for kind, rule in EVENTS.items() for _ in range(rule.get("weight", 1))]


def _pick(rng: np.random.Generator, options: Iterable[T]) -> T:
    listed = tuple(options)
    return listed[int(rng.random() * len(listed))]


class State(NamedTuple):
    """What has been told so far, or ``unknown``: of the hero, of who has the story's object, of the other character."""

    place: str = UNKNOWN
    object: str = UNKNOWN
    holder: str = UNKNOWN
    mood: str = UNKNOWN
    goal: str = UNKNOWN
    other_place: str = UNKNOWN


class Event(NamedTuple):
    """Something that happens: its class, the state before and after, and an object that is only seen."""

    kind: str
    before: State
    after: State
    decoy: str = ""


class Story(NamedTuple):
    """A plot: who wants what, and the events in order."""

    hero: str
    other: str
    goal: str
    object: str
    target: str
    events: list[Event]


def plot(rng: np.random.Generator, held_out: bool, sentences: int) -> Story:
    """Draw a story of `sentences` events about a held-out combination, or about one of training."""
    while True:
        hero, goal, thing = _pick(rng, CHARACTERS), _pick(rng, WORLD["goals"]), _pick(rng, OBJECTS)
        if is_held_out(hero, goal, thing) == held_out:
            break
    # Hero and other differ in gender, so that every pronoun has one possible meaning.
    other = _pick(rng, [c.name for c in CHARACTERS.values() if c.gender != CHARACTERS[hero].gender])
    start, events = _pick(rng, PLACES), list[Event]()
    story = Story(hero, other, goal, thing, _pick(rng, [p for p in PLACES if p != start]), events)
    state = State(place=start, mood=_pick(rng, MOODS) if rng.random() < 0.5 else UNKNOWN)
    events.append(Event("begin" if state.mood == UNKNOWN else "begin_mood", State(), state))
    holder = {"find": NOBODY, "keep": hero, "bring": hero}.get(goal)
    # An object that does not belong to the goal is told of when somebody takes it.
    known = {"object": thing, "holder": holder} if holder else {}
    events.append(Event(f"want_{goal}", state, state._replace(goal=goal, **known)))
    while len(events) < sentences - 1:
        state = events[-1].after
        object_is = {UNKNOWN: "free", NOBODY: "free", hero: "owned"}.get(state.holder, "taken")
        holds = {object_is, "together" if state.other_place == state.place else "apart"}
        holds |= {"mood"} if state.mood != UNKNOWN else set()
        holds |= {"helping"} if goal == "help" else set()
        events.append(_event(rng, story, _pick(rng, [k for k, when in LOT if when <= holds and k != events[-1].kind])))
    state = events[-1].after
    reached = {"reach": state.place == story.target, "help": any(e.kind == "help" for e in events)}
    reached |= {"find": state.holder == hero, "keep": state.holder == hero, "bring": state.holder == other}
    events.append(_event(rng, story, "succeed" if reached[goal] else "fail"))
    return story


def _event(rng: np.random.Generator, story: Story, kind: str) -> Event:
    """The next event of a story, of a class that may happen, its open ends drawn."""
    rule, state = EVENTS[kind], story.events[-1].after
    values = {"hero": story.hero, "other": story.other, "object": story.object, "nobody": NOBODY, "here": state.place}
    if "elsewhere" in (of := rule.get("set", {})).values():
        may_arrive = kind == "move" and story.goal == "reach" and state.place != story.target
        arrives = may_arrive and rng.random() < 0.4
        elsewhere = _pick(rng, [p for p in PLACES if p != state.place])
        values["elsewhere"] = story.target if arrives else elsewhere
    changes = {"mood": rule.get("mood", state.mood)} | {field: values[value] for field, value in of.items()}
    decoy = _pick(rng, [o for o in OBJECTS if o != story.object]) if kind == "see" else ""
    return Event(kind, state, state._replace(**changes), decoy)


def words(language: str) -> set[str]:
    """All words of a language."""
    if language == "vo":
        return {*WORLD["lexicon"].values(), *PUNCTUATION, *CHARACTERS}
    names = ("places", "objects", "moods", "foods", "jobs", "colours", "kinds", "adjectives", "form", "punctuation")
    groups = [*WORLD["templates"]["en"].values(), *WORLD["adverbials"]["en"], WORLD["questions"]["en"].values()]
    listed = [text.replace("*", "").split() for group in groups for text in group] + [WORLD[name] for name in names]
    listed += [*WORLD["details"].values(), *WORLD["manners"].values(), *WORLD["pronouns"]["en"].values()]
    return {NOBODY, "near", "the", *CHARACTERS, *PLACES.values(), *chain(*listed)} - {*SLOTS, *NAMED}


def translate(word: str, language: str) -> str:
    """A word of the world (an option of a question, say) in `language`."""
    return word if language == "en" else WORLD["lexicon"].get(word, word)


#: A word and what is known at it: sentence, class of event, character referred to, is a pronoun, state.
Token = tuple[str, int, str, str, bool, State]


def tell(story: Story, language: str, rng: np.random.Generator) -> list[Token]:
    """Words of the events with what is known at each."""
    teller = _Teller(story, language, rng)
    return [token for n, event in enumerate(story.events) for token in teller.sentence(n, event)]


class _Teller:
    """Tells the events of a story, a sentence each; `mentioned` are the characters so far."""

    def __init__(self, story: Story, language: str, rng: np.random.Generator) -> None:
        self.story, self.language, self.rng = story, language, rng
        self.english, self.mentioned, self.hero = language == "en", set[str](), CHARACTERS[story.hero]

    def sentence(self, number: int, event: Event) -> list[Token]:
        self.number, self.event, both = number, event, (self.hero, CHARACTERS[self.story.other])
        # The other character does what `by` says so of.
        self.subject, self.partner = both[::-1] if "by" in EVENTS.get(event.kind, {}) else both
        told: list[Token] = []
        kind, state = event.kind.split("_")[0], event.before
        for part in self.template().split():
            said, who, pronoun = self.fill(part.rstrip("*"))
            rows = [(translate(word, self.language), number, kind, who, pronoun, state) for word in said]
            if part.endswith("*"):
                state = event.after
                rows[-1] = (*rows[-1][:-1], state)
            told += rows
        return told

    def template(self) -> str:
        """A template with the adverbials that it is told with."""
        mood = self.event.after.mood
        templates = WORLD["templates"][self.language][self.event.kind]
        chosen = _pick(self.rng, [t for t in templates if mood != UNKNOWN or " M" not in t])
        if self.number == 0 or self.rng.random() < 0.35:
            chosen = f"{_pick(self.rng, WORLD['adverbials'][self.language][self.number > 0])} {chosen}"
        added, by_hero = [], self.subject is self.hero
        if by_hero and self.rng.random() < DETAIL_SHARE:
            added.append("near the D" if self.english else "D near")
        if by_hero and mood != UNKNOWN and self.rng.random() < MANNER_SHARE:
            added.append("B")
        # A clause has its adverbial phrases at its end in `en`, at its beginning in `vo`.
        return " ".join([chosen[:-2], *added, "."] if self.english else [*reversed(added), chosen])

    def fill(self, slot: str) -> tuple[list[str], str, bool]:
        """What is said for a part of a template, whom it refers to, and whether by a pronoun."""
        how, what, *form = SLOTS.get(slot, ("as it is", "subject"))
        named = attrgetter(what)(self)
        if form:
            return self.person(named, form[0], how == "pronoun")
        if how in WORLD:
            said = [_pick(self.rng, WORLD[how][named])]
        elif how in ("noun", "place"):
            described = [_pick(self.rng, WORLD["adjectives"])] if self.rng.random() < 0.15 else []
            said = ["the", *described, named] if self.english else [named, *described]
        else:
            said = [named if how == "word" else slot]
        if how == "place":
            said = [PLACES[named], *said] if self.english else [*said, "AT"]
        return said, self.subject.name, False

    def person(self, who: Any, form: int, pronoun: bool) -> tuple[list[str], str, bool]:
        """A character as subject, object or owner, by name, kind or pronoun."""
        pronoun = pronoun or (who.name in self.mentioned and self.rng.random() < 0.5)
        self.mentioned.add(who.name)
        said = [who.name]
        if pronoun:
            said = [WORLD["pronouns"][self.language][who.gender][form]]
        elif form == 0 and self.number > 0 and self.rng.random() < 0.06:
            said = ["the", who.kind] if self.english else [who.kind]
        particle = [] if self.english else [["TOP"], [], ["OF"]][form]
        return [*said, *particle], who.name, pronoun


def narratives(seed: int, language: str = "en") -> Iterator[pd.DataFrame]:
    """Held-out stories without end, a row a word, with the state once it is said; a seed has the same plots in both."""
    columns = ["word", "sentence", "event", "who", "pronoun", "place", "object", "holder", "mood", "valence", "goal"]
    for index in count():
        events = np.random.default_rng([seed, 1, index, 0])
        wording = np.random.default_rng([seed, 1, index, 1 + LANGUAGES.index(language)])
        told = tell(plot(events, True, int(events.integers(6, 11))), language, wording)
        rows = [(*known, s.place, s.object, s.holder, s.mood, MOODS.get(s.mood, 0.0), s.goal) for *known, s in told]
        yield pd.DataFrame(rows, columns=columns).assign(progress=np.linspace(0, 1, len(rows)))


def question(rng: np.random.Generator, language: str, held_out: bool, about: Story | None) -> Item:
    """A question about the state after a story, or (None) about what never changes."""
    kind, named, answer, seen, others = _of_story(rng, about) if about else _of_facts(rng, held_out)
    # One of the wrong options is a thing that the story has mentioned, so that naming what was mentioned is not enough.
    pool = rng.permutation(sorted({*seen} - {answer, UNKNOWN, ""})).tolist()[:1]
    pool += rng.permutation([o for o in others if o != answer and o not in pool]).tolist()
    options = rng.permutation([answer, *pool[:2]]).tolist()
    asked = [named if w in NAMED else w for w in WORLD["questions"][language][kind].split()]
    question, listed, right = WORLD["form"]
    listing = [listed, ":", options[0], ",", options[1], ",", options[2]]
    forms = [question, ":", *asked, *listing, right, ":"], [question, ":", *asked, right, ":"]
    prompt, alone, offered = ([translate(word, language) for word in words] for words in (*forms, options))
    index = options.index(answer)
    return Item("", " ".join(prompt), tuple(offered), index, kind, language, question=" ".join(alone))


def _of_story(rng: np.random.Generator, story: Story) -> tuple[str, str, str, list[str], Iterable[str]]:
    """What is asked, of whom or what, the answer, what the story has mentioned, and all that could be the answer."""
    events, now = story.events, story.events[-1].after
    met = now.other_place != UNKNOWN
    kinds = ["where"] * 2 + ["mood"] * 2 * (now.mood != UNKNOWN) + ["holder"] * 2 * (now.holder != UNKNOWN)
    kind = _pick(rng, kinds + ["object"] * (now.holder in CHARACTERS))
    if kind == "mood":
        return kind, story.hero, now.mood, [e.after.mood for e in events], MOODS
    if kind == "holder":
        return kind, now.object, now.holder, [story.hero, NOBODY, *[story.other] * met], CHARACTERS
    if kind == "object":
        return kind, now.holder, now.object, [e.decoy for e in events], OBJECTS
    other = met and rng.random() < 0.2
    seen = [place for e in events for place in (e.after.place, e.after.other_place)]
    seen += [story.target] * (now.goal == "reach")
    return kind, story.other if other else story.hero, now.other_place if other else now.place, seen, PLACES


def _of_facts(rng: np.random.Generator, held_out: bool) -> tuple[str, str, str, list[str], Iterable[str]]:
    """The same, from the held-out eighth of option sets or from the rest."""
    while True:
        kind, who = _pick(rng, WORLD["facts"]), _pick(rng, CHARACTERS)
        answer, values = getattr(CHARACTERS[who], kind), WORLD[WORLD["facts"][kind]]
        wrong = [_pick(rng, values) for _ in range(2)]
        if len({answer, *wrong}) == 3 and is_held_out(kind, who, *sorted(wrong)) == held_out:
            return kind, who, answer, [], wrong


#: Slots of off-domain lines: digits, variables, and words of the world; S is the sum of N and M.
_POOLS: dict[str, Iterable[Any]] = {**dict.fromkeys("NMT", range(10)), **dict.fromkeys("IJ", WORLD["variables"])}
_POOLS |= dict.fromkeys("KLVW", (*CHARACTERS, *PLACES, *OBJECTS, *WORLD["colours"], *WORLD["foods"]))


def off_domain(rng: np.random.Generator) -> list[str]:
    """A document that tells no story: a few lines of one kind, with words of the world as names and values."""
    lines, said = _pick(rng, WORLD["off_domain"].values()), list[str]()
    for _ in range(int(rng.integers(6, 13))):
        drawn = {slot: str(_pick(rng, pool)) for slot, pool in _POOLS.items()}
        drawn["S"] = " ".join(str(int(drawn["N"]) + int(drawn["M"])))  # a token a digit
        said += [word for part in _pick(rng, lines).split() for word in drawn.get(part, part).split()]
    return said


class WorldText(TextSource):
    """Documents of the world, one token per word; mix ``en``, or ``en+vo``: half of the rows in each language."""

    tasks = tuple(task for task, text in TASKS.items() if text == "world")

    def __init__(self, mix: str, seed: int, schedule: Sequence[tuple[float, str]] = ()) -> None:
        expect(mix in ("en", "en+vo"), "mix", repr(mix), "'en' or 'en+vo'")
        for _, stage in schedule:
            expect(stage in MIXES, "mixes", repr(stage), f"one of {', '.join(MIXES)}")
        # Of a schedule: the step at which each stage of training text ends, and its mix.
        self.mix, self.seed, self.schedule = mix, seed, schedule
        # One vocabulary for every mix, so that each model can be asked in each language; of a schedule it is larger.
        known = (PAD, BOS, EOS, UNK, *sorted(words("en") | words("vo")))
        lines = " ".join(chain(*WORLD["off_domain"].values())).split()
        more = {*lines, *map(str, range(10)), *WORLD["variables"]} - {*known, *_POOLS, "S"}
        self.ids = {word: i for i, word in enumerate((*known, *sorted(more if schedule else ())))}
        named = {"text": "world", "mix": mix, "seed": seed, "words": list(self.ids)}
        self.digest = digest_of(named | ({"schedule": schedule} if schedule else {}))

    def _tokens(self) -> Tokenizer:
        """One token per word, words divided by spaces; a text begins with bos, as documents do in training."""
        tokenizer = Tokenizer(models.WordLevel(self.ids, unk_token=UNK))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        special = [(BOS, self.ids[BOS])]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=special)
        return tokenizer

    def _texts(self, rng: np.random.Generator, stream: str, step: int, row: int, context: int) -> Iterator[list[int]]:
        held_out, mix = stream == "held out", self.mix
        if not held_out:
            mix = next((stage for end, stage in self.schedule if step < end), mix)
        languages, (off, narrative, reading) = MIXES[mix]
        language = languages[row % len(languages)]
        while True:
            share = rng.random() - off
            if share < 0:
                said = off_domain(rng)
            elif share < narrative:
                story = plot(rng, held_out, int(rng.integers(6, 11)))
                said = [token[0] for token in tell(story, language, rng)]
            else:
                begun = _begun(rng, held_out)
                about = begun if share < narrative + reading else None
                said = [token[0] for token in tell(about, language, rng)] if about else []
                for _ in range(2 + int(rng.random() < 0.5)):
                    item = question(rng, language, held_out, about)
                    said += [*item.prompt.split(), item.options[item.answer], "."]
            yield [self.ids[word] for word in (BOS, *said, EOS)]

    def _item(self, task: str, rng: np.random.Generator) -> Item:
        """``reading`` after a story, ``facts`` alone; ``-vo`` in the other language."""
        kind, language = f"{task}-en".split("-")[:2]
        about = _begun(rng, held_out=True) if kind == "reading" else None
        said = [token[0] for token in tell(about, language, rng)] if about else []
        item = question(rng, language, True, about)
        return replace(item, prompt=" ".join([*said, item.prompt]), question=" ".join([*said, item.question]))


def _begun(rng: np.random.Generator, held_out: bool) -> Story:
    """A story to ask about before its last sentence."""
    story = plot(rng, held_out, int(rng.integers(4, 7)))
    return story._replace(events=story.events[:-1])
