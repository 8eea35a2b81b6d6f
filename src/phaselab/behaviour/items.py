"""What the scores ask of items, and silence while the harness works."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

from phaselab.errors import PhaselabError, expect
from phaselab.texts.base import Item


class TaskError(PhaselabError):
    """A task that cannot be scored; the message names the file and line, or the task and the items."""


def check_items(task: str, items: Sequence[Item]) -> None:
    """Raise TaskError for the first item that the measures are not defined for."""
    expect(items, task, "no items", "at least one", TaskError)
    seen = set[str]()
    for item in items:
        k, prompt = len(item.options), item.prompt
        for name, ok, found, expected in (
            ("id", item.id not in seen, item.id, "each id once"),
            ("prompt", prompt and prompt == prompt.rstrip(), prompt[-40:], "a text that does not end in white space"),
            ("options", k > 1 and len(set(item.options)) == k, item.options, "at least two, all different"),
            *(("options", o and o == o.strip(), o, "texts without white space around them") for o in item.options),
            ("answer", 0 <= item.answer < k, item.answer, f"a number from 0 to {k - 1}"),
        ):
            expect(ok, f"{task}: item {item.id!r}: {name}", repr(found), expected, TaskError)
        seen.add(item.id)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the harness's warnings (it warns of each model in memory) off the screen."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
