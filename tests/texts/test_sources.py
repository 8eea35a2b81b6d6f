"""Texts as training and tasks take them: the world and the books."""

from __future__ import annotations

import csv
import hashlib
import re
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phaselab import texts
from phaselab.results import DataMissing
from phaselab.study import Mix, Training
from phaselab.texts import key, source, world
from phaselab.texts.base import TextSource, is_held_out
from phaselab.texts.world import WorldText

WORLD = Training(text="world", architecture="gpt_neox")
BOOKS = Training(text="books", architecture="llama", vocabulary=300)
PHRASES = ("the", "old", "woman", "went", "over", "and", "her", "brother", "was", "very", "glad", "with", "him")


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


def test_a_batch_depends_on_its_step_alone() -> None:
    text = source(WORLD, None)
    later = text.batch(7, 4, 64)
    for step in range(3):
        text.batch(step, 4, 64)
    assert np.array_equal(later, source(WORLD, None).batch(7, 4, 64))
    assert later.shape == (4, 64)
    assert later.dtype == np.int64
    assert not np.array_equal(later, text.batch(8, 4, 64))
    other = source(WORLD.model_copy(update={"seed": 1}), None)
    assert not np.array_equal(later, other.batch(7, 4, 64))
    assert np.array_equal(text.held_out(2, 64), other.held_out(2, 64))


def test_two_languages_have_half_of_the_tokens_each() -> None:
    text = WorldText("en+vo", 0)
    tokenizer = text.tokenizer
    own = {language: world.words(language) for language in world.LANGUAGES}
    only_en = own["en"] - own["vo"]
    rows = [tokenizer.convert_ids_to_tokens(row) for row in text.batch(0, 8, 64)]
    english = [bool(set(row) & only_en) for row in rows]
    assert sum(english) == 4


def test_one_token_a_word_and_round_trip() -> None:
    text = WorldText("en", 0)
    tokenizer = text.tokenizer
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
    with pytest.raises(ValueError, match="items: found 100000"):
        WorldText("en", 0).items("facts", 100_000, 0)


def test_books_are_read_checked_and_kept_apart(books: Path) -> None:
    text = source(BOOKS, books)
    tokenizer = text.tokenizer
    assert len(tokenizer) == 300
    slugs = [f"book-{number}" for number in range(16)]
    held_out = {f"Book{chr(65 + i)}" for i, slug in enumerate(slugs) if is_held_out(slug)}
    assert 0 < len(held_out) < 16

    def named(said: str) -> set[str]:
        return set(re.findall("Book[A-P]", said))

    trained = tokenizer.decode(np.concatenate([text.batch(s, 8, 128) for s in range(10)]).ravel())
    assert len(named(trained)) > 8
    assert not named(trained) & held_out
    items = text.items("cloze", 30, 0)
    assert set().union(*(named(i.prompt) for i in items)) <= held_out
    assert named(tokenizer.decode(text.held_out(8, 128).ravel())) <= held_out
    assert np.array_equal(text.batch(3, 4, 64), source(BOOKS, books).batch(3, 4, 64))


def test_cloze_questions_stop_before_the_answer(books: Path) -> None:
    text = source(BOOKS, books)
    held_out = [
        (books / "books" / f"book-{number}.txt").read_text(encoding="utf-8")
        for number in range(16)
        if is_held_out(f"book-{number}")
    ]
    for item in text.items("cloze", 30, 1):
        passage, question = item.prompt.split("\n")
        assert question == f"question : which word comes next ? options : {' , '.join(item.options)} answer :"
        assert len(set(item.options)) == 4
        assert any(f"{passage} {item.options[item.answer]}" in book for book in held_out)


def test_questions_with_letters_are_about_the_same_words(books: Path) -> None:
    for item in source(BOOKS, books).items("letters", 30, 1):
        listed = " , ".join(f"{letter} {word}" for letter, word in zip("ABCD", item.choices, strict=True))
        assert item.options == ("A", "B", "C", "D")
        assert item.prompt == f"{item.question}\nquestion : which word comes next ? options : {listed} answer :"


#: Paradigm -> how a right sentence of it may end, and a wrong one.
RIGHT_AND_WRONG = {
    "number_of_the_verb": ("The men were", "The men was"),
    "number_of_the_verb_past_another_noun": ("The man near the doors is", "The man near the doors are"),
    "number_of_the_noun": ("I remember those friends", "I remember those friend"),
    "gender_of_the_reflexive": ("The queen said to herself", "The queen said to himself"),
    "case_of_the_pronoun": ("Perhaps the letter was for them", "Perhaps the letter was for they"),
    "form_of_the_verb": ("You know that she has gone", "You know that she has went"),
}


