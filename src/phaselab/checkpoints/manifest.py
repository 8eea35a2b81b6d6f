"""Which checkpoints there are: of a family, by its manifest, and in a local folder.

A manifest is a CSV file with one row per revision: ``repository`` (empty: the family's), ``revision``, ``commit``
(empty: not known yet), ``step`` and ``tokens`` (both empty where the name says nothing). It is made from a hub by
``refresh``; for families whose names are certain one comes with the package, without commits. One that was refreshed
wins; its tokens may be filled in by hand where no source states them, and are kept when it is refreshed.
"""

import os
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from phaselab.checkpoints import hub
from phaselab.checkpoints.families import FAMILIES, LINE, Family, of_repository
from phaselab.checkpoints.names import Checkpoint, choose, is_checkpoint
from phaselab.errors import PhaselabError, expect, number_of
from phaselab.files import home
from phaselab.results import read_table, write_table
from phaselab.study import Study, StudyError

_warn: hub.Say = partial(warnings.warn, stacklevel=2)
_FOLDERS = "sub-folders named as on a hub: step1000-tokens4B, stage1-step1000-tokens5B, ckpt_001, step-125000, step10"
_COLUMNS = ["repository", "revision", "commit", "step", "tokens"]


class Row(NamedTuple):
    """One row of a manifest; tokens None where nothing states them."""

    revision: str
    tokens: int | None
    repository: str = ""
    commit: str = ""


class Listing(NamedTuple):
    """The checkpoints of a family, sorted by what can be done with them."""

    checkpoints: list[Checkpoint]  # the line of training, and stages that branch from its end
    doubles: list[Row]  # another name or repository of a step that is in the line already
    uncounted: list[Row]  # checkpoints whose tokens nothing states
    strange: list[Row]  # names that are not those of checkpoints


def place(family: Family) -> Path:
    """Where the manifest of a family is, or would be, when the hub was asked for it."""
    folder = Path(os.environ.get("PHASELAB_MANIFESTS") or f"{constants.HF_HOME}/phaselab/manifests").expanduser()
    return folder / f"{family.name.replace('/', '--')}.csv"


def path_of(family: Family) -> Path:
    """Where the manifest of a family is: a refreshed one, else one of the package, else where it would be refreshed."""
    own = place(family)
    return own if own.is_file() or not family.manifest else Path(__file__).parent / f"manifests/{family.manifest}.csv"


def absent(family: Family, ask: bool = False, say: hub.Say = _warn) -> bool:
    """Whether the hub has no repository of a family of which that was not known; if `ask`, it is asked where never."""
    if ask and not (family.public or place(family).is_file() or constants.is_offline_mode()):
        with suppress(PhaselabError):  # what else goes wrong is told when a checkpoint is needed
            refresh(family, say=say)
    return not family.public and place(family).is_file() and not read_rows(place(family))


def without_absent(study: Study, say: hub.Say, ask: bool = False) -> Study:
    """The study without models of which the hub, when it was asked (or, if `ask`, is now), has no repository."""
    families = {model.name: FAMILIES.get(model.family or "") for model in study.models}
    gone = {name: of.repository for name, of in families.items() if of and absent(of, ask, say)}
    for name, repository in gone.items():
        say(f"{name}: left out, for it is absent: the hub has no {repository}, or none for who asks")
    kept = tuple(model for model in study.models if model.name not in gone)
    expect(kept, f"{study.where}: models", f"no {', '.join(gone)} on the hub", "one", StudyError)
    return study.model_copy(update={"models": kept})


def refresh(family: Family, out: Path | None = None, say: hub.Say = _warn) -> Path:
    """Ask the hub for a family's revisions and write its manifest; `say` is told when there is no second repository."""
    out = home(out) if out else place(family)
    # What a study says of a repository of its own stays in the study.
    bare = family if family.name in FAMILIES else replace(family, tokens_per_step=None)
    filled = {(row.repository, row.revision): row.tokens for row in read_rows(out, family.repository)}
    rows: list[tuple[str, str, str, int | None, int | None]] = []
    for repository in family.repositories:
        try:
            names = hub.revisions(repository)
        except PhaselabError as error:
            missing = type(error.__cause__) is RepositoryNotFoundError  # and not one for which leave must be asked
            if repository == family.early and missing:
                say(f"{family.name}: without the beginning of its training: {error}")
                continue
            if missing and not family.public:
                write_table(pd.DataFrame(columns=_COLUMNS), out)
            unknown = "" if family.public else f" ({family.name}: whether its checkpoints are public is not known)"
            raise PhaselabError(f"{error}{unknown}") from error
        for name, commit in names.items():
            step, tokens, _ = bare.read(name) or (None, None, "")
            rows.append((repository, name, commit, step, filled.get((repository, name)) if tokens is None else tokens))
    rows.sort(key=lambda row: (family.repositories.index(row[0]), row[3] is None, row[3] or 0, row[1]))
    write_table(pd.DataFrame(rows, columns=_COLUMNS).astype({"step": "Int64", "tokens": "Int64"}), out)
    return out


def listing(family: Family) -> Listing:
    """The checkpoints in the manifest of a family."""
    return sort_out(family, read_rows(path_of(family), family.repository))


