"""The ridge solver against himalaya in float64, against closed forms, and its invariances."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from himalaya.backend import set_backend
from himalaya.ridge import RidgeCV as Reference
from himalaya.scoring import correlation_score
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from phaselab.encoding import folds as cv
from phaselab.encoding.ridge import ALPHAS, Fit, Plan, Splits, Targets, batch_size, solve
from phaselab.errors import PhaselabError
from phaselab.lazy import View


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def world(n, p, t, kind="power", seed=0, n_test=60):
    """Features with the spectrum that `kind` says, and targets from all noise to nearly none."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + n_test, p))
    if kind != "white":
        X *= np.arange(1, p + 1) ** -1.0
    if kind == "massive":
        X[:, :3] *= 3000
    else:
        X @= np.linalg.qr(rng.standard_normal((p, p)))[0]
    if kind == "collinear":
        X[:, p // 2 :] = X[:, : p - p // 2]
        X[:, 0] = 0.5
    X = X.astype(np.float32)
    signal = X @ rng.standard_normal((p, t))
    Y = signal / signal.std(0) * np.linspace(0, 3, t) + rng.standard_normal((n + n_test, t))
    Y = Y.astype(np.float32)
    return X[:n], Y[:n], X[n:], Y[n:]


def fit_score(X, Y, X_test, Y_test, alphas, folds, dtype="float32", device="auto"):
    """A plan and targets of one call."""
    splits = Splits(len(X), tuple(folds))
    return solve(Plan(X, splits, alphas, X_test, dtype, device), Targets.survey(Y, splits, Y_test=Y_test))


def runs_of(n):
    return np.repeat([0, 1, 2, 3], [n // 3, n // 4, n // 5, n - n // 3 - n // 4 - n // 5])


def reference(X, Y, X_test, Y_test, folds, alphas=ALPHAS):
    """himalaya in float64: chosen alphas, CV scores, test scores."""
    set_backend("torch")
    try:
        params = {"score_func": correlation_score, "warn": False}
        model = Reference(alphas=np.array(alphas), fit_intercept=True, cv=list(folds), solver_params=params)
        X, Y, X_test, Y_test = (torch.as_tensor(a, dtype=torch.float64) for a in (X, Y, X_test, Y_test))
        model.fit(X, Y)
        scores = correlation_score(Y_test, model.predict(X_test))
        return model.best_alphas_.numpy(), model.cv_scores_.numpy(), scores.numpy()
    finally:
        set_backend("numpy")


def gap(X, Y, folds, alphas):
    """Difference of the CV scores of one target between two alphas."""
    splits = Splits(len(X), tuple(folds))
    targets = Targets.survey(Y[:, None], splits)
    a, b = (solve(Plan(X, splits, [a], None, "float64"), targets).cv_score[0] for a in alphas)
    return abs(a - b)


SHAPES = {"tall": (240, 40), "p is n_train": (120, 90), "wide": (90, 130)}


@pytest.mark.parametrize("kind", ["power", "white", "massive", "collinear"])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_himalayas_in_float64(shape, kind):
    n, p = SHAPES[shape]
    X, Y, X_test, Y_test = world(n, p, 16, kind)
    contiguous, by_run = cv.contiguous(n, 4), cv.leave_one_run_out(runs_of(n))
    for folds in (contiguous, by_run):
        alphas, cv_scores, test_scores = reference(X, Y, X_test, Y_test, folds)
        for dtype, error in (("float32", 1e-5), ("float64", 2e-7)):
            fit = fit_score(X, Y, X_test, Y_test, ALPHAS, folds, dtype, "cpu")
            np.testing.assert_allclose(fit.cv_score, cv_scores, atol=error)
            same = np.isclose(fit.alpha, alphas)
            np.testing.assert_allclose(fit.test_score[same], test_scores[same], atol=1e-5)
            # Another alpha only where the two are as good.
            for target in np.flatnonzero(~same):
                pair = (fit.alpha[target], alphas[target])
                assert gap(X, Y[:, target], folds, pair) <= error


@pytest.mark.parametrize("kind", ["massive", "collinear"])
@pytest.mark.parametrize("shape", SHAPES)
def test_tiny_alphas_on_ill_conditioned_features_are_those_of_a_least_squares_problem(shape, kind):
    """alpha = 1e-12 against the QR decomposition of X with sqrt(alpha) I below it, which is not squared."""
    n, p = SHAPES[shape]
    X, Y, X_test, Y_test = world(n, p, 30, kind)
    folds = cv.contiguous(n, 4)
    centre = X.astype(np.float64) - X.mean(0, dtype=np.float64)
    stacked = np.vstack([centre, 1e-6 * np.eye(p)])
    Q, R = np.linalg.qr(stacked)
    responses = Y.astype(np.float64) - Y.mean(0, dtype=np.float64)
    weights = np.linalg.solve(R, Q[:n].T @ responses)
    expected = (X_test - X.mean(0, dtype=np.float64)) @ weights + Y.mean(0, dtype=np.float64)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(expected.T, Y_test.T, strict=True)]
    for dtype, error in (("float32", 2e-5), ("float64", 1e-6)):
        fit = fit_score(X, Y, X_test, Y_test, [1e-12], folds, dtype=dtype, device="cpu")
        assert np.isfinite(fit.cv_score).all()
        assert (np.abs(fit.cv_score) <= 1 + 1e-6).all()
        np.testing.assert_allclose(fit.test_score, r, atol=error)


def test_predictions_and_weights_are_the_closed_form():
    X, Y, X_test, Y_test = world(150, 20, 12)
    splits = Splits(150, tuple(cv.contiguous(150, 3)))
    targets = Targets.survey(Y, splits, Y_test=Y_test)
    plan = Plan(X, splits, ALPHAS[10:16], X_test, dtype="float64")
    fit = solve(plan, targets, predictions=True, weights=True)
    assert len(np.unique(fit.alpha)) > 1
    centre, responses = X - X.mean(0, dtype=np.float64), Y - Y.mean(0, dtype=np.float64)
    coef = (plan.V / plan.s).numpy() @ fit.weights
    for target, alpha in enumerate(fit.alpha):
        weights = np.linalg.solve(centre.T @ centre + alpha * np.eye(20), centre.T @ responses[:, target])
        np.testing.assert_allclose(coef[:, target], weights, rtol=1e-7)
    np.testing.assert_allclose(fit.predictions, (X_test - X.mean(0, dtype=float)) @ coef, rtol=1e-6, atol=1e-8)


small = st.tuples(st.integers(0, 2**31), st.sampled_from(["tall", "wide"]))


def answer(X, Y, X_test, Y_test, folds=None) -> Fit:
    folds = folds or cv.contiguous(len(X), 3)
    return fit_score(X, Y, X_test, Y_test, ALPHAS[6:19], folds, "float64", "cpu")


@settings(max_examples=15, deadline=None)
@given(small)
def test_rotating_features_changes_nothing(case):
    seed, shape = case
    p = {"tall": 12, "wide": 70}[shape]
    X, Y, X_test, Y_test = world(60, p, 5, seed=seed)
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((p, p)))[0]
    one = answer(X, Y, X_test, Y_test)
    two = answer(X @ turn, Y, X_test @ turn, Y_test)
    np.testing.assert_allclose(one.cv_score, two.cv_score, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(small, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_scale_and_offset_of_responses_do_not_matter_to_correlations(case, scale, offset):
    seed, shape = case
    X, Y, X_test, Y_test = world(60, {"tall": 12, "wide": 70}[shape], 5, seed=seed)
    one = answer(X, Y.astype(np.float64), X_test, Y_test.astype(np.float64))
    two = answer(X, Y.astype(np.float64) * scale + offset, X_test, Y_test.astype(np.float64) * scale + offset)
    np.testing.assert_allclose(one.cv_score, two.cv_score, atol=1e-6)
    np.testing.assert_allclose(one.test_score, two.test_score, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(small, st.floats(1e-2, 1e2))
def test_scaling_features_is_scaling_alphas(case, scale):
    seed, shape = case
    X, Y, X_test, Y_test = (a.astype(np.float64) for a in world(60, {"tall": 12, "wide": 70}[shape], 5, seed=seed))
    folds = cv.contiguous(60, 3)
    for alpha in (1e-2, 1.0, 1e3):
        one = fit_score(X, Y, X_test, Y_test, [alpha], folds, "float64", "cpu")
        two = fit_score(X * scale, Y, X_test * scale, Y_test, [alpha * scale**2], folds, "float64", "cpu")
        np.testing.assert_allclose(one.cv_score, two.cv_score, atol=1e-6)
        np.testing.assert_allclose(one.test_score, two.test_score, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(small)
def test_order_of_targets_features_and_training_rows_does_not_matter(case):
    seed, shape = case
    X, Y, X_test, Y_test = world(60, {"tall": 12, "wide": 70}[shape], 5, seed=seed)
    rng = np.random.default_rng(seed)
    one = answer(X, Y, X_test, Y_test)
    columns, targets, rows = rng.permutation(X.shape[1]), rng.permutation(5), rng.permutation(60)
    where = np.argsort(rows)
    folds = [(where[train], where[held]) for train, held in cv.contiguous(60, 3)]
    two = answer(X[rows][:, columns], Y[rows][:, targets], X_test[:, columns], Y_test[:, targets], folds)
    np.testing.assert_allclose(one.cv_score[targets], two.cv_score, atol=1e-6)
    np.testing.assert_allclose(one.test_score[targets], two.test_score, atol=1e-5)


def test_eigenvalues_that_are_equal_or_nearly_so():
    """A design of orthogonal columns: all eigenvalues of a fold are near each other, and some are equal."""
    n = 128
    t = np.arange(n)
    X = np.stack([np.cos(np.pi * k * (2 * t + 1) / (2 * n)) for k in range(1, 41)], 1)
    rng = np.random.default_rng(1)
    Y = X @ rng.standard_normal((40, 20)) + rng.standard_normal((n, 20))
    folds = [(np.flatnonzero(t % 4 != k), np.flatnonzero(t % 4 == k)) for k in range(4)]
    _, cv_scores, _ = reference(X, Y, X, Y, folds)
    for dtype, error in (("float32", 1e-5), ("float64", 2e-7)):
        fit = fit_score(X, Y, X, Y, ALPHAS, folds, dtype, "cpu")
        np.testing.assert_allclose(fit.cv_score, cv_scores, atol=error)


def test_folds_with_gaps_overlaps_and_many_pieces():
    X, Y, X_test, Y_test = world(160, 24, 20)
    rng = np.random.default_rng(2)
    shuffles = [np.split(rng.permutation(160), [110, 150])[:2] for _ in range(12)]
    for folds in (cv.contiguous(160, 5, gap=4), shuffles):
        _, cv_scores, test_scores = reference(X, Y, X_test, Y_test, folds)
        fit = fit_score(X, Y, X_test, Y_test, ALPHAS, folds, device="cpu")
        np.testing.assert_allclose(fit.cv_score, cv_scores, atol=1e-5)
        np.testing.assert_allclose(np.median(fit.test_score), np.median(test_scores), atol=1e-4)


def test_subjects_share_a_factorisation_and_do_not_matter_to_each_other():
    X, Y, X_test, Y_test = world(120, 20, 30)
    splits = Splits(120, tuple(cv.contiguous(120, 3)))
    plan = Plan(X, splits, ALPHAS, X_test)
    parts = [(Y[:, :7], Y_test[:, :7]), (Y[:, 7:], Y_test[:, 7:])]
    fits = [solve(plan, Targets.survey(a, splits, Y_test=b)) for a, b in parts]
    whole = solve(plan, Targets.survey(Y, splits, Y_test=Y_test))
    assert [len(fit.alpha) for fit in fits] == [7, 23]
    np.testing.assert_allclose(np.concatenate([fit.cv_score for fit in fits]), whole.cv_score, atol=1e-6)
    same = np.concatenate([fit.alpha for fit in fits]) == whole.alpha
    assert same.mean() > 0.8
    test_scores = np.concatenate([fit.test_score for fit in fits])
    np.testing.assert_allclose(test_scores[same], whole.test_score[same], atol=1e-6)


def test_some_columns_alone_are_those_of_the_whole():
    X, Y, X_test, Y_test = world(120, 20, 40)
    Y = Y.copy()
    Y[:, 12] = 3
    splits = Splits(120, tuple(cv.contiguous(120, 3)))
    plan, targets = Plan(X, splits, ALPHAS, X_test), Targets.survey(Y, splits, Y_test=Y_test)
    whole = solve(plan, targets, predictions=True)
    part = solve(plan, targets, predictions=True, columns=slice(10, 30))
    assert np.flatnonzero(np.isnan(part.alpha)) == [2]
    assert part.predictions.shape == (60, 20)
    np.testing.assert_allclose(part.cv_score, whole.cv_score[10:30], atol=1e-6)


def test_batches_and_stores_give_the_same(tmp_path, monkeypatch):
    import zarr

    X, Y, X_test, Y_test = world(120, 20, 45)
    splits = Splits(120, tuple(cv.contiguous(120, 3)))
    plan = Plan(X, splits, ALPHAS, X_test)
    whole = solve(plan, Targets.survey(Y, splits, Y_test=Y_test))
    np.save(tmp_path / "Y.npy", np.concatenate([Y, Y_test]))
    both = np.load(tmp_path / "Y.npy", mmap_mode="r")
    stored = zarr.create_array(str(tmp_path / "Y.zarr"), data=np.asarray(both), chunks=(50, 16))
    monkeypatch.setattr(sys.modules[solve.__module__], "LARGEST_BATCH", {"cpu": 17})
    for source in (both, stored):
        fit = solve(plan, Targets.survey(View(source, np.arange(120)), splits, View(source, np.arange(120, 180))))
        np.testing.assert_allclose(fit.cv_score, whole.cv_score, atol=1e-6)
        same = fit.alpha == whole.alpha
        assert same.mean() > 0.8
        np.testing.assert_allclose(fit.test_score[same], whole.test_score[same], atol=1e-6)


def test_a_batch_is_what_fits_into_memory():
    X, _, X_test, _ = world(120, 20, 1)
    plan = Plan(X, Splits(120, tuple(cv.contiguous(120, 3))), ALPHAS, X_test)
    each, own = plan.batch_bytes(60), plan.bytes
    assert batch_size([plan], 60, 45, own + 17 * each) == 17
    assert batch_size([plan], 60, 45, 1e12) == 512
    with pytest.raises(PhaselabError, match=rf"memory: found {own} bytes, with which 16 targets at once take"):
        batch_size([plan], 60, 45, own)


def test_a_plan_holds_no_more_than_it_says():
    X, _, X_test, _ = world(400, 30, 1)
    splits = Splits(400, tuple(cv.contiguous(400, 4)))
    for dtype in ("float32", "float64"):
        plan = Plan(X, splits, ALPHAS, X_test, dtype=dtype)
        storages = {}
        sides = [side._asdict() for fold in plan.folds for side in (fold.z, fold.w)]
        for holder in (vars(plan), *(fold._asdict() for fold in plan.folds), *sides):
            for value in holder.values():
                if isinstance(value, torch.Tensor):
                    storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        assert sum(storages.values()) <= 1.1 * plan.bytes


def test_targets_that_cannot_be_fitted_are_named_and_left_out():
    X, Y, X_test, Y_test = world(90, 10, 6)
    Y, Y_test = Y.copy(), Y_test.copy()
    Y[5, 1], Y[:, 2], Y_test[3, 4] = np.nan, 7.5, np.inf
    fit = fit_score(X, Y, X_test, Y_test, ALPHAS, folds := cv.contiguous(90, 3), device="cpu")
    assert Targets.survey(Y, Splits(90, tuple(folds)), Y_test=Y_test).left_out == {
        1: "NaN or infinite values",
        2: "constant in the training set",
        4: "NaN or infinite values",
    }
    for scores in (fit.cv_score, fit.test_score, fit.alpha):
        np.testing.assert_array_equal(np.isnan(scores), [False, True, True, False, True, False])


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1e-13, 1e10, 1e20, 1e300])
def test_responses_in_tesla_or_in_units_of_1e10_score_the_same(scale):
    X, Y, X_test, Y_test = world(90, 12, 6)
    one = fit_score(X, Y, X_test, Y_test, ALPHAS, cv.contiguous(90, 3), device="cpu")
    for dtype in [np.float64] if not 1e-30 < scale < 1e30 else [np.float32, np.float64]:
        held, held_test = ((a * np.float64(scale)).astype(dtype) for a in (Y, Y_test))
        two = fit_score(X, held, X_test, held_test, ALPHAS, cv.contiguous(90, 3), device="cpu")
        np.testing.assert_allclose(one.cv_score, two.cv_score, atol=1e-6)
        same = one.alpha == two.alpha
        np.testing.assert_allclose(one.test_score[same], two.test_score[same], atol=1e-6)
    splits = Splits(90, tuple(cv.contiguous(90, 3)))
    plan = Plan(X, splits, [10.0], X_test, dtype="float64")
    one, two = (
        solve(plan, Targets.survey(Y.astype(float) * by, splits, Y_test=Y_test.astype(float) * by), True, True)
        for by in (1, scale)
    )
    np.testing.assert_allclose(one.weights * scale, two.weights, rtol=1e-9)
    np.testing.assert_allclose(one.predictions * scale, two.predictions, rtol=1e-6)


def test_the_mean_of_responses_is_taken_off_as_it_is_and_not_as_it_is_rounded():
    X, Y, X_test, Y_test = world(90, 12, 6)
    folds = cv.contiguous(90, 3)
    far, far_test = Y + np.float32(1e5), Y_test + np.float32(1e5)
    fit = fit_score(X, far, X_test, far_test, [10.0], folds, device="cpu")
    _, _, expected = reference(X, far, X_test, far_test, folds, [10.0])
    np.testing.assert_allclose(fit.test_score, expected, atol=1e-5)
    for source in (far.round().astype(np.int64), far):
        targets = Targets.survey(source, Splits(90, tuple(folds)))
        np.testing.assert_allclose(targets.mean, source.astype(float).mean(0), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_response_that_is_constant_in_a_fold_scores_what_the_other_folds_give(dtype):
    X, Y, X_test, Y_test = world(96, 12, 4)
    folds = cv.contiguous(96, 4)
    Y, Y_test = Y.astype(np.float64), Y_test.copy()
    Y[folds[1][1], 0], Y[folds[1][0], 1], Y_test[:, 2] = 0.1, 0.1, 0.1
    score = [
        fit_score(X, Y, X_test, Y_test, [10.0], of, dtype, "cpu") for of in (folds, folds[:1] + folds[2:], folds[1:2])
    ]
    whole, others, fold = (fit.cv_score for fit in score)
    assert fold[0] == 0
    np.testing.assert_allclose(whole[0], others[0] * 3 / 4, rtol=1e-5)
    # Constant in three of the validation sets, and in the training set of the fourth.
    assert others[1] == fold[1] == whole[1] == 0
    assert (np.abs(whole) <= 1).all()
    assert score[0].test_score[2] == 0


def test_types_that_hold_real_numbers_give_the_same():
    X, Y, X_test, Y_test = (np.round(a * 5) for a in world(90, 12, 6))
    folds = cv.contiguous(90, 3)
    expected = fit_score(X, Y, X_test, Y_test, ALPHAS, folds, device="cpu")
    wide = np.zeros((180, 12), np.float32)
    wide[::2, ::2] = Y
    forms = [
        Y.astype(np.int16),
        Y.astype(np.float16),
        Y.astype(">f4"),
        np.asfortranarray(Y),
        wide[::2, ::2],
    ]
    for form in forms:
        fit = fit_score(X, form, X_test, Y_test, ALPHAS, folds, device="cpu")
        np.testing.assert_allclose(fit.cv_score, expected.cv_score, atol=1e-6)


def test_a_response_that_is_constant_in_a_validation_set_scores_zero_there():
    X, Y, X_test, Y_test = world(90, 10, 4)
    Y = Y.copy()
    Y[30:60, 1] = 7.3
    folds = cv.contiguous(90, 3)
    one, two = (
        fit_score(X, Y, X_test, Y_test, ALPHAS[14:15], of, device="cpu") for of in (folds, [folds[0], folds[2]])
    )
    np.testing.assert_allclose(one.cv_score[1], two.cv_score[1] * 2 / 3, atol=1e-6)


def test_features_that_are_constant_predict_the_mean():
    _, Y, _, Y_test = world(60, 5, 3)
    splits = Splits(60, tuple(cv.contiguous(60, 3)))
    plan = Plan(np.full((60, 4), 0.1), splits, ALPHAS, np.full((60, 4), 5.0))
    fit = solve(plan, Targets.survey(Y, splits, Y_test=Y_test), predictions=True)
    np.testing.assert_array_equal(fit.cv_score, 0)
    np.testing.assert_array_equal(fit.predictions, 0)
    assert (fit.alpha == ALPHAS[0]).all()


X, Y = np.ones((8, 2)) + np.eye(8, 2), np.eye(8, 3)
FOLDS = cv.contiguous(8, 2)
PLAN = Plan(X, Splits(8, tuple(FOLDS)), ALPHAS)
BAD = {
    "X: found 7 samples, expected 8": lambda: Plan(X[:7], Splits(8, tuple(FOLDS)), ALPHAS),
    "Y: found 7 samples, expected 8 as in X": lambda: fit_score(X, Y[:7], X, Y, ALPHAS, FOLDS),
    "Y_test: found shape .8, 2., expected .*3 targets as in Y": lambda: fit_score(X, Y, X, Y[:, :2], ALPHAS, FOLDS),
    "X_test: found 7 samples, expected 8": lambda: fit_score(X, Y, X[:7], Y, ALPHAS, FOLDS),
    "X_test: found 1 features, expected 2": lambda: fit_score(X, Y, X[:, :1], Y, ALPHAS, FOLDS),
    "X: found 1 NaN or infinite value": lambda: fit_score(np.where(np.eye(8, 2, 1), np.nan, X), Y, X, Y, ALPHAS, FOLDS),
    "X: found a norm of .*, expected 1e-140": lambda: fit_score(X * 1e160, Y, X, Y, ALPHAS, FOLDS),
    "X: found a norm of .*, expected 1e-140 to 1e150": lambda: fit_score(X * 1e-160, Y, X, Y, ALPHAS, FOLDS),
    "X: found shape": lambda: fit_score(X[:, 0], Y, X, Y, ALPHAS, FOLDS),
    "targets: found other splits": lambda: solve(PLAN, Targets.survey(Y, Splits(8, tuple(FOLDS)))),
    "Y: found shape": lambda: fit_score(X, Y[:, 0], X, Y, ALPHAS, FOLDS),
    "alphas: found .*expected one or more finite numbers above 0": lambda: fit_score(X, Y, X, Y, [0.0, 1.0], FOLDS),
    "cv: found no fold": lambda: fit_score(X, Y, X, Y, ALPHAS, []),
    "cv: fold 0: .* that train and .* that validate, expected some": lambda: fit_score(
        X, Y, X, Y, ALPHAS, [(np.arange(8), np.arange(0))]
    ),
    "cv: fold 0: .*, each once": lambda: fit_score(X, Y, X, Y, ALPHAS, [(np.arange(5), np.arange(4, 8))]),
    "cv: fold 1: .*, expected some of each, numbers from 0 to 7": lambda: fit_score(
        X, Y, X, Y, ALPHAS, [FOLDS[0], (np.array([0, 8]), np.array([1]))]
    ),
    "cv: fold 0: found rows .0 0 1.": lambda: fit_score(X, Y, X, Y, ALPHAS, [(np.array([0, 0, 1]), np.array([2, 3]))]),
    "cv: fold 0: found rows .*True": lambda: fit_score(X, Y, X, Y, ALPHAS, [(np.arange(8) < 4, np.arange(8) >= 4)]),
    "device: found 'cuda:7'": lambda: fit_score(X, Y, X, Y, ALPHAS, FOLDS, device="cuda:7"),
}


@pytest.mark.parametrize("message", BAD)
def test_the_wrong_argument_is_named(message):
    with pytest.raises(PhaselabError, match=message):
        BAD[message]()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same():
    X, Y, X_test, Y_test = world(300, 40, 60)
    folds = cv.contiguous(300, 4)
    one, two = (fit_score(X, Y, X_test, Y_test, ALPHAS, folds, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(one.cv_score, two.cv_score, atol=1e-5)
