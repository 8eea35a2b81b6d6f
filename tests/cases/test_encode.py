"""Situations with a known right answer: what users bring to ``RidgeCV``, to ``encode`` and to ``phaselab encode``."""

from __future__ import annotations

import json
import types
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.model_selection import GroupKFold, KFold, LeaveOneOut, ShuffleSplit
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from phaselab import encoding
from phaselab.brains import BrainData
from phaselab.cli import app
from phaselab.encoding import encode, normalise, similarity
from phaselab.encoding import folds as cv
from phaselab.encoding.estimator import RidgeCV
from phaselab.encoding.himalaya import unique_contribution
from phaselab.encoding.ridge import Plan, Splits, Targets
from phaselab.errors import PhaselabError
from phaselab.stats import pearson
from phaselab.stimuli import convolve
from phaselab.study import EncodingSpec

N, RUNS = 240, np.repeat([1, 2, 3, 4], 60)
TRAIN, TEST = slice(180), slice(180, None)
SPEC = EncodingSpec(permutations=20, block=5, log10_alphas=(-1, 5, 7))


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def planted(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """X (n, 8) and Y (n, 5) that follows it."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 8)).astype("f4")
    return X, X @ rng.standard_normal((8, 5)) + rng.standard_normal((n, 5))


X, Y = planted()


def score(X=X, Y=Y, runs=RUNS[TRAIN], **how) -> np.ndarray:
    """r in the last run, of a model of the other three."""
    return RidgeCV(device="cpu", **how).fit(X[TRAIN], Y[TRAIN], runs=runs).score(X[TEST], Y[TEST])


def by_run(values, lengths=(60, 60, 60, 60)) -> dict[str, np.ndarray]:
    return {f"r{i}": part for i, part in enumerate(np.split(values, np.cumsum(lengths)[:-1]))}


# ------------------------------------------------------------------------------------- RidgeCV: runs and folds


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (np.tile([1, 2, 3], 60), "cv: fold 0: found rows .0, 3, 6.* of one run tested with others between them"),
        (np.repeat([1, 2, 1, 3], 45), "cv: fold 0: found rows .0, 1, 2.* nothing is held out in time, expected whole"),
        (np.repeat([np.nan, 1.0, 2.0], 60), "runs: found NaN or None, or nothing, expected the run of each sample"),
        (["a"] * 90 + [float("nan")] * 90, "runs: found NaN or None"),
        (["a"] * 90 + [None] * 90, "runs: found NaN or None"),
        (pd.Series(["a", None, "b"] * 60), "runs: found NaN or None"),
        (np.ones((180, 2)), r"runs: found shape \(180, 2\), expected \(180,\)"),
        (np.ones(180), "runs: found 1 distinct, expected at least 2 to leave one out"),
        (np.r_[np.zeros(179), 1], "cv: found a fold that validates 1 row, expected 2 at least"),
    ],
)
def test_runs_that_are_none_are_refused(runs, said) -> None:
    with pytest.raises(PhaselabError, match=said):
        score(runs=runs)


def test_runs_without_a_name_are_refused_by_the_folds_themselves() -> None:
    with pytest.raises(PhaselabError, match="runs: found NaN"):
        cv.leave_one_run_out([1.0, np.nan, 2.0])
    with pytest.raises(PhaselabError, match="groups: found NaN"):
        cv.group_folds(np.array(["a", None, "b"], dtype=object), 2)


def test_names_of_runs_may_be_anything_and_need_no_order() -> None:
    expected = score()
    for runs in (list("bca"), [3, 1, 2], pd.array(["x", "y", "z"], dtype="string"), pd.Categorical(list("zyx"))):
        np.testing.assert_array_equal(score(runs=np.repeat(np.asarray(runs), 60)), expected)
    np.testing.assert_array_equal(score(runs=pd.Series(np.repeat(list("bca"), 60), index=range(5, 185))), expected)


ROWS = np.arange(180)
SHUFFLED = {
    "KFold": KFold(4, shuffle=True, random_state=0),
    "ShuffleSplit": ShuffleSplit(3, random_state=0),
    "pairs": cv.shuffled(180, 4),
    "lists": [([*range(0, 180, 2)], [*range(1, 180, 2)])],
    "two stretches": [(ROWS[60:120], np.r_[ROWS[:60], ROWS[120:]])],
    "KFold without its name": list(KFold(4, shuffle=True, random_state=1).split(ROWS)),
}


@pytest.mark.parametrize("kind", SHUFFLED)
@pytest.mark.parametrize("runs", [None, RUNS[TRAIN]])
def test_shuffled_folds_are_refused_however_they_are_given(kind, runs) -> None:
    if kind == "two stretches" and runs is not None:
        assert score(runs=runs, cv=SHUFFLED[kind]).shape == (5,)  # whole runs
        return
    with pytest.raises(PhaselabError, match=r"cv: fold 0: found rows \[.*nothing is held out in time, expected"):
        score(runs=runs, cv=SHUFFLED[kind])
    assert score(runs=runs, cv=SHUFFLED[kind], independent=True).mean() > 0.8


def test_one_row_is_no_fold_and_small_stretches_are() -> None:
    for one in (LeaveOneOut(), KFold(180)):
        for independent in (False, True):
            with pytest.raises(PhaselabError, match="cv: found a fold that validates 1 row"):
                score(runs=None, cv=one, independent=independent)
    for small in (KFold(60), KFold(90), 45, list(KFold(60).split(ROWS))):
        assert score(runs=None, cv=small).mean() > 0.8
    groups = np.repeat(np.arange(20), 9)
    np.testing.assert_array_equal(score(runs=groups, cv=GroupKFold(4)), score(runs=groups, cv=4))


def test_one_row_has_no_score_and_other_types_are_said() -> None:
    model = RidgeCV(device="cpu").fit(X, Y)
    with pytest.raises(PhaselabError, match=r"^Y: found shape \(1, 5\), expected \(1, 5\), 2 rows or more"):
        model.score(X[:1], Y[:1])
    with pytest.raises(PhaselabError, match=r"^dtype: found 'float16', expected 'float32' or 'float64'"):
        RidgeCV(device="cpu", dtype="float16").fit(X, Y)


def test_groups_of_items_may_be_anywhere() -> None:
    groups = np.tile(np.arange(6), 30)
    assert score(runs=groups, cv=3, independent=True).mean() > 0.8
    assert score(runs=groups, independent=True).mean() > 0.8


# ------------------------------------------------------------------------------------- what is no real number

MASKED = np.ma.masked_less(Y, -1)
NOT_REAL = {
    "complex": Y + 1j,
    "text": Y.astype(str),
    "objects": Y.astype(object),
    "bytes": Y.astype("S8"),
    "masked": MASKED,
    "dates": np.zeros(Y.shape, "M8[s]"),
}


@pytest.mark.parametrize("kind", NOT_REAL)
def test_what_is_no_real_number_is_refused_wherever_it_comes_in(kind) -> None:
    bad, splits = NOT_REAL[kind], Splits(N, tuple(cv.contiguous(N, 4)))
    ready, spec = RidgeCV(device="cpu").fit(X, Y), SPEC
    comes_in = {
        "Y": lambda: score(Y=bad),
        "Y, one voxel": lambda: score(Y=bad[:, 0]),
        "score": lambda: ready.score(X, bad),
        "X of Plan": lambda: Plan(bad, splits, [1.0]),
        "Targets": lambda: Targets.survey(bad, splits),
        "encode, responses": lambda: encode({0: by_run(X)}, {"s": by_run(bad)}, spec),
        "encode, features": lambda: encode({0: by_run(bad)}, {"s": by_run(Y)}, spec),
        "similarity": lambda: similarity.summarise({0: by_run(X)}, {"s": by_run(bad)}, {"s": np.arange(5)}, ["rsa"]),
        "autocorrelation": lambda: cv.autocorrelation_only(bad, cv.contiguous(N, 4)),
    }
    for where, call in comes_in.items():
        with pytest.raises(PhaselabError, match="real numbers|masked values, expected none"):
            pytest.fail(f"{where}: {call()}")
    if kind != "objects":  # scikit-learn's own rule: objects that are numbers are taken as them
        with pytest.raises((ValueError, TypeError), match="real numbers|masked values|Complex|DType|dtype"):
            score(X=np.ma.hstack([bad, bad]) if kind == "masked" else np.hstack([bad, bad]))


@pytest.mark.parametrize("kind", ["list", "frame", "series", "tensor", "float16", "int64", "bool", "big endian"])
def test_what_holds_numbers_is_taken(kind) -> None:
    whole = np.round(100 * Y)
    same = {
        "list": lambda v: v.tolist(),
        "frame": pd.DataFrame,
        "series": lambda v: v,
        "tensor": torch.tensor,
        "float16": lambda v: v.astype("f2").astype("f2"),
        "int64": lambda v: v.astype("i8"),
        "bool": lambda v: v > 0,
        "big endian": lambda v: v.astype(">f8"),
    }[kind]
    plain = {"float16": lambda v: v.astype("f2").astype("f8"), "bool": lambda v: (v > 0) * 1.0}.get(kind, lambda v: v)
    model = RidgeCV(device="cpu").fit(X, same(whole))
    np.testing.assert_allclose(model.coef_, RidgeCV(device="cpu").fit(X, plain(whole)).coef_, rtol=1e-6)
    np.testing.assert_allclose(model.score(X, same(whole)), model.score(X, plain(whole)))


def test_integers_beyond_float32_keep_their_differences() -> None:
    """2^30 + 0 ... 9 is one number in float32."""
    small = np.random.default_rng(1).integers(0, 10, (N, 5)) + np.round(3 * Y).astype(int)
    large = small + 2**30
    np.testing.assert_allclose(score(Y=large), score(Y=small), atol=1e-6)
    np.testing.assert_allclose(score(X=X * 10 + 0), score(X=X * 10), atol=1e-6)
    ours, theirs = (encode({0: by_run(X)}, {"s": by_run(v)}, SPEC)["s"].r for v in (large, small))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_nan_in_responses_is_refused_by_every_measure() -> None:
    bad = Y.copy()
    bad[70, 3] = np.nan
    args = {0: by_run(X)}, {"s": by_run(bad)}
    rois = {"s": np.array(["a"] * 5)}
    for call in (
        lambda: encode(*args, SPEC),
        lambda: similarity.summarise(*args, rois, ["rsa", "cka"]),
        lambda: unique_contribution(args[0], by_run(X[:, :1]), args[1], SPEC, rois=rois),
    ):
        with pytest.raises(PhaselabError, match="run r1: subject s: found NaN or infinite values, expected none"):
            call()


# ------------------------------------------------------------------------------------- folds of different length

LENGTHS = (100, 100, 10, 30)


def test_scores_of_folds_count_by_their_length() -> None:
    """Of noise, a plain mean of r over runs of 100, 100, 10 and 30 TRs is as far from 0 as the run of 10 makes it."""
    runs, noise = np.repeat(np.arange(4), LENGTHS), np.random.default_rng(5).standard_normal((N, 200))
    both = np.hstack([Y, noise])
    with pytest.warns(UserWarning, match="a test fold has 10 rows, fewer than 20: a correlation over so few is noisy"):
        scores = encode({0: by_run(X, LENGTHS)}, {"s": by_run(both, LENGTHS)}, SPEC)["s"]
    r = []
    for train, test in cv.outer_folds(runs, SPEC):
        model = RidgeCV(np.logspace(-1, 5, 7)[::-1], cv=cv.inner_folds(train, runs, SPEC), device="cpu")
        r.append(pearson(model.fit(X[train], both[train]).predict(X[test]), both[test]))
    found, plain = scores.r[0], np.mean(r, axis=0)
    np.testing.assert_allclose(found, np.average(r, axis=0, weights=LENGTHS), atol=1e-6)
    assert found[5:].std() < 0.8 * plain[5:].std()
    assert (scores.p[0][:5] < 0.05).all()
    assert (scores.p[0][5:] <= 0.05).mean() < 0.1


def test_folds_of_one_length_have_the_plain_mean_to_the_bit() -> None:
    for lengths in ([60, 60, 60, 60], [7, 7, 7], [91] * 5):
        assert (cv.fold_weights(lengths) == 1).all()
        values = np.random.default_rng(0).standard_normal((len(lengths), 50))
        weighted = np.average(values, axis=0, weights=cv.fold_weights(lengths))
        np.testing.assert_array_equal(weighted, values.mean(axis=0))


def test_a_test_fold_of_one_row_is_refused() -> None:
    lengths = (119, 120, 1)
    with pytest.raises(PhaselabError, match="folds: found a test fold of 1 row, expected 2 at least"):
        encode({0: by_run(X, lengths)}, {"s": by_run(Y, lengths)}, EncodingSpec(permutations=0))


# ------------------------------------------------------------------------------------- ceilings


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (55.0, r"found 55 for voxel 3, and 1 of 5 so, expected a correlation from 0 to 1, or NaN.* \(in percent\?\)$"),
        (
            np.inf,
            "found inf for voxel 3, and 1 of 5 so, expected a correlation from 0 to 1, or NaN .* known$",
        ),
        (-0.2, "found -0.2 for voxel 3, and 1 of 5 so, expected .* is known$"),
    ],
)
def test_a_ceiling_that_is_no_correlation_is_refused_with_its_voxel(here, wrong, said) -> None:
    ceiling = np.array([0.5, np.nan, 1.0000001, wrong, 0])
    with pytest.raises(PhaselabError, match=f"^ceiling: {said}"):
        normalise(np.ones(5), ceiling)
    with pytest.raises(PhaselabError, match=f"^brain b: ceiling of s: {said}"):
        BrainData("b", "", types.SimpleNamespace(runs=()), (), None, {}, {"s": ceiling})
    np.save("c.npy", ceiling)
    assert "ceiling: c.npy: " + said.split(",")[0] in refused(*FILES, "--ceiling", "c.npy")
    np.save("c.npy", np.full(5, np.nan))
    assert "ceiling: c.npy: found NaN for every voxel" in refused(*FILES, "--ceiling", "c.npy")


# ------------------------------------------------------------------------------------- phaselab encode

FILES = ("--features", "X.npy", "--responses", "Y.npy", "--runs", "runs.csv")
QUICK = ("--permutations", "19", "--alphas", "-1", "5", "7", "--out", "s.parquet")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with X.npy, Y.npy and runs.csv, which is the current one."""
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", X)
    np.save("Y.npy", Y)
    Path("runs.csv").write_text("run,n_trs\n" + "".join(f"r{i},60\n" for i in range(4)))
    return tmp_path


def called(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["encode", *map(str, arguments)], env={"COLUMNS": "500"})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def refused(*arguments: object) -> str:
    """What is said, before anything was computed or written."""
    Path("s.parquet").unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "encode", lambda *_: pytest.fail("scores were computed"))
        said = called(*arguments, *(() if "--out" in arguments else QUICK), code=2)
    assert not Path("s.parquet").exists()
    return said


