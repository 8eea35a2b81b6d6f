"""Folds for time series: whole runs, or contiguous stretches with a gap; shuffled only by name.

Neighbouring TRs resemble each other whatever the stimulus, so a test sample whose neighbours are
trained on is not held out (Feghhi et al. 2024 show what it does to scores). Every fold here is a pair
of index arrays over the concatenated TRs. The functions make folds of known samples; the classes of
the same names are their faces for scikit-learn, which hands over samples and groups later.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from sklearn.model_selection import GroupKFold

#: Indices of the training samples and of the test samples, both ascending.
Fold = tuple[np.ndarray, np.ndarray]

Kind = Literal["runs", "groups", "contiguous"]


def leave_one_run_out(runs: np.ndarray, gap: int = 0) -> list[Fold]:
    """One fold a run: it is the test set, all other runs are the training set.

    Parameters
    ----------
    runs : (n,) name or number of the run of each sample.
    gap : samples before and after a test sample that are in neither set. 0 where the scanner stopped
        between runs; more where runs are pieces of one recording.

    Returns
    -------
    Folds in the order in which the runs first appear.

    Raises
    ------
    ValueError
        When there are fewer than two runs, or the gap leaves no training sample.
    """
    runs = np.asarray(runs)
    names = _in_order(runs)
    if len(names) < 2:
        raise ValueError(f"runs: found {len(names)} distinct, expected at least 2 to leave one out")
    return _with_gap([np.flatnonzero(runs == name) for name in names], np.arange(len(runs)), gap)


def group_folds(groups: np.ndarray, n_folds: int, gap: int = 0) -> list[Fold]:
    """Folds made of whole groups (titles, runs), balanced by number of samples.

    The largest group goes first, each into the fold that has the fewest samples so far (scikit-learn's
    ``GroupKFold``).

    Parameters
    ----------
    groups : (n,) name or number of the group of each sample.
    n_folds : number of folds, at most as many as groups.
    gap : samples before and after a test sample that are in neither set, where groups touch in time.

    Raises
    ------
    ValueError
        When there are fewer groups than folds, or the gap leaves no training sample.
    """
    groups = np.asarray(groups)
    names = _in_order(groups)
    if n_folds < 2:
        raise ValueError(f"n_folds: found {n_folds}, expected at least 2")
    if len(names) < n_folds:
        raise ValueError(f"groups: found {len(names)} distinct, expected at least n_folds = {n_folds}")
    # By number in order of appearance, so that names do not decide between groups of the same size.
    number = np.argmax(groups[:, None] == names, axis=1)
    tests = [test for _, test in GroupKFold(n_folds).split(number, groups=number)]
    return _with_gap(tests, np.arange(len(groups)), gap)


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
    _check_number(n, n_folds)
    times = np.arange(n) if times is None else np.asarray(times)
    if times.shape != (n,) or (np.diff(times) <= 0).any():
        raise ValueError(f"times: found shape {times.shape}, expected {n} strictly ascending TRs")
    return _with_gap(np.array_split(np.arange(n), n_folds), times, gap)


def shuffled(n: int, n_folds: int, seed: int = 0) -> list[Fold]:
    """Folds of samples drawn at random: for samples that are independent of each other, never for TRs.

    Right for single sentences or trials in random order. For time series it tests a model on moments
    whose neighbours it was trained on; ``controls.autocorrelation_only`` shows how much that gives away.

    Parameters
    ----------
    n, n_folds : number of samples; of folds.
    seed : of the order.
    """
    _check_number(n, n_folds)
    order = np.random.default_rng(seed).permutation(n)
    return _with_gap([np.sort(part) for part in np.array_split(order, n_folds)], np.arange(n), 0)


class Splitter(Protocol):
    """What scikit-learn calls a cross-validator."""

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterable[Fold]: ...


@dataclass(frozen=True)
class LeaveOneRunOut:
    """``leave_one_run_out`` of the `groups` that scikit-learn hands over."""

    gap: int = 0

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Fold]:
        """Folds of the samples of `X`; `groups` (n,) is the run of each."""
        yield from leave_one_run_out(_needed(groups, X, "LeaveOneRunOut"), self.gap)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds: as many as the runs in `groups`."""
        return len(np.unique(_needed(groups, groups if X is None else X, "LeaveOneRunOut")))


