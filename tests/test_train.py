"""The generated world, the texts, and training that can be interrupted."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phaselab.results import DataMissing, Store
from phaselab.study import Training
from phaselab.texts import world
from phaselab.texts.base import WorldText, source

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
PHRASES = (
    "the",
    "old",
    "woman",
    "went",
    "over",
    "and",
    "her",
    "brother",
    "was",
    "very",
    "glad",
    "with",
    "him",
)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data with sixteen small books; some of them are held out by their names."""
    folder = tmp_path_factory.mktemp("data") / "books"
    folder.mkdir()
    rows = []
    for number in range(16):
        rng = np.random.default_rng(number)
        # Each book has a word of its own, so that a text can be traced to it.
        text = " ".join(rng.choice(PHRASES, 1500)).replace("glad", f"glad Book{chr(65 + number)}.")
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
        assert ids[0] == tokenizer.bos_token_id
        assert len(ids) == 1 + len(item.prompt.split()) + 1
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids[1:-1]) == item.prompt


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


def test_books_are_read_checked_and_kept_apart(books: Path) -> None:
    training = Training(text="books", architecture="llama", vocabulary=300)
    text = source(training, books)
    tokenizer = text.tokenizer()
    assert len(tokenizer) == 300
    slugs = [f"book-{number}" for number in range(16)]
    held_out = {f"Book{chr(65 + i)}" for i, slug in enumerate(slugs) if world.is_held_out(slug)}
    assert 0 < len(held_out) < 16

    def named(said: str) -> set[str]:
        return set(re.findall("Book[A-P]", said))

    trained = tokenizer.decode(np.concatenate([text.batch(s, 8, 128) for s in range(10)]).ravel())
    assert len(named(trained)) > 8
    assert not named(trained) & held_out
    items = text.items("cloze", 30, 0)
    assert set().union(*(named(i.prompt) for i in items)) <= held_out
    assert named(tokenizer.decode(text.held_out(8, 128).ravel())) <= held_out
    assert np.array_equal(text.batch(3, 4, 64), source(training, books).batch(3, 4, 64))


def test_cloze_questions_stop_before_the_answer(books: Path) -> None:
    text = source(Training(text="books", architecture="llama", vocabulary=300), books)
    held_out = [
        (books / "books" / f"book-{number}.txt").read_text(encoding="utf-8")
        for number in range(16)
        if world.is_held_out(f"book-{number}")
    ]
    for item in text.items("cloze", 30, 1):
        passage, question = item.prompt.split("\n")
        assert question == f"question : which word comes next ? options : {' , '.join(item.options)} answer :"
        assert len(set(item.options)) == 3
        assert any(f"{passage} {item.options[item.answer]}" in book for book in held_out)


def test_cloze_questions_are_a_share_of_training(books: Path) -> None:
    text = source(Training(text="books", architecture="llama", vocabulary=300), books)
    tokenizer = text.tokenizer()
    rows = [tokenizer.decode(row) for step in range(20) for row in text.batch(step, 16, 64)]
    assert 0.1 < np.mean([row.startswith("<bos>") for row in rows]) < 0.2
    assert 0.3 < np.mean(["." not in row for row in rows]) < 0.9


def test_books_that_are_missing_or_damaged_are_named(books: Path, tmp_path: Path) -> None:
    training = Training(text="books", architecture="llama", vocabulary=300)
    with pytest.raises(DataMissing, match="PHASELAB_DATA"):
        source(training, None)
    with pytest.raises(DataMissing, match=r"MANIFEST\.csv: not there; fetch English books"):
        source(training, tmp_path)
    folder = tmp_path / "books"
    folder.mkdir()
    for file in (books / "books").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "book-3.txt").write_text("another book", encoding="utf-8")
    with pytest.raises(ValueError, match=r"book-3\.txt: sha256: found .* expected"):
        source(training, tmp_path).tokenizer()
    (folder / "book-3.txt").unlink()
    with pytest.raises(DataMissing, match=r"book-3\.txt: not there"):
        source(training, tmp_path).tokenizer()


# --- Training --------------------------------------------------------------------------------------


def test_checkpoints_are_distinct_and_log_spaced() -> None:
    from phaselab.training.loop import checkpoint_steps

    for steps, n in ((1000, 20), (1150, 24), (30, 20), (7, 3), (5, 2)):
        found = checkpoint_steps(steps, n)
        assert found == sorted(set(found))
        assert (found[0], found[-1], len(found)) == (0, steps, n)
    late = np.diff(np.log(checkpoint_steps(1000, 20)[4:]))
    assert late.std() < 0.03
    assert checkpoint_steps(4, 20) == [0, 1, 2, 3, 4]


