"""The data sets of ``sets.yaml``, the files of their registries, and choosing among these."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from phaselab.errors import expect, number_of
from phaselab.files import parse_yaml, read_text
from phaselab.results import DataMissing, amount, read_table

_HERE = Path(__file__).parent
#: Columns of every registry, and TRs of the stimulus whose texts are in a file; others are what files are chosen by.
_COLUMNS, _TRS = ("path", "bytes", "digest", "version"), "trs"


@dataclass(frozen=True)
class File:
    """A published file."""

    path: str
    bytes: int | None  # None where the publisher does not state it
    digest: str  # sha256:..., md5:..., sha1:... or git:... (a blob in git)
    url: str  # empty where there is none


@dataclass(frozen=True)
class DataSet:
    """A public data set; ``sets.yaml`` says what its fields are."""

    name: str
    about: str
    licence: str
    citation: str
    left_out: str = ""
    how: str = ""
    smallest: Mapping[str, str] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    tr: float = 0.0
    voxels: Mapping[str, int] = field(default_factory=dict)
    copied: bool = False

    @cached_property
    def table(self) -> pd.DataFrame:
        """The registry, a row per file; a cell in a column of choice: words that each choose it; empty: with any."""
        return read_table(_HERE / "registries" / f"{self.name}.csv", *_COLUMNS)

    @property
    def choices(self) -> dict[str, list[str]]:
        """What files are chosen by (``subjects``, ``titles`` ...) -> all that there are."""
        names = [name for name in [*self.table] if name not in (*_COLUMNS, _TRS)]
        return {name: sorted({*" ".join(self.table[name]).split()}) for name in names}

    def select(self, chosen: Mapping[str, str]) -> list[File]:
        """The files of a choice: for each of ``choices`` a text with commas, or ``all``."""
        choices, table, taken = self.choices, self.table, pd.Series(True, self.table.index)
        options = ", ".join(f"--{name}" for name in choices) or "no choice: it is taken whole"
        for name, text in chosen.items():
            expect(name in choices, f"--{name}", repr(text), f"none: {self.name} has {options}")
        words = {name: {word.strip() for word in chosen.get(name, "").split(",")} - {""} for name in choices}
        for name, known in choices.items():
            strange = ", ".join(map(repr, sorted(words[name] - {*known, "all"}))) or "nothing"
            right = f"some of {', '.join(known)} with commas between, or all; the smallest part: {self.command()}"
            expect(words[name] and strange == "nothing", f"--{name}", strange, right)
            wanted = {*known} if "all" in words[name] else words[name]
            taken &= table[name].map(lambda cell, wanted=wanted: not cell or not wanted.isdisjoint(cell.split()))
        for name, asked in words.items():
            lacking = ", ".join(sorted(asked - {"all", *" ".join(table.loc[taken, name]).split()}))
            expect(not lacking, f"--{name}", f"{lacking}, without a file in this choice", "what goes with the others")
        return self.files(table[taken])

    def size(self, chosen: Mapping[str, str]) -> tuple[int, int]:
        """TRs of the stimulus and voxels of all subjects of a choice, about; zeros: not known."""
        rows = self.table[self.table["path"].isin([file.path for file in self.select(chosen)])]
        trs, subjects = (rows.get(name, pd.Series("", rows.index)) for name in (_TRS, "subjects"))
        people, each = {*subjects} - {""} or {""}, self.voxels.get("each", 0)
        return sum(map(int, trs[trs != ""])), sum(self.voxels.get(one, each) for one in people)

    def files(self, rows: pd.DataFrame | None = None) -> list[File]:
        """The files of some rows of the registry, by default of all; an address always gives the same bytes."""
        found = []
        for path, size, digest, version in (self.table if rows is None else rows)[[*_COLUMNS]].to_numpy():
            form = self.urls.get(digest.partition(":")[0], "")
            url = form.format(path=quote(path), version=quote(version)).removesuffix("?versionId=")
            found.append(File(path, int(size) if size else None, digest, url))
        return found

    def command(self, data: Path | None = None, chosen: Mapping[str, str] | None = None) -> str:
        """What to type to get a choice, by default the smallest part."""
        choice = [word for name, text in (chosen or self.smallest).items() for word in (f"--{name}", text)]
        choice += [] if self.urls else ["--from", "FOLDER"]
        choice += ["--data", str(data)] if data else []
        return shlex.join(["phaselab", "data", "get", self.name, *choice])


#: Name -> data set.
SETS = {row["name"]: DataSet(**row) for row in parse_yaml(read_text(_HERE / "sets.yaml"), "sets.yaml")[0]["sets"]}


def counted(files: Sequence[File]) -> str:
    """How many files, and their bytes, as far as these are stated."""
    unknown = sum(file.bytes is None for file in files)
    sizes = [f"{amount(sum(file.bytes or 0 for file in files), 'kMGT')}B"] * (unknown < len(files) or not files)
    sizes += [f"{unknown} of a size that is not stated"] * bool(unknown)
    return f"{number_of(len(files), 'file')} ({', '.join(sizes)})"


def data_missing(what: str, name: str, data: Path | None, chosen: Mapping[str, str] | None = None) -> DataMissing:
    """The error for files that are not there: `what` is missing of which set, and what to type to get it."""
    of = SETS[name]
    how, then = f"{of.how}; " if of.how else "", "" if data else ", and name DATA with --data or PHASELAB_DATA"
    command = of.command(data or Path("DATA"), chosen)
    error = DataMissing(f"{what}; {how}type: {command} ({of.citation}; {of.licence}){then}")
    error.needs = name, chosen or {}
    return error


def published(place: str, name: str, data: Path | None, chosen: Mapping[str, str], dropped: bool = False) -> Path:
    """A file of the choice; DataMissing where it is not there, unless it may be `dropped` (a copy stands for it)."""
    path = (data or Path("DATA")) / name / place
    if not dropped and (data is None or not path.exists()):
        raise data_missing(f"{path}: not there", name, data, chosen)
    return path