@dataclass(frozen=True)
class GroupFolds:
    """``group_folds`` of the `groups` that scikit-learn hands over."""

    n_folds: int = 4
    gap: int = 0

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Fold]:
        """Folds of the samples of `X`; `groups` (n,) is the title or run of each."""
        yield from group_folds(_needed(groups, X, "GroupFolds"), self.n_folds, self.gap)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds."""
        return self.n_folds


@dataclass(frozen=True)
class Contiguous:
    """``contiguous`` folds of the samples that scikit-learn hands over."""

    n_folds: int = 4
    gap: int = 0

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Fold]:
        """Folds of the samples of `X`."""
        yield from contiguous(len(X), self.n_folds, self.gap)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Number of folds."""
        return self.n_folds


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


def as_folds(cv: int | Splitter | Iterable[Fold], n: int, runs: np.ndarray | None = None) -> list[Fold]:
    """The folds that a user's `cv` makes of `n` samples in order of time.

    Parameters
    ----------
    cv : number of contiguous folds; a splitter of this module or of scikit-learn; or pairs of index
        arrays.
    n : number of samples.
    runs : (n,) run of each sample, handed to the splitter as its groups.

    Raises
    ------
    ValueError
        Naming ``cv`` where a fold is empty, has a sample on both sides or one that is not there, and
        where folds are shuffled (``refuse_shuffled``) without being asked for as ``Shuffled``.
    """
    if isinstance(cv, int | np.integer):
        return contiguous(n, int(cv))
    if isinstance(cv, str) or not (hasattr(cv, "split") or isinstance(cv, Iterable)):
        raise ValueError(f"cv: found {cv!r}, expected a number of folds, a splitter, or pairs of index arrays")
    with warnings.catch_warnings():
        # Runs are offered to every splitter; that some have no use for them is nobody's mistake.
        warnings.filterwarnings("ignore", "The groups parameter is ignored")
        made = cv.split(np.empty((n, 0)), None, runs) if hasattr(cv, "split") else cv
        folds = [(np.sort(np.asarray(train)), np.sort(np.asarray(test))) for train, test in made]
    if not folds:
        raise ValueError("cv: found no fold, expected at least one")
    for number, (train, test) in enumerate(folds):
        for side, samples in (("training", train), ("test", test)):
            if samples.ndim != 1 or not len(samples) or samples.dtype.kind not in "iu":
                raise ValueError(
                    f"cv: fold {number}: {side}: found {samples.dtype} of shape {samples.shape}, expected "
                    "one or more indices of samples"
                )
            if samples[0] < 0 or samples[-1] >= n:
                raise ValueError(
                    f"cv: fold {number}: {side}: found samples {samples[0]} to {samples[-1]}, expected them "
                    f"within 0 to {n - 1}"
                )
        if len(both := np.intersect1d(train, test)):
            raise ValueError(f"cv: fold {number}: found {len(both)} samples in training and test, expected none")
    if not isinstance(cv, Shuffled):
        refuse_shuffled(folds, runs)
    return folds


