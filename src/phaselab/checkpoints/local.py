"""Checkpoints in a local folder: one sub-folder a revision, named as on a hub."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from phaselab.checkpoints.families import Family, of_repository
from phaselab.checkpoints.manifest import Row, read_table, sort_out
from phaselab.checkpoints.names import Checkpoint, CheckpointError
from phaselab.errors import expect

#: Beside the sub-folders, for names that do not tell the tokens: columns ``revision`` and ``tokens``.
TABLE = "checkpoints.csv"
_EXPECTED = (
    "sub-folders named as on a hub: step1000-tokens4B, stage1-step1000-tokens5B, ckpt_001, step-125000, step1000"
)


def local_checkpoints(folder: str | Path, family: Family | None = None) -> list[Checkpoint]:
    """The checkpoints below `folder`, in ascending order of tokens, then of steps.

    Each sub-folder is a revision, and its name is read as that of a revision on a hub: by the forms of `family`, or of
    all families where none is named. Whose it is a name does not tell, so only a named family gives tokens that names
    do not state; without, they come from the file ``checkpoints.csv`` in `folder` (columns ``revision`` and
    ``tokens``), which wins over names. Stages that begin from the end of the line are branches, as on a hub.
    Sub-folders with other names are listed in one warning; hidden ones, among them those that are being written, are
    not looked at.

    Raises
    ------
    CheckpointError
        When there is no such folder, no checkpoint in it, two of one step, or the tokens of one are not known.
    """
    folder = Path(folder)
    expect(folder.is_dir(), str(folder), "no such folder", f"one with {_EXPECTED}", CheckpointError)
    table = {row["revision"]: row["tokens"] for row in read_table(folder / TABLE, ("revision", "tokens"))}
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    known = sort_out(family or of_repository(""), [Row("", name, "", None, table.get(name)) for name in names])
    strange = ", ".join(sorted(row.revision for row in known.strange))
    if known.doubles:
        double = known.doubles[0]
        also = next(c.revision for c in known.checkpoints if c.step == double.step)
        raise CheckpointError(f"{folder}: found {double.revision} and {also}, two names of one step; expected one")
    if known.uncounted:
        name = known.uncounted[0].revision
        raise CheckpointError(
            f"{folder / name}: the name does not tell the tokens seen; expected step{{N}}-tokens{{T}}, a row for "
            f"{name} in {folder / TABLE} (columns revision, tokens), or for a later stage the end of the first one"
        )
    expect(known.checkpoints, str(folder), strange or "no checkpoints", _EXPECTED, CheckpointError)
    if strange:
        warnings.warn(f"{folder}: left out {strange}: not named as checkpoints are on a hub", stacklevel=2)
    return [replace(c, path=folder / c.revision) for c in (*known.checkpoints, *known.branches)]
