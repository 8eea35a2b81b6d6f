"""Folds for time series: whole runs, or contiguous stretches with a gap; shuffled only by name.

Neighbouring TRs resemble each other whatever the stimulus, so a test sample whose neighbours are
trained on is not held out (Feghhi et al. 2024 show what it does to scores). Every fold here is a pair
of index arrays over the concatenated TRs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold

from phaselab.errors import PhaselabError, expect
from phaselab.stats import pearson
from phaselab.study import EncodingSpec

#: Indices of the training samples and of the test samples.
Fold = tuple[np.ndarray, np.ndarray]


def leave_one_run_out(runs: np.ndarray, gap: int = 0) -> list[Fold]:
    """One fold per run, in the order of their first samples: it is the test set, all other runs are trained on.

    Parameters
    ----------
    runs : (n,) name or number of the run of each sample; at least two of them.
    gap : samples before and after a test sample that are in neither set. 0 where the scanner stopped
        between runs; more where runs are pieces of one recording.
    """
    runs = np.asarray(runs)
    names = _in_order(runs)
    expect(len(names) >= 2, "runs", f"{len(names)} distinct", "at least 2 to leave one out")
    return _with_gap([np.flatnonzero(runs == name) for name in names], np.arange(len(runs)), gap)


def group_folds(groups: np.ndarray, n_folds: int, gap: int = 0) -> list[Fold]:
    """Folds made of whole groups (titles, runs), balanced by number of samples (scikit-learn's ``GroupKFold``).

    `groups` (n,) are at least `n_folds`; `gap` as for ``leave_one_run_out``, where groups touch in time.
    """
    groups = np.asarray(groups)
    names = _in_order(groups)
    expect(n_folds >= 2, "n_folds", n_folds, "at least 2")
    expect(len(names) >= n_folds, "groups", f"{len(names)} distinct", f"at least n_folds = {n_folds}")
    # By number in order of appearance, so that names do not decide between groups of the same size.
    number = np.argmax(groups[:, None] == names, axis=1)
    tests = [test for _, test in GroupKFold(n_folds).split(number, groups=number)]
    return _with_gap(tests, np.arange(len(groups)), gap)


def contiguous(n: int, n_folds: int, gap: int = 0, times: np.ndarray | None = None) -> list[Fold]:
    """Contiguous test stretches of nearly equal length, with a gap on both sides.

    `gap` TRs before and after a test stretch are in neither set. `times` (n,) are the ascending TRs of the samples;
    given where some have been taken out before, so that the gap is one in time and not in position.
    """
    _check_number(n, n_folds)
    times = np.arange(n) if times is None else np.asarray(times)
    good = times.shape == (n,) and (np.diff(times) > 0).all()
    expect(good, "times", f"shape {times.shape}", f"{n} strictly ascending TRs")
    return _with_gap(np.array_split(np.arange(n), n_folds), times, gap)


def shuffled(n: int, n_folds: int, seed: int = 0) -> list[Fold]:
    """Folds of samples drawn at random: for samples that are independent of each other, never for TRs.

    Right for single sentences or trials in random order. For time series it tests a model on moments
    whose neighbours it was trained on; ``autocorrelation_only`` shows how much that gives away.
    """
    _check_number(n, n_folds)
    order = np.random.default_rng(seed).permutation(n)
    return _with_gap([np.sort(part) for part in np.array_split(order, n_folds)], np.arange(n), 0)


@dataclass(frozen=True)
class Shuffled:
    """``shuffled`` folds of the samples that scikit-learn hands over: asked for by this name alone."""

    n_folds: int = 4
    seed: int = 0

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Fold]:
        """Folds of the samples of `X`."""
        yield from shuffled(len(X), self.n_folds, self.seed)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds."""
        return self.n_folds


def as_folds(cv: Any, n: int, runs: np.ndarray | None = None) -> list[Fold]:
    """The folds that a user's `cv` makes of `n` samples in order of time; shuffled ones only of ``Shuffled``.

    `cv` is a number of contiguous folds, a splitter of scikit-learn or ``Shuffled``, to which the (n,) `runs` are
    handed as groups, or pairs of index arrays.
    """
    if isinstance(cv, int | np.integer):
        return contiguous(n, int(cv))
    known = not isinstance(cv, str) and (hasattr(cv, "split") or isinstance(cv, Iterable))
    expect(known, "cv", repr(cv), "a number of folds, a splitter, or pairs of index arrays")
    with warnings.catch_warnings():
        # Runs are offered to every splitter; that some have no use for them is nobody's mistake.
        warnings.filterwarnings("ignore", "The groups parameter is ignored")
        folds = list(cv.split(np.empty((n, 0)), None, runs) if hasattr(cv, "split") else cv)
    checked = check_folds(folds, n)
    if not isinstance(cv, Shuffled):
        refuse_shuffled(checked, runs)
    return checked


def check_folds(folds: Sequence[Any], n: int) -> list[Fold]:
    """The one check of folds: two sets of distinct rows each, neither empty, of `n` rows, none of them in both."""
    expect(len(folds), "cv", "no fold", "at least 1 (two sets of rows)")
    for number, fold in enumerate(folds):
        where = f"cv: fold {number}"
        expect(isinstance(fold, tuple | list) and len(fold) == 2, where, fold, "two sets of rows")
        for name, rows in zip(("training", "validation"), map(np.asarray, fold), strict=True):
            expect(rows.size, where, f"an empty {name} set", "rows")
            found = f"{name} rows of type {rows.dtype} and shape {rows.shape}"
            expect(rows.ndim == 1 and rows.dtype.kind in "iu", where, found, "row numbers")
            expect(len(np.unique(rows)) == len(rows), where, f"{name} rows more than once", "each once")
            low, high = np.min(rows), np.max(rows)
            expect(low >= 0 and high < n, where, f"{name} rows {low} to {high}", f"0 to {n - 1}")
        both = np.intersect1d(*fold)
        expect(not len(both), where, f"{len(both)} rows that train and validate, such as {both[:1]}", "none")
    return [(np.asarray(train), np.asarray(test)) for train, test in folds]


def refuse_shuffled(folds: Sequence[Fold], runs: np.ndarray | None = None) -> None:
    """Refuse folds that test on samples whose neighbours in time are trained on.

    Refused when more than half of the test samples of all folds, or of the training samples, have the
    sample just before or after them on the other side, in the same of the (n,) `runs`. Shuffled folds of any size do;
    a contiguous test stretch of n samples has two such at most, and so passes from 4 samples on.
    """
    n = 1 + max(int(part.max()) for fold in folds for part in fold)
    runs = np.zeros(n, int) if runs is None else np.asarray(runs)
    same = runs[1:n] == runs[: n - 1]
    beside, total = np.zeros(2, int), np.zeros(2, int)
    for fold in folds:
        side = np.full(n, -1)
        for number, samples in enumerate(fold):
            side[samples] = number
        apart = same & (side[1:] >= 0) & (side[:-1] >= 0) & (side[1:] != side[:-1])
        near = np.append(apart, False) | np.append(False, apart)
        for number, samples in enumerate(fold):
            beside[number] += near[samples].sum()
            total[number] += len(samples)
    share = (beside / total).max()
    if share > 0.5:
        raise PhaselabError(
            f"cv: found folds in which {share:.0%} of the samples have their neighbour in time on the other side, so "
            "that nothing is held out; expected whole runs (leave_one_run_out, group_folds) or contiguous stretches "
            "(contiguous), or Shuffled by name for samples that are independent"
        )


def outer_folds(runs: np.ndarray, spec: EncodingSpec) -> list[Fold]:
    """Folds of a study by its ``folds``, ``n_folds`` and ``gap``: whole (n,) runs, or contiguous over all TRs.

    Whole runs need no gap, for the scanner stopped in between.
    """
    if spec.folds == "runs":
        return leave_one_run_out(runs)
    return group_folds(runs, spec.n_folds) if spec.folds == "groups" else contiguous(len(runs), spec.n_folds, spec.gap)


def inner_folds(train: np.ndarray, runs: np.ndarray, spec: EncodingSpec) -> list[Fold]:
    """Folds within a training set, to choose alpha; indices are positions in `train`.

    By run: each training run is left out once; when there is a single one, its two halves are.
    By groups of runs: ``n_folds - 1`` of them (at least 2, at most the runs); a single run as above.
    Contiguous: ``n_folds - 1`` stretches (at least 2), with the same gap in time. `train` (n_train,) ascends;
    `runs` (n,) are those of all samples.
    """
    fewer = max(2, spec.n_folds - 1)
    if spec.folds == "contiguous":
        return contiguous(len(train), fewer, spec.gap, train)
    n_runs = len(np.unique(runs[train]))
    if n_runs == 1:
        return contiguous(len(train), 2, spec.gap, train)
    return leave_one_run_out(runs[train]) if spec.folds == "runs" else group_folds(runs[train], min(fewer, n_runs))


def autocorrelation_only(
    Y: np.ndarray, folds: Sequence[Fold], runs: np.ndarray | None = None, width: float = 1.5
) -> np.ndarray:
    """Scores of a model that knows no stimulus: the training responses near in time; float64 (n_voxels,).

    The prediction at time t is ``m + sum_s w_ts (y_s - m) / (1 + sum_s w_ts)`` over the training samples
    s of the same run, m their mean and w_ts = exp(-(t - s)^2 / (2 width^2)) up to four widths, 0 beyond. With shuffled
    folds it may beat a language model; with whole runs, or contiguous folds and a gap of four widths, it scores 0
    (Feghhi et al. 2024). A score far from 0 says that the folds give the responses away.

    Parameters
    ----------
    Y, runs : (n, n_voxels) responses in order of time; (n,) their runs, None for a single one.
    folds, width : (train, test) indices; standard deviation of the kernel, TRs.
    """
    Y = np.asarray(Y, dtype=np.float64)
    expect(Y.ndim == 2 and Y.size, "Y", f"shape {Y.shape}", "(samples, voxels), none of them 0")
    bad = np.count_nonzero(~np.isfinite(Y))
    expect(not bad, "Y", f"{bad} NaN or infinite values", "none")
    runs = np.zeros(len(Y), int) if runs is None else np.asarray(runs)
    expect(runs.shape == (len(Y),), "runs", f"shape {runs.shape}", f"({len(Y)},) as in Y")
    scores: list[np.ndarray] = []
    for train, test in check_folds(folds, len(Y)):
        apart = np.abs(test[:, None] - train)
        near = (runs[test][:, None] == runs[train]) & (apart <= 4 * width)
        weights = np.where(near, np.exp(-np.square(apart / width) / 2), 0)  # (n_test, n_train)
        mean = Y[train].mean(0)
        around = weights @ (Y[train] - mean) / (1 + weights.sum(1, keepdims=True))
        scores.append(pearson(around, Y[test]))
    return np.asarray(np.mean(scores, axis=0))


def _with_gap(tests: Sequence[np.ndarray], times: np.ndarray, gap: int) -> list[Fold]:
    """Each test set with the samples that lie more than `gap` TRs from all of it; `times` ascend."""
    expect(gap >= 0, "gap", gap, "0 or more TRs")
    folds = []
    for test in tests:
        # Distance in time to the nearest test sample; a test set may have holes in it.
        after = np.searchsorted(times[test], times).clip(max=len(test) - 1)
        nearest = np.minimum(np.abs(times - times[test[after]]), np.abs(times - times[test[(after - 1).clip(min=0)]]))
        train = np.flatnonzero(nearest > gap)
        lost = f"{gap} TRs, with which a fold of {len(times)} samples has no training sample"
        expect(len(train), "gap", lost, "fewer")
        folds.append((train, test))
    return folds


def _in_order(names: np.ndarray) -> np.ndarray:
    """The distinct names in order of appearance."""
    distinct, first = np.unique(names, return_index=True)
    return distinct[np.argsort(first)]


def _check_number(n: int, n_folds: int) -> None:
    expect(n_folds >= 2, "n_folds", n_folds, "at least 2")
    expect(n >= n_folds, "n", f"{n} samples", f"at least n_folds = {n_folds}")
