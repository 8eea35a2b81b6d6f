"""Manifests: which checkpoints a family has, as a CSV file with one row a revision.

Columns: ``repository`` (empty: the family's), ``revision``, ``commit`` (empty: not known yet), ``step`` and
``tokens`` (both empty where the name says nothing). A manifest is made from a hub by ``refresh``; for
families whose names are certain one comes with the package, without commits. One that was refreshed wins;
its tokens may be filled in by hand where no source states them, and are kept when it is refreshed.
"""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from phaselab.checkpoints import hub
from phaselab.checkpoints.families import FAMILIES, Family
from phaselab.checkpoints.revisions import Checkpoint, CheckpointError, NotPublicError, choose

Say = Callable[[str], None]

COLUMNS = ("repository", "revision", "commit", "step", "tokens")


@dataclass(frozen=True)
class Row:
    """One row of a manifest; None where a name says nothing."""

    repository: str
    revision: str
    commit: str
    step: int | None
    tokens: int | None


@dataclass(frozen=True)
class Listing:
    """The checkpoints of a family, sorted by what can be done with them.

    Attributes
    ----------
    family, path : the family; its manifest.
    checkpoints : the line of training, ascending.
    branches : of stages that begin from the end of the line, some of them several times; taken by name.
    doubles : another name or repository of a step that is in the line already.
    uncounted : checkpoints whose tokens nothing states.
    strange : names that are not those of checkpoints.
    """

    family: Family
    path: Path
    checkpoints: tuple[Checkpoint, ...]
    branches: tuple[Checkpoint, ...]
    doubles: tuple[Row, ...]
    uncounted: tuple[Row, ...]
    strange: tuple[Row, ...]

    def choose(self, which: str | tuple[str, ...]) -> list[Checkpoint]:
        """Some of the checkpoints, as ``phaselab.checkpoints.choose``; branches where they are named."""
        if not self.checkpoints:
            raise CheckpointError(
                f"{self.family.name}: found no checkpoint whose tokens are known, expected them in the "
                f"column tokens of {self.path}, which has {len(self.uncounted)} checkpoints without and "
                f"{len(self.strange)} other names"
            )
        names = {part.strip() for part in which.split(",")} if isinstance(which, str) else set(which)
        named = [c for c in self.branches if c.revision in names]
        if not named:
            return choose(self.checkpoints, which)
        both = sorted([*self.checkpoints, *self.branches], key=lambda c: (c.tokens, c.step, c.revision))
        return choose(both, tuple(names))


def folder() -> Path:
    """Where refreshed manifests lie: ``$PHASELAB_MANIFESTS``, else ``phaselab/manifests`` in ``$HF_HOME``."""
    named = os.environ.get("PHASELAB_MANIFESTS")
    return Path(named).expanduser() if named else hub.home() / "phaselab" / "manifests"


def _own(family: Family) -> Path:
    return folder() / f"{family.name.replace('/', '--')}.csv"


def path_of(family: Family) -> Path | None:
    """The manifest of a family: the refreshed one, else the one that comes with the package, else None."""
    own = _own(family)
    if own.is_file():
        return own
    if family.manifest:
        return Path(str(resources.files("phaselab") / "checkpoints" / "manifests" / f"{family.manifest}.csv"))
    return None


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=3)


def refresh(family: Family, out: Path | None = None, say: Say = _warn) -> Path:
    """Ask the hub for the revisions of a family and write its manifest; the path.

    Parameters
    ----------
    out : the file; by default ``<family>.csv`` in `folder`, where it is found again.
    say : receives a line when there is no second repository; by default a warning.

    Raises
    ------
    CheckpointError
        When the hub does not have the family or cannot be reached.
    """
    out = out or _own(family)
    # What a study says of a repository of its own stays in the study.
    bare = family if family.name in FAMILIES else replace(family, tokens_per_step=None)
    filled = {(r.repository, r.revision): r.tokens for r in _read(out, family)} if out.is_file() else {}
    rows = []
    for repository in family.repositories:
        try:
            names = hub.revisions(repository)
        except NotPublicError as error:
            if repository == family.early:
                say(f"{family.name}: without the beginning of its training: {error}")
                continue
            if family.public:
                raise
            raise NotPublicError(f"{error} ({family.name}: whether its checkpoints are public is not known)") from error
        for revision, commit in names.items():
            said = bare.read(revision)
            tokens = said.tokens if said else None
            if tokens is None:
                tokens = filled.get((repository, revision))
            rows.append(Row(repository, revision, commit, said.step if said else None, tokens))
    order = {repository: number for number, repository in enumerate(family.repositories)}
    rows.sort(key=lambda r: (order[r.repository], r.step is None, r.step or 0, r.revision))
    _write(rows, out)
    return out


