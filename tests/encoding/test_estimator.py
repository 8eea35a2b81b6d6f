"""RidgeCV: scikit-learn's own checks, and what it promises beyond the solver."""

from __future__ import annotations

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, RepeatedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from phaselab.encoding import folds as cv
from phaselab.encoding.estimator import RidgeCV
from phaselab.encoding.ridge import Plan, Splits, Targets, solve
from phaselab.errors import PhaselabError


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


@parametrize_with_checks([RidgeCV(device="cpu")])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def data(n=120, p=12, t=9, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X @ rng.standard_normal((p, t)) + rng.standard_normal((n, t)) * np.linspace(0.1, 20, t)


def test_scores_are_those_of_the_solver():
    X, Y = data()
    runs = np.repeat(["a", "b", "c"], 30)
    model = RidgeCV(dtype="float64").fit(X[:90], Y[:90], runs=runs)
    splits = Splits(90, tuple(cv.leave_one_run_out(runs)))
    fit = solve(Plan(X[:90], splits, model.alphas, X[90:], "float64"), Targets.survey(Y[:90], splits, Y_test=Y[90:]))
    np.testing.assert_array_equal(model.best_alphas_, fit.alpha)
    np.testing.assert_allclose(model.cv_scores_, fit.cv_score)
    np.testing.assert_allclose(model.score(X[90:], Y[90:]), fit.test_score, atol=1e-6)
    assert model.coef_.shape == (12, 9)
    np.testing.assert_allclose(model.predict(X[90:]), X[90:] @ model.coef_ + model.intercept_)


def test_folds():
    X, Y = data()
    split = KFold(4)
    one = RidgeCV(cv=split).fit(X, Y)
    for same in (4, list(split.split(X)), None):
        np.testing.assert_array_equal(RidgeCV(cv=same).fit(X, Y).cv_scores_, one.cv_scores_)
    with pytest.raises(PhaselabError, match=r"runs: found shape \(3,\), expected \(120,\)"):
        RidgeCV().fit(X, Y, runs=[1, 2, 3])
    with pytest.raises(ValueError, match="Expected `?cv`? as an integer"):
        RidgeCV(cv="five").fit(X, Y)
    runs = np.repeat(list("abcd"), 30)
    by_run = RidgeCV(cv=2).fit(X, Y, runs=runs)
    same = RidgeCV(cv=cv.group_folds(runs, 2)).fit(X, Y, runs=runs)
    np.testing.assert_array_equal(same.cv_scores_, by_run.cv_scores_)
    assert (by_run.cv_scores_ != RidgeCV(cv=cv.contiguous(120, 3)).fit(X, Y).cv_scores_).any()
    repeated = RepeatedKFold(n_splits=4, n_repeats=1, random_state=0)
    for mixed in (KFold(4, shuffle=True, random_state=0), repeated, cv.shuffled(120, 4)):
        with pytest.raises(ValueError, match=r"cv: fold 0: found rows .*, expected whole runs"):
            RidgeCV(cv=mixed).fit(X, Y)
        assert RidgeCV(cv=mixed, independent=True).fit(X, Y).cv_scores_.shape == (9,)
    with pytest.raises(ValueError, match="found 1 distinct, expected at least 2"):
        RidgeCV().fit(X, Y, runs=np.zeros(120))


def test_targets_left_out_are_named_and_are_nan_in_predictions_alone():
    X, Y = data()
    Y[:, 4], Y[7, 6] = 2.0, np.nan
    with pytest.warns(UserWarning, match=r"2 of 9 targets left out, such as {4: 'constant.*, 6: 'NaN"):
        model = RidgeCV().fit(X, Y)
    assert set(model.left_out_) == {4, 6}
    assert list(np.flatnonzero(np.isnan(model.predict(X)).all(0))) == [4, 6]
    assert list(np.flatnonzero(np.isnan(model.score(X, data()[1])))) == [4, 6]
    with pytest.raises(PhaselabError, match="Y: found 2 of 2 targets left out, .*, expected one target at least"):
        RidgeCV().fit(X, np.ones((120, 2)))


def test_it_works_in_a_pipeline_and_is_cloned():
    X, Y = data()
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=[1.0, 10.0]))
    assert model.fit(X, Y).score(X, Y).shape == (9,)
    flat = clone(model).fit(X, Y[:, 0])
    assert flat.predict(X).shape == (120,)
    assert isinstance(flat.score(X, Y[:, 0]), float)


def test_it_is_searched_over_and_kept_in_a_file(tmp_path):
    X, Y = data()
    np.save(tmp_path / "Y.npy", Y)
    mapped = np.load(tmp_path / "Y.npy", mmap_mode="r")
    model = RidgeCV().fit(X, mapped)
    joblib.dump(model, tmp_path / "model")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model").predict(X), model.predict(X))
    search = GridSearchCV(RidgeCV(), {"alphas": [[1e-3], [1.0], [1e9]]}, scoring="r2", cv=KFold(3))
    assert search.fit(X, Y).best_params_["alphas"] != [1e9]
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(12)])
    model = RidgeCV().fit(frame, pd.DataFrame(Y))
    assert model.predict(frame).shape == (120, 9)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[frame.columns[::-1]])