def refuse_shuffled(folds: Sequence[Fold], runs: np.ndarray | None = None) -> None:
    """Refuse folds that test on samples whose neighbours in time are trained on.

    Refused when more than half of the test samples of all folds, or of the training samples, have the
    sample just before or after them on the other side, in the same run. Shuffled folds of any size do;
    a contiguous test stretch of n samples has two such at most, and so passes from 4 samples on.

    Parameters
    ----------
    folds : (train, test) indices of samples in order of time.
    runs : (n,) run of each sample; without it all are of one run.

    Raises
    ------
    ValueError
        Naming ``cv``, what was found, and what to ask for instead.
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
        raise ValueError(
            f"cv: found folds in which {share:.0%} of the samples have their neighbour in time on the other "
            "side, so that nothing is held out; expected whole runs (LeaveOneRunOut, GroupFolds) or "
            "contiguous stretches (Contiguous), or Shuffled by name for samples that are independent"
        )


def outer_folds(runs: np.ndarray, kind: Kind, n_folds: int, gap: int) -> list[Fold]:
    """Folds of a study: by run, by groups of runs, or contiguous over the concatenated TRs.

    Parameters
    ----------
    runs : (n,) run of each sample.
    kind : ``runs`` (one fold a run), ``groups`` (`n_folds` folds of whole runs) or ``contiguous``.
    n_folds, gap : number of folds of the other two kinds, and TRs left out beside each contiguous one;
        whole runs need no gap, for the scanner stopped in between.
    """
    if kind == "runs":
        return leave_one_run_out(runs)
    return group_folds(runs, n_folds) if kind == "groups" else contiguous(len(runs), n_folds, gap)


def inner_folds(train: np.ndarray, runs: np.ndarray, kind: Kind, n_folds: int, gap: int) -> list[Fold]:
    """Folds within a training set, to choose alpha; indices are positions in `train`.

    By run: each training run is left out once; when there is a single one, its two halves are.
    By groups of runs: ``n_folds - 1`` of them (at least 2, at most the runs); a single run as above.
    Contiguous: ``n_folds - 1`` stretches (at least 2), with the same gap in time.

    Parameters
    ----------
    train : (n_train,) ascending indices of the training samples.
    runs : (n,) run of each sample, training or not.
    kind, n_folds, gap : as for the outer folds.
    """
    fewer = max(2, n_folds - 1)
    if kind == "contiguous":
        return contiguous(len(train), fewer, gap, train)
    n_runs = len(np.unique(runs[train]))
    if n_runs == 1:
        return contiguous(len(train), 2, gap, train)
    return leave_one_run_out(runs[train]) if kind == "runs" else group_folds(runs[train], min(fewer, n_runs))


def _with_gap(tests: Sequence[np.ndarray], times: np.ndarray, gap: int) -> list[Fold]:
    """Each test set with the samples that lie more than `gap` TRs from all of it; `times` ascend."""
    if gap < 0:
        raise ValueError(f"gap: found {gap}, expected 0 or more TRs")
    folds = []
    for test in tests:
        # Distance in time to the nearest test sample; a test set may have holes in it.
        after = np.searchsorted(times[test], times).clip(max=len(test) - 1)
        nearest = np.minimum(np.abs(times - times[test[after]]), np.abs(times - times[test[(after - 1).clip(min=0)]]))
        train = np.flatnonzero(nearest > gap)
        if not len(train):
            raise ValueError(f"gap: found {gap} TRs, with which a fold of {len(times)} samples has no training sample")
        folds.append((train, test))
    return folds


def _in_order(names: np.ndarray) -> np.ndarray:
    """The distinct names in order of appearance."""
    distinct, first = np.unique(names, return_index=True)
    return distinct[np.argsort(first)]


def _check_number(n: int, n_folds: int) -> None:
    if n_folds < 2:
        raise ValueError(f"n_folds: found {n_folds}, expected at least 2")
    if n < n_folds:
        raise ValueError(f"n: found {n} samples, expected at least n_folds = {n_folds}")


def _needed(groups: Any, X: Any, who: str) -> np.ndarray:
    if groups is None:
        raise ValueError(f"groups: found none, expected the run of each sample, which {who} needs")
    if np.shape(groups) != (len(X),):
        raise ValueError(f"groups: {who}: found shape {np.shape(groups)}, expected ({len(X)},)")
    return np.asarray(groups)
