"""Timed text, and how its features become TRs: never across a run's boundary."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Run:
    """One scanning run of a stimulus.

    Attributes
    ----------
    name : name of the run.
    texts : (n_texts,) words, sentences or captions, in order of onset.
    onsets : (n_texts,) seconds from the start of the run's first TR.
    offsets : (n_texts,) seconds.
    tr : repetition time, seconds.
    n_trs : number of TRs.
    labels : one row a text: what is known of it (for probes, nuisance and simulated brains).
    starts : (n_texts,) True where a text begins anew, so that no left context is taken from before.
    """

    name: str
    texts: tuple[str, ...]
    onsets: np.ndarray
    offsets: np.ndarray
    tr: float
    n_trs: int
    labels: pd.DataFrame
    starts: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.texts)
        for field in ("onsets", "offsets", "labels", "starts"):
            if len(getattr(self, field)) != n:
                raise ValueError(f"run {self.name}: {field}: found {len(getattr(self, field))}, expected {n}")
        if n and (np.diff(self.onsets) < 0).any():
            raise ValueError(f"run {self.name}: onsets: expected in ascending order")


@dataclass(frozen=True)
class Stimulus:
    """What was read or heard: runs of timed text."""

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
        return sum(run.n_trs for run in self.runs)

    @property
    def labels(self) -> pd.DataFrame:
        """Labels of the texts of all runs, with a column ``run``; (n_texts, n_labels + 1)."""
        return pd.concat([run.labels.assign(run=run.name) for run in self.runs], ignore_index=True)