def test_axes_that_are_turned_are_named_with_the_mend(here) -> None:
    stack = np.stack([X, X + 1, X - 1])  # (layers, TRs, features)
    turned = {
        "X.T": (X.T, "numpy.transpose(X)"),
        "TRs first": (stack.transpose(1, 0, 2), "numpy.transpose(X, (LAYERS, 0, FEATURES))"),
        "layers last": (stack.transpose(1, 2, 0), "numpy.transpose(X, (LAYERS, 0, FEATURES))"),
        "TRs last": (stack.transpose(0, 2, 1), "numpy.transpose(X, (LAYERS, 2, FEATURES))"),
    }
    for values, mend in turned.values():
        np.save("turned.npy", values)
        said = refused("--features", "turned.npy", *FILES[2:])
        assert f"features: turned.npy: found shape {values.shape}, expected (TRs, features) or (layers, TRs" in said
        assert mend in said
        assert mend in refused(*FILES, "--features", "b=turned.npy")
    np.save("turned.npy", Y.T)
    said = refused("--features", "X.npy", "--responses", "turned.npy")
    assert "responses: turned.npy: found shape (5, 240), expected (240, n_voxels), with the TRs of" in said
    assert "; is one transposed, or are both?" in said
    np.save("both.npy", X.T)
    assert "are both?" in refused("--features", "both.npy", "--responses", "turned.npy")


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--runs", "Run,n_trs\na,240\n", "found a column ['Run'], expected it to be called 'run'"),
        ("--runs", "run,n_TRs\na,120\nb,120\n", "found a column ['n_TRs'], expected it to be called 'n_trs'"),
        ("--runs", "runs,n_trs\na,240\n", "found a column ['runs'], expected it to be called 'run'"),
        ("--runs", "run,ntrs\na,240\n", "found a column ['ntrs'], expected it to be called 'n_trs'"),
        ("--runs", "title,length\na,240\n", "found columns title, length, expected run"),
        ("--rois", "Voxel,ROI\n0,a\n", "found a column ['ROI'], expected it to be called 'roi'"),
        ("--rois", "voxels,roi\n0,a\n", "found a column ['voxels'], expected it to be called 'voxel'"),
        ("--rois", "voxel,roi,Subject\n0,a,Y\n", "found a column ['Subject'], expected it to be called 'subject'"),
        ("--rois", "voxel,roi,sub\n0,a,Y\n", "found a column ['sub'], expected it to be called 'subject'"),
    ],
)
def test_a_column_that_is_nearly_called_so_is_named(here, option, content, said) -> None:
    Path("t.csv").write_text(content)
    assert f"t.csv: {said}" in refused(*FILES[:4], option, "t.csv")


