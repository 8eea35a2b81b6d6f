"""Timed words of one's own: a table with a row a word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from phaselab.errors import PhaselabError, expect
from phaselab.results import read_table
from phaselab.stimuli.run import Run, Stimulus


def read_words(path: Path, tr: float, n_trs: Mapping[str, int]) -> Stimulus:
    """A stimulus of the words of a table, in runs of `n_trs` TRs of `tr` seconds, in that order.

    Columns: ``word``; ``onset`` and ``offset``, seconds from the start of the run's first TR; ``run``, where there are
    several; and, where texts begin anew within a run, ``start``: 1 there, else 0. A PhaselabError names the line of
    what cannot be.
    """
    needed = ("word", "onset", "offset", "run")[: 4 if len(n_trs) > 1 else 3]
    table = read_table(path, *needed)
    expect(len(table), str(path), "no word", "a row for each")
    table = pd.DataFrame({"run": next(iter(n_trs)), "start": "0"}, index=table.index).assign(**table)
    times = table[["onset", "offset"]].apply(pd.to_numeric, errors="coerce")
    wrong = {
        "a word": table["word"].str.strip() == "",
        f"run as one of {', '.join(n_trs)}": ~table["run"].isin([*n_trs]),
        "seconds, the offset after the onset": ~(np.isfinite(times).all(axis=1) & (times["offset"] > times["onset"])),
        "an onset in its run": ~times["onset"].between(
            0, tr * (table["run"].map(dict(n_trs)) - 1e-9), inclusive="left"
        ),
        "the onsets of a run in ascending order": times["onset"].groupby(table["run"]).diff() < 0,
        "start as 0 or 1": ~table["start"].isin(["0", "1"]),
    }
    for expected, rows in wrong.items():
        for row in np.flatnonzero(rows)[:1]:
            found = ", ".join(f"{name} {value!r}" for name, value in table.iloc[row].items())
            raise PhaselabError(f"{path}: line {row + 2}: found {found[:200]}; expected {expected}")
    runs = []
    for name, length in n_trs.items():
        own = table[table["run"] == name].reset_index(drop=True)
        onsets, offsets = own[["onset", "offset"]].to_numpy(dtype=float).T
        starts = (own["start"] == "1").to_numpy() | (own.index == 0)
        runs.append(Run(name, tuple(own["word"]), onsets, offsets, tr, length, own, starts))
    return Stimulus(path.stem, tuple(runs))
