"""The generated world as training text: stories, stories with questions about them, and questions about facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phaselab.errors import expect
from phaselab.study import digest_of
from phaselab.texts import world
from phaselab.texts.base import BOS, EOS, PAD, STREAMS, UNK, Item, distinct_items, with_special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class WorldText:
    """Documents of the world, one token per word.

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
        expect(mix in ("en", "en+vo"), "mix", repr(mix), "'en' or 'en+vo'")
        self.languages = tuple(mix.split("+"))
        self.seed = seed
        # One vocabulary for every mix, so that each model can be asked in each language.
        both = sorted({*world.words("en"), *world.words("vo")})
        self.ids = {word: i for i, word in enumerate((PAD, BOS, EOS, UNK, *both))}
        self.digest = digest_of({"text": "world", "mix": mix, "seed": seed, "words": list(self.ids)})

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token per word, words divided by spaces; a text begins with bos, as documents do in training."""
        from tokenizers import Tokenizer, models, pre_tokenizers, processors

        tokenizer = Tokenizer(models.WordLevel(self.ids, unk_token=UNK))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        special = [(BOS, self.ids[BOS])]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=special)
        return with_special_tokens(tokenizer)

    def batch(self, step: int, batch: int, context: int) -> np.ndarray:
        """Rows of whole documents, the last cut off; int64 (batch, context)."""
        return self._rows("training", self.seed, step, batch, context)

    def held_out(self, batch: int, context: int) -> np.ndarray:
        """The same mixture from held-out combinations; int64 (batch, context)."""
        # The same for every seed, so that losses can be compared.
        return self._rows("held out", 0, 0, batch, context)

    def _rows(self, stream: str, seed: int, step: int, batch: int, context: int) -> np.ndarray:
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
        story, told = self._begun(rng, held_out)
        reading = share < self.NARRATIVE + self.READING
        said = [token[0] for token in world.tell(story, language, rng, told)] if reading else []
        for _ in range(2 + int(rng.random() < 0.5)):
            if reading:
                question = world.reading_question(story, told, language, rng)
            else:
                question = world.fact_question(held_out, language, rng)
            said += [*question.words, question.options[question.answer], "."]
        return said

    def _begun(self, rng: np.random.Generator, held_out: bool) -> tuple[world.Story, int]:
        """A story to ask about, and how many of its sentences are told before."""
        told = int(rng.integers(self.TOLD[0], self.TOLD[1] + 1))
        return world.plot(rng, held_out, told + 1), told

    def items(self, task: str, n: int, seed: int) -> list[Item]:
        """Held-out questions: ``reading`` after a story, ``facts`` alone; ``-vo`` in the other language."""
        kind, _, language = task.partition("-")
        language = language or "en"

        def draw(rng: np.random.Generator, index: int) -> Item:
            if kind == "facts":
                said, question = [], world.fact_question(True, language, rng)
            else:
                story, told = self._begun(rng, held_out=True)
                said = [token[0] for token in world.tell(story, language, rng, told)]
                question = world.reading_question(story, told, language, rng)
            prompt = " ".join([*said, *question.words])
            return Item(f"{task}-{seed}-{index}", prompt, question.options, question.answer, question.kind, language)

        return distinct_items(n, task, self.tasks, draw, seed)
