"""Folds of groups, with gaps, as scikit-learn takes them, and the refusal of shuffled ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, KFold, LeaveOneOut, ShuffleSplit, cross_val_score

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


@pytest.mark.parametrize("make", [cv.leave_one_run_out, lambda runs, gap: cv.group_folds(runs, 2, gap)])
def test_the_gap_is_left_out_where_runs_touch(make) -> None:
    runs = np.repeat([3, 1, 2], 10)
    for train, test in make(runs, 4):
        assert np.abs(train[:, None] - test).min() == 5
        borders = np.count_nonzero(np.diff(np.isin(np.arange(30), test)))
        assert len(train) == 30 - len(test) - 4 * borders


def test_shuffled_folds_are_a_partition_and_seeded() -> None:
    folds = cv.shuffled(21, 4, seed=1)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(21))
    assert all(not {*train} & {*test} for train, test in folds)
    again, other = cv.shuffled(21, 4, seed=1), cv.shuffled(21, 4, seed=2)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(folds, again, strict=True))
    assert not np.array_equal(folds[0][1], other[0][1])


def test_shuffled_by_name_is_a_splitter() -> None:
    X, splitter = np.random.default_rng(0).standard_normal((140, 3)), cv.Shuffled(4, 9)
    assert splitter.get_n_splits(X) == len(cv.as_folds(splitter, 140, TITLES)) == 4
    for one, two in zip(splitter.split(X), cv.shuffled(140, 4, 9), strict=True):
        np.testing.assert_array_equal(one[1], two[1])
    assert len(cross_val_score(Ridge(), X, X[:, 0], cv=splitter)) == 4


@pytest.mark.parametrize(
    "shuffled",
    [
        KFold(4, shuffle=True, random_state=0),
        KFold(2, shuffle=True, random_state=0),
        ShuffleSplit(3, test_size=0.1, random_state=0),
        ShuffleSplit(3, test_size=0.9, random_state=0),
        LeaveOneOut(),
        cv.shuffled(140, 4),
        [(np.arange(0, 140, 2), np.arange(1, 140, 2))],
    ],
)
def test_shuffled_folds_are_refused(shuffled) -> None:
    with pytest.raises(ValueError, match=r"cv: found folds in which \d+% .* expected whole runs"):
        cv.as_folds(shuffled, 140)


@pytest.mark.parametrize("held_out", [3, KFold(5), GroupKFold(3), cv.leave_one_run_out(TITLES)])
def test_folds_that_hold_out_pass(held_out) -> None:
    assert len(cv.as_folds(held_out, 140, TITLES)) in (3, 5)


def test_neighbours_of_another_run_do_not_count() -> None:
    runs = np.repeat(np.arange(20), 2)
    folds = cv.leave_one_run_out(runs)
    cv.refuse_shuffled(folds, runs)
    with pytest.raises(ValueError, match="cv: found folds"):
        cv.refuse_shuffled(folds)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([], "cv: found no fold"),
        ("runs", "cv: found 'runs', expected a number of folds, a splitter, or pairs"),
        (None, "cv: found None, expected a number of folds"),
        (1, "n_folds: found 1, expected at least 2"),
        ([(np.arange(5), np.arange(0))], "cv: fold 0: found an empty validation set"),
        ([(np.arange(5), np.array([0.5]))], "cv: fold 0: found validation rows of type float64"),
        ([(np.arange(5), np.array([10]))], "cv: fold 0: found validation rows 10 to 10, expected 0 to 9"),
        ([(np.arange(5), np.arange(4, 10))], "cv: fold 0: found 1 rows that train and validate"),
    ],
)
def test_folds_of_ones_own_are_checked(folds, message) -> None:
    with pytest.raises(ValueError, match=message):
        cv.as_folds(folds, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cv.group_folds(TITLES, 6), "groups: found 5 distinct, expected at least n_folds = 6"),
        (lambda: cv.group_folds(TITLES, 1), "n_folds: found 1"),
        (lambda: cv.leave_one_run_out(np.repeat([0, 1], 3), 3), "gap: found 3"),
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Y": np.ones(5)}, r"Y: found shape \(5,\)"),
        ({"Y": np.full((8, 1), np.nan)}, "Y: found 8 NaN"),
        ({"folds": []}, "cv: found no fold"),
        ({"folds": cv.contiguous(500, 2)}, "cv: fold 0: found training rows 250 to 499, expected 0 to"),
        ({"runs": np.zeros(7)}, r"runs: found shape \(7,\), expected \(8,\)"),
    ],
)
def test_autocorrelation_names_what_does_not_fit(given, message) -> None:
    with pytest.raises(ValueError, match=message):
        cv.autocorrelation_only(**({"Y": np.eye(8), "folds": cv.contiguous(8, 2), "runs": None} | given))
