"""What was read or heard: runs of timed text, or of items without a time axis."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from phaselab.errors import expect


@dataclass(frozen=True)
class Run:
    """One scanning run of a stimulus, or one group of items.

    texts : (n_texts,) words, sentences or captions; what several annotators wrote of one moment has one onset.
    onsets, offsets : (n_texts,) seconds from the start of the run's first TR, in order of onset.
    tr, n_trs : repetition time, seconds; number of TRs.
    labels : one row per text: what is known of it (for probes, nuisance and simulated brains).
    starts : (n_texts,) True where a text begins anew, so that no left context is taken from before.
    items : whether there is no time axis: response k belongs to text k, and the times mean nothing (see ``items``).
    overlap : TRs at its start that repeat the end of the run before, None where nobody knows (see ``dropped``).
    """

    name: str
    texts: tuple[str, ...]
    onsets: np.ndarray
    offsets: np.ndarray
    tr: float
    n_trs: int
    labels: pd.DataFrame
    starts: np.ndarray
    items: bool = False
    overlap: int | None = None

    def __post_init__(self) -> None:
        n = len(self.texts)
        found = {name: len(getattr(self, name)) for name in ("onsets", "offsets", "labels", "starts")}
        found |= {"n_trs": self.n_trs} if self.items else {}
        expect({*found.values()} == {n}, f"run {self.name}", found, f"{n} of each, as many as texts")
        times = np.stack([self.onsets, self.offsets]).astype(float)
        for text in np.flatnonzero(~np.isfinite(times).all(axis=0) | (times[1] < times[0]))[:1]:
            where, told = f"run {self.name}: text {text} ({self.texts[text]!r})", "onset {:g} s, offset {:g} s"
            expect(False, where, told.format(*times[:, text]), "times that are known, the offset not before the onset")
        expect((np.diff(self.onsets) >= 0).all(), f"run {self.name}: onsets", "some in disorder", "ascending order")

    def dropped(self, trim: int) -> int:
        """TRs dropped at its start by ``features.trim``: none where it is known that nothing is repeated there."""
        right = f"at least {self.overlap}, for they repeat the end of the run before"
        expect(trim >= (self.overlap or 0), f"run {self.name}: features.trim", trim, right)
        return 0 if self.overlap == 0 else trim


@dataclass(frozen=True)
class Stimulus:
    """What was read or heard."""

    name: str
    runs: tuple[Run, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 digits) of texts, times, labels and TR grid."""
        sha = hashlib.sha256()
        for run in self.runs:
            sha.update(repr((run.name, run.tr, run.n_trs, run.texts)).encode())
            for array in (run.onsets, run.offsets):
                sha.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
            sha.update(np.packbits(run.starts.astype(bool)).tobytes())
            sha.update(run.labels.to_csv(index=False).encode())
        return sha.hexdigest()[:16]

    @property
    def n_trs(self) -> int:
        """TRs of all runs."""
        return sum(run.n_trs for run in self.runs)

    @property
    def labels(self) -> pd.DataFrame:
        """Labels of the texts of all runs, with a column ``run``; (n_texts, n_labels + 1)."""
        return pd.concat([run.labels.assign(run=run.name) for run in self.runs], ignore_index=True)


def items(name: str, table: pd.DataFrame) -> Stimulus:
    """A stimulus without a time axis, such as sentences with a response each: one run per group of items.

    A study then says ``hemodynamics: none`` and ``trim: 0``. `table` has one row per item: ``item``, its own name;
    ``text``; ``group``, whose items are never in training and test of one fold. All columns become labels, and
    ``stimulus.labels["item"]`` is the order of the responses: groups as they first appear, items as in the table.
    """
    needed = ["item", "text", "group"]
    expect({*needed} <= {*table}, f"items of {name}: columns", ", ".join(map(str, table)), f"also {', '.join(needed)}")
    empty = table[needed].isna() | (table[needed] == "")
    wrong = np.flatnonzero(empty.any(axis=1) | table["item"].duplicated()).tolist()
    expect(not wrong, f"items of {name}: rows {wrong[:3]}", "nothing, or an item again", "distinct items with all")
    runs = []
    for group, rows in table.groupby("group", sort=False):
        onsets, texts = np.arange(float(len(rows))), tuple(rows["text"].astype(str))
        labels, starts = rows.reset_index(drop=True), np.ones(len(rows), dtype=bool)
        runs.append(Run(str(group), texts, onsets, onsets + 1, 1.0, len(rows), labels, starts, items=True))
    return Stimulus(name, tuple(runs))
