"""Real English books as training text, with cloze questions made from their passages.

Layout below the folder of data::

    books/MANIFEST.csv      one row a book; slug, sha256 and licence columns
    books/<slug>.txt        UTF-8

About an eighth of the books, by a digest of their names, is never trained on: held-out loss and
cloze questions come from these.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from phaselab.errors import expect
from phaselab.results import DataMissing
from phaselab.study import digest_of
from phaselab.texts.base import BOS, EOS, PAD, STREAMS, UNK, Item, distinct_items, is_held_out, with_special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FETCH = (
    "fetch English books as UTF-8 text (Project Gutenberg's, say), put them as <slug>.txt in the folder "
    "books of a folder of data, with a MANIFEST.csv of columns slug and sha256, and name that folder with "
    "--data or PHASELAB_DATA"
)
WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")


def manifest_of(data: Path | None) -> Path:
    """The manifest of the books in a folder of data; raises DataMissing when it is not there."""
    if data is None:
        raise DataMissing(f"books: no folder of data given; {FETCH}")
    manifest = Path(data) / "books" / "MANIFEST.csv"
    if not manifest.is_file():
        raise DataMissing(f"{manifest}: not there; {FETCH}")
    return manifest


class BooksText:
    """Windows of books, a part of them as a transcript of speech would have them, and cloze questions.

    Raises DataMissing when the folder, its manifest or a book is not there, PhaselabError when a book's digest
    is not the manifest's.

    Parameters
    ----------
    mix : ``en``, the one there is.
    seed : of the training stream.
    vocabulary : number of tokens of the byte-level byte-pair encoding.
    data : folder that has ``books`` in it.
    """

    #: Share of rows that are cloze questions, and of rows without punctuation.
    CLOZE, SPOKEN = 0.15, 0.4
    #: Words of a cloze passage, least and greatest.
    PASSAGE = (20, 45)
    #: Characters from the middle of each training book on which encoding and word counts are made.
    SAMPLE = 15_000
    #: A cloze answer is one of so many frequent words of three letters or more; a wrong option's rank
    #: in that list is at most so far from the answer's.
    FREQUENT, NEAR = 500, 20

    tasks: tuple[str, ...] = ("cloze",)

    def __init__(self, mix: str, seed: int, vocabulary: int, data: Path | None) -> None:
        expect(mix == "en", "mix", repr(mix), "'en' for text 'books'")
        manifest = manifest_of(data)
        self.folder, self.seed, self.vocabulary = manifest.parent, seed, vocabulary
        with manifest.open(encoding="utf-8", newline="") as stream:
            self.sha256 = {row["slug"]: row["sha256"] for row in csv.DictReader(stream)}
        # Files are read (and their digests checked) only when text is asked for.
        named = {"text": "books", "mix": mix, "seed": seed, "vocabulary": vocabulary, "books": self.sha256}
        self.digest = digest_of(named)

    @cached_property
    def _texts(self) -> dict[str, list[str]]:
        """The books by stream: those of training, and the held-out ones."""
        texts: dict[str, list[str]] = {"training": [], "held out": []}
        for slug, expected in sorted(self.sha256.items()):
            path = self.folder / f"{slug}.txt"
            if not path.is_file():
                raise DataMissing(f"{path}: not there; {FETCH}")
            content = path.read_bytes()
            found = hashlib.sha256(content).hexdigest()
            expect(found == expected, f"{path}: sha256", found, f"{expected} as in MANIFEST.csv")
            texts["held out" if is_held_out(slug) else "training"].append(content.decode("utf-8"))
        return texts

    @cached_property
    def _ends(self) -> dict[str, np.ndarray]:
        """Where each book ends in all of them laid end to end, characters; (n_books,) a stream."""
        return {stream: np.cumsum([len(t) for t in texts]) for stream, texts in self._texts.items()}

    @cached_property
    def _sample(self) -> list[str]:
        middles = ((text, max(0, (len(text) - self.SAMPLE) // 2)) for text in self._texts["training"])
        return [text[start : start + self.SAMPLE] for text, start in middles]

    @cached_property
    def _frequent(self) -> dict[str, int]:
        """The most frequent lower-case words of three letters or more, with their ranks from 0."""
        counts = Counter(word for text in self._sample for word in text.split() if len(word) > 2 and word.isascii())
        words = [word for word in counts if word.isalpha() and word.islower()]
        ranked = sorted(words, key=lambda word: (-counts[word], word))[: self.FREQUENT]
        return {word: rank for rank, word in enumerate(ranked)}

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerFast:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

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
        return with_special_tokens(tokenizer)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Byte-level byte-pair encoding, learned from the middles of the training books."""
        return self._tokenizer

    def batch(self, step: int, batch: int, context: int) -> np.ndarray:
        """Rows of running text, or of cloze questions; int64 (batch, context)."""
        draws = (np.random.default_rng([self.seed, STREAMS["training"], step, row]) for row in range(batch))
        return np.stack([self._row(rng, "training", context, rng.random()) for rng in draws])

    def held_out(self, batch: int, context: int) -> np.ndarray:
        """Running text of the held-out books, punctuation and all; int64 (batch, context)."""
        rng = np.random.default_rng([0, STREAMS["held out"]])
        return np.stack([self._row(rng, "held out", context, self.CLOZE) for _ in range(batch)])

    def _row(self, rng: np.random.Generator, stream: str, context: int, share: float) -> np.ndarray:
        """A row of the kind that lies at `share` of all: first those of cloze questions, last the spoken ones."""
        cloze, spoken = share < self.CLOZE, share >= 1 - self.SPOKEN
        encode, bos, eos = self._tokenizer.encode, self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        ids: list[int] = []
        while len(ids) < context:
            if cloze:
                prompt, options, answer = self._cloze(rng, stream)
                ids += [bos, *encode(f"{prompt} {options[answer]}"), eos]
                continue
            # More characters than there are tokens to fill: a token has at least one byte.
            text, ended = self._window(rng, stream, 8 * context)
            text = " ".join(WORD.findall(text)) if spoken else text
            ids += [*encode(text), *([eos, bos] if ended else [])]
        return np.array(ids[:context], dtype=np.int64)

    def _window(self, rng: np.random.Generator, stream: str, length: int) -> tuple[str, bool]:
        """`length` characters from anywhere in the books, cut at a space, and whether the book ends there."""
        ends = self._ends[stream]
        at = int(rng.integers(ends[-1]))
        book = int(np.searchsorted(ends, at, side="right"))
        text = self._texts[stream][book]
        start = at - int(ends[book]) + len(text)
        # The first word is cut: begin with the space after it.
        window = text[start : start + length]
        return window[max(0, window.find(" ")) :], start + length >= len(text)

    def _cloze(self, rng: np.random.Generator, stream: str) -> tuple[str, tuple[str, ...], int]:
        """A question about a passage that stops before a frequent word, three options, and which is right."""
        rank, at = self._frequent, 0
        while not at:
            words = self._window(rng, stream, 500)[0].split()
            least = int(rng.integers(self.PASSAGE[0], self.PASSAGE[1] + 1))
            at = next((i for i in range(least, len(words)) if words[i] in rank), 0)
        answer = words[at]
        near = [w for w in rank if w != answer and abs(rank[w] - rank[answer]) <= self.NEAR]
        options = tuple(str(o) for o in rng.permutation([answer, *rng.permutation(near)[:2]]))
        question = f"question : which word comes next ? options : {' , '.join(options)} answer :"
        return f"{' '.join(words[:at])}\n{question}", options, options.index(answer)

    def items(self, task: str, n: int, seed: int) -> list[Item]:
        """Cloze questions from the held-out books."""

        def draw(rng: np.random.Generator, index: int) -> Item:
            return Item(f"cloze-{seed}-{index}", *self._cloze(rng, "held out"), "cloze", "en")

        return distinct_items(n, task, self.tasks, draw, seed)
