"""The generated world: states, languages, questions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from phaselab.texts import world


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_narratives_are_labelled_word_by_word(language: str) -> None:
    for story in world.narratives(40, 3, language, held_out=True):
        labels = story.labels
        assert list(labels) == list(world.LABELS)
        assert tuple(labels["word"]) == story.words
        assert set(story.words) <= set(world.words(language))
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
    labels = pd.concat([n.labels for n in world.narratives(100, 0)])
    pronouns = labels[labels["pronoun"]]
    assert set(pronouns["word"]) == set(genders)
    assert all(
        world.CHARACTERS[who].gender == genders[word]
        for who, word in zip(pronouns["who"], pronouns["word"], strict=True)
    )
    assert not labels.loc[~labels["pronoun"], "word"].isin(genders).any()


def test_state_changes_with_the_word_that_completes_the_event() -> None:
    labels = pd.concat([n.labels for n in world.narratives(200, 1)], ignore_index=True)
    before = labels.shift(1)
    moved = labels["event"].eq("move") & labels["place"].ne(before["place"])
    assert moved.sum() > 100
    # In English the hero has moved once the place has been named, and the place named is the new one.
    assert (labels.loc[moved, "word"] == labels.loc[moved, "place"]).all()
    lost = labels["event"].eq("lose") & labels["holder"].ne(before["holder"])
    assert set(labels.loc[lost, "holder"]) == {world.NOBODY}
    assert set(labels.loc[lost, "mood"]) == {"sad"}


def test_most_latents_cannot_be_read_off_the_current_word() -> None:
    labels = pd.concat([n.labels for n in world.narratives(150, 2)], ignore_index=True)
    for column in ("place", "holder", "mood"):
        named = labels["word"].eq(labels[column])
        assert named.mean() < 0.12, column


def test_both_languages_tell_the_same_plots_with_words_of_their_own() -> None:
    for en, vo in zip(world.narratives(20, 5, "en"), world.narratives(20, 5, "vo"), strict=True):
        for column in ("event", "place", "object", "holder", "mood", "goal"):
            last = [n.labels.groupby("sentence")[column].last().tolist() for n in (en, vo)]
            assert last[0] == last[1], column
    shared = set(world.words("en")) & set(world.words("vo"))
    assert shared == {*world.CHARACTERS, *world.PUNCTUATION}


def test_the_constructed_language_has_its_verb_last() -> None:
    go = world.translate("go", "vo")
    labels = pd.concat([n.labels for n in world.narratives(100, 4, "vo")], ignore_index=True)
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
        question = world.reading_question(story, told, "en", rng)
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
        questions = [world.fact_question(held_out, "en", rng) for _ in range(800)]
        sides.append({(q.words[2:9], *sorted(q.options)) for q in questions})
    assert not sides[0] & sides[1]


def test_every_event_can_be_told_in_both_languages() -> None:
    contents = world.contents()
    templates = contents["templates"]
    begun = {"begin", "begin_mood", *(f"want_{goal}" for goal in world.GOALS)}
    assert set(templates["en"]) == set(templates["vo"]) == {*contents["events"], *begun}
    assert set(contents["questions"]["en"]) == set(contents["questions"]["vo"])


def test_the_lexicon_has_a_word_of_its_own_for_every_gloss() -> None:
    contents = world.contents()
    lexicon = contents["lexicon"]
    listed = [*contents["templates"]["vo"].values(), *contents["adverbials"]["vo"]]
    listed.append(contents["questions"]["vo"].values())
    told = {word.rstrip("*") for group in listed for text in group for word in text.split()}
    told |= {*world.PLACES, *world.MOODS, *world.OBJECTS, *world.FOODS, *world.JOBS, *world.COLOURS, *world.KINDS}
    told |= {*world.ADJECTIVES, *contents["form"], world.NOBODY, "TOP", "OF", "AT", "near"}
    told |= {word for some in (*world.DETAILS.values(), *world.MANNERS.values()) for word in some}
    told |= {word for forms in contents["pronouns"]["vo"].values() for word in forms}
    assert told - {*world.SLOTS, *world.NAMED, *world.PUNCTUATION} == set(lexicon)
    assert len(set(lexicon.values())) == len(lexicon)
    assert not set(lexicon.values()) & set(world.words("en"))