def test_minimal_pairs_differ_in_one_word_and_ask_for_no_form(books: Path) -> None:
    items = source(BOOKS, books).items("pairs", 500, 0)
    right = {f"{i.prompt} {i.options[i.answer]}": i.kind for i in items}
    wrong = {f"{i.prompt} {i.options[1 - i.answer]}": i.kind for i in items}
    assert not set(right) & set(wrong)
    assert {i.kind for i in items} == set(RIGHT_AND_WRONG)
    assert not any(i.form for i in items)
    assert all(i.question == i.prompt for i in items)  # nothing is listed
    assert 0.4 < np.mean([i.answer for i in items]) < 0.6
    from phaselab.texts.books import PAIRS

    for kind, (good, bad) in RIGHT_AND_WRONG.items():
        forms = [{form[side] for form in PAIRS[kind]["options"]} for side in (0, 1)]
        side = next(n for n, own in enumerate(forms) if good.split()[-1] in own)
        assert bad.split()[-1] in forms[1 - side]
        x = [pair[side] for pair in PAIRS[kind]["X"] if pair[side] in good]
        assert x, f"{kind}: {good}"


def test_questions_are_a_share_of_training(books: Path) -> None:
    text = source(BOOKS, books)
    tokenizer = text.tokenizer
    rows = [tokenizer.decode(row) for step in range(20) for row in text.batch(step, 16, 64)]
    assert 0.14 < np.mean([row.startswith("<bos>") for row in rows]) < 0.26
    rows = [tokenizer.decode(row) for step in range(5) for row in text.batch(step, 16, 400)]
    lettered = ["options : A " in row for row in rows if "options :" in row]
    assert 0.25 < np.mean(lettered) < 0.75
    assert 0.3 < np.mean(["." not in row for row in rows]) < 0.9


def test_books_that_are_missing_or_damaged_are_named(books: Path, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="PHASELAB_DATA"):
        source(BOOKS, None)
    with pytest.raises(DataMissing, match=r"MANIFEST\.csv: not there; .*type: phaselab data get books"):
        source(BOOKS, tmp_path)
    folder = tmp_path / "books"
    folder.mkdir()
    for file in (books / "books").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "book-3.txt").write_text("another book", encoding="utf-8")
    with pytest.raises(ValueError, match=r"book-3\.txt: sha256: found .* expected"):
        _ = source(BOOKS, tmp_path).tokenizer
    (folder / "book-3.txt").unlink()
    with pytest.raises(DataMissing, match=r"book-3\.txt: not there"):
        _ = source(BOOKS, tmp_path).tokenizer
    # A name, or a link, that leads out of the folder of data.
    (secret := tmp_path.parent / "secret.txt").write_text("x", encoding="utf-8")
    (folder / "book-3.txt").symlink_to(secret)
    with pytest.raises(ValueError, match=r"book-3\.txt: found .*secret\.txt, expected a file in"):
        _ = source(BOOKS, tmp_path).tokenizer
    manifest = folder / "MANIFEST.csv"
    manifest.write_text(manifest.read_text().replace("book-3", "../../secret"))
    with pytest.raises(ValueError, match=r"secret\.txt: found .*, expected a file in"):
        _ = source(BOOKS, tmp_path).tokenizer


# --- Schedules -------------------------------------------------------------------------------------

SCHEDULE = (Mix(until=0.2, mix="narrative"), Mix(until=0.5, mix="off-domain"), Mix(until=1, mix="en"))


def test_a_schedule_changes_what_is_trained_on_and_not_what_is_held_out() -> None:
    text = source(WORLD.model_copy(update={"mixes": SCHEDULE, "steps": 100}), None)
    plain = source(WORLD, None)

    def said(step: int, of: TextSource = text) -> list[str]:
        return " ".join(of.tokenizer.batch_decode(of.batch(step, 40, 128))).split()

    def lines(words: list[str]) -> float:
        return words.count(";") / len(words)

    def asked(words: list[str]) -> float:
        return words.count("?") / len(words)

    assert max(map(lines, map(said, (0, 19, 50, 99)))) == 0
    assert min(map(lines, map(said, (20, 49)))) > 0.03
    assert asked(said(19)) < asked(said(50)) / 2
    # From the last stage on it is the text of the mix itself, in a larger vocabulary.
    assert said(60) == said(60, plain)
    held_out = [of.tokenizer.batch_decode(of.held_out(4, 64)) for of in (text, plain)]
    assert held_out[0] == held_out[1]
    assert text.items("facts", 10, 0) == plain.items("facts", 10, 0)
    assert len(text.tokenizer) > len(plain.tokenizer)


