"""Subjects who share their runs, and their responses as one array that is read in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phaselab.errors import PhaselabError, expect

#: Layer -> run -> (n_trs, n_features); and subject -> run -> (n_trs, n_voxels), of numpy, a memory map, Zarr or HDF5.
Features = Mapping[int, Mapping[str, np.ndarray]]
Responses = Mapping[str, Mapping[str, Any]]


class Columns:
    """(n_trs, n_voxels) of all runs and subjects, joined only where it is read: ``[:, start:stop]``.

    The columns that were read last are kept, so that training and test rows of a batch are read once.
    """

    def __init__(self, subjects: Sequence[Mapping[str, Any]], runs: Sequence[str]) -> None:
        self._parts = [[of_run[run] for run in runs] for of_run in subjects]
        self.ends = np.cumsum([parts[0].shape[1] for parts in self._parts])
        self.shape = (sum(part.shape[0] for part in self._parts[0]), int(self.ends[-1]))
        self.dtype = np.result_type(*(part.dtype for parts in self._parts for part in parts))
        self._kept = slice(0, 0), np.empty((self.shape[0], 0), self.dtype)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        start, stop, _ = key[1].indices(self.shape[1])
        where, values = self._kept
        if start < where.start or stop > where.stop:
            where, values = self._kept = slice(start, stop), self._read(start, stop)
        return values[:, start - where.start : stop - where.start]

    def _read(self, start: int, stop: int) -> np.ndarray:
        out = np.empty((self.shape[0], stop - start), self.dtype)
        for parts, first, last in zip(self._parts, [0, *self.ends[:-1]], self.ends, strict=True):
            low, high = max(start, first), min(stop, last)
            row = 0
            for part in parts if low < high else []:
                out[row : row + part.shape[0], low - start : high - start] = part[:, low - first : high - first]
                row += part.shape[0]
        return out


class Rolled:
    """An array (n_trs, n_voxels) rotated in time by `shift` TRs, when it is read."""

    def __init__(self, values: Any, shift: int) -> None:
        self._values, self._shift = values, shift
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, 2

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        return np.roll(np.asarray(self._values[:, key[1]]), self._shift, axis=0)


@dataclass(frozen=True)
class Group:
    """Subjects with the same runs.

    Attributes
    ----------
    subjects : their names.
    lengths : run -> TRs, in the order of the features.
    Y : their responses.
    """

    subjects: tuple[str, ...]
    lengths: dict[str, int]
    Y: Columns

    @property
    def runs(self) -> np.ndarray:
        """(n_trs,) number of the run of each TR."""
        return np.repeat(np.arange(len(self.lengths)), list(self.lengths.values()))

    @property
    def subject_of(self) -> np.ndarray:
        """(n_voxels,) number of the subject of each column."""
        return np.searchsorted(self.Y.ends, np.arange(self.Y.shape[1]), side="right")

    def columns(self, number: int) -> slice:
        """Columns of a subject."""
        return slice(int(self.Y.ends[number - 1]) if number else 0, int(self.Y.ends[number]))

    def features(self, of_layer: Mapping[str, np.ndarray]) -> np.ndarray:
        """float64 (n_trs, p), of run -> (n_trs, p) of all runs."""
        return np.concatenate([of_layer[run] for run in self.lengths]).astype(np.float64)

    def split(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Subject -> its columns of (..., n_voxels)."""
        return dict(zip(self.subjects, np.split(values, self.Y.ends[:-1], axis=-1), strict=True))


def groups_of(X: Features, Y: Responses) -> list[Group]:
    """Subjects by their runs, in order of appearance; refuses what does not fit, naming run and subject or layer."""
    expect(X, "X", "no layer", "at least one")
    expect(Y, "Y", "no subject", "at least one")
    first = next(iter(X))
    lengths = {run: len(values) for run, values in X[first].items()}
    as_in = f"as in layer {first}"
    # Not a dictionary: one layer at a time is in memory.
    for layer, runs in X.items():
        expect(set(runs) == set(lengths), f"layer {layer}: runs", sorted(runs), f"{sorted(lengths)} {as_in}")
        for run, values in check_runs(f"layer {layer}", runs, lengths, as_in):
            bad = np.count_nonzero(~np.isfinite(values))
            expect(not bad, f"run {run}: layer {layer}", f"{bad} NaN or infinite values", "none")
    found: dict[tuple[str, ...], list[str]] = {}
    for subject, of_run in Y.items():
        known = of_run and set(of_run) <= set(lengths)
        expect(known, f"subject {subject}: runs", sorted(of_run), f"some of {sorted(lengths)} {as_in}")
        for _ in check_runs(f"subject {subject}", of_run, lengths, as_in):
            pass
        found.setdefault(tuple(run for run in lengths if run in of_run), []).append(subject)
    return [
        Group(tuple(subjects), {run: lengths[run] for run in runs}, Columns([Y[s] for s in subjects], runs))
        for runs, subjects in found.items()
    ]


def check_runs(who: str, of_run: Mapping[str, Any], lengths: Mapping[str, int], as_in: str) -> Any:
    """Runs with their arrays, (n_trs, k) with the TRs of `lengths` and the same k; refuses others."""
    width = 0
    for run, values in of_run.items():
        where, shape = f"run {run}: {who}", tuple(values.shape)
        expect(len(shape) == 2 and shape[0] == lengths[run], where, f"shape {shape}", f"{lengths[run]} TRs {as_in}")
        width = width or shape[1]
        expect(width and shape[1] == width, where, f"{shape[1]} columns", f"{width or 'at least 1'}")
        yield run, values


def refuse_not_finite(group: Group, columns: Sequence[int], Y: Responses) -> None:
    """Say in which run of which subject there are values that are not finite, of those that have them."""
    subject = group.subjects[group.subject_of[min(columns)]]
    for run in group.lengths:
        bad = np.count_nonzero(~np.isfinite(np.asarray(Y[subject][run][:, :])))
        if bad:
            raise PhaselabError(f"run {run}: subject {subject}: found {bad} NaN or infinite values, expected none")