def test_regions_without_a_subject_are_those_of_all_where_voxels_are_the_same(here) -> None:
    np.save("Z.npy", Y)
    Path("rois.csv").write_text("voxel,roi\n1,STG\n")
    called(*FILES, "--responses", "Z.npy", "--rois", "rois.csv", *QUICK)
    table = pd.read_parquet("s.parquet")
    assert table[table["roi"] == "STG"][["subject", "voxel"]].to_numpy().tolist() == [["Y", 1], ["Z", 1]]
    np.save("Z.npy", Y[:, :3])
    said = refused(*FILES, "--responses", "Z.npy", "--rois", "rois.csv")
    assert "rois.csv: found no column subject, expected one: subjects have other numbers of voxels" in said


@pytest.mark.parametrize("ending", ["hf5", "hdf", "HDF5"])
def test_other_endings_of_hdf5_are_read(here, ending) -> None:
    with h5py.File(f"Y.{ending}", "w") as file:
        file["bold"] = Y
        file["empty"] = h5py.Empty("f4")
    called("--features", "X.npy", "--responses", f"Y.{ending}:bold", *QUICK)
    assert "values: found float32 of shape None, expected real numbers" in refused(
        "--features", "X.npy", "--responses", f"Y.{ending}:empty"
    )


def test_other_columns_are_left_alone(here) -> None:
    rows = "".join(f"r{i // 60},{i},{i * 2.0}\n" for i in range(N))
    Path("trs.csv").write_text(f"run,tr,onset\n{rows}")
    called(*FILES, *QUICK)
    before = pd.read_parquet("s.parquet")
    called(*FILES[:4], "--runs", "trs.csv", *QUICK)
    pd.testing.assert_frame_equal(pd.read_parquet("s.parquet"), before)


