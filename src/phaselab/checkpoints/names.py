"""What a checkpoint is, which files it is loaded from, what its name says, and how some of many are chosen."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from phaselab.errors import PhaselabError, expect
from phaselab.results import stamped_digest

_NUMBER = r"\d{1,18}"
_AMOUNT = rf"{_NUMBER}(?:\.{_NUMBER})?[KMBT]?"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_CHOICE = re.compile(rf"(?:all|(log|every):({_NUMBER}))(?:@({_AMOUNT})?-({_AMOUNT})?)?")
#: What stands in the braces of a form; ``n`` is a number that says nothing of the place in the run.
_PARTS = {"step": _NUMBER, "stage": _NUMBER, "tokens": _AMOUNT}
_PARTS = {name: f"(?P<{name}>{form})" for name, form in _PARTS.items()} | {"n": r"\d+"}
_TOKENIZER = re.compile(r"tokenizer.*|vocab\.(json|txt)|merges\.txt|spiece\.model")
_CONFIGURATION = re.compile(r"(generation_)?config\.json|(special_tokens_map|added_tokens)\.json|chat_template\.jinja")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a training run.

    revision : its name, as on a hub: ``step1000-tokens4B``.
    step : optimiser steps taken; where a source counts none, the number of the checkpoint.
    tokens : training tokens seen; as exact as its source, a name like ``tokens4B`` being rounded.
    path : folder with configuration, weights and tokenizer; None: on a hub, not downloaded yet.
    repository, commit : where it is on a hub, and the exact commit; empty for a local folder.
    branch : of a stage that begins from the end of the line, some of them several times: it is chosen by name alone.
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

    def __lt__(self, other: "Checkpoint") -> bool:
        return (self.tokens, self.step, self.revision) < (other.tokens, other.step, other.revision)


class Reading(NamedTuple):
    """What a name says: its step, its tokens (None: it does not say) and its stage ("": it has none)."""

    step: int
    tokens: int | None
    stage: str = ""


def read_name(name: str, forms: Iterable[str]) -> Reading | None:
    """What a name says by the first of `forms` that it has; None when it has none of them.

    A form is a name with ``{step}``, ``{stage}``, ``{tokens}`` and ``{n}`` in place of numbers; what stands in brackets
    may be absent. Tokens are a whole number, or a number with the suffix K, M, B or T (thousands to trillions).

    >>> read_name("step500-tokens2B", ["[stage{stage}-]step{step}[-tokens{tokens}]"])
    Reading(step=500, tokens=2000000000, stage='')
    """
    patterns = (form.replace("[", "(?:").replace("]", ")?").format(**_PARTS) for form in forms)
    for match in filter(None, (re.fullmatch(pattern, name) for pattern in patterns)):
        said = {"stage": "", "tokens": "", **match.groupdict("")}
        tokens = read_amount(said["tokens"]) if said["tokens"] else None
        if tokens is not None or not said["tokens"]:
            return Reading(int(said["step"]), tokens, said["stage"])
    return None


def read_amount(text: str) -> int | None:
    """A whole number with a suffix K, M, B or T, or without, as in 1.5B; None: not whole, or over 63 bits."""
    unit = text[-1] if text[-1] in _UNITS else ""
    amount = Decimal(text.removesuffix(unit)) * _UNITS[unit]
    return int(amount) if int(amount) == amount < 2**63 else None


def needed(names: Iterable[str], where: object, code: bool = False) -> list[str]:
    """Which of these files a model is loaded from: configuration, tokenizer and, last, one set of weights.

    Safetensors, else ``pytorch_model*.bin``, else a GGUF file, which is all of it: ``model.gguf``, or the only one.
    `code`: also modules of the checkpoint's own.
    """
    files, weights, half = sorted(names), list[str](), ""
    for stem, ending in (("pytorch_model", "bin"), ("model", "safetensors")):
        whole, index = f"{stem}.{ending}", f"{stem}.{ending}.index.json"
        parts = [f for f in files if re.fullmatch(rf"{stem}-\d+-of-\d+\.{ending}", f)]
        n = int(parts[-1].rpartition("-")[2].partition(".")[0]) if parts else 0
        half = f"; {len(parts)} of {n} parts of the weights" if len(parts) < n else half
        weights = [whole] if whole in files else [index, *parts] if 0 < n == len(parts) and index in files else weights
    gguf = [] if weights or half else [f for f in files if f.endswith(".gguf")]
    if gguf:
        one = "model.gguf" if "model.gguf" in gguf else gguf[0]
        expect(one == "model.gguf" or len(gguf) == 1, str(where), ", ".join(gguf), "one of them called model.gguf")
        return [one]
    tokenizer = [f for f in files if _TOKENIZER.fullmatch(f)]
    more = [f for f in files if _CONFIGURATION.fullmatch(f) or (code and f.endswith(".py"))]
    found = (", ".join(files) or "nothing") + half
    expected = "config.json, a tokenizer (tokenizer.json) and weights (model*.safetensors or pytorch_model*.bin)"
    expected += ", all parts of them with their index; or model.gguf; states of an optimizer are none"
    expect("config.json" in more and tokenizer and weights, str(where), found, expected)
    return [*more, *tokenizer, *weights]


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint itself, and not one of checkpoints."""
    return (folder / "config.json").is_file() or any(folder.glob("*.gguf"))


