"""The generated world: states, languages, questions."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pandas as pd
import pytest

from phaselab.texts import world


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_narratives_are_labelled_word_by_word(language: str) -> None:
    for labels in islice(world.narratives(3, language), 40):
        assert set(labels["word"]) <= world.words(language)
        assert set(labels["who"]) <= set(world.CHARACTERS)
        assert set(labels["place"]) <= {*world.PLACES, world.UNKNOWN}
        assert set(labels["holder"]) <= {*world.CHARACTERS, world.NOBODY, world.UNKNOWN}
        assert labels["progress"].iloc[[0, -1]].tolist() == [0.0, 1.0]
        assert (labels["valence"] == [world.MOODS.get(m, 0.0) for m in labels["mood"]]).all()
        # Each sentence ends in a full stop, and nowhere else is one.
        ends = labels["sentence"].ne(labels["sentence"].shift(-1))
        assert (labels["word"].eq(".") == ends).all()


def test_pronouns_refer_to_somebody_of_their_gender_and_have_one_meaning() -> None:
    genders = {"she": "f", "her": "f", "he": "m", "him": "m", "his": "m"}
    labels = pd.concat(islice(world.narratives(0), 100))
    pronouns = labels[labels["pronoun"]]
    assert set(pronouns["word"]) == set(genders)
    assert all(
        world.CHARACTERS[who].gender == genders[word]
        for who, word in zip(pronouns["who"], pronouns["word"], strict=True)
    )
    assert not labels.loc[~labels["pronoun"], "word"].isin(genders).any()


def test_state_changes_with_the_word_that_completes_the_event() -> None:
    labels = pd.concat(islice(world.narratives(1), 200), ignore_index=True)
    before = labels.shift(1)
    moved = labels["event"].eq("move") & labels["place"].ne(before["place"])
    assert moved.sum() > 90
    # In English the hero has moved once the place has been named, and the place named is the new one.
    assert (labels.loc[moved, "word"] == labels.loc[moved, "place"]).all()
    lost = labels["event"].eq("lose") & labels["holder"].ne(before["holder"])
    assert set(labels.loc[lost, "holder"]) == {world.NOBODY}
    assert set(labels.loc[lost, "mood"]) == {"sad"}


def test_most_latents_cannot_be_read_off_the_current_word() -> None:
    labels = pd.concat(islice(world.narratives(2), 150), ignore_index=True)
    for column in ("place", "holder", "mood"):
        named = labels["word"].eq(labels[column])
        assert named.mean() < 0.12, column


def test_both_languages_tell_the_same_plots_with_words_of_their_own() -> None:
    for en, vo in islice(zip(world.narratives(5, "en"), world.narratives(5, "vo"), strict=True), 20):
        for column in ("event", "place", "object", "holder", "mood", "goal"):
            last = [n.groupby("sentence")[column].last().tolist() for n in (en, vo)]
            assert last[0] == last[1], column
    shared = world.words("en") & world.words("vo")
    assert shared == {*world.CHARACTERS, *world.PUNCTUATION}


def test_the_constructed_language_has_its_verb_last() -> None:
    go = world.translate("go", "vo")
    labels = pd.concat(islice(world.narratives(4, "vo"), 100), ignore_index=True)
    assert set(labels["word"].shift(-1)[labels["word"].eq(go)]) == {"."}


def test_held_out_stories_share_no_combination_with_training() -> None:
    rng = np.random.default_rng(0)
    sides = [
        {(s.hero, s.goal, s.object) for s in (world.plot(rng, held_out, 4) for _ in range(600))}
        for held_out in (False, True)
    ]
    assert min(map(len, sides)) > 30
    assert not sides[0] & sides[1]


def test_reading_questions_are_answered_by_the_state_and_not_without_the_story() -> None:
    rng = np.random.default_rng(1)
    seen: dict[str, list[int]] = {}
    for _ in range(400):
        told = 4
        story = world.plot(rng, True, told + 1)
        question = world.question(rng, "en", True, story._replace(events=story.events[:told]))
        now = story.events[told - 1].after
        right = question.options[question.answer]
        expected = {
            "where": {now.place, now.other_place},
            "mood": {now.mood},
            "holder": {now.holder},
            "object": {now.object},
        }[question.kind]
        assert right in expected
        assert len(set(question.options)) == 3
        seen.setdefault(question.kind, []).append(question.answer)
    assert set(seen) == {"where", "mood", "holder", "object"}
    # The place in the list says nothing about which option is right.
    places = np.bincount([a for answers in seen.values() for a in answers], minlength=3) / 400
    assert np.abs(places - 1 / 3).max() < 0.09


def test_facts_held_out_are_never_asked_with_the_same_options_in_training() -> None:
    rng = np.random.default_rng(2)
    sides: list[set[tuple[str, ...]]] = []
    for held_out in (False, True):
        questions = [world.question(rng, "en", held_out, None) for _ in range(800)]
        sides.append({(*q.prompt.split()[2:9], *sorted(q.options)) for q in questions})
    assert not sides[0] & sides[1]


def test_every_event_can_be_told_in_both_languages() -> None:
    contents = world.WORLD
    templates = contents["templates"]
    begun = {"begin", "begin_mood", *(f"want_{goal}" for goal in contents["goals"])}
    assert set(templates["en"]) == set(templates["vo"]) == {*contents["events"], *begun}
    assert set(contents["questions"]["en"]) == set(contents["questions"]["vo"])


def test_the_lexicon_has_a_word_of_its_own_for_every_gloss() -> None:
    contents = world.WORLD
    lexicon = contents["lexicon"]
    listed = [*contents["templates"]["vo"].values(), *contents["adverbials"]["vo"]]
    listed.append(contents["questions"]["vo"].values())
    told = {word.rstrip("*") for group in listed for text in group for word in text.split()}
    lists = ("places", "moods", "objects", "foods", "jobs", "colours", "kinds", "adjectives", "form")
    told |= {word for name in lists for word in contents[name]} | {world.NOBODY, "TOP", "OF", "AT", "near"}
    told |= {word for name in ("details", "manners") for some in contents[name].values() for word in some}
    told |= {word for forms in contents["pronouns"]["vo"].values() for word in forms}
    assert told - {*world.SLOTS, *world.NAMED, *world.PUNCTUATION} == set(lexicon)
    assert len(set(lexicon.values())) == len(lexicon)
    assert not set(lexicon.values()) & world.words("en")
