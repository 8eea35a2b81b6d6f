"""Training text: token ids for the training loop, and held-out questions for the tasks.

A source is a pure function of its seed: the batch of a step does not depend on the batches before,
so training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from phaselab.study import Training, digest_of
from phaselab.texts import world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
#: Random streams that never meet: numpy mixes these numbers into the seed.
STREAMS = {"training": 11, "held out": 12, "items": 13}


@dataclass(frozen=True)
class Item:
    """A question with listed options.

    Attributes
    ----------
    id : name of the item, unique in its task.
    prompt : text up to where the answer begins; the continuation is a space and an option.
    options : the listed options, in the order listed; ``options[answer]`` is right.
    kind : what is asked, a finer division than the task.
    language : of prompt and options.
    """

    id: str
    prompt: str
    options: tuple[str, ...]
    answer: int
    kind: str
    language: str


class TextSource(Protocol):
    """What the training loop and the tasks need of a text."""

    digest: str
    tasks: tuple[str, ...]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer; pad, bos and eos tokens are set."""

    def batch(self, step: int, batch: int, context: int) -> np.ndarray:
        """Token ids of one optimiser step, int64 (batch, context); depends on its arguments alone."""

    def held_out(self, batch: int, context: int) -> np.ndarray:
        """Token ids of text that training never sees, int64 (batch, context)."""

    def items(self, task: str, n: int, seed: int) -> list[Item]:
        """`n` different held-out questions. Raises ValueError for a task that the source has not."""


def source(training: Training, data: Path | None) -> TextSource:
    """The text that `training` names.

    Parameters
    ----------
    training : the study's section ``train``.
    data : folder of downloaded data; needed by ``books`` alone.

    Raises
    ------
    phaselab.results.DataMissing
        When the books are not there: says what to fetch and where to put it.
    ValueError
        When the text has no such mix.
    """
    if training.text == "world":
        return WorldText(training.mix, training.seed)
    # Imported here so that the world needs nothing of what reading books needs.
    from phaselab.texts.books import BooksText

    return BooksText(training.mix, training.seed, training.vocabulary, data)


def distinct_items(n: int, task: str, draw: Callable[[np.random.Generator, int], Item], seed: int) -> list[Item]:
    """`n` items with different prompts from `draw(rng, index)`; raises ValueError when there are too few."""
    rng = np.random.default_rng([seed, STREAMS["items"]])
    items: dict[str, Item] = {}
    misses = 0
    while len(items) < n:
        item = draw(rng, len(items))
        misses = misses + 1 if item.prompt in items else 0
        if misses == 1000:
            raise ValueError(f"task {task}: items: found {n}, expected at most about {len(items)}")
        items.setdefault(item.prompt, item)
    return list(items.values())


class WorldText:
    """The generated world: stories, stories with questions about them, and questions about constant facts.

    Parameters
    ----------
    mix : ``en``, or ``en+vo``: half of the rows of every batch in each language.
    seed : of the training stream.
    """

    #: Shares of the kinds of document.
    NARRATIVE, READING = 0.3, 0.5
    #: Sentences told before a question, least and greatest.
    TOLD = (3, 5)

    tasks: tuple[str, ...] = ("reading", "facts", "reading-vo", "facts-vo")

    def __init__(self, mix: str, seed: int) -> None:
        if mix not in ("en", "en+vo"):
            raise ValueError(f"mix: found {mix!r}, expected 'en' or 'en+vo'")
        self.languages = tuple(mix.split("+"))
        self.seed = seed
        # One vocabulary for every mix, so that each model can be asked in each language.
        both = sorted({*world.words("en"), *world.words("vo")})
        self.ids = {word: i for i, word in enumerate((PAD, BOS, EOS, UNK, *both))}
        self.digest = digest_of({"text": "world", "mix": mix, "seed": seed, "words": list(self.ids)})

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token a word, words divided by spaces; a text begins with bos, as documents do in training."""
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        tokenizer = Tokenizer(models.WordLevel(self.ids, unk_token=UNK))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, self.ids[BOS])]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK
        )

    def batch(self, step: int, batch: int, context: int) -> np.ndarray:
        """Rows of whole documents, the last cut off; int64 (batch, context)."""
        return self._rows("training", step, batch, context)

    def held_out(self, batch: int, context: int) -> np.ndarray:
        """The same mixture from held-out combinations; int64 (batch, context)."""
        return self._rows("held out", 0, batch, context)

    def _rows(self, stream: str, step: int, batch: int, context: int) -> np.ndarray:
        # Held-out text is the same for every seed, so that losses can be compared.
        seed = self.seed if stream == "training" else 0
        rows = np.empty((batch, context), dtype=np.int64)
        for row in range(batch):
            rng = np.random.default_rng([seed, STREAMS[stream], step, row])
            language = self.languages[(step * batch + row) % len(self.languages)]
            ids: list[int] = []
            while len(ids) < context:
                said = self._document(rng, language, held_out=stream == "held out")
                ids += [self.ids[BOS], *(self.ids[word] for word in said), self.ids[EOS]]
            rows[row] = ids[:context]
        return rows

    def _document(self, rng: np.random.Generator, language: str, held_out: bool) -> list[str]:
        share = rng.random()
        if share < self.NARRATIVE:
            story = world.plot(rng, held_out, int(rng.integers(6, 11)))
            return [token[0] for token in world.tell(story, language, rng)]
        told = int(rng.integers(self.TOLD[0], self.TOLD[1] + 1))
        story = world.plot(rng, held_out, told + 1)
        reading = share < self.NARRATIVE + self.READING
        said = [token[0] for token in world.tell(story, language, rng, told)] if reading else []
        for _ in range(2 + int(rng.random() < 0.5)):
            if reading:
                question = world.reading_question(story, told, language, rng)
            else:
                question = world.fact_question(held_out, language, rng)
            said += [*question.words, question.options[question.answer], "."]
        return said

    def items(self, task: str, n: int, seed: int) -> list[Item]:
        """Held-out questions: ``reading`` after a story, ``facts`` alone; ``-vo`` in the other language."""
        if task not in self.tasks:
            raise ValueError(f"task: found {task!r}, expected one of {', '.join(self.tasks)}")
        kind, _, language = task.partition("-")
        language = language or "en"

        def draw(rng: np.random.Generator, index: int) -> Item:
            said: list[str] = []
            if kind == "reading":
                told = int(rng.integers(self.TOLD[0], self.TOLD[1] + 1))
                story = world.plot(rng, True, told + 1)
                said = [token[0] for token in world.tell(story, language, rng, told)]
                question = world.reading_question(story, told, language, rng)
            else:
                question = world.fact_question(True, language, rng)
            prompt = " ".join([*said, *question.words])
            return Item(f"{task}-{seed}-{index}", prompt, question.options, question.answer, question.kind, language)

        return distinct_items(n, task, draw, seed)
