"""What a checkpoint is, what its name says, and how some of many are chosen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

_NAME = re.compile(r"step(?P<step>\d+)(?:-tokens(?P<tokens>\d+(?:\.\d+)?)(?P<unit>[KMBT]?))?")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class CheckpointError(ValueError):
    """Checkpoints that cannot be found, chosen or loaded; the message names the folder or the argument."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a training run.

    Attributes
    ----------
    revision : its name, as on a hub: ``step1000-tokens4B``.
    step : optimiser steps taken.
    tokens : training tokens seen; as exact as its source, a name like ``tokens4B`` being rounded.
    path : folder with configuration, weights (safetensors) and tokenizer.
    """

    revision: str
    step: int
    tokens: int
    path: Path


def parse_revision(name: str) -> tuple[int, int | None] | None:
    """Step and tokens that a revision's name states; None when it is no such name.

    Names are ``step{N}-tokens{T}``, T a whole number or a number with the suffix K, M, B or T
    (thousands to trillions), and ``step{N}``, whose tokens are None: they are never computed from
    the step.

    >>> parse_revision("step500-tokens2B")
    (500, 2000000000)
    >>> parse_revision("main") is None
    True
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    step = int(match["step"])
    if match["tokens"] is None:
        return step, None
    tokens = Decimal(match["tokens"]) * _UNITS[match["unit"]]
    return (step, int(tokens)) if tokens == int(tokens) else None


def choose(checkpoints: Sequence[Checkpoint], which: str | tuple[str, ...]) -> list[Checkpoint]:
    """Some of the checkpoints of one training run, in ascending order.

    Parameters
    ----------
    checkpoints : the checkpoints there are, ascending.
    which : ``"all"``; ``"log:20"``, twenty evenly spaced in the logarithm of tokens, always with the
        first and the last (all of them when there are no more than twenty); ``"every:3"``, the
        first, every third after it, and the last; or a tuple of revisions.

    Raises
    ------
    CheckpointError
        When `which` is none of these, or names a revision that is not there.
    """
    if not isinstance(which, str):
        known = {c.revision for c in checkpoints}
        missing = [name for name in which if name not in known]
        if missing or not which:
            raise CheckpointError(
                f"checkpoints: found {', '.join(missing) or 'no revision'}, "
                f"expected some of {', '.join(c.revision for c in checkpoints)}"
            )
        return [c for c in checkpoints if c.revision in which]
    if which == "all":
        return list(checkpoints)
    match = re.fullmatch(r"(log|every):(\d+)", which)
    number = int(match[2]) if match else 0
    if match is None or number < (2 if match[1] == "log" else 1):
        raise CheckpointError(
            f"checkpoints: found {which!r}, expected 'all', 'log:N' with N >= 2, 'every:N' with N >= 1, "
            "or a list of revisions"
        )
    if match[1] == "every":
        return [c for i, c in enumerate(checkpoints) if i % number == 0 or i == len(checkpoints) - 1]
    return _evenly_in_log(checkpoints, number)


def _evenly_in_log(checkpoints: Sequence[Checkpoint], number: int) -> list[Checkpoint]:
    if len(checkpoints) <= number:
        return list(checkpoints)
    first, inner, last = checkpoints[0], checkpoints[1:-1], checkpoints[-1]
    # No tokens have no logarithm: such a checkpoint is kept when it is the first one, and the even
    # spacing then begins at the first checkpoint that has seen some.
    inner = [c for c in inner if c.tokens > 0]
    if not inner:
        return [first, last][:number]
    if first.tokens > 0:
        targets = np.geomspace(first.tokens, last.tokens, number)[1:-1]
    else:
        targets = np.geomspace(inner[0].tokens, last.tokens, number - 1)[:-1]
    distance = np.subtract.outer(np.log(targets), np.log([c.tokens for c in inner])) ** 2
    # The assignment of least squared distance gives each target a checkpoint of its own, where
    # taking the nearest one would give some twice and return fewer than were asked for.
    _, taken = linear_sum_assignment(distance)
    return [first, *(inner[i] for i in sorted(taken)), last]
