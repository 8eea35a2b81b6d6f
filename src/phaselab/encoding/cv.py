"""Folds for time series: whole runs, or contiguous stretches with a gap; never shuffled.

Neighbouring TRs resemble each other whatever the stimulus, so a test sample whose neighbours are
trained on is not held out. Every fold here is a pair of index arrays over the concatenated TRs.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

#: Indices of the training samples and of the test samples, both ascending.
Fold = tuple[np.ndarray, np.ndarray]

Kind = Literal["runs", "contiguous"]


def leave_one_run_out(runs: np.ndarray) -> list[Fold]:
    """One fold a run: it is the test set, all other runs are the training set.

    Parameters
    ----------
    runs : (n,) name or number of the run of each sample.

    Returns
    -------
    Folds in the order in which the runs first appear.

    Raises
    ------
    ValueError
        When there are fewer than two runs.
    """
    runs = np.asarray(runs)
    names, first = np.unique(runs, return_index=True)
    if len(names) < 2:
        raise ValueError(f"runs: found {len(names)} distinct, expected at least 2 to leave one out")
    return [(np.flatnonzero(runs != name), np.flatnonzero(runs == name)) for name in names[np.argsort(first)]]


def contiguous(n: int, n_folds: int, gap: int = 0, times: np.ndarray | None = None) -> list[Fold]:
    """Contiguous test stretches of nearly equal length, with a gap on both sides.

    Parameters
    ----------
    n : number of samples.
    n_folds : number of folds.
    gap : TRs before and after a test stretch that are in neither set.
    times : (n,) ascending TR of each sample; 0 .. n - 1 by default. Give it where samples have been
        taken out before, so that the gap is one in time and not in position.

    Raises
    ------
    ValueError
        Naming the argument with which a fold would have no test or no training sample.
    """
    if n_folds < 2:
        raise ValueError(f"n_folds: found {n_folds}, expected at least 2")
    if n < n_folds:
        raise ValueError(f"n: found {n} samples, expected at least n_folds = {n_folds}")
    if gap < 0:
        raise ValueError(f"gap: found {gap}, expected 0 or more TRs")
    times = np.arange(n) if times is None else np.asarray(times)
    if times.shape != (n,) or (np.diff(times) <= 0).any():
        raise ValueError(f"times: found shape {times.shape}, expected {n} strictly ascending TRs")
    folds = []
    for test in np.array_split(np.arange(n), n_folds):
        # Distance in time to the nearest test sample; a test stretch may have a hole in it.
        after = np.searchsorted(times[test], times).clip(max=len(test) - 1)
        nearest = np.minimum(
            np.abs(times - times[test[after]]), np.abs(times - times[test[(after - 1).clip(min=0)]])
        )
        train = np.flatnonzero(nearest > gap)
        if not len(train):
            raise ValueError(f"gap: found {gap} TRs, with which a fold of {n} samples has no training sample")
        folds.append((train, test))
    return folds


def outer_folds(runs: np.ndarray, kind: Kind, n_folds: int, gap: int) -> list[Fold]:
    """Folds of a study: by run, or contiguous over the concatenated TRs.

    Parameters
    ----------
    runs : (n,) run of each sample.
    kind : ``runs`` or ``contiguous``.
    n_folds, gap : number of contiguous folds and TRs left out beside each; run-wise folds are as
        many as the runs and need no gap, for the scanner stopped in between.
    """
    return leave_one_run_out(runs) if kind == "runs" else contiguous(len(runs), n_folds, gap)


def inner_folds(train: np.ndarray, runs: np.ndarray, kind: Kind, n_folds: int, gap: int) -> list[Fold]:
    """Folds within a training set, to choose alpha; indices are positions in `train`.

    By run: each training run is left out once; when there is a single one, its two halves are.
    Contiguous: ``n_folds - 1`` stretches (at least 2), with the same gap in time.

    Parameters
    ----------
    train : (n_train,) ascending indices of the training samples.
    runs : (n,) run of each sample, training or not.
    kind, n_folds, gap : as for the outer folds.
    """
    if kind == "runs":
        if len(np.unique(runs[train])) > 1:
            return leave_one_run_out(runs[train])
        return contiguous(len(train), 2, gap, train)
    return contiguous(len(train), max(2, n_folds - 1), gap, train)