def test_sums_of_off_domain_text_are_right() -> None:
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        for line in " ".join(world.off_domain(rng)).split(" ;"):
            parts = re.fullmatch(r" ?(\d) \+ (\d) = (\d(?: \d)?)", line)
            found += parts is not None
            assert not parts or int(parts[1]) + int(parts[2]) == int(parts[3].replace(" ", ""))
    assert found > 50


def test_schedules_that_cannot_be_are_refused(books: Path) -> None:
    with pytest.raises(ValueError, match="mixes: found 'logs', expected one of en, en\\+vo, narrative, off-domain"):
        source(WORLD.model_copy(update={"mixes": (Mix(until=1, mix="logs"),)}), None)
    with pytest.raises(ValueError, match="mixes: found 1 stage, expected none with text: books"):
        source(BOOKS.model_copy(update={"mixes": (Mix(until=1, mix="en"),)}), books)


# --- Versions and keys -----------------------------------------------------------------------------


def _text(text: TextSource) -> bytes:
    said: list[Any] = [text.batch(step, 8, 96).tolist() for step in range(4)]
    said += [text.held_out(8, 96).tolist(), *(text.items(task, 20, 0) for task in text.tasks)]
    return repr(said).encode()


def test_a_text_that_changed_has_another_version(books: Path) -> None:
    """Text is known by its version alone: where this fails, raise it, and put the new digest here."""
    told = [n.to_csv() for language in world.LANGUAGES for n in islice(world.narratives(0, language), 20)]
    said = {
        "world": _text(source(WORLD.model_copy(update={"mix": "en+vo"}), None)) + repr(told).encode(),
        "books": _text(source(BOOKS, books)),
    }
    found = {name: (texts.VERSION[name], hashlib.sha256(text).hexdigest()[:16]) for name, text in said.items()}
    assert found == {"world": (1, "838ee06f75ce3866"), "books": (2, "abe3f46fa15b9217")}


def test_a_key_tells_texts_apart(books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = [WORLD, BOOKS]
    trainings += [t.model_copy(update={"seed": 1}) for t in (WORLD, BOOKS)]
    trainings += [WORLD.model_copy(update={"mix": "en+vo"}), BOOKS.model_copy(update={"vocabulary": 400})]
    keys = [key(training, books, tmp_path / "stamps") for training in trainings]
    assert len(set(keys)) == len(keys)
    scheduled = WORLD.model_copy(update={"mixes": (Mix(until=0.5, mix="narrative"), Mix(until=1, mix="en"))})
    assert key(scheduled, None, tmp_path / "stamps") not in keys
    # The world has one token per word, whatever the vocabulary says; other fields are not of the text.
    assert key(WORLD.model_copy(update={"vocabulary": 400, "steps": 3}), None, tmp_path / "stamps") == keys[0]
    monkeypatch.setattr(texts, "VERSION", {"world": 2, "books": 2})
    assert key(WORLD, None, tmp_path / "stamps") != keys[0]
    assert key(BOOKS, books, tmp_path / "stamps") == keys[1]


def test_a_key_follows_the_files_of_the_books(books: Path, tmp_path: Path) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    for file in (books / "books").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert key(BOOKS, tmp_path, tmp_path / "stamps") == key(BOOKS, books, tmp_path / "stamps")
    (folder / "book-3.txt").write_text("another book", encoding="utf-8")
    assert key(BOOKS, tmp_path, tmp_path / "stamps") != key(BOOKS, books, tmp_path / "stamps")
    for missing in (None, tmp_path / "nowhere"):
        with pytest.raises(DataMissing, match="phaselab data get books"):
            key(BOOKS, missing, tmp_path / "stamps")


def test_a_key_builds_no_source(books: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from phaselab.texts.books import BooksText

    def refuse(*_: Any) -> None:
        raise AssertionError("a source was built")

    for built in (WorldText, BooksText):
        monkeypatch.setattr(built, "__init__", refuse)
    assert key(WORLD, None, tmp_path / "stamps")
    assert key(BOOKS, books, tmp_path / "stamps")
