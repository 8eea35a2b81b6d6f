"""Real English books as training text, with cloze questions made from their passages, and minimal pairs.

In the folder of data ``books/MANIFEST.csv`` has a row per book (slug, sha256, licence), ``books/<slug>.txt`` its text.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from phaselab.data import data_missing
from phaselab.errors import expect, number_of
from phaselab.files import decoded, parse_yaml, read_bytes, read_text, refuse_outside
from phaselab.results import read_table
from phaselab.study import digest_of
from phaselab.texts.base import BOS, EOS, PAD, STREAMS, TASKS, UNK, Item, TextSource, is_held_out

_FILE = Path(__file__).with_name("books.yaml")
#: Paradigm -> its minimal pairs.
PAIRS: dict[str, Any] = {k: v for k, v in parse_yaml(read_text(_FILE), _FILE)[0].items() if k != "noun"}
WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
#: Share of rows that are questions (of half of these the options have letters), and of rows without punctuation.
QUESTIONS, SPOKEN = 0.2, 0.4
#: Options of a question.
LETTERS = "ABCD"
#: Words of a cloze passage, least and greatest; characters of a training book's middle for encoding and word counts.
PASSAGE, SAMPLE = (20, 45), 15_000
#: A cloze answer is one of so many frequent words of three letters or more; a wrong option's rank
#: in that list is at most so far from the answer's.
FREQUENT, NEAR = 500, 20


def manifest_of(data: Path | None) -> Path:
    """The manifest of the books in a folder of data; raises DataMissing when it is not there."""
    manifest = (data or Path("DATA")) / "books" / "MANIFEST.csv"
    if data is None or not manifest.is_file():
        raise data_missing(f"{manifest}: not there", "books", data)
    return manifest


class BooksText(TextSource):
    """Windows of books, a part of them as a transcript of speech would have them, and cloze questions.

    Tasks: ``cloze``, which of four listed words comes next, answered by the word; ``letters``, the same answered by its
    letter; ``pairs``, which of two forms goes on with a sentence as grammar wants it (``books.yaml``), not trained on.
    """

    tasks = tuple(task for task, text in TASKS.items() if text == "books")

    def __init__(self, mix: str, seed: int, vocabulary: int, data: Path | None) -> None:
        expect(mix == "en", "mix", repr(mix), "'en' for text 'books'")
        manifest = manifest_of(data)
        self.folder, self.seed, self.vocabulary = manifest.parent, seed, vocabulary
        table = read_table(manifest, "slug", "sha256")
        twice = ", ".join(table["slug"][table["slug"].duplicated()])
        expect(not twice, str(manifest), f"{twice} twice", "a row per book")
        self.sha256 = dict(zip(table["slug"], table["sha256"], strict=True))
        # Files are read (and their digests checked) only when text is asked for.
        named = {"text": "books", "mix": mix, "seed": seed, "vocabulary": vocabulary, "books": self.sha256}
        self.digest = digest_of(named)

    @cached_property
    def books(self) -> dict[str, list[str]]:
        """The books of each stream, ``training`` and, by a digest of their names about an eighth, ``held out``."""
        texts: dict[str, list[str]] = {"training": [], "held out": []}
        for slug, expected in sorted(self.sha256.items()):
            path = self.folder / f"{slug}.txt"
            refuse_outside(path, self.folder)
            if not path.is_file():
                raise data_missing(f"{path}: not there", "books", self.folder.parent)
            content = read_bytes(path)
            found = hashlib.sha256(content).hexdigest()
            right = f"{expected} as in MANIFEST.csv (git's autocrlf, for one, changes the ends of lines)"
            expect(found == expected, f"{path}: sha256", found, right)
            # A byte order mark may stay: the first word of a book is cut.
            texts["held out" if is_held_out(slug) else "training"].append(decoded(content, path))
        found = ", ".join(f"{number_of(len(of), 'book')} for {stream}" for stream, of in texts.items())
        expect(all(texts.values()), str(self.folder), found, "some for each: by names about an eighth is held out")
        return texts

    @cached_property
    def _joined(self) -> dict[str, tuple[str, np.ndarray]]:
        """Of each stream, all books laid end to end, and where each of them ends; (n_books,)."""
        return {stream: ("".join(texts), np.cumsum([len(t) for t in texts])) for stream, texts in self.books.items()}

    @cached_property
    def _sample(self) -> list[str]:
        middles = ((text, max(0, (len(text) - SAMPLE) // 2)) for text in self.books["training"])
        return [text[start : start + SAMPLE] for text, start in middles]

    @cached_property
    def _frequent(self) -> dict[str, int]:
        """The most frequent lower-case words of three letters or more, with their ranks from 0."""
        counts = Counter(word for text in self._sample for word in re.findall(r"(?<!\S)[a-z]{3,}(?!\S)", text))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))[:FREQUENT]
        expect(len(ranked) > 2, str(self.folder), f"frequent words {', '.join(ranked)}", "three or more, in lower case")
        return {word: rank for rank, word in enumerate(ranked)}

    def _tokens(self) -> Tokenizer:
        """Byte-level byte-pair encoding of `vocabulary` tokens, learned from the middles of the training books."""
        tokenizer = Tokenizer(models.BPE(unk_token=UNK))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=[PAD, BOS, EOS, UNK],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(self._sample, trainer)
        return tokenizer

    def held_out(self, batch: int, context: int) -> np.ndarray:
        """Running text of the held-out books, punctuation and all; int64 (batch, context)."""
        rng = np.random.default_rng([0, STREAMS["held out"]])
        rows = (self._texts(rng, "held out", 0, row, context, QUESTIONS) for row in range(batch))
        return np.stack([np.fromiter(chain.from_iterable(row), np.int64, context) for row in rows])

    def _texts(
        self, rng: np.random.Generator, stream: str, step: int, row: int, context: int, share: float | None = None
    ) -> Iterator[list[int]]:
        """What lies at `share` (drawn for None) of all rows: first questions, then running text, last speech."""
        share = rng.random() if share is None else share
        while True:
            if share < QUESTIONS:
                item = self._cloze(rng, stream, lettered=share < QUESTIONS / 2)
                said = f"{BOS}{item.prompt} {item.options[item.answer]}{EOS}"
            else:
                # More characters than there are tokens to fill: a token has at least one byte.
                text, ended = self._window(rng, stream, 8 * context)
                said = " ".join(WORD.findall(text)) if share >= 1 - SPOKEN else text
                said += (EOS + BOS) * ended
            yield self.tokenizer.encode(said)

    def _window(self, rng: np.random.Generator, stream: str, length: int) -> tuple[str, bool]:
        """`length` characters from anywhere in the books, cut at a space, and whether the book ends there."""
        text, ends = self._joined[stream]
        start = int(rng.integers(ends[-1]))
        end = int(ends[np.searchsorted(ends, start, side="right")])
        window = text[start : min(start + length, end)]
        # The first word is cut: begin with the space after it.
        return window[max(0, window.find(" ")) :], start + length >= end

    def _cloze(self, rng: np.random.Generator, stream: str, lettered: bool) -> Item:
        """A question about a passage that stops before a frequent word: which of four words it is, or its letter."""
        rank, at = self._frequent, 0
        while not at:
            words = self._window(rng, stream, 500)[0].split()
            least = int(rng.integers(PASSAGE[0], PASSAGE[1] + 1))
            at = next((i for i in range(least, len(words)) if words[i] in rank), 0)
        answer, passage = words[at], " ".join(words[:at])
        near = [w for w in rank if w != answer and abs(rank[w] - rank[answer]) <= NEAR]
        offered = [str(o) for o in rng.permutation([answer, *rng.permutation(near)[: len(LETTERS) - 1]])]
        letters = LETTERS[: len(offered)]
        listed = [f"{letter} {word}" for letter, word in zip(letters, offered, strict=True)] if lettered else offered
        prompt = f"{passage}\nquestion : which word comes next ? options : {' , '.join(listed)} answer :"
        options, choices = (tuple(letters), tuple(offered)) if lettered else (tuple(offered), ())
        return Item("", prompt, options, offered.index(answer), "cloze", "en", passage, choices)

    def _item(self, task: str, rng: np.random.Generator) -> Item:
        if task != "pairs":
            return self._cloze(rng, "held out", lettered=task == "letters")
        kind = list(PAIRS)[int(rng.integers(len(PAIRS)))]
        side, of, sides = int(rng.integers(2)), PAIRS[kind], rng.permutation(2)
        pair, other = (of["X"][i] for i in rng.permutation(len(of["X"]))[:2])
        frame, forms = (of[name][int(rng.integers(len(of[name])))] for name in ("prompts", "options"))
        prompt = frame.replace("{X}", pair[side]).replace("{-X}", other[1 - side])
        options = tuple(forms[i] for i in sides)
        return Item("", prompt, options, options.index(forms[side]), kind, "en", prompt, form=False)
