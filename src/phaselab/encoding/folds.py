"""Folds for time series: whole runs, or contiguous stretches with a gap (Feghhi et al. 2024); shuffled only by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut

from phaselab.encoding.arrays import check_real
from phaselab.errors import expect, number_of
from phaselab.stats import pearson
from phaselab.study import EncodingSpec

#: Indices of the training samples and of the test samples.
Fold = tuple[np.ndarray, np.ndarray]
#: Run -> its fold, for ``folds: given`` (``BrainData.folds``).
Given = Mapping[str, str] | None


def leave_one_run_out(runs: Any) -> list[Fold]:
    """A fold per run of the (n,) `runs`, in order of appearance: it is tested, all others are trained."""
    number = numbered(runs, "runs")
    expect(number.max() >= 1, "runs", f"{number.max() + 1} distinct", "at least 2 to leave one out")
    return list(LeaveOneGroupOut().split(number, groups=number))


def group_folds(groups: Any, n_folds: int) -> list[Fold]:
    """`n_folds` folds made of whole (n,) `groups` (titles, runs), balanced by number of samples."""
    number = numbered(groups, "groups")  # names do not decide between groups of the same size
    expect(number.max() + 1 >= n_folds, "groups", f"{number.max() + 1} distinct", f"at least n_folds = {n_folds}")
    return list(GroupKFold(n_folds).split(number, groups=number))


def numbered(runs: Any, where: str) -> np.ndarray:
    """(n,) number of the run of each sample, in order of appearance; each must have one."""
    number = pd.factorize(np.asarray(runs, dtype=object))[0]  # as objects: beside text, NaN would become a name
    expect(number.size and number.min() >= 0, where, "NaN or None, or nothing", "the run of each sample")
    return number


def fold_weights(lengths: Sequence[int]) -> np.ndarray:
    """(n_folds,) weights of scores over tests of these lengths (variance: about 1 / n); 1 where all are alike."""
    return np.asarray(np.divide(lengths, np.mean(lengths)))


def contiguous(n: int, n_folds: int, gap: int = 0, times: np.ndarray | None = None) -> list[Fold]:
    """Contiguous test stretches, nearly equal; `gap` TRs beside each, by ascending `times` (n,), are in neither set."""
    times, folds = np.arange(n) if times is None else times, []
    for test in _parts(np.arange(n), n_folds):
        first, last = times[test[[0, -1]]]
        train = np.flatnonzero((times < first - gap) | (times > last + gap))
        expect(len(train), "gap", f"{gap} TRs, with which a fold of {n} samples has no training sample", "fewer")
        folds.append((train, test))
    return folds


def shuffled(n: int, n_folds: int, seed: int = 0) -> list[Fold]:
    """Folds of samples drawn at random: for samples that are independent of each other, never for TRs."""
    parts = _parts(np.random.default_rng(seed).permutation(n), n_folds)
    return [(np.setdiff1d(np.arange(n), part), np.sort(part)) for part in parts]


def parts_of(lengths: Mapping[str, int], spec: EncodingSpec, given: Given = None) -> np.ndarray:
    """What folds are made of, (n,): the number of each TR's run, or its `given` fold; `lengths`: run -> TRs."""
    labels: Any = range(len(lengths))
    if spec.folds == "given":
        expect(given, "encoding.folds", "given", "another: the brain data have no folds of their own")
        labels = [(given or {})[run] for run in lengths]
        both = "test" in labels and {*labels} - {"test", ""}
        expect(both, "encoding.folds: given", labels, "a run that is tested and one that trains")
    return np.repeat(labels, [*lengths.values()])


def outer_folds(
    runs: np.ndarray, spec: EncodingSpec, seed: int = 0, n_folds: int = 0, times: np.ndarray | None = None
) -> list[Fold]:
    """Folds by a study's ``folds``, ``n_folds`` and ``gap``, which whole (n,) runs (`parts_of`) need not."""
    n_folds = n_folds or spec.n_folds
    if spec.folds == "given":
        return [(np.flatnonzero((runs != "test") & (runs != "")), np.flatnonzero(runs == "test"))]
    if spec.folds == "runs":
        return leave_one_run_out(runs)
    if spec.folds == "groups":
        return group_folds(runs, n_folds)
    if spec.folds == "contiguous":
        return contiguous(len(runs), n_folds, spec.gap, times)
    return shuffled(len(runs), n_folds, seed)


def inner_folds(train: np.ndarray, runs: np.ndarray, spec: EncodingSpec, seed: int = 0) -> list[Fold]:
    """Folds within a training set (n_train,), to choose alpha: positions in `train`; `runs` (n,) are of all samples."""
    # One fold less than outside, but 2 at least, and at most the runs; of a single run its two halves.
    fewer = max(2, spec.n_folds - 1)
    if spec.folds in ("runs", "groups", "given"):
        fewer = min(fewer, len(np.unique(runs[train])))
    if fewer == 1:
        return contiguous(len(train), 2, spec.gap, train)
    if spec.folds == "given":
        return leave_one_run_out(runs[train])
    return outer_folds(runs[train], spec, seed, fewer, train)


def autocorrelation_only(Y: np.ndarray, folds: Sequence[Fold], runs: Any = None, width: float = 1.5) -> np.ndarray:
    """Scores of a model that knows no stimulus: the training responses near in time; float64 (n_voxels,).

    The prediction at time t is ``m + sum_s w_ts (y_s - m) / (1 + sum_s w_ts)`` over the training samples s of the same
    run, m their mean and w_ts = exp(-(t - s)^2 / (2 width^2)) up to four widths (TRs). With whole runs, or contiguous
    folds and a gap of four widths, it scores 0 (Feghhi et al. 2024). `Y` (n, n_voxels) are in order of time.
    """
    check_real(Y := np.asanyarray(Y), "Y")
    Y = np.asarray(Y, dtype=np.float64)
    runs = np.zeros(len(Y), int) if runs is None else np.asarray(runs)
    scores: list[np.ndarray] = []
    for train, test in folds:
        apart = np.abs(test[:, None] - train)
        near = (runs[test][:, None] == runs[train]) & (apart <= 4 * width)
        weights = np.where(near, np.exp(-np.square(apart / width) / 2), 0)  # (n_test, n_train)
        mean = Y[train].mean(0)
        around = weights @ (Y[train] - mean) / (1 + weights.sum(1, keepdims=True))
        scores.append(pearson(around, Y[test]))
    return np.asarray(np.average(scores, axis=0, weights=fold_weights([len(test) for _, test in folds])))


def _parts(samples: np.ndarray, n_folds: int) -> list[np.ndarray]:
    expect(n_folds >= 2, "n_folds", n_folds, "at least 2")
    expect(len(samples) >= n_folds, "n", number_of(len(samples), "sample"), f"at least n_folds = {n_folds}")
    return np.array_split(samples, n_folds)
