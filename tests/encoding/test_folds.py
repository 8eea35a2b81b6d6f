"""Folds of groups, with gaps, as scikit-learn takes them, and the refusal of shuffled ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from phaselab.encoding import encode
from phaselab.encoding import folds as cv
from phaselab.study import EncodingSpec

TITLES = np.repeat(["big", "b", "c", "d", "e"], [50, 20, 20, 20, 30])


def test_group_folds_are_whole_and_balanced() -> None:
    folds = cv.group_folds(TITLES, 3)
    assert [len(test) for _, test in folds] == [50, 50, 40]
    for train, test in folds:
        assert not {*TITLES[train]} & {*TITLES[test]}
        assert sorted([*train, *test]) == list(range(140))
    # Names do not decide: the same groups under other names make the same folds.
    renamed = np.array([{"big": "z", "b": "y", "c": "x", "d": "w", "e": "v"}[t] for t in TITLES])
    for one, two in zip(folds, cv.group_folds(renamed, 3), strict=True):
        np.testing.assert_array_equal(one[1], two[1])


def test_shuffled_folds_are_a_partition_and_seeded() -> None:
    folds = cv.shuffled(21, 4, seed=1)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(21))
    assert all(not {*train} & {*test} for train, test in folds)
    again, other = cv.shuffled(21, 4, seed=1), cv.shuffled(21, 4, seed=2)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(folds, again, strict=True))
    assert not np.array_equal(folds[0][1], other[0][1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cv.group_folds(TITLES, 6), "groups: found 5 distinct, expected at least n_folds = 6"),
        (lambda: cv.contiguous(20, 2, 10), "gap: found 10 TRs, with which a fold of 20 samples has no training"),
        (lambda: cv.shuffled(2, 3), "n: found 2"),
    ],
)
def test_folds_that_cannot_be_name_the_argument(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_study_may_gather_runs_in_folds() -> None:
    rng = np.random.default_rng(1)
    runs = np.repeat(np.arange(6), 30)
    spec = EncodingSpec(folds="groups", n_folds=3, permutations=20)
    outer = cv.outer_folds(runs, spec)
    assert [len(test) for _, test in outer] == [60] * 3
    for train, _ in outer:
        inner = cv.inner_folds(train, runs, spec)
        assert len(inner) == 2
        for a, b in inner:
            assert not {*runs[train[a]]} & {*runs[train[b]]}
    X = {0: {f"run-{i}": rng.standard_normal((30, 4)) for i in range(6)}}
    Y = {"s": {run: values @ rng.standard_normal((4, 5)) for run, values in X[0].items()}}
    scores = encode(X, Y, spec)
    assert scores["s"].r.shape == (1, 5)


def slow(n: int, k: int, seed: int = 0) -> np.ndarray:
    return lfilter([1], [1, -0.8], np.random.default_rng(seed).standard_normal((n, k)), axis=0)


def test_autocorrelation_alone_wins_on_shuffled_folds_only() -> None:
    Y, runs = slow(400, 30), np.repeat(range(4), 100)
    score = {
        name: cv.autocorrelation_only(Y, folds, of).mean()
        for name, folds, of in (
            ("shuffled", cv.shuffled(400, 4), None),
            ("contiguous", cv.contiguous(400, 4), None),
            ("gap", cv.contiguous(400, 4, gap=6), None),
            ("runs", cv.leave_one_run_out(runs), runs),
        )
    }
    assert score["shuffled"] > 0.75
    assert 0 < score["contiguous"] < 0.2
    assert score["gap"] == score["runs"] == 0


def test_white_responses_give_nothing_away() -> None:
    Y = np.random.default_rng(1).standard_normal((400, 200))
    assert abs(cv.autocorrelation_only(Y, cv.shuffled(400, 4)).mean()) < 0.03