def listing(family: Family, pinned: bool = False, say: Say = _warn) -> Listing:
    """The checkpoints of a family, from its manifest; without one the hub is asked.

    Parameters
    ----------
    pinned : with commits; where a manifest lacks them the hub is asked, or offline the cache.
    say : as for `refresh`.

    Raises
    ------
    CheckpointError
        When there is no manifest and the hub cannot be asked, or a manifest cannot be read.
    """
    path = path_of(family)
    rows = _read(path, family) if path else []
    incomplete = path is None or (pinned and any(not row.commit for row in rows))
    if incomplete and not hub.offline():
        path = refresh(family, say=say)
        rows = _read(path, family)
    if path is None:
        raise CheckpointError(
            f"{family.name}: found no manifest in {folder()}, and HF_HUB_OFFLINE is set; expected one "
            f"made by 'phaselab models refresh {family.name}' with a network"
        )
    return _sorted_out(family, path, rows)


def chosen(family: Family, which: str | tuple[str, ...], say: Say = _warn) -> list[Checkpoint]:
    """Some checkpoints of a family, each with its commit.

    Parameters
    ----------
    which : a choice, as for ``phaselab.checkpoints.choose``.
    say : receives a line when there are revisions that cannot be placed; by default a warning.

    Raises
    ------
    CheckpointError
        When they cannot be listed or chosen, or a commit is not known and the hub cannot be asked.
    """
    known = listing(family, pinned=True, say=say)
    taken = [c if c.commit else _from_cache(c) for c in known.choose(which)]
    left_out = [row.revision for row in (*known.uncounted, *known.strange)]
    if left_out:
        shown = f"{', '.join(left_out[:5])}{' ...' if len(left_out) > 5 else ''}"
        say(
            f"{family.name}: left out {shown}: names without a step, or without tokens that are known "
            f"('phaselab models show {family.name}')"
        )
    return taken


def _from_cache(checkpoint: Checkpoint) -> Checkpoint:
    commit = hub.known_commit(checkpoint.repository, checkpoint.revision)
    if not commit:
        raise CheckpointError(
            f"{checkpoint.repository} {checkpoint.revision}: its commit is not known, and HF_HUB_OFFLINE is "
            "set; expected a manifest with commits, made by 'phaselab models refresh' with a network"
        )
    return replace(checkpoint, commit=commit)


def _sorted_out(family: Family, path: Path, rows: Sequence[Row]) -> Listing:
    line: dict[int, tuple[Row, int]] = {}
    doubles, uncounted, strange, branches = [], [], [], []
    first_to_come = {repository: number for number, repository in enumerate(family.repositories)}
    # Of two names of one step the main repository's is taken, and there the one that tells more.
    for row in sorted(rows, key=lambda r: (first_to_come.get(r.repository, 9), -len(r.revision), r.revision)):
        said = family.read(row.revision)
        step = row.step if row.step is not None else said.step if said else None
        tokens = row.tokens if row.tokens is not None else said.tokens if said else None
        if step is None:
            strange.append(row)
        elif said and said.stage not in family.line:
            branches.append((row, step, tokens))
        elif step in line:
            doubles.append(row)
        elif tokens is None:
            uncounted.append(row)
        else:
            line[step] = (row, tokens)
    checkpoints = [
        Checkpoint(row.revision, step, tokens, None, row.repository, row.commit) for step, (row, tokens) in line.items()
    ]
    checkpoints.sort(key=lambda c: (c.tokens, c.step))
    grown = []
    for row, step, tokens in branches:
        if tokens is None or not checkpoints:
            uncounted.append(row)
            continue
        # A branch counts its own steps and tokens from the end of the line.
        end = checkpoints[-1]
        grown.append(Checkpoint(row.revision, end.step + step, end.tokens + tokens, None, row.repository, row.commit))
    grown.sort(key=lambda c: (c.tokens, c.step, c.revision))
    return Listing(family, path, tuple(checkpoints), tuple(grown), tuple(doubles), tuple(uncounted), tuple(strange))


def _read(path: Path, family: Family) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise CheckpointError(f"{path}: found columns {reader.fieldnames}, expected {', '.join(COLUMNS)}")
        return [
            Row(
                line["repository"] or family.repository,
                line["revision"],
                line["commit"],
                _number(path, line, "step"),
                _number(path, line, "tokens"),
            )
            for line in reader
        ]


def _number(path: Path, line: dict[str, str], column: str) -> int | None:
    text = line[column] or ""
    if text and not text.isdecimal():
        raise CheckpointError(
            f"{path}: {line['revision']}: {column}: found {text!r}, expected a whole number or nothing"
        )
    return int(text) if text else None


def _write(rows: Iterable[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            empty = ("" if value is None else value for value in (row.step, row.tokens))
            writer.writerow([row.repository, row.revision, row.commit, *empty])
    os.replace(aside, path)
