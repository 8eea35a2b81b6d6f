"""Manifests: which checkpoints a family has, as a CSV file with one row a revision.

Columns: ``repository`` (empty: the family's), ``revision``, ``commit`` (empty: not known yet), ``step`` and ``tokens``
(both empty where the name says nothing). A manifest is made from a hub by ``refresh``; for families whose names are
certain one comes with the package, without commits. One that was refreshed wins; its tokens may be filled in by hand
where no source states them, and are kept when it is refreshed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from huggingface_hub import constants

from phaselab.checkpoints import hub
from phaselab.checkpoints.families import FAMILIES, LINE, Family
from phaselab.checkpoints.names import Checkpoint, CheckpointError, NotPublicError, choose
from phaselab.errors import expect
from phaselab.results import write_table

Say = Callable[[str], None]


class Row(NamedTuple):
    """One row of a manifest; None where a name says nothing."""

    repository: str
    revision: str
    commit: str
    step: int | None
    tokens: int | None


class Listing(NamedTuple):
    """The checkpoints of a family, sorted by what can be done with them.

    Attributes
    ----------
    checkpoints : the line of training, ascending.
    branches : of stages that begin from the end of the line, some of them several times; taken by name.
    doubles : another name or repository of a step that is in the line already.
    uncounted : checkpoints whose tokens nothing states.
    strange : names that are not those of checkpoints.
    """

    checkpoints: list[Checkpoint]
    branches: list[Checkpoint]
    doubles: list[Row]
    uncounted: list[Row]
    strange: list[Row]


def folder() -> Path:
    """Where refreshed manifests lie: ``$PHASELAB_MANIFESTS``, else ``phaselab/manifests`` in ``$HF_HOME``."""
    return Path(os.environ.get("PHASELAB_MANIFESTS") or f"{constants.HF_HOME}/phaselab/manifests").expanduser()


def path_of(family: Family) -> Path:
    """The manifest of a family: the refreshed one, or where it would be; without it one that is in the package."""
    own = folder() / f"{family.name.replace('/', '--')}.csv"
    if own.is_file() or not family.manifest:
        return own
    return Path(str(resources.files("phaselab.checkpoints") / "manifests" / f"{family.manifest}.csv"))


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
    out = out or path_of(replace(family, manifest=""))
    # What a study says of a repository of its own stays in the study.
    bare = family if family.name in FAMILIES else replace(family, tokens_per_step=None)
    filled = {(row.repository, row.revision): row.tokens for row in _read(out, family)}
    rows: list[Row] = []
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
        found = []
        for revision, commit in names.items():
            said = bare.read(revision)
            tokens = filled.get((repository, revision)) if said is None or said.tokens is None else said.tokens
            found.append(Row(repository, revision, commit, said.step if said else None, tokens))
        rows += sorted(found, key=lambda r: (r.step is None, r.step or 0, r.revision))
    table = pd.DataFrame(rows, columns=list(Row._fields))
    write_table(table.astype({"step": "Int64", "tokens": "Int64"}), out)
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
    if not constants.is_offline_mode():
        if not path.is_file() or (pinned and not all(row.commit for row in _read(path, family))):
            path = refresh(family, say=say)
    elif not path.is_file():
        raise CheckpointError(
            f"{family.name}: found no manifest in {path.parent}, and HF_HUB_OFFLINE is set; expected one "
            f"made by 'phaselab models refresh {family.name}' with a network"
        )
    return sort_out(family, _read(path, family))


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
    if not known.checkpoints:
        raise CheckpointError(
            f"{family.name}: found no checkpoint whose tokens are known, expected them in the column tokens of "
            f"{path_of(family)}, which has {len(known.uncounted)} checkpoints without and {len(known.strange)} other "
            "names"
        )
    taken = choose([*known.checkpoints, *known.branches], which)
    taken = [c if c.commit else replace(c, commit=hub.known_commit(c.repository, c.revision)) for c in taken]
    for checkpoint in taken:
        found = "its commit is not known, and HF_HUB_OFFLINE is set"
        expected = "a manifest with commits, made by 'phaselab models refresh' with a network"
        expect(checkpoint.commit, str(checkpoint), found, expected, CheckpointError)
    if left_out := [row.revision for row in (*known.uncounted, *known.strange)]:
        say(
            f"{family.name}: left out {', '.join(left_out[:5])}{' ...' if len(left_out) > 5 else ''}: names without "
            f"a step, or without tokens that are known ('phaselab models show {family.name}')"
        )
    return taken


def sort_out(family: Family, rows: Sequence[Row]) -> Listing:
    """The checkpoints that rows are: in one line, of stages that branch from its end, or none."""
    known = Listing([], [], [], [], [])
    line: dict[int, Checkpoint] = {}
    later: list[Row] = []
    first_to_come = {repository: number for number, repository in enumerate(family.repositories)}
    # Of two names of one step the main repository's is taken, and there the one that tells more.
    for row in sorted(rows, key=lambda r: (first_to_come.get(r.repository, 9), -len(r.revision), r.revision)):
        if said := family.read(row.revision):
            # What the table states wins over the name.
            row = Row(
                *row[:3], *(b if a is None else a for a, b in zip(row[3:], (said.step, said.tokens), strict=True))
            )
        if row.step is None:
            known.strange.append(row)
        elif said and said.stage not in LINE:
            later.append(row)
        elif row.step in line:
            known.doubles.append(row)
        elif row.tokens is None:
            known.uncounted.append(row)
        else:
            line[row.step] = Checkpoint(row.revision, row.step, row.tokens, None, row.repository, row.commit)
    known.checkpoints.extend(sorted(line.values(), key=lambda c: (c.tokens, c.step)))
    for row in later:
        if row.step is None or row.tokens is None or not known.checkpoints:
            known.uncounted.append(row)
            continue
        # A branch counts its own steps and tokens from the end of the line.
        step, tokens = known.checkpoints[-1].step + row.step, known.checkpoints[-1].tokens + row.tokens
        known.branches.append(Checkpoint(row.revision, step, tokens, None, row.repository, row.commit, branch=True))
    known.branches.sort(key=lambda c: (c.tokens, c.step, c.revision))
    return known


def _read(path: Path, family: Family) -> list[Row]:
    rows = [Row(**{name: row[name] for name in Row._fields}) for row in read_table(path, Row._fields)]
    return [row if row.repository else row._replace(repository=family.repository) for row in rows]


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a CSV file: text, but ``step`` and ``tokens`` whole numbers, or None where nothing stands.

    No rows without the file; a CheckpointError when it lacks a column or a number is not whole.
    """
    if not path.exists():
        return []
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be read as CSV: {error}") from error
    found = f"columns {', '.join(map(str, table))}"
    expect(set(columns) <= set(table), str(path), found, ", ".join(columns), CheckpointError)
    rows: list[dict[str, Any]] = table.fillna("").to_dict("records")
    for row in rows:
        for column in {"step", "tokens"} & set(columns):
            text, where = row[column], f"{path}: {row['revision']}: {column}"
            expect(not text or text.isdecimal(), where, repr(text), "a whole number or nothing", CheckpointError)
            row[column] = int(text) if text else None
    return rows