def test_a_file_with_a_sign_of_equality_is_that_file(here) -> None:
    np.save("sub=1.npy", Y)
    called("--features", "X.npy", "--responses", "sub=1.npy", *QUICK)
    assert set(pd.read_parquet("s.parquet")["subject"]) == {"sub=1"}
    called("--features", "X.npy", "--responses", "one=sub=1.npy", *QUICK)
    assert set(pd.read_parquet("s.parquet")["subject"]) == {"one"}
    np.save("1.npy", Y)
    said = refused("--features", "X.npy", "--responses", "sub=1.npy")
    assert "responses: sub=1.npy: found both 1.npy and sub=1.npy, expected ./sub=1.npy or sub=./1.npy" in said
    called("--features", "X.npy", "--responses", "sub=./1.npy", *QUICK)
    assert set(pd.read_parquet("s.parquet")["subject"]) == {"sub"}


def test_the_canonical_response_as_an_option_and_in_a_file(here) -> None:
    np.save("moved.npy", np.concatenate([convolve(run, 2.0) for run in np.split(X, 4)]))
    called("--features", "X=moved.npy", *FILES[2:], *QUICK)
    before = pd.read_parquet("s.parquet")
    called(*FILES, "--hemodynamics", "hrf", "--tr", "2", *QUICK)
    pd.testing.assert_frame_equal(pd.read_parquet("s.parquet"), before)
    for tr in ("2000", "1e-6"):  # milliseconds; a typo that would make a response of millions of samples
        assert f"tr: found {float(tr)}" in refused(*FILES, "--hemodynamics", "hrf", "--tr", tr).replace("'", "")


