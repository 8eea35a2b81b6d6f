"""A small world, told in two languages: stories whose every word has a known latent state.

Ten characters live in it. Five things about each never change (home, food, job, colour, kind); what
else is true (where the hero is, who holds the story's object, how the hero feels, how the other
characters fare) changes from sentence to sentence and mostly has to be carried along from earlier
sentences. A story is a plot (`plot`: events with the state after each) and its telling (`tell`:
words), so that one plot can be told in ``en``, which looks like English, or in ``vo``, a constructed
language with words of its own, verbs at the end of the clause and particles after nouns for cases.
Characters' names and punctuation are common to both.

Held-out stories differ from training stories by their random stream and by what they are about:
the combination of hero, goal and object decides by a digest (`is_held_out`) on which side a story
lies, so no held-out combination is ever told in training. Questions about constant facts are divided
in the same way, by what is asked and which options are listed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import numpy as np
import pandas as pd

LANGUAGES = ("en", "vo")
#: Moods with their valence, -1 (unpleasant) to 1 (pleasant).
MOODS = {
    "happy": 0.9,
    "proud": 0.8,
    "calm": 0.4,
    "tired": -0.3,
    "lonely": -0.6,
    "afraid": -0.7,
    "sad": -0.8,
    "angry": -0.9,
}
#: Places, with the preposition that their kind (enclosed or open) asks for.
PLACES = {
    "farm": "at",
    "river": "at",
    "market": "at",
    "harbor": "at",
    "mill": "at",
    "forest": "in",
    "castle": "in",
    "school": "in",
    "garden": "in",
    "tower": "in",
}
#: What is to be seen at a place and at no other: telling it takes knowing where the hero is.
DETAILS = {
    "farm": ("hay", "barn", "cows", "plough", "fence", "stable"),
    "river": ("water", "bridge", "reeds", "ferry", "stones", "bank"),
    "market": ("stalls", "crowd", "baskets", "scales", "sellers", "carts"),
    "harbor": ("ships", "sails", "nets", "pier", "gulls", "anchors"),
    "mill": ("wheel", "flour", "sacks", "grain", "millstone", "dust"),
    "forest": ("trees", "moss", "leaves", "ferns", "pines", "shade"),
    "castle": ("hall", "gate", "guards", "banners", "throne", "moat"),
    "school": ("desks", "chalk", "pupils", "bench", "pens", "lessons"),
    "garden": ("roses", "hedge", "lawn", "beans", "bees", "pond"),
    "tower": ("stairs", "window", "clock", "bats", "roof", "balcony"),
}
#: How somebody in a mood does what they do: telling it takes knowing the mood.
MANNERS = {
    "happy": ("cheerfully", "merrily", "gladly", "brightly", "joyfully"),
    "proud": ("proudly", "boldly", "grandly", "nobly", "firmly"),
    "calm": ("quietly", "gently", "peacefully", "softly", "patiently"),
    "tired": ("slowly", "wearily", "sleepily", "heavily", "faintly"),
    "lonely": ("silently", "emptily", "aimlessly", "forlornly", "distantly"),
    "afraid": ("nervously", "timidly", "anxiously", "shakily", "warily"),
    "sad": ("sadly", "tearfully", "gloomily", "mournfully", "bitterly"),
    "angry": ("angrily", "furiously", "roughly", "fiercely", "harshly"),
}
#: Share of sentences, as far as the state is known, that tell a detail or a manner.
DETAIL_SHARE, MANNER_SHARE = 0.45, 0.4
OBJECTS = ("key", "lamp", "book", "ring", "rope", "drum", "map", "cup", "bell", "coat")
GOALS = ("find", "keep", "bring", "reach", "help")
FOODS = ("bread", "fish", "honey", "soup", "apples", "cheese", "nuts", "rice")
JOBS = ("baker", "doctor", "teacher", "singer", "painter", "sailor", "hunter", "weaver")
COLOURS = ("red", "blue", "green", "white", "black", "yellow", "brown", "purple")
KINDS = ("fox", "bear", "owl", "hare", "wolf", "cat", "goose", "mole", "otter", "badger")
ADJECTIVES = ("old", "small", "golden", "heavy", "strange")
FACTS = ("home", "food", "job", "colour", "kind")
UNKNOWN = "unknown"
NOBODY = "nobody"

LABELS = (
    "word",
    "sentence",
    "event",
    "who",
    "pronoun",
    "place",
    "object",
    "holder",
    "mood",
    "valence",
    "goal",
    "progress",
    "language",
)


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


def _characters() -> dict[str, Character]:
    rng = np.random.default_rng(20260101)
    names = {"mira": "f", "anna": "f", "lena": "f", "nora": "f", "sofia": "f"}
    names |= {"otto": "m", "ivan": "m", "pavel": "m", "hugo": "m", "emil": "m"}
    values: list[list[str]] = []
    for options in (tuple(PLACES), FOODS, JOBS, COLOURS, KINDS):
        # Every value is used before one is used twice; ten places and ten kinds are each unique.
        order = [*rng.permutation(options), *rng.permutation(options)][: len(names)]
        values.append([str(v) for v in order])
    return {
        name: Character(name, gender, *facts)
        for (name, gender), facts in zip(names.items(), zip(*values, strict=True), strict=True)
    }


CHARACTERS = _characters()


def is_held_out(*combination: str) -> bool:
    """Whether a combination belongs to the held-out eighth of all; the same on every machine."""
    return hashlib.sha256(" ".join(combination).encode()).digest()[0] % 8 == 0


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
    events: tuple[Event, ...]


T = TypeVar("T")


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


#: The mood that an event leaves behind in the hero.
CONSEQUENCE = {
    "find": "happy",
    "lose": "sad",
    "give": "proud",
    "snatch": "angry",
    "return": "happy",
    "storm": "afraid",
    "rest": "calm",
    "work": "tired",
    "eat": "happy",
    "alone": "lonely",
    "closed": "angry",
    "help": "proud",
    "succeed": "proud",
    "fail": "sad",
}


def plot(rng: np.random.Generator, held_out: bool, sentences: int) -> Story:
    """Draw a story of `sentences` events about a held-out combination, or about one of training."""
    while True:
        hero, goal, thing = _pick(rng, list(CHARACTERS)), _pick(rng, GOALS), _pick(rng, OBJECTS)
        if is_held_out(hero, goal, thing) == held_out:
            break
    # Hero and other differ in gender, so that every pronoun has one possible meaning.
    other = _pick(rng, [c.name for c in CHARACTERS.values() if c.gender != CHARACTERS[hero].gender])
    start = _pick(rng, list(PLACES))
    target = _pick(rng, [p for p in PLACES if p != start])
    state = State(place=start, mood=_pick(rng, list(MOODS)) if rng.random() < 0.5 else UNKNOWN)
    events = [Event("begin" if state.mood == UNKNOWN else "begin_mood", hero, State(), state)]

    def happens(kind: str, subject: str = hero, decoy: str = "", **changes: str) -> None:
        nonlocal state
        after = replace(state, mood=CONSEQUENCE.get(kind, state.mood))
        after = replace(after, **changes)
        events.append(Event(kind, subject, state, after, decoy))
        state = after

    holder = {"find": NOBODY, "keep": hero, "bring": hero}.get(goal, UNKNOWN)
    # An object that does not belong to the goal is told of when somebody takes it.
    known = {"object": thing, "holder": holder} if holder != UNKNOWN else {}
    happens(f"want_{goal}", goal=goal, **known)
    while len(events) < sentences - 1:
        last = events[-1].kind
        here = state.other_place == state.place
        may = ["move", "move", "storm", "rest", "work", "eat", "alone", "closed", "see", "see"]
        if here:
            may = [k for k in may if k != "alone"] + ["talk", "part"]
            if goal == "help":
                may += ["help", "help"]
        else:
            may += ["meet", "meet", "meet"]
        if state.holder in (UNKNOWN, NOBODY):
            may += ["find"] * 4
        elif state.holder == hero:
            may += ["lose", *(["give", "give", "snatch"] if here else [])]
        elif here:
            may += ["return", "return"]
        if state.mood != UNKNOWN and last != "feel":
            may += ["feel"] * 3
        kind = _pick(rng, [k for k in may if k != last])
        if kind == "move":
            arrives = goal == "reach" and state.place != target and rng.random() < 0.4
            elsewhere = _pick(rng, [p for p in PLACES if p != state.place])
            happens("move", place=target if arrives else elsewhere)
        elif kind == "meet":
            happens("meet", other_place=state.place)
        elif kind == "part":
            # The other character goes away: from now on the two are at different places.
            happens("part", other, other_place=_pick(rng, [p for p in PLACES if p != state.place]))
        elif kind in ("find", "return"):
            happens(kind, hero if kind == "find" else other, object=thing, holder=hero)
        elif kind in ("give", "snatch"):
            happens(kind, hero if kind == "give" else other, holder=other)
        elif kind == "lose":
            happens(kind, holder=NOBODY)
        elif kind == "see":
            happens(kind, decoy=_pick(rng, [o for o in OBJECTS if o != thing]))
        else:
            happens(kind)
    reached = {
        "find": state.holder == hero,
        "keep": state.holder == hero,
        "bring": state.holder == other,
        "reach": state.place == target,
        "help": any(e.kind == "help" for e in events),
    }[goal]
    happens("succeed" if reached else "fail")
    return Story(hero, other, goal, thing, target, tuple(events))


# --- Languages -------------------------------------------------------------------------------------
#
# A template is a clause. Capital letters are slots:
#   S subject, s the subject as a pronoun, O the other one of hero and other character, H the hero,
#   U the owner in "her" or "his", P the new place, L the same after its preposition, Q the place
#   before, A the target of a journey, X the object, Y another object, M the hero's new mood, F, J, K
#   food, job and kind of the subject, D a detail of the hero's place, B the manner of the hero's mood.
# A star marks the word that completes what happened: from that word on the new state holds.
# Templates of `vo` are written in glosses, each of which is one word of the lexicon; its particles
# are TOP (subject), ACC (object), TO, AT, FROM, OF, REL (ends a relative clause).

TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "begin": ("S was L* .", "S woke up L* .", "L* there was a J named S .", "L* lived a K named S ."),
        "begin_mood": ("S was L and felt M* .", "S sat L and was M* .", "L S woke up and was very M* ."),
        "want_find": (
            "S wanted to find X* .",
            "S was looking for X* .",
            "s had heard of X and wanted to find it* .",
        ),
        "want_keep": ("S had X and wanted to keep it* .", "X was in U bag , and S wanted to keep it* ."),
        "want_bring": (
            "S had X and wanted to bring it to O* .",
            "S wanted to bring X , which s had , to O* .",
        ),
        "want_reach": ("S wanted to reach A* .", "S had to reach A before night* ."),
        "want_help": ("S wanted to help O* .", "S had heard that O was ill and wanted to help* ."),
        "move": (
            "S went to P* .",
            "S walked to P* .",
            "S left Q and ran to P* .",
            "S followed the road to P* .",
            "from Q S went to P* .",
        ),
        "find": (
            "S found X* .",
            "S found X* under a tree .",
            "S found X* and felt M .",
            "S found X* , which made s_obj M .",
        ),
        "lose": ("S lost X* .", "S lost X* and felt M .", "X fell* from U bag and S was M ."),
        "give": ("S gave X to O* .", "S gave X to O* and felt M .", "S , who felt M , gave X to O* ."),
        "snatch": ("S took X from O* .", "S took X* , which made O M .", "S stole X from O* ."),
        "return": ("S gave X back* .", "S gave X back* to O , who felt M .", "S brought X back to O* ."),
        "meet": ("S met O* .", "S saw O* there .", "S met O* , who liked G .", "O* was there too ."),
        "part": ("S said goodbye and went to R* .", "S left for R* .", "S went away to R* ."),
        "talk": ("S talked* with O .", "S asked* O about the road .", "S told* O that s was M ."),
        "storm": ("it rained* and S was M .", "a loud noise made* S M .", "S saw a storm* and was M ."),
        "rest": ("S slept* under a tree .", "S sat down* and felt M .", "S rested* and was M again ."),
        "work": (
            "S worked* like a good J .",
            "S , who was a J , worked* and was M .",
            "S worked* and felt M .",
        ),
        "eat": ("S ate* some F .", "S ate* some F and felt M .", "S , who liked F , ate* and was M ."),
        "alone": (
            "nobody came* and S was M .",
            "S was all alone* and felt M .",
            "S waited but nobody came* .",
        ),
        "closed": (
            "the door was closed* and S was M .",
            "S found no way* and felt M .",
            "S broke* a cup and was M .",
        ),
        "see": (
            "S saw Y* but left it there .",
            "there was Y* too .",
            "S looked at Y* , which was not for sale .",
        ),
        "help": ("S helped O* and was M .", "S made O well* again .", "O , who had been ill , thanked* S ."),
        "feel": (
            "S felt very M* .",
            "S was M* now .",
            "S said that s was M* .",
            "S , who was a K , was M* .",
        ),
        "succeed": (
            "so the story ended well and S was M* .",
            "S had done it and felt M* .",
            "S was M* at the end .",
        ),
        "fail": (
            "S had not done it and felt M* .",
            "so the story ended badly and S was M* .",
            "S gave up and was M* .",
        ),
    },
    "vo": {
        "begin": ("S L be* .", "S L wake* .", "L J S be* .", "L K S live* ."),
        "begin_mood": ("S L be and M feel* .", "S L sit , M be* ."),
        "want_find": ("S X ACC find want* .", "S X ACC seek* ."),
        "want_keep": ("S have REL X ACC keep want* .", "S X ACC have and keep want* ."),
        "want_bring": ("S X ACC have and O TO bring want* .", "S have REL X ACC O TO bring want* ."),
        "want_reach": ("S A TO reach want* .", "S night before A TO reach must* ."),
        "want_help": ("S O ACC help want* .", "S ill be REL O ACC help want* ."),
        "move": ("S P TO go* .", "S P TO walk* .", "S Q FROM P TO run* .", "Q FROM S P TO go* ."),
        "find": ("S X ACC find* .", "S tree under X ACC find* .", "S X ACC find* and M feel ."),
        "lose": ("S X ACC lose* .", "S X ACC lose* and M feel .", "X U bag FROM fall* and H M be ."),
        "give": ("S O TO X ACC give* .", "S O TO X ACC give* and M feel ."),
        "snatch": ("S O FROM X ACC take* .", "S X ACC steal* and O M be .", "S O FROM X ACC steal* ."),
        "return": ("S O TO X ACC return* .", "S X ACC return* and O M feel ."),
        "meet": ("S O ACC meet* .", "S G like REL O ACC meet* .", "S O ACC see* ."),
        "part": ("S R TO leave* .", "S goodbye say and R TO go* ."),
        "talk": ("S O TO talk* .", "S O ACC road about ask* .", "S M be REL O TO say* ."),
        "storm": ("rain fall* and S M be .", "S storm ACC see* and M be ."),
        "rest": ("S tree under sleep* .", "S sit* and M feel .", "S rest* and M be ."),
        "work": ("S J like work* .", "S work* and M be ."),
        "eat": ("S F ACC eat* .", "S F ACC eat* and M feel .", "F like REL S eat* and M be ."),
        "alone": ("nobody come* and S M be .", "S alone be* and M feel ."),
        "closed": ("door close* and S M be .", "S cup ACC break* and M feel ."),
        "see": ("S Y ACC see* .", "S Y ACC see* and leave .", "Y too be* ."),
        "help": ("S O ACC help* and M be .", "S O ACC heal* ."),
        "feel": ("S very M feel* .", "S now M be* .", "S K be REL M be* ."),
        "succeed": ("S ACC do and M be* .", "story well end and S M be* ."),
        "fail": ("S not do and M be* .", "story badly end and S M be* ."),
    },
}
#: Opening adverbials, then those that may begin any later sentence.
ADVERBIALS = {
    "en": (
        ("one morning", "one evening", "long ago", "one cold day", "in spring"),
        ("then", "later", "after that", "soon", "the next day", "at noon", "in the evening"),
    ),
    "vo": (
        ("morning one", "evening one", "long ago", "spring AT"),
        ("then", "later", "soon", "day next", "noon AT", "evening AT"),
    ),
}
#: What is asked, by kind of question; N is a name, X an object. Each ends in a question mark.
QUESTIONS = {
    "en": {
        "where": "where is N ?",
        "holder": "who has the X ?",
        "object": "what does N have ?",
        "mood": "how does N feel ?",
        "home": "where is the home of N ?",
        "food": "what does N eat ?",
        "job": "what is the job of N ?",
        "colour": "which colour does N like ?",
        "kind": "what kind of animal is N ?",
    },
    "vo": {
        "where": "N where be ?",
        "holder": "X ACC who have ?",
        "object": "N what ACC have ?",
        "mood": "N how feel ?",
        "home": "N OF home where be ?",
        "food": "N what ACC eat ?",
        "job": "N OF job what be ?",
        "colour": "N which colour ACC like ?",
        "kind": "N which animal be ?",
    },
}
#: The words around a question: "question : ... options : a , b , c answer :".
FORM = ("question", "options", "answer")
PRONOUNS = {
    "en": {"f": ("she", "her", "her"), "m": ("he", "him", "his")},
    "vo": {"f": ("SHE", "SHE", "SHE"), "m": ("HE", "HE", "HE")},
}
PUNCTUATION = (".", ",", "?", ":")
_SLOTS = set("SsOHUPLQARXYMFGJKNDB") | {"s_obj"}


@cache
def lexicon() -> dict[str, str]:
    """Gloss -> word of ``vo``: generated, pronounceable, none of them a word of ``en``."""
    rng = np.random.default_rng(20260102)
    taken = set(words("en"))
    result: dict[str, str] = {}
    for gloss in _glosses():
        syllables = 1 if gloss.isupper() else 2 + int(rng.random() < 0.4)
        while True:
            word = "".join(_pick(rng, "ptkbdgmnlsvzr") + _pick(rng, "aeiou") for _ in range(syllables))
            word += _pick(rng, "nrsl") if syllables > 1 and rng.random() < 0.4 else ""
            if word not in taken:
                break
        taken.add(word)
        result[gloss] = word
    return result


def _glosses() -> list[str]:
    """What ``vo`` has words for, sorted."""
    return sorted(set(_vocabulary("vo")) - set(PUNCTUATION) - set(CHARACTERS))


def _vocabulary(language: str) -> list[str]:
    texts = [t for group in TEMPLATES[language].values() for t in group]
    texts += [*QUESTIONS[language].values(), *ADVERBIALS[language][0], *ADVERBIALS[language][1], *FORM]
    found = {w.rstrip("*") for text in texts for w in text.split()} - _SLOTS
    found |= {*CHARACTERS, *PLACES, *OBJECTS, *MOODS, *FOODS, *JOBS, *COLOURS, *KINDS, *ADJECTIVES}
    found |= {"near", *(w for told in (*DETAILS.values(), *MANNERS.values()) for w in told)}
    found |= {*PUNCTUATION, NOBODY, *(p for forms in PRONOUNS[language].values() for p in forms)}
    return sorted(found | ({"the", *PLACES.values()} if language == "en" else {"AT", "TOP", "OF"}))


@cache
def words(language: str) -> tuple[str, ...]:
    """All words of a language, sorted."""
    if language not in LANGUAGES:
        raise ValueError(f"language: found {language!r}, expected one of {', '.join(LANGUAGES)}")
    if language == "en":
        return tuple(_vocabulary("en"))
    return tuple(sorted({*lexicon().values(), *PUNCTUATION, *CHARACTERS}))


def translate(word: str, language: str) -> str:
    """A word of the world (an option of a question, say) in `language`."""
    return word if language == "en" else lexicon().get(word, word)


# --- Telling ---------------------------------------------------------------------------------------

#: What is known at a word: event, who, pronoun, state, sentence.
Token = tuple[str, int, str, str, bool, State]


def tell(story: Story, language: str, rng: np.random.Generator, sentences: int | None = None) -> list[Token]:
    """Words of the first `sentences` events (all when None) with what is known at each.

    Returns
    -------
    list of (word, sentence, class of event, character referred to, is a pronoun, state)
    """
    told: list[Token] = []
    mentioned: set[str] = set()
    for number, event in enumerate(story.events[:sentences]):
        told += _sentence(story, event, number, language, rng, mentioned)
    return told


def _added(template: str, phrase: str, language: str) -> str:
    """A clause with an adverbial phrase: at its end in ``en``, at its beginning in ``vo``."""
    return f"{template[:-2]} {phrase} ." if language == "en" else f"{phrase} {template}"


def _sentence(
    story: Story, event: Event, number: int, language: str, rng: np.random.Generator, mentioned: set[str]
) -> list[Token]:
    subject = CHARACTERS[event.subject]
    hero = CHARACTERS[story.hero]
    object_of = CHARACTERS[story.other if event.subject == story.hero else story.hero]
    told: list[Token] = []
    state = event.before
    adverbials = ADVERBIALS[language][number > 0]
    templates = TEMPLATES[language][event.kind]
    if event.after.mood == UNKNOWN:
        templates = tuple(t for t in templates if " M" not in t)
    template = _pick(rng, templates)
    if number == 0 or rng.random() < 0.35:
        template = f"{_pick(rng, adverbials)} {template}"
    kind = event.kind.split("_")[0]
    now = event.after
    if event.subject == story.hero and rng.random() < DETAIL_SHARE:
        template = _added(template, "near the D" if language == "en" else "D near", language)
    if event.subject == story.hero and now.mood != UNKNOWN and rng.random() < MANNER_SHARE:
        template = _added(template, "B", language)

    def noun(word: str) -> list[str]:
        described = rng.random() < 0.15
        if language == "en":
            return ["the", _pick(rng, ADJECTIVES), word] if described else ["the", word]
        return [word, _pick(rng, ADJECTIVES)] if described else [word]

    def person(who: Character, form: int, pronoun: bool) -> tuple[list[str], str, bool]:
        pronoun = pronoun or (who.name in mentioned and rng.random() < 0.5)
        mentioned.add(who.name)
        if pronoun:
            return [PRONOUNS[language][who.gender][form]], who.name, True
        if form == 0 and number > 0 and rng.random() < 0.06:
            return (["the", who.kind] if language == "en" else [who.kind]), who.name, False
        return [who.name], who.name, False

    for part in template.split():
        slot = part.rstrip("*")
        who, pronoun = subject.name, False
        if slot in ("S", "s", "H"):
            said, who, pronoun = person(hero if slot == "H" else subject, 0, slot == "s")
            said = said if language == "en" else [*said, "TOP"]
        elif slot in ("O", "s_obj"):
            said, who, pronoun = person(object_of if slot == "O" else subject, 1, slot == "s_obj")
        elif slot == "U":
            said, who, pronoun = person(hero, 2, True)
            said = said if language == "en" else [*said, "OF"]
        elif slot == "L":
            place = event.after.place
            said = [PLACES[place], *noun(place)] if language == "en" else [*noun(place), "AT"]
        elif slot in ("P", "Q", "A", "R"):
            said = noun(
                {
                    "P": event.after.place,
                    "Q": event.before.place,
                    "A": story.target,
                    "R": event.after.other_place,
                }[slot]
            )
        elif slot in ("X", "Y"):
            said = noun(story.object if slot == "X" else event.decoy)
        elif slot == "M":
            said = [event.after.mood]
        elif slot in ("D", "B"):
            said = [_pick(rng, DETAILS[now.place] if slot == "D" else MANNERS[now.mood])]
        elif slot in ("F", "J", "K"):
            said = [{"F": subject.food, "J": subject.job, "K": subject.kind}[slot]]
        elif slot == "G":
            said = [object_of.food]
        else:
            said = [slot]
        for position, word in enumerate(said):
            if part.endswith("*") and position == len(said) - 1:
                state = event.after
            told.append((translate(word, language), number, kind, who, pronoun, state))
    return told


@dataclass(frozen=True)
class Narrative:
    """A told story. ``labels`` has one row a word and the columns of `LABELS`."""

    words: tuple[str, ...]
    labels: pd.DataFrame


def narratives(
    n: int,
    seed: int,
    language: str = "en",
    held_out: bool = False,
    sentences: tuple[int, int] = (6, 10),
) -> list[Narrative]:
    """Tell `n` stories with labels; the same seed gives the same plots in both languages.

    Parameters
    ----------
    n : number of stories.
    seed : of the plots and their telling.
    language : ``en`` or ``vo``.
    held_out : from the combinations never told in training, or from those of training.
    sentences : least and greatest number of sentences.

    Returns
    -------
    list of Narrative
        A word is labelled with the state that holds once it has been said; ``unknown`` stands for
        what has not been told yet, with valence 0. ``progress`` runs from 0 at the first word to 1
        at the last.
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
    kinds = ["where", "where"]
    kinds += ["mood", "mood"] * (now.mood != UNKNOWN)
    kinds += ["holder", "holder"] * (now.holder != UNKNOWN)
    kinds += ["object"] * (now.holder in CHARACTERS)
    kind = _pick(rng, kinds)
    named, answer, seen, others = story.hero, "", [], list[str]()
    if kind == "where":
        if now.other_place != UNKNOWN and rng.random() < 0.2:
            named, answer = story.other, now.other_place
        else:
            answer = now.place
        seen = [e.after.place for e in events] + [e.after.other_place for e in events]
        seen += [story.target] * (now.goal == "reach")
        others = list(PLACES)
    elif kind == "mood":
        answer, seen, others = now.mood, [e.after.mood for e in events], list(MOODS)
    elif kind == "holder":
        named, answer = now.object, now.holder
        seen = [story.hero, NOBODY, *([story.other] if now.other_place != UNKNOWN else [])]
        others = list(CHARACTERS)
    else:
        named, answer = now.holder, now.object
        seen, others = [e.decoy for e in events], list(OBJECTS)
    return _question(kind, named, answer, [o for o in seen if o not in (UNKNOWN, "")], others, language, rng)


