"""Praat TextGrids: words and their times."""

from __future__ import annotations

import math
import re
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
    raw = path.read_bytes()
    try:
        content = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise PhaselabError(f"{path}: found {error}, expected UTF-8 or UTF-16") from error
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    tokens, line, at = (match for match in TOKEN.finditer(content) if match.lastindex), 1, 0

    def take(kind: type[Kind], what: str) -> Kind:
        nonlocal line, at
        value: object = None
        if match := next(tokens, None):
            line, at = line + content.count("\n", at, match.start()), match.start()
            value = match[1].replace('""', '"') if match.lastindex == 1 else float(match[2])
        if isinstance(value, kind):
            return value
        raise PhaselabError(f"{path}: line {line}: found {value!r}, expected {what}")

    head = take(str, "ooTextFile"), take(str, "TextGrid")
    expect(head == ("ooTextFile", "TextGrid"), f"{path}: line {line}", " ".join(head), "ooTextFile, TextGrid of Praat")
    tiers: dict[str, list[Interval]] = {}
    _, _, n_tiers = (take(float, what) for what in ("xmin", "xmax", "the number of tiers"))
    for _ in range(int(n_tiers)):
        kind, name = take(str, "the class of a tier"), take(str, "the name of a tier")
        expect(name not in tiers, f"{path}: line {line}", f"a second tier {name!r}", "distinct names")
        _, _, size = (take(float, f"{what} of tier {name!r}") for what in ("xmin", "xmax", "size"))
        tier, before = list[Interval](), -math.inf
        for number in range(1, int(size) + 1):
            where = f"{number} of {size:g} of tier {name!r}"
            start = take(float, f"the start of {where}")
            end = take(float, f"the end of {where}") if kind == "IntervalTier" else start  # a point has no end
            tier.append(Interval(start, end, take(str, f"the text of {where}").strip(), line))
            found = f"an interval from {start} to {end} s after one that ends at {before} s"
            expect(before - 1e-6 <= start <= end, f"{path}: line {line}", found, "ascending times")
            before = end
        tiers |= {name: tier} if kind == "IntervalTier" else {}
    expect(tiers, str(path), "no interval tier", "at least one")
    return tiers