def test_learning_rate_warms_up_and_falls() -> None:
    from phaselab.training.loop import learning_rate

    rates = [learning_rate(step, SMALL) for step in range(SMALL.steps + 1)]
    assert rates[1] == SMALL.learning_rate == max(rates)
    assert rates[0] == SMALL.learning_rate / 2
    assert rates[-1] == pytest.approx(SMALL.learning_rate / 10)
    assert all(a >= b for a, b in pairwise(rates[2:]))


@pytest.mark.parametrize("architecture", ["gpt_neox", "olmo2", "llama"])
def test_models_are_drawn_from_the_seed_and_leave_the_global_generator_alone(architecture: str) -> None:
    import torch

    from phaselab.training.networks import build

    training = SMALL.model_copy(update={"architecture": architecture})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (build(training, 50, 0, 1, 2).state_dict() for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = build(training.model_copy(update={"seed": 1}), 50, 0, 1, 2)
    assert not torch.equal(first[next(iter(first))], next(iter(other.state_dict().values())))
    assert other.config.model_type == architecture
    assert other.config.max_position_embeddings >= 2 * training.context
    assert other.config.rope_parameters["rope_theta"] == 1000
    if architecture == "gpt_neox":
        assert other.config.rope_parameters["partial_rotary_factor"] == 0.5


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from phaselab.training.loop import train

    return train("tiny", SMALL, Store(tmp_path_factory.mktemp("results")), None)


def test_a_trained_model_is_a_hub_like_folder(trained: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log = json.loads((trained / "training.json").read_text())
    assert [row["step"] for row in log] == [0, 1, 2, 4, 7, 12]
    assert [row["revision"] for row in log] == [f"step{r['step']}-tokens{r['step'] * 64}" for r in log]
    assert {p.name for p in trained.iterdir()} == {"training.json", *(row["revision"] for row in log)}
    assert log[-1]["loss"] < log[0]["loss"]
    last = trained / log[-1]["revision"]
    assert not list(trained.rglob("*.bin"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(last), AutoTokenizer.from_pretrained(last)
    ids = tokenizer("mira went to the mill .", return_tensors="pt")["input_ids"]
    assert ids.shape == (1, 7), "bos and six words"
    assert model(input_ids=ids).logits.shape == (1, 7, len(tokenizer))


def test_training_again_does_nothing(trained: Path) -> None:
    from phaselab.training.loop import train

    times = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    steps: list[int] = []
    assert train("tiny", SMALL, Store(trained.parents[1]), None, lambda step, n: steps.append(step)) == trained
    assert steps == []
    assert times == {p: p.stat().st_mtime_ns for p in trained.rglob("*")}


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    from phaselab.training.loop import train

    # A real kill: nothing is cleaned up, and another process takes up what lies there.
    code = f"""
import os, signal
from pathlib import Path
from phaselab.results import Store
from phaselab.study import Training
from phaselab.training.loop import train
def progress(step, steps):
    if step == 9:
        os.kill(os.getpid(), signal.SIGKILL)
training = Training.model_validate_json({SMALL.model_dump_json()!r})
train("tiny", training, Store(Path({str(tmp_path)!r})), None, progress)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    steps: list[int] = []
    resumed = train("tiny", SMALL, Store(tmp_path), None, lambda step, n: steps.append(step))
    assert steps == [8, 9, 10, 11, 12]
    assert _bytes(resumed) == _bytes(trained)


def test_a_damaged_checkpoint_is_found_and_made_again(trained: Path, tmp_path: Path) -> None:
    from phaselab.training.loop import train

    whole = _bytes(trained)
    damaged = trained / "step4-tokens256" / "model.safetensors"
    damaged.write_bytes(whole["step4-tokens256/model.safetensors"][:-4] + b"\0\0\0\0")
    steps: list[int] = []
    train("tiny", SMALL, Store(trained.parents[1]), None, lambda step, n: steps.append(step))
    # Training ends where the damaged checkpoint has been made again.
    assert steps == [1, 2, 3, 4]
    assert _bytes(trained) == whole


def test_another_recipe_is_another_folder(trained: Path, tmp_path: Path) -> None:
    from phaselab.training.loop import train

    other = train("tiny", SMALL.model_copy(update={"steps": 2, "checkpoints": 2}), Store(tmp_path), None)
    assert other.name != trained.name
    assert sorted(p.name for p in other.iterdir()) == ["step0-tokens0", "step2-tokens128", "training.json"]
