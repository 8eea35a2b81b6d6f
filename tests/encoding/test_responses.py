"""Subjects with runs of their own, responses in files, bounded memory, and the other solver."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest
import zarr
from himalaya.backend import get_backend, set_backend
from threadpoolctl import threadpool_limits

from phaselab.encoding import encode, himalaya, read_voxels, shuffled_stimulus, write_voxels
from phaselab.encoding import folds as cv
from phaselab.encoding.arrays import groups_of
from phaselab.encoding.estimator import RidgeCV
from phaselab.encoding.ridge import ALPHAS, Plan, Splits, Targets, solve
from phaselab.lazy import View
from phaselab.study import EncodingSpec

LENGTHS = {"a": 60, "b": 50, "c": 70, "d": 55}
SPEC = EncodingSpec(permutations=40, block=5, log10_alphas=(-1, 5, 7))


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def world():
    """Features of all runs; two subjects who heard all of them, one three, one the other two."""
    rng = np.random.default_rng(0)
    X = {k: {run: rng.standard_normal((n, p)) for run, n in LENGTHS.items()} for k, p in ((0, 6), (1, 300))}
    weights = rng.standard_normal((6, 25))

    def heard(runs: str, n_voxels: int) -> dict[str, np.ndarray]:
        return {
            run: (X[0][run] @ weights[:, :n_voxels] + 2 * rng.standard_normal((LENGTHS[run], n_voxels))).astype("f4")
            for run in runs
        }

    return X, {"one": heard("dcba", 25), "two": heard("abd", 20), "three": heard("abcd", 12), "four": heard("bc", 7)}


def same(one, two) -> None:
    assert list(one) == list(two)
    for subject in one:
        for name in ("r", "p", "significant", "alpha"):
            np.testing.assert_array_equal(getattr(one[subject], name), getattr(two[subject], name))


def test_subjects_are_grouped_by_their_runs_in_the_order_of_the_features(world) -> None:
    X, Y = world
    groups = [*groups_of(X, Y)]
    assert [group.subjects for group in groups] == [["one", "three"], ["two"], ["four"]]
    assert [list(group.lengths) for group in groups] == [list("abcd"), list("abd"), list("bc")]
    first = groups[0]
    whole = np.concatenate([np.concatenate([Y[s][run] for run in "abcd"]) for s in ("one", "three")], axis=1)
    for columns in (slice(0, 37), slice(20, 30), slice(24, 25), slice(30, 37), slice(31, 33)):
        np.testing.assert_array_equal(first[:, columns], whole[:, columns])
    assert first.subject_of.tolist() == [0] * 25 + [1] * 12


def test_groups_score_as_if_each_were_alone(world) -> None:
    X, Y = world
    scores = encode(X, Y, SPEC, seed=3)
    assert list(scores) == list(Y)
    for subject in ("two", "four"):
        fewer = {k: {run: values for run, values in of_run.items() if run in Y[subject]} for k, of_run in X.items()}
        same(encode(fewer, {subject: Y[subject]}, SPEC, seed=3), {subject: scores[subject]})
    same(encode(X, {s: Y[s] for s in ("one", "three")}, SPEC, seed=3), {s: scores[s] for s in ("one", "three")})
    assert scores["four"].r[0].mean() > 0.2
    shuffles = shuffled_stimulus(X, Y, SPEC, 2, seed=1)
    assert [list(of_shuffle) for of_shuffle in shuffles] == [list(Y)] * 2


def test_responses_in_files_score_as_in_memory(world, tmp_path) -> None:
    X, Y = world
    Y = {s: Y[s] for s in ("one", "two", "three")}
    inside = h5py.File(tmp_path / "Y.h5", "w")
    stored = {}
    for subject, of_run in Y.items():
        stored[subject] = {}
        for run, values in of_run.items():
            name = f"{subject}-{run}"
            np.save(tmp_path / f"{name}.npy", values)
            stored[subject][run] = {
                "one": lambda name=name: np.load(tmp_path / f"{name}.npy", mmap_mode="r"),
                "two": lambda name=name, v=values: zarr.create_array(str(tmp_path / name), data=v, chunks=(20, 8)),
                "three": lambda name=name, v=values: inside.create_dataset(name, data=v),
            }[subject]()
    same(encode(X, stored, SPEC), encode(X, Y, SPEC))
    for one, two in zip(shuffled_stimulus(X, stored, SPEC, 2), shuffled_stimulus(X, Y, SPEC, 2), strict=True):
        same(one, two)
    np.testing.assert_array_equal(View(stored["two"]["a"], shift=7)[:, 3:9], np.roll(Y["two"]["a"], 7, axis=0)[:, 3:9])


def test_a_batch_is_read_once_for_all_folds(world, monkeypatch) -> None:
    X, Y = world
    reads = []

    class Told:
        """An array that tells which of its columns are read."""

        def __init__(self, values: np.ndarray) -> None:
            self.values, self.shape, self.dtype = values, values.shape, values.dtype

        def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
            reads.append((key[1].start, key[1].stop))
            return self.values[key]

    wide = {"one": {run: np.tile(values, 30) for run, values in Y["one"].items()}}
    first = next(iter(wide["one"]))
    wide["one"][first] = Told(wide["one"][first])
    monkeypatch.setattr(sys.modules[Targets.__module__], "SURVEYED_AT_ONCE", 8 * 235 * 300)
    encode({0: X[0], 1: X[0]}, wide, SPEC)
    survey, layers = reads[:-4], reads[-4:]
    assert layers == [(0, 512), (512, 750)] * 2
    assert len(survey) <= 4 * 3


def test_memory_bounds_the_batch_and_says_what_is_needed(world) -> None:
    X, Y = world
    whole = encode({0: X[0]}, Y, SPEC)
    small = encode({0: X[0]}, Y, SPEC.model_copy(update={"memory": 6e-4}))
    for subject in Y:
        np.testing.assert_allclose(small[subject].r, whole[subject].r, atol=1e-3)
    with pytest.raises(ValueError, match="memory: found 1074 bytes, with which 16 targets at once take"):
        encode({0: X[0]}, Y, SPEC.model_copy(update={"memory": 1e-6}))


def test_plans_that_do_not_fit_together_are_made_one_after_another(world, monkeypatch) -> None:
    X, Y = world
    encoder = sys.modules[encode.__module__]
    files = []
    temporary = encoder.tempfile.TemporaryFile
    monkeypatch.setattr(encoder.tempfile, "TemporaryFile", lambda: files.append(1) or temporary())
    whole = encode({1: X[1]}, {"one": Y["one"]}, SPEC)
    assert not files
    same(encode({1: X[1]}, {"one": Y["one"]}, SPEC.model_copy(update={"memory": 8e-3})), whole)
    assert files == [1]


def test_voxels_are_written_and_read(world, tmp_path) -> None:
    X, Y = world
    scores = encode({0: X[0]}, Y, SPEC)
    write_voxels(scores, tmp_path / "voxels.zarr")
    read = read_voxels(tmp_path / "voxels.zarr")
    assert sorted(read) == sorted(Y)
    np.testing.assert_array_equal(read["two"]["r"], scores["two"].r)
    assert read["two"]["layers"].tolist() == [0]


# ------------------------------------------------------------------------------------- himalaya


def test_himalaya_scores_the_same(world) -> None:
    """Layer 1 has more features than training TRs: kernel ridge."""
    X, Y = world
    Y = {"one": {run: values.copy() for run, values in Y["one"].items()}, "two": Y["two"]}
    for run, values in Y["one"].items():
        values[:, 3] = 5 if run != "d" else values[:, 3]
    set_backend("numpy")
    with pytest.warns(UserWarning, match="subject one: 1 of 25"):
        ours = encode(X, Y, SPEC)
    with pytest.warns(UserWarning, match="subject one: 1 of 25"):
        theirs = encode(X, Y, SPEC.model_copy(update={"solver": "himalaya"}))
    assert get_backend().name == "numpy"
    for subject in Y:
        alike = np.isclose(ours[subject].alpha, theirs[subject].alpha)
        assert alike.mean() > 0.9
        np.testing.assert_allclose(ours[subject].r[alike], theirs[subject].r[alike], atol=1e-4)


@pytest.mark.parametrize("p", [30, 200])
def test_alphas_are_himalayas(p) -> None:
    rng = np.random.default_rng(p)
    X, X_test = rng.standard_normal((120, p)), rng.standard_normal((40, p))
    Y = X @ rng.standard_normal((p, 15)) / p**0.5 + rng.standard_normal((120, 15))
    folds, alphas = cv.contiguous(120, 3), np.logspace(-1, 5, 7)[::-1]
    predicted, best = himalaya.ridge(X, Y, X_test, folds, alphas)
    splits = Splits(120, tuple(folds))
    fit = solve(Plan(X, splits, alphas), Targets.survey(Y, splits))
    assert predicted.shape == (40, 15)
    assert np.isclose(fit.alpha, best).mean() > 0.9
    assert len(ALPHAS) == 25


# ------------------------------------------------------------------------- one point, by hand


@pytest.mark.parametrize("kind", ["runs", "contiguous", "groups"])
def test_ridge_cv_on_the_folds_of_a_study_gives_the_scores_of_encode(world, kind) -> None:
    X, Y = world
    spec = EncodingSpec(permutations=0, folds=kind, n_folds=3, gap=4 * (kind == "contiguous"))
    names = list(LENGTHS)
    runs = np.repeat(np.arange(4), list(LENGTHS.values()))
    features, responses = (np.concatenate([of_run[run] for run in names]) for of_run in (X[0], Y["one"]))
    r = []
    for train, test in cv.outer_folds(runs, spec):
        model = RidgeCV(np.logspace(*spec.log10_alphas)[::-1], cv=cv.inner_folds(train, runs, spec), device="cpu")
        model.fit(features[train], responses[train], runs=runs[train])
        r.append(model.score(features[test], responses[test]))
    weights = cv.fold_weights([len(test) for _, test in cv.outer_folds(runs, spec)])
    np.testing.assert_allclose(
        np.average(r, axis=0, weights=weights), encode(X, {"one": Y["one"]}, spec)["one"].r[0], atol=1e-6
    )
