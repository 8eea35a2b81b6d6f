"""What a checkpoint is, what its name says, and how some of many are chosen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

import numpy as np

from phaselab.errors import PhaselabError, expect

_AMOUNT = r"\d+(?:\.\d+)?[KMBT]?"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_CHOICE = re.compile(rf"(?:all|(log|every):(\d+))(?:@({_AMOUNT})?-({_AMOUNT})?)?")
#: What stands in the braces of a form; ``n`` is a number that says nothing of the place in the run.
_PARTS = {"step": r"(?P<step>\d+)", "stage": r"(?P<stage>\d+)", "tokens": rf"(?P<tokens>{_AMOUNT})", "n": r"\d+"}


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
    branch : whether it is of a stage that begins from the end of the line, some of them several times: it is
        chosen by name alone.
    """

    revision: str
    step: int
    tokens: int
    path: Path | None
    repository: str = ""
    commit: str = ""
    branch: bool = False

    def __str__(self) -> str:
        return f"{self.repository} {self.revision}".strip()


@dataclass(frozen=True)
class Reading:
    """What a name says: its step, its tokens (None: it does not say) and its stage ("": it has none)."""

    step: int
    tokens: int | None
    stage: str = ""


def read_name(name: str, forms: Iterable[str]) -> Reading | None:
    """What a name says by the first of `forms` that it has; None when it has none of them.

    A form is a name with ``{step}``, ``{stage}``, ``{tokens}`` and ``{n}`` in place of numbers; what stands in
    brackets may be absent. Tokens are a whole number, or a number with the suffix K, M, B or T (thousands to
    trillions).

    >>> read_name("step500-tokens2B", ["[stage{stage}-]step{step}[-tokens{tokens}]"])
    Reading(step=500, tokens=2000000000, stage='')
    >>> read_name("main", ["step{step}"]) is None
    True
    """
    for form in forms:
        if (match := _pattern(form).fullmatch(name)) is None:
            continue
        said = match.groupdict()
        tokens = read_amount(said["tokens"]) if said.get("tokens") else None
        if tokens is not None or not said.get("tokens"):
            return Reading(int(said["step"]), tokens, said.get("stage") or "")
    return None


@cache
def _pattern(form: str) -> re.Pattern[str]:
    return re.compile(form.replace("[", "(?:").replace("]", ")?").format(**_PARTS))


def read_amount(text: str) -> int | None:
    """A whole number written with a suffix K, M, B or T, or without; None when it is not whole.

    >>> read_amount("1.5B")
    1500000000
    """
    unit = text[-1] if text[-1] in _UNITS else ""
    amount = Decimal(text.removesuffix(unit)) * _UNITS[unit]
    return int(amount) if amount == int(amount) else None


def choose(checkpoints: Iterable[Checkpoint], which: str | tuple[str, ...]) -> list[Checkpoint]:
    """Some of the checkpoints of one training run, in ascending order.

    Parameters
    ----------
    checkpoints : the checkpoints there are.
    which : ``"all"``; ``"log:20"``, twenty evenly spaced in the logarithm of tokens, always with the
        first and the last (all of them when there are no more than twenty); ``"every:3"``, the
        first, every third after it, and the last. Each may be followed by a range of tokens, both
        ends in it: ``"log:20@1B-1T"``, ``"all@-100B"``, ``"every:5@10B-"``; first and last are then
        those of the range. Or revisions: a tuple of them, or one string with commas; branches are
        taken by name alone.

    Raises
    ------
    CheckpointError
        When `which` is none of these, names a revision that is not there, or a range without any.
    """
    ordered = sorted(checkpoints, key=lambda c: (c.tokens, c.step, c.revision))
    match = _CHOICE.fullmatch(which) if isinstance(which, str) else None
    if match is None:
        return _named(ordered, which)
    kind, number = match[1], int(match[2] or 1)
    within = [c for c in ordered if not c.branch]
    if number < (2 if kind == "log" else 1) or not within:
        raise _wrong(ordered, match[0])
    if "@" in match[0]:
        within = _in_range(within, match)
    if kind == "log":
        return _evenly_in_log(within, number)
    return [c for i, c in enumerate(within) if i % number == 0 or i == len(within) - 1]


def _in_range(checkpoints: Sequence[Checkpoint], match: re.Match[str]) -> list[Checkpoint]:
    low, high = (None if end is None else read_amount(end) for end in (match[3], match[4]))
    within = [c for c in checkpoints if (low is None or low <= c.tokens) and (high is None or c.tokens <= high)]
    there = f"one within {checkpoints[0].tokens:,} to {checkpoints[-1].tokens:,} tokens"
    expect(within, "checkpoints", f"{match[0]!r}, a range without any checkpoint", there, CheckpointError)
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
    from scipy.optimize import linear_sum_assignment  # which takes a second

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
