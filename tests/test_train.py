"""The generated world, the texts, and training that can be interrupted."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phaselab.results import DataMissing, Store
from phaselab.study import Training
from phaselab.train import world
from phaselab.train.text import WorldText, source

SMALL = Training(
    text="world",
    architecture="gpt_neox",
    hidden_size=16,
    layers=1,
    heads=2,
    intermediate_size=32,
    context=32,
    batch=2,
    steps=12,
    warmup=2,
    checkpoints=6,
)
PHRASES = "the old woman went over the river with her little brother and they were very glad to see him ".split()


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data with sixteen small books; some of them are held out by their names."""
    folder = tmp_path_factory.mktemp("data") / "books"
    folder.mkdir()
    rows = []
    for number in range(16):
        rng = np.random.default_rng(number)
        # Each book has a word of its own, so that a text can be traced to it.
        text = " ".join([*rng.choice(PHRASES, 1500), "."]).replace("glad", f"glad Book{chr(65 + number)}")
        (folder / f"book-{number}.txt").write_text(text, encoding="utf-8")
        rows.append({"slug": f"book-{number}", "sha256": hashlib.sha256(text.encode()).hexdigest()})
    with (folder / "MANIFEST.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["slug", "sha256"])
        writer.writeheader()
        writer.writerows(rows)
    return folder.parent


# --- The world -------------------------------------------------------------------------------------


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


# --- Texts -----------------------------------------------------------------------------------------


def test_a_batch_depends_on_its_step_alone() -> None:
    text = source(SMALL, None)
    later = text.batch(7, 4, 64)
    for step in range(3):
        text.batch(step, 4, 64)
    assert np.array_equal(later, source(SMALL, None).batch(7, 4, 64))
    assert later.shape == (4, 64)
    assert later.dtype == np.int64
    assert not np.array_equal(later, text.batch(8, 4, 64))
    other = source(SMALL.model_copy(update={"seed": 1}), None)
    assert not np.array_equal(later, other.batch(7, 4, 64))
    assert np.array_equal(text.held_out(2, 64), other.held_out(2, 64))


def test_two_languages_have_half_of_the_tokens_each() -> None:
    text = WorldText("en+vo", 0)
    tokenizer = text.tokenizer()
    own = {language: set(world.words(language)) for language in world.LANGUAGES}
    only_en = own["en"] - own["vo"]
    rows = [tokenizer.convert_ids_to_tokens(row) for row in text.batch(0, 8, 64)]
    english = [bool(set(row) & only_en) for row in rows]
    assert sum(english) == 4


def test_one_token_a_word_and_round_trip() -> None:
    text = WorldText("en", 0)
    tokenizer = text.tokenizer()
    assert None not in (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    for item in [*text.items("reading", 20, 0), *text.items("facts-vo", 20, 0)]:
        ids = tokenizer(f"{item.prompt} {item.options[item.answer]}")["input_ids"]
        assert len(ids) == len(item.prompt.split()) + 1
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids[:-1]) == item.prompt


@pytest.mark.parametrize("task", ["reading", "facts", "reading-vo", "facts-vo"])
def test_items_are_many_different_and_the_same_every_time(task: str) -> None:
    text = WorldText("en", 0)
    items = text.items(task, 120, 3)
    assert len({i.id for i in items}) == len({i.prompt for i in items}) == 120
    assert items == WorldText("en+vo", 1).items(task, 120, 3)
    assert items != text.items(task, 120, 4)
    assert {i.language for i in items} == {"vo" if task.endswith("vo") else "en"}
    assert all(option in i.prompt.split() for i in items for option in i.options)


def test_wrong_names_are_refused_with_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"mix: found 'fr', expected 'en' or 'en\+vo'"):
        WorldText("fr", 0)
    with pytest.raises(ValueError, match="task: found 'cloze', expected one of reading"):
        WorldText("en", 0).items("cloze", 1, 0)
    with pytest.raises(ValueError, match="language: found 'fr'"):
        world.narratives(1, 0, "fr")
    with pytest.raises(ValueError, match="items: found 100000"):
        WorldText("en", 0).items("facts", 100_000, 0)
