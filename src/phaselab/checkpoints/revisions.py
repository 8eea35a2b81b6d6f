"""What a checkpoint is, what its name says, and how some of many are chosen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from phaselab.errors import PhaselabError

_AMOUNT = r"\d+(?:\.\d+)?[KMBT]?"
_NAME = re.compile(rf"step(?P<step>\d+)(?:-tokens(?P<tokens>{_AMOUNT}))?")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_CHOICE = re.compile(rf"(?:all|(log|every):(\d+))(?:@({_AMOUNT})?-({_AMOUNT})?)?")


class CheckpointError(PhaselabError):
    """Checkpoints that cannot be found, chosen or loaded; the message names the folder or the argument."""


class NotPublicError(CheckpointError):
    """A repository that is not there, or not for everybody."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a training run.

    Attributes
    ----------
    revision : its name, as on a hub: ``step1000-tokens4B``.
    step : optimiser steps taken; where a source counts none, the number of the checkpoint.
    tokens : training tokens seen; as exact as its source, a name like ``tokens4B`` being rounded.
    path : folder with configuration, weights and tokenizer; None: on a hub, not downloaded yet.
    repository, commit : where it is on a hub, and the exact commit; empty for a local folder.
    """

    revision: str
    step: int
    tokens: int
    path: Path | None
    repository: str = ""
    commit: str = ""


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
    tokens = read_amount(match["tokens"])
    return None if tokens is None else (step, tokens)


def read_amount(text: str) -> int | None:
    """A whole number written with a suffix K, M, B or T, or without; None when it is not whole.

    >>> read_amount("1.5B")
    1500000000
    """
    unit = text[-1] if text[-1] in _UNITS else ""
    amount = Decimal(text.removesuffix(unit)) * _UNITS[unit]
    return int(amount) if amount == int(amount) else None


def choose(checkpoints: Sequence[Checkpoint], which: str | tuple[str, ...]) -> list[Checkpoint]:
    """Some of the checkpoints of one training run, in ascending order.

    Parameters
    ----------
    checkpoints : the checkpoints there are, ascending.
    which : ``"all"``; ``"log:20"``, twenty evenly spaced in the logarithm of tokens, always with the
        first and the last (all of them when there are no more than twenty); ``"every:3"``, the
        first, every third after it, and the last. Each may be followed by a range of tokens, both
        ends in it: ``"log:20@1B-1T"``, ``"all@-100B"``, ``"every:5@10B-"``; first and last are then
        those of the range. Or revisions: a tuple of them, or one string with commas.

    Raises
    ------
    CheckpointError
        When `which` is none of these, names a revision that is not there, or a range without any.
    """
    match = _CHOICE.fullmatch(which) if isinstance(which, str) else None
    if match is None:
        return _named(checkpoints, which)
    kind, number = match[1], int(match[2] or 1)
    if number < (2 if kind == "log" else 1):
        raise _wrong(checkpoints, match[0])
    within = _in_range(checkpoints, match) if "@" in match[0] else list(checkpoints)
    if kind == "log":
        return _evenly_in_log(within, number)
    return [c for i, c in enumerate(within) if i % number == 0 or i == len(within) - 1]


def _in_range(checkpoints: Sequence[Checkpoint], match: re.Match[str]) -> list[Checkpoint]:
    low, high = (None if end is None else read_amount(end) for end in (match[3], match[4]))
    within = [c for c in checkpoints if (low is None or low <= c.tokens) and (high is None or c.tokens <= high)]
    if not within:
        raise CheckpointError(
            f"checkpoints: found {match[0]!r}, a range without any checkpoint; expected one within "
            f"{checkpoints[0].tokens:,} to {checkpoints[-1].tokens:,} tokens"
        )
    return within


def _named(checkpoints: Sequence[Checkpoint], which: str | tuple[str, ...]) -> list[Checkpoint]:
    names = tuple(part.strip() for part in which.split(",")) if isinstance(which, str) else which
    known = {c.revision for c in checkpoints}
    missing = [name for name in names if name not in known]
    if missing or not names:
        raise _wrong(checkpoints, ", ".join(missing) or "no revision")
    return [c for c in checkpoints if c.revision in names]


def _wrong(checkpoints: Sequence[Checkpoint], found: str) -> CheckpointError:
    known = [c.revision for c in checkpoints]
    shown = ", ".join(known) if len(known) <= 30 else f"{', '.join(known[:3])} ... {known[-1]}"
    return CheckpointError(
        f"checkpoints: found {found!r}, expected 'all', 'log:N' with N >= 2 or 'every:N' with N >= 1, each "
        f"also with a range of tokens as in 'log:20@1B-1T', or some of the revisions {shown}"
    )


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
