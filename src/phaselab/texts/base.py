"""What every text gives, a pure function of its seed: token ids for training, and held-out questions for the tasks."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from phaselab.errors import expect

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
#: Random streams that never meet: numpy mixes these numbers into the seed.
STREAMS = {"training": 11, "held out": 12, "items": 13}
#: Task -> the text that has it.
TASKS = {"reading": "world", "facts": "world", "reading-vo": "world", "facts-vo": "world"}
TASKS |= {"cloze": "books", "letters": "books", "pairs": "books"}


@dataclass(frozen=True)
class Item:
    """A question with listed options, in the order listed; the continuation of `prompt` is a space and an option."""

    id: str  # unique in the task
    prompt: str
    options: tuple[str, ...]
    answer: int  # number of the right option
    kind: str  # what is asked, a finer division than the task
    language: str
    question: str = ""  # passage or question without the options; empty where it is nothing without them
    choices: tuple[str, ...] = ()  # with which `question` goes on: what options say that are only letters
    form: bool = field(default=True, repr=False)  # whether it asks for an option, as a sentence to go on with does not


class TextSource(ABC):
    """What the training loop and the tasks need of a text; what is abstract is each text's own, as its attributes."""

    digest: str
    tasks: tuple[str, ...]
    seed: int

    @abstractmethod
    def _tokens(self) -> Tokenizer: ...

    @abstractmethod
    def _texts(self, rng: np.random.Generator, stream: str, step: int, row: int, context: int) -> Iterator[list[int]]:
        """Token ids of document after document, with which row `row` of a stream, of a step's batch, is filled."""

    @abstractmethod
    def _item(self, task: str, rng: np.random.Generator) -> Item:
        """A held-out question, without its id."""

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, as transformers has it (a PreTrainedTokenizerFast)."""
        from transformers import PreTrainedTokenizerFast

        special = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS, "unk_token": UNK}
        return PreTrainedTokenizerFast(tokenizer_object=self._tokens(), **special)

    def batch(self, step: int, batch: int, context: int) -> np.ndarray:
        """Token ids of one optimiser step, int64 (batch, context); depends on its arguments alone."""
        return self._rows("training", self.seed, step, batch, context)

    def held_out(self, batch: int, context: int) -> np.ndarray:
        """Token ids of text that training never sees, int64 (batch, context); the same for every seed."""
        return self._rows("held out", 0, 0, batch, context)

    def _rows(self, stream: str, seed: int, step: int, batch: int, context: int) -> np.ndarray:
        draws = (np.random.default_rng([seed, STREAMS[stream], step, row]) for row in range(batch))
        rows = (self._texts(rng, stream, step, step * batch + row, context) for row, rng in enumerate(draws))
        return np.stack([np.fromiter(chain.from_iterable(row), np.int64, context) for row in rows])

    def items(self, task: str, n: int, seed: int) -> list[Item]:
        """`n` held-out questions with different prompts; raises PhaselabError for a task that the text has not."""
        expect(task in self.tasks, "task", repr(task), f"one of {', '.join(self.tasks)}")
        rng = np.random.default_rng([seed, STREAMS["items"]])
        items: dict[str, Item] = {}
        misses = 0
        while len(items) < n:
            item = self._item(task, rng)
            misses = misses + 1 if item.prompt in items else 0
            expect(misses < 1000, f"task {task}: items", n, f"at most about {len(items)}")
            items.setdefault(item.prompt, replace(item, id=f"{task}-{seed}-{len(items)}"))
        return list(items.values())


def is_held_out(*combination: str) -> bool:
    """Whether a combination belongs to the held-out eighth of all; the same on every machine."""
    return hashlib.sha256(" ".join(combination).encode()).digest()[0] % 8 == 0
