"""Praat TextGrids: words and their times."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple, TypeVar

from phaselab.errors import PhaselabError, expect
from phaselab.files import read_text

#: What counts in a Praat text file, of the long format as of the short one: quoted texts and free-standing numbers.
TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![^\s=])([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)|!.*')
Kind = TypeVar("Kind", str, float)


class Interval(NamedTuple):
    """One labelled stretch of a tier, in seconds, and its line in the file."""

    start: float
    end: float
    text: str
    line: int


def read_textgrid(path: Path) -> dict[str, list[Interval]]:
    """The interval tiers of a Praat TextGrid (text formats, UTF-8 or UTF-16): tier name -> intervals in order."""
    content = read_text(path)
    tokens, line, at = (match for match in TOKEN.finditer(content) if match.lastindex), 1, 0

    def take(kind: type[Kind]) -> Kind:
        nonlocal line, at
        value: object = None
        if match := next(tokens, None):
            line, at = line + content.count("\n", at, match.start()), match.start()
            value = match[1].replace('""', '"') if match.lastindex == 1 else float(match[2])
        if isinstance(value, kind) and value not in (math.inf, -math.inf):
            return value
        found, right = "the end" if value is None else repr(value), "text" if kind is str else "number"
        raise PhaselabError(f"{path}: line {line}: found {found}, expected a {right}")

    for right in ("ooTextFile", "TextGrid"):
        expect((head := take(str)) == right, f"{path}: line {line}", repr(head), f"{right!r}: a TextGrid saved as text")
    tiers: dict[str, list[Interval]] = {}
    _, _, n_tiers = (take(float) for _ in ("xmin", "xmax", "size"))
    for _ in range(int(n_tiers)):
        kind, name = take(str), take(str)
        expect(name not in tiers, f"{path}: line {line}", f"a second tier {name!r}", "distinct names")
        _, _, size = (take(float) for _ in ("xmin", "xmax", "size"))
        tier, before = list[Interval](), -math.inf
        for _ in range(int(size)):
            start = take(float)
            end = take(float) if kind == "IntervalTier" else start  # a point has no end
            tier.append(Interval(start, end, take(str).strip(), line))
            found = f"an interval from {start} to {end} s after one that ends at {before} s"
            expect(before - 1e-6 <= start <= end, f"{path}: line {line}", found, "ascending times")
            before = end
        tiers |= {name: tier} if kind == "IntervalTier" else {}
    expect(next(tokens, None) is None, f"{path}: line {line}", "more after the last tier", "as many as its sizes say")
    expect(tiers, str(path), "no interval tier", "at least one")
    return tiers