def identity(checkpoint: Checkpoint, stamps: Path) -> str:
    """Its commit on a hub, or a digest of the files that it needs, which are read once (``stamped_digest``)."""
    folder = checkpoint.path
    if checkpoint.repository or folder is None:
        return f"{checkpoint.repository}@{checkpoint.commit}"
    files = needed((path.name for path in folder.glob("*")), folder, code=True)
    told = "".join(f"{name} {stamped_digest(folder / name, stamps)}\n" for name in files)
    return hashlib.sha256(told.encode()).hexdigest()


def choose(checkpoints: Iterable[Checkpoint], which: str | tuple[str, ...]) -> list[Checkpoint]:
    """Some of the checkpoints of one training run, in ascending order; a PhaselabError for what is not there.

    `which` is ``"all"``; ``"log:20"``, twenty (or all, if no more) evenly spaced in the logarithm of tokens, with the
    first and the last; or ``"every:3"``, the first, every third after it, and the last. Each may be followed by a range
    of tokens, both ends in it, from which they are: ``"log:20@1B-1T"``, ``"all@-100B"``. Or it is revisions, a tuple or
    one string with commas; branches are taken by name alone.
    """
    ordered = sorted(checkpoints)
    known, line = [c.revision for c in ordered], [c for c in ordered if not c.branch]
    kinds = "'all', 'log:N' with N >= 2 or 'every:N' with N >= 1, each also with a range of tokens as in 'log:20@1B-1T'"
    shown = ", ".join(known) if len(known) <= 30 else f"{', '.join(known[:3])} ... {known[-1]}"
    right = f"{kinds}, or some of the revisions {shown}"
    match = _CHOICE.fullmatch(which) if isinstance(which, str) else None
    if match is None:
        names = [part.strip() for part in which.split(",")] if isinstance(which, str) else which
        missing = [name for name in names if name not in known]
        found = repr(", ".join(missing) or "no revision")
        expect(names and not missing, "checkpoints", found, right)
        return [c for c in ordered if c.revision in names]
    kind, number = match[1], int(match[2] or 1)
    low, high = read_amount(match[3] or "0"), read_amount(match[4] or "999T")
    if low is None or high is None or not line or number < (2 if kind == "log" else 1):
        raise PhaselabError(f"checkpoints: found {match[0]!r}, expected {right}")
    within = [c for c in line if low <= c.tokens <= high]
    found, there = f"{match[0]!r}, a range without any checkpoint", f"{line[0].tokens:,} to {line[-1].tokens:,} tokens"
    expect(within, "checkpoints", found, f"one within {there}")
    if kind == "log":
        return _evenly_in_log(within, number)
    return [c for i, c in enumerate(within) if i % number == 0 or i == len(within) - 1]


def _evenly_in_log(checkpoints: list[Checkpoint], number: int) -> list[Checkpoint]:
    from scipy.optimize import linear_sum_assignment  # which takes a second

    if len(checkpoints) <= number:
        return checkpoints
    first, last = checkpoints[0], checkpoints[-1]
    # No tokens have no logarithm: after such a first checkpoint the spacing begins at the first that has seen some.
    inner = [c for c in checkpoints[1:-1] if c.tokens > 0]
    if not inner:
        return [first, last]
    begin, skipped = (first, 1) if first.tokens > 0 else (inner[0], 0)
    targets = np.geomspace(begin.tokens, last.tokens, number - 1 + skipped)[skipped:-1]
    # The assignment of least squared distance gives each target a checkpoint of its own; nearest ones may be the same.
    _, taken = linear_sum_assignment(np.subtract.outer(np.log(targets), np.log([c.tokens for c in inner])) ** 2)
    return [first, *(inner[i] for i in sorted(taken)), last]
