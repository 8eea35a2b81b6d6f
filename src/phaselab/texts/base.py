"""What every text gives: token ids for the training loop, and held-out questions for the tasks.

A source is a pure function of its seed: the batch of a step does not depend on the batches before,
so training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from phaselab.errors import expect

if TYPE_CHECKING:
    from tokenizers import Tokenizer
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
    options, answer : the options in the order listed; ``options[answer]`` is right.
    kind, language : what is asked, a finer division than the task; the language of prompt and options.
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
        """`n` different held-out questions. Raises PhaselabError for a task that the source has not."""


def is_held_out(*combination: str) -> bool:
    """Whether a combination belongs to the held-out eighth of all; the same on every machine."""
    return hashlib.sha256(" ".join(combination).encode()).digest()[0] % 8 == 0


def with_special_tokens(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer as transformers has it."""
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = fast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK
    )
    return made


def distinct_items(
    n: int, task: str, tasks: tuple[str, ...], draw: Callable[[np.random.Generator, int], Item], seed: int
) -> list[Item]:
    """`n` items with different prompts from `draw(rng, index)`; `task` must be one of the `tasks` of the text."""
    expect(task in tasks, "task", repr(task), f"one of {', '.join(tasks)}")
    rng = np.random.default_rng([seed, STREAMS["items"]])
    items: dict[str, Item] = {}
    misses = 0
    while len(items) < n:
        item = draw(rng, len(items))
        misses = misses + 1 if item.prompt in items else 0
        expect(misses < 1000, f"task {task}: items", n, f"at most about {len(items)}")
        items.setdefault(item.prompt, item)
    return list(items.values())
