"""Checkpoints in a local folder: one sub-folder a revision, named as on a hub."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

from phaselab.checkpoints.revisions import Checkpoint, CheckpointError, parse_revision

#: Beside the sub-folders, for names that do not tell the tokens: columns ``revision`` and ``tokens``.
TABLE = "checkpoints.csv"
_EXPECTED = "sub-folders named step{N}-tokens{T} or step{N}"


def local_checkpoints(folder: str | Path) -> list[Checkpoint]:
    """The checkpoints below `folder`, in ascending order of tokens, then of steps.

    Each sub-folder is a revision (see `parse_revision` for the names). A name without tokens takes
    them from the file ``checkpoints.csv`` in `folder` (columns ``revision`` and ``tokens``).
    Sub-folders with other names are listed in one warning; hidden ones, among them those that are
    being written, are not looked at.

    Raises
    ------
    CheckpointError
        When there is no such folder, no checkpoint in it, or the tokens of one are not known.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected one with {_EXPECTED}")
    table = _read_table(folder / TABLE)
    found, strange = [], []
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        parsed = parse_revision(path.name)
        if parsed is None:
            strange.append(path.name)
            continue
        step, tokens = parsed
        if tokens is None:
            tokens = table.get(path.name)
        if tokens is None:
            raise CheckpointError(
                f"{path}: the name does not tell the tokens seen; expected step{{N}}-tokens{{T}}, "
                f"or a row for {path.name} in {folder / TABLE} (columns revision, tokens)"
            )
        found.append(Checkpoint(path.name, step, tokens, path))
    if strange:
        warnings.warn(
            f"{folder}: left out {', '.join(strange)}: not named step{{N}}-tokens{{T}} or step{{N}}",
            stacklevel=2,
        )
    if not found:
        raise CheckpointError(f"{folder}: no checkpoints; expected {_EXPECTED}")
    return sorted(found, key=lambda c: (c.tokens, c.step, c.revision))


def _read_table(path: Path) -> dict[str, int]:
    """Revision -> tokens; empty without the file."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if not {"revision", "tokens"} <= set(reader.fieldnames or ()):
            raise CheckpointError(f"{path}: found columns {reader.fieldnames}, expected revision and tokens")
        rows = list(reader)
    tokens = {}
    for row in rows:
        if not (row["tokens"] or "").isdecimal():
            raise CheckpointError(
                f"{path}: {row['revision']}: tokens: found {row['tokens']!r}, expected a whole number"
            )
        tokens[row["revision"]] = int(row["tokens"])
    return tokens
