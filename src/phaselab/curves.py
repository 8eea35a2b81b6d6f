"""The curves table: what all units of a study have measured, in one tidy table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from phaselab import results
from phaselab.results import CURVE_COLUMNS, CURVE_TYPES, Store
from phaselab.study import Study

#: Files of a unit that hold rows of the curves table.
PERSPECTIVES = ("brain", "behaviour", "internal")


def gather(folders: Iterable[Path], compared: Iterable[Path] = ()) -> pd.DataFrame:
    """The rows of the units in `folders`, one table with ``results.CURVE_COLUMNS``.

    `compared` are folders of rows about more than one checkpoint (``Workbench.compared``).

    Rows are in order of model, tokens, perspective, measure, task, layer, subject and ROI, so that the
    same results give the same table in whatever order they were made.

    Raises
    ------
    FileNotFoundError
        When a folder lacks one of its tables: names the file.
    """
    tables = [pd.read_parquet(folder / f"{name}.parquet") for folder in folders for name in PERSPECTIVES]
    return _sorted([*tables, *(pd.read_parquet(folder / "internal.parquet") for folder in compared)])


def gather_controls(folders: Iterable[Path]) -> pd.DataFrame:
    """The rows of the controls in `folders`, same columns; ``task`` names the model they belong to."""
    return _sorted([pd.read_parquet(folder / "controls.parquet") for folder in folders])


def _sorted(tables: list[pd.DataFrame]) -> pd.DataFrame:
    if not tables:
        return results.curve_table([])
    order = [
        "study",
        "model",
        "tokens",
        "checkpoint",
        "perspective",
        "measure",
        "task",
        "layer",
        "subject",
        "roi",
    ]
    table = pd.concat(tables, ignore_index=True)[list(CURVE_COLUMNS)].astype(CURVE_TYPES)
    return table.sort_values(order, kind="stable", ignore_index=True)


def write(table: pd.DataFrame, store: Store, study: Study) -> Path:
    """Write ``curves.parquet`` of a study; the path."""
    path = store.curves(study.name)
    results.write_table(table, path)
    return path