def test_items_are_shuffled_when_it_is_said_that_they_are_items(here) -> None:
    said = refused(*FILES[:4], "--folds", "shuffled")
    assert "independent: found False with folds shuffled, hemodynamics none, trim 0, expected it for items" in said
    for more in (("--folds", "contiguous"), ("--trim", "2"), ("--hemodynamics", "stack", "--delays", "1")):
        assert "independent: found True with folds " in refused(*FILES[:4], "--independent", *more)
    said = called(*FILES[:4], "--folds", "shuffled", "--independent", "--seed", "3", *QUICK)
    assert "TR" not in said
    assert "1 layer of 240 items in 1 run (none); folds: shuffled" in said
    assert "responses in held-out items" in said
    table = pd.read_parquet("s.parquet")
    content = json.loads(Path("s.json").read_text())
    assert (content["options"]["block"], content["options"]["independent"]) == (1, True)
    assert not any("TR" in line for line in content["warnings"])
    # By hand: the folds are those of the seed, inside the training set as well.
    r = []
    for train, test in cv.shuffled(N, 4, 3):
        inner = cv.shuffled(len(train), 3, 3)
        model = RidgeCV(np.logspace(-1, 5, 7)[::-1], cv=inner, device="cpu", independent=True)
        r.append(model.fit(X[train], Y[train]).score(X[test], Y[test]))
    np.testing.assert_allclose(table["r"], np.mean(r, axis=0), atol=1e-6)
    # The job that the provenance keeps is the same job; himalaya scores the same.
    Path("job.yaml").write_text(yaml.safe_dump(content["options"]))
    called("job.yaml", "--out", "s.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet("s.parquet"), table)
    called("job.yaml", "--solver", "himalaya", "--out", "s.parquet")
    np.testing.assert_allclose(pd.read_parquet("s.parquet")["r"], table["r"], atol=1e-3)
    # Groups of items are runs; without permutations of any kind said in TRs.
    said = called(*FILES, "--independent", *QUICK)
    assert "in 4 runs (none); folds: runs" in said
    assert "TR" not in said
    Path("runs.csv").write_text("run,n_trs\na,3\n")
    assert "found 3 items in 1 run," in refused(*FILES, "--independent")
    np.save("Y.npy", Y[:-1])
    said = refused(*FILES[:4], "--independent")
    assert "with the items of features: X.npy" in said
    assert "TR" not in said


def test_too_few_items_are_said_without_time(here) -> None:
    np.save("X.npy", X[:24])
    np.save("Y.npy", Y[:24])
    said = called(*FILES[:4], "--independent", *QUICK)
    assert "note: a test fold has 6 rows, fewer than 20: a correlation over so few is noisy" in said
    assert "TR" not in said
    said = refused_late(*FILES[:4], "--independent", "--block", "10")
    assert "block: found 10 rows, with which a test fold of 6 has 0 whole blocks" in said


def refused_late(*arguments: object) -> str:
    return called(*arguments, *QUICK, code=2)


# ------------------------------------------------------------------------------------- threads and memory


@pytest.mark.parametrize("given", [None, 2])
def test_it_computes_on_one_thread_as_a_sweep_does(here, monkeypatch, given) -> None:
    seen, encoder = [], encoding.encode
    monkeypatch.setattr(encoding, "encode", lambda *a: seen.append(torch.get_num_threads()) or encoder(*a))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        called(*FILES, *QUICK, *(("--threads", given) if given else ()))
        assert seen == [given or 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    for wrong in (0, 100_000):  # so many would end the process with a segmentation fault
        assert f"threads: found {wrong}" in refused(*FILES, "--threads", wrong).replace("'", "")