def chosen(family: Family, which: str | tuple[str, ...], say: hub.Say = _warn) -> list[Checkpoint]:
    """Some checkpoints (see `choose`) of a family, each with its commit; the hub is asked if no manifest has it."""
    rows, offline = read_rows(path_of(family)), constants.is_offline_mode()
    if not offline and not (rows and all(row.commit for row in rows)):
        refresh(family, say=say)
    found = f"no manifest in {path_of(family).parent}, and HF_HUB_OFFLINE is set"
    expect(rows or not offline, family.name, found, f"'phaselab models refresh {family.name}' online")
    known = listing(family)
    without, other = number_of(len(known.uncounted), "checkpoint"), number_of(len(known.strange), "other name")
    found, expected = "no checkpoint whose tokens are known", f"them in column tokens of {path_of(family)}"
    expected += f", which has {without} without and {other}"
    expect(known.checkpoints, family.name, found, expected)
    taken = choose(known.checkpoints, which)
    for checkpoint in taken:
        found, expected = "no commit that is known, and HF_HUB_OFFLINE is set", "'phaselab models refresh' online"
        expect(checkpoint.commit, str(checkpoint), found, expected)
    if left_out := [row.revision for row in (*known.uncounted, *known.strange)]:
        shown = f"{', '.join(left_out[:5])}{' ...' if len(left_out) > 5 else ''}"
        why = f"names without a step, or without tokens that are known ('phaselab models show {family.name}')"
        say(f"{family.name}: left out {shown}: {why}")
    return taken


def local_checkpoints(folder: str | Path) -> list[Checkpoint]:
    """The checkpoints in the sub-folders of `folder`, in ascending order of tokens, then of steps.

    A name is read by the forms of all families; the file ``checkpoints.csv`` in `folder` (columns ``revision`` and
    ``tokens``, of all training before it) wins over it. Other names are listed in one warning, hidden ones not. A
    folder that is a checkpoint itself is the only one, and such a table lies beside it.
    """
    folder, given = Path(folder), str(folder)
    expect(folder.is_dir(), given, "no such folder", f"one with {_FOLDERS}")
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if is_checkpoint(folder):
        names, folder = [folder.absolute().name], folder.absolute().parent
    table = folder / "checkpoints.csv"
    stated = {row.revision: row.tokens for row in read_rows(table, columns=["revision", "tokens"])}
    known = sort_out(of_repository(""), [Row(name, stated.get(name)) for name in names])
    for row in known.doubles:
        raise PhaselabError(f"{folder / row.revision}: found another name of the same step, expected one of them")
    for row in known.uncounted:
        found = f"{folder / row.revision}: found a name that does not tell the training tokens seen"
        right = f"a name as step1000-tokens4B, or the line {row.revision},4000000000 below revision,tokens in {table}"
        raise PhaselabError(f"{found}, expected {right}; of a later stage, also a checkpoint of the first one")
    strange = ", ".join(sorted(row.revision for row in known.strange))
    expect(known.checkpoints, given, strange or "no checkpoints", f"{_FOLDERS}; or a folder so named")
    if strange:
        warnings.warn(f"{folder}: left out {strange}: not named as checkpoints are on a hub", stacklevel=2)
    return sorted(
        replace(c, path=folder / c.revision, tokens=stated.get(c.revision) or c.tokens) for c in known.checkpoints
    )


def sort_out(family: Family, rows: Iterable[Row]) -> Listing:
    """The checkpoints that rows are: in one line, of stages that branch from its end, or none."""
    known, line = Listing([], [], [], []), dict[int, Checkpoint]()
    order = {repository: number for number, repository in enumerate(family.repositories)}
    read = {row: said for row in rows if (said := family.read(row.revision))}
    known.strange.extend(row for row in rows if row not in read)
    # Branches last. Of two names of one step the main repository's is taken, and there the one that tells more.
    for row in sorted(
        read, key=lambda r: (read[r].stage not in LINE, order.get(r.repository, 9), -len(r.revision), r.revision)
    ):
        step, tokens, stage = read[row]
        tokens, branch = tokens if row.tokens is None else row.tokens, stage not in LINE
        if step in line and not branch:
            known.doubles.append(row)
        elif tokens is None or (branch and not line):
            known.uncounted.append(row)
        elif branch:  # which counts its own steps and tokens from the end of the line
            at = max(line.values())
            place = at.step + step, at.tokens + tokens
            known.checkpoints.append(Checkpoint(row.revision, *place, None, row.repository, row.commit, branch))
        else:
            line[step] = Checkpoint(row.revision, step, tokens, None, row.repository, row.commit)
    known.checkpoints.extend(line.values())
    known.checkpoints.sort()
    return known


def read_rows(path: Path, repository: str = "", columns: list[str] = _COLUMNS) -> list[Row]:
    """Rows of a manifest; none without the file. One without a repository is of `repository`."""
    if not path.exists():
        return []
    table, rows = read_table(path, *columns), []
    for said in table[columns].to_dict("records"):
        revision, tokens = said["revision"], said["tokens"]
        where, good = f"{path}: {revision}: tokens", not tokens or (tokens.isdecimal() and len(tokens) < 19)
        expect(good, where, repr(tokens), "a whole number or nothing")
        of = said.get("repository") or repository
        rows.append(Row(revision, int(tokens) if tokens else None, of, said.get("commit", "")))
    return rows