def fact_question(held_out: bool, language: str, rng: np.random.Generator) -> Question:
    """A question about what never changes, from the held-out eighth of option sets or from the rest."""
    values = {"home": tuple(PLACES), "food": FOODS, "job": JOBS, "colour": COLOURS, "kind": KINDS}
    while True:
        kind, who = _pick(rng, FACTS), _pick(rng, list(CHARACTERS))
        answer = getattr(CHARACTERS[who], kind)
        wrong = [_pick(rng, values[kind]) for _ in range(2)]
        if len({answer, *wrong}) == 3 and is_held_out(kind, who, *sorted(wrong)) == held_out:
            return _question(kind, who, answer, (), wrong, language, rng)


def _question(
    kind: str,
    named: str,
    answer: str,
    seen: Sequence[str],
    others: Sequence[str],
    language: str,
    rng: np.random.Generator,
) -> Question:
    """List the answer with two wrong options: one of those `seen` if there is one, then any of `others`."""
    pool = [str(o) for o in rng.permutation(sorted(set(seen) - {answer}))][:1]
    pool += [str(o) for o in rng.permutation([o for o in others if o != answer and o not in pool])]
    options = [str(o) for o in rng.permutation([answer, *pool[:2]])]
    asked = [named if w in ("N", "X") else w for w in QUESTIONS[language][kind].split()]
    listed = [options[0], ",", options[1], ",", options[2]]
    said = [FORM[0], ":", *asked, FORM[1], ":", *listed, FORM[2], ":"]
    return Question(
        tuple(translate(w, language) for w in said),
        tuple(translate(o, language) for o in options),
        options.index(answer),
        kind,
    )
