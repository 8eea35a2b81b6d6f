"""Which checkpoints there are: of a family, by its manifest, and in a local folder.

A manifest is a CSV file with one row per revision: ``repository`` (empty: the family's), ``revision``, ``commit``
(empty: not known yet), ``step`` and ``tokens`` (both empty where the name says nothing). It is made from a hub by
``refresh``; for families whose names are certain one comes with the package, without commits. One that was refreshed
wins; its tokens may be filled in by hand where no source states them, and are kept when it is refreshed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from huggingface_hub import constants

from phaselab.checkpoints import hub
from phaselab.checkpoints.families import FAMILIES, LINE, Family, of_repository
from phaselab.checkpoints.names import Checkpoint, CheckpointError, NotPublicError, choose
from phaselab.errors import expect
from phaselab.results import write_table

Say = Callable[[str], None]
_warn: Say = partial(warnings.warn, stacklevel=2)
_FOLDERS = "sub-folders named as on a hub: step1000-tokens4B, stage1-step1000-tokens5B, ckpt_001, step-125000, step10"


class Row(NamedTuple):
    """One row of a manifest; None where a name says nothing."""

    repository: str = ""
    revision: str = ""
    commit: str = ""
    step: int | None = None
    tokens: int | None = None


class Listing(NamedTuple):
    """The checkpoints of a family, sorted by what can be done with them."""

    checkpoints: list[Checkpoint]  # the line of training, and stages that branch from its end
    doubles: list[Row]  # another name or repository of a step that is in the line already
    uncounted: list[Row]  # checkpoints whose tokens nothing states
    strange: list[Row]  # names that are not those of checkpoints


def path_of(family: Family) -> Path:
    """Where the manifest of a family is: a refreshed one, else one of the package, else where it would be refreshed.

    Refreshed ones lie in ``$PHASELAB_MANIFESTS``, by default in ``phaselab/manifests`` of ``$HF_HOME``.
    """
    folder = Path(os.environ.get("PHASELAB_MANIFESTS") or f"{constants.HF_HOME}/phaselab/manifests").expanduser()
    own = folder / f"{family.name.replace('/', '--')}.csv"
    if own.is_file() or not family.manifest:
        return own
    return Path(str(resources.files("phaselab.checkpoints") / "manifests" / f"{family.manifest}.csv"))


def refresh(family: Family, out: Path | None = None, say: Say = _warn) -> Path:
    """Ask the hub for the revisions of a family and write its manifest; the path.

    `out`: the file; by default where `path_of` finds it again. `say` receives a line when there is no second
    repository; by default a warning.
    """
    out = out or path_of(replace(family, manifest=""))
    # What a study says of a repository of its own stays in the study.
    bare = family if family.name in FAMILIES else replace(family, tokens_per_step=None)
    filled = {row[:2]: row.tokens for row in read_rows(out, family.repository)}
    rows: list[Row] = []
    for repository in family.repositories:
        try:
            names = hub.revisions(repository)
        except NotPublicError as error:
            if repository != family.early:
                unknown = "" if family.public else f" ({family.name}: whether its checkpoints are public is not known)"
                raise NotPublicError(f"{error}{unknown}") from error
            say(f"{family.name}: without the beginning of its training: {error}")
            continue
        said = {revision: bare.read(revision) or (None, None) for revision in names}
        found = [Row(repository, revision, commit, *said[revision][:2]) for revision, commit in names.items()]
        found = [row if row.tokens is not None else row._replace(tokens=filled.get(row[:2])) for row in found]
        rows += sorted(found, key=lambda r: (r.step is None, r.step or 0, r.revision))
    write_table(pd.DataFrame(rows, columns=list(Row._fields)).astype({"step": "Int64", "tokens": "Int64"}), out)
    return out


def listing(family: Family, pinned: bool = False, say: Say = _warn) -> Listing:
    """The checkpoints of a family, from its manifest; without one the hub is asked.

    `pinned`: with commits; where a manifest lacks them the hub is asked, or offline the cache. `say`: as for `refresh`.
    """
    path = path_of(family)
    if constants.is_offline_mode():
        expected = f"one made by 'phaselab models refresh {family.name}' with a network"
        found = f"no manifest in {path.parent}, and HF_HUB_OFFLINE is set"
        expect(path.is_file(), family.name, found, expected, CheckpointError)
    elif not path.is_file() or (pinned and not all(row.commit for row in read_rows(path))):
        path = refresh(family, say=say)
    return sort_out(family, read_rows(path, family.repository))


def chosen(family: Family, which: str | tuple[str, ...], say: Say = _warn) -> list[Checkpoint]:
    """Some checkpoints of a family, each with its commit.

    `which`: a choice, as for `choose`. `say` receives a line when there are revisions that cannot be placed; by default
    a warning. A CheckpointError when they cannot be listed or chosen, or a commit is not known and the hub cannot be
    asked.
    """
    known = listing(family, pinned=True, say=say)
    without = f"which has {len(known.uncounted)} checkpoints without and {len(known.strange)} other names"
    found, expected = (
        "no checkpoint whose tokens are known",
        f"them in column tokens of {path_of(family)}, {without}",
    )
    expect(known.checkpoints, family.name, found, expected, CheckpointError)
    taken = choose(known.checkpoints, which)
    taken = [c if c.commit else replace(c, commit=hub.known_commit(c.repository, c.revision)) for c in taken]
    for checkpoint in taken:
        found = "no commit that is known, and HF_HUB_OFFLINE is set"
        expected = "a manifest with commits, made by 'phaselab models refresh' with a network"
        expect(checkpoint.commit, str(checkpoint), found, expected, CheckpointError)
    if left_out := [row.revision for row in (*known.uncounted, *known.strange)]:
        shown = f"{', '.join(left_out[:5])}{' ...' if len(left_out) > 5 else ''}"
        why = f"names without a step, or without tokens that are known ('phaselab models show {family.name}')"
        say(f"{family.name}: left out {shown}: {why}")
    return taken


def local_checkpoints(folder: str | Path, family: Family | None = None) -> list[Checkpoint]:
    """The checkpoints below `folder`, in ascending order of tokens, then of steps.

    Each sub-folder is a revision, and its name is read as on a hub: by the forms of `family`, or of all families where
    none is named. A name does not tell whose it is, so tokens that it does not state come from a named family alone,
    or from the file ``checkpoints.csv`` in `folder` (columns ``revision`` and ``tokens``, of all training before it),
    which wins over names. Sub-folders with other names are listed in one warning; hidden ones, such as those that are
    being written, are not looked at. A CheckpointError when there is no such folder, no checkpoint in it, two of one
    step, or the tokens of one are not known.
    """
    folder, table = Path(folder), Path(folder) / "checkpoints.csv"
    expect(folder.is_dir(), str(folder), "no such folder", f"one with {_FOLDERS}", CheckpointError)
    stated = {row.revision: row.tokens for row in read_rows(table, columns=("revision", "tokens"))}
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    known = sort_out(family or of_repository(""), [Row(revision=name, tokens=stated.get(name)) for name in names])
    for row in known.doubles:
        raise CheckpointError(f"{folder / row.revision}: found another name of the same step, expected one of them")
    for row in known.uncounted:
        expected = f"step{{N}}-tokens{{T}}, a row for {row.revision} in {table}, or (of a later stage) the first one"
        raise CheckpointError(f"{folder / row.revision}: the name does not tell the tokens seen; expected {expected}")
    strange = ", ".join(sorted(row.revision for row in known.strange))
    expect(known.checkpoints, str(folder), strange or "no checkpoints", _FOLDERS, CheckpointError)
    if strange:
        warnings.warn(f"{folder}: left out {strange}: not named as checkpoints are on a hub", stacklevel=2)
    return sorted(
        replace(c, path=folder / c.revision, tokens=stated.get(c.revision) or c.tokens) for c in known.checkpoints
    )


def sort_out(family: Family, rows: Sequence[Row]) -> Listing:
    """The checkpoints that rows are: in one line, of stages that branch from its end, or none."""
    known, line = Listing([], [], [], []), dict[int, Checkpoint]()
    later: list[tuple[Row, Checkpoint]] = []
    order = {repository: number for number, repository in enumerate(family.repositories)}
    # Of two names of one step the main repository's is taken, and there the one that tells more.
    for row in sorted(rows, key=lambda r: (order.get(r.repository, 9), -len(r.revision), r.revision)):
        said = family.read(row.revision)
        # What the table states wins over the name.
        step = row.step if row.step is not None or said is None else said.step
        tokens = row.tokens if row.tokens is not None or said is None else said.tokens
        branch = said is not None and said.stage not in LINE
        if step is None:
            known.strange.append(row)
        elif step in line and not branch:
            known.doubles.append(row)
        elif tokens is None:
            known.uncounted.append(row)
        elif branch:
            later.append((row, Checkpoint(row.revision, step, tokens, None, row.repository, row.commit, True)))
        else:
            line[step] = Checkpoint(row.revision, step, tokens, None, row.repository, row.commit)
    for row, own in later:
        if line:
            # A branch counts its own steps and tokens from the end of the line.
            end = max(line.values())
            known.checkpoints.append(replace(own, step=end.step + own.step, tokens=end.tokens + own.tokens))
        else:
            known.uncounted.append(row)
    known.checkpoints.extend(line.values())
    known.checkpoints.sort()
    return known


def read_rows(path: Path, repository: str = "", columns: Sequence[str] = Row._fields) -> list[Row]:
    """Rows of a manifest; none without the file. One without a repository is of `repository`."""
    if not path.exists():
        return []
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be read as CSV: {error}") from error
    found = f"columns {', '.join(map(str, table))}"
    expect(set(columns) <= set(table), str(path), found, ", ".join(columns), CheckpointError)
    rows = []
    for said in table[list(columns)].fillna("").to_dict("records"):
        for name in {"step", "tokens"} & set(columns):
            text, where = said[name], f"{path}: {said['revision']}: {name}"
            expect(not text or text.isdecimal(), where, repr(text), "a whole number or nothing", CheckpointError)
            said[name] = int(text) if text else None
        rows.append(Row(**{str(name): value for name, value in said.items()}))
    return [row if row.repository else row._replace(repository=repository) for row in rows]
