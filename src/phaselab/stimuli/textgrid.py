"""Praat TextGrids: words and their times."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from phaselab.errors import PhaselabError, expect

#: What counts in a Praat text file, of the long format as of the short one: quoted texts and free-standing numbers.
TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![^\s=])([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)|!.*')
Kind = TypeVar("Kind", str, float)


class Interval(NamedTuple):
    """One labelled stretch of a Praat tier: start and end in seconds, and its line in the file."""

    start: float
    end: float
    text: str
    line: int


def read_textgrid(path: Path) -> dict[str, list[Interval]]:
    """The interval tiers of a Praat TextGrid (text formats, UTF-8 or UTF-16): tier name -> intervals in order."""
    tokens, line = _tokens(path), 1

    def take(kind: type[Kind], what: str) -> Kind:
        nonlocal line
        line, value = next(tokens, (line, None))
        if isinstance(value, kind):
            return value
        told = "the end" if value is None else repr(value)
        raise PhaselabError(f"{path}: line {line}: found {told}, expected {what}")

    head = take(str, "ooTextFile"), take(str, "TextGrid")
    expect(head == ("ooTextFile", "TextGrid"), f"{path}: line {line}", " ".join(head), "ooTextFile, TextGrid of Praat")
    tiers: dict[str, list[Interval]] = {}
    _, _, n_tiers = (take(float, what) for what in ("xmin", "xmax", "the number of tiers"))
    for _ in range(int(n_tiers)):
        kind, name = take(str, "the class of a tier"), take(str, "the name of a tier")
        expect(name not in tiers, f"{path}: line {line}", f"a second tier {name!r}", "distinct names")
        _, _, size = (take(float, f"{what} of tier {name!r}") for what in ("xmin", "xmax", "size"))
        tier = tiers.setdefault(name, []) if kind == "IntervalTier" else None
        before = -math.inf
        for number in range(1, int(size) + 1):
            where = f"{number} of {size:g} of tier {name!r}"
            start = take(float, f"the start of {where}")
            end = start if tier is None else take(float, f"the end of {where}")  # a point has no end
            text = take(str, f"the text of {where}").strip()
            found = f"an interval from {start} to {end} s after one that ends at {before} s"
            expect(before - 1e-6 <= start <= end, f"{path}: line {line}", found, "ascending times")
            before = end
            if tier is not None:
                tier.append(Interval(start, end, text, line))
    expect(tiers, str(path), "no interval tier", "at least one")
    return tiers


def _tokens(path: Path) -> Iterator[tuple[int, str | float]]:
    """Line and value of each text and number."""
    raw = path.read_bytes()
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        content = raw.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise PhaselabError(f"{path}: found {error}, expected UTF-8 or UTF-16") from error
    line, at = 1, 0
    for match in TOKEN.finditer(content):
        line, at = line + content.count("\n", at, match.start()), match.start()
        if match.lastindex:
            yield line, match[1].replace('""', '"') if match.lastindex == 1 else float(match[2])
