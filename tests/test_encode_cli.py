"""phaselab encode: scores of arrays that are not of a study, and what is said when they cannot be had."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from typer.testing import CliRunner, Result

from phaselab import encoding
from phaselab.cli import app
from phaselab.encoding import arrays
from phaselab.encoding import job as scores
from phaselab.study import EncodingSpec

RUNS, LENGTH, WIDTH, VOXELS = 4, 60, 5, 12
N = RUNS * LENGTH
#: Voxels 0 to 4 follow the features, with the signal's share of the variance falling.
PLANTED = 5
QUICK = ("--permutations", "99", "--alphas", "-3", "5", "9")


def encode(*arguments: object) -> Result:
    # Wide, so that messages are not broken into lines.
    return CliRunner().invoke(app, ["encode", *map(str, arguments)], env={"COLUMNS": "500"})


def planted(seed: int, voxels: int = VOXELS) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, WIDTH) and responses (N, voxels), of which the first PLANTED follow the features."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, WIDTH)).astype(np.float32)
    Y = rng.standard_normal((N, voxels))
    Y[:, :PLANTED] += X @ rng.standard_normal((WIDTH, PLANTED))
    return X, Y.astype(np.float32)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with X.npy, Y.npy and runs.csv, which is the current one."""
    monkeypatch.chdir(tmp_path)
    X, Y = planted(0)
    np.save("X.npy", X)
    np.save("Y.npy", Y)
    lines = "".join(f"run-{run},{LENGTH}\n" for run in range(RUNS))
    Path("runs.csv").write_text(f"run,n_trs\n{lines}")
    return tmp_path


FILES = ("--features", "X.npy", "--responses", "Y.npy", "--runs", "runs.csv")


def scored(*arguments: object, out: str = "scores.parquet") -> pd.DataFrame:
    result = encode(*QUICK, *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    return pd.read_parquet(out) if out.endswith(".parquet") else pd.read_csv(out, keep_default_na=False)


def unbroken(result: Result) -> str:
    """What is on the screen, without the line breaks of titles and captions of tables."""
    return " ".join(result.output.split())


def refused(*arguments: str | Path) -> str:
    """What is said of arguments that cannot be used; nothing has been computed or written then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "score", lambda *_: pytest.fail("scores were computed"))
        result = encode(*arguments, *(() if "--out" in arguments else ("--out", "refused.parquet")))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not Path("refused.parquet").exists()
    return result.output


# ---------------------------------------------------------------------- what is computed


def test_planted_voxels_are_found_and_others_are_not(here: Path) -> None:
    result = encode(*FILES, "--out", "scores.parquet", *QUICK)
    assert result.exit_code == 0, result.output
    table = pd.read_parquet("scores.parquet")
    assert tuple(table) == scores.COLUMNS
    assert table["voxel"].tolist() == list(range(VOXELS))
    assert table["significant"].tolist() == [True] * PLANTED + [False] * (VOXELS - PLANTED)
    assert (table["r"][:PLANTED] > 0.5).all()
    assert (table["r"][PLANTED:].abs() < 0.25).all()
    assert set(table["subject"]) == {"Y"}
    assert set(table["layer"]) == {"X"}
    assert (table["note"] == "").all()
    for said in (
        "runs: runs.csv has one row a run: 4 runs (TRs: 60, 60, 60, 60)",
        "folds: each of 4 runs is left out once; alpha of each voxel chosen inside the training set, 9 from",
        "test: 99 permutations of blocks of 10 TRs; the smallest p is 0.01, so at a false discovery rate of "
        "0.05 a layer has no significant voxel unless 20 % of its voxels have that p",
        "features: 1 layer of 240 TRs x 5 features, as they are",
        "subject Y: 12 voxels",
        "5 (41.7 %)",
        "scores.json",
    ):
        assert said in result.output


def test_scores_are_those_of_encode(here: Path) -> None:
    table = scored(*FILES, "--seed", "3")
    X, Y = np.load("X.npy"), np.load("Y.npy")
    cut = {str(run): slice(run * LENGTH, (run + 1) * LENGTH) for run in range(RUNS)}
    expected = encoding.encode(
        {0: {run: X[rows] for run, rows in cut.items()}},
        {"Y": {run: Y[rows] for run, rows in cut.items()}},
        EncodingSpec(log10_alphas=(-3, 5, 9), permutations=99),
        seed=3,
    )["Y"]
    for name in ("r", "p", "alpha", "significant"):
        np.testing.assert_array_equal(table[name], getattr(expected, name)[0])


def save_npz(X: np.ndarray, Y: np.ndarray) -> tuple[str, str]:
    np.savez("both.npz", words=X, bold=Y)
    return "X=both.npz:words", "Y=both.npz:bold"


def save_zarr(X: np.ndarray, Y: np.ndarray) -> tuple[str, str]:
    zarr.save_array("X.zarr", X)
    group = zarr.open_group("data.zarr", mode="w")
    group.create_array("sub-01/bold", data=Y, chunks=(7, 5))
    group.create_array("sub-02/bold", data=Y[:, :3])
    return "X.zarr/", "Y=data.zarr:/sub-01/bold"


def save_h5(X: np.ndarray, Y: np.ndarray) -> tuple[str, str]:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File("X.h5", "w") as file:
        file["words"] = X
    with h5py.File("data.hdf5", "w") as file:
        file.create_dataset("sub-01/bold", data=Y, chunks=(7, 5), compression="gzip")
        file["sub-02/bold"] = Y[:, :3]
    return "X.h5", "Y=data.hdf5:sub-01/bold"


def save_wide(X: np.ndarray, Y: np.ndarray) -> tuple[str, str]:
    """Other types that hold the same numbers, in another order in memory."""
    np.save("X.npy", np.asfortranarray(X).astype(">f4"))
    np.save("Y.npy", Y.astype(np.float64))
    return "X.npy", "Y.npy"


@pytest.mark.parametrize("log10_alpha", [1, 8])
def test_raw_responses_far_from_zero_score_as_in_closed_form(here: Path, log10_alpha: int) -> None:
    """As a scanner gives them: a mean of 10,000. With a large alpha predictions hardly vary around it."""
    X, Y = np.load("X.npy").astype(float), np.load("Y.npy") + 1e4
    np.save("Y.npy", Y)
    table = scored(*FILES, "--alphas", log10_alpha, log10_alpha, "1")
    r = []
    for test in np.split(np.arange(N), RUNS):
        train = np.setdiff1d(np.arange(N), test)
        x, y = X[train] - X[train].mean(0), Y[train] - Y[train].mean(0)
        weights = np.linalg.solve(x.T @ x + 10.0**log10_alpha * np.eye(WIDTH), x.T @ y)
        predicted = (X[test] - X[train].mean(0)) @ weights
        r.append([np.corrcoef(predicted[:, v], Y[test][:, v])[0, 1] for v in range(VOXELS)])
    np.testing.assert_allclose(table["r"], np.mean(r, axis=0), atol=1e-4)


def test_progress_counts_layers(here: Path) -> None:
    options = scores.Options(("a=X.npy", "b=X.npy"), ("Y.npy",), Path("s.csv"), Path("runs.csv"), permutations=9)
    seen: list[tuple[int, int]] = []
    scores.score(scores.plan(options, lambda _: None), lambda done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("save", [save_npz, save_zarr, save_h5, save_wide])
def test_every_format_gives_the_same_table(
    here: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[np.ndarray, np.ndarray], tuple[str, str]]
) -> None:
    before = scored(*FILES)
    # A piece is then a few rows, or a chunk.
    monkeypatch.setattr(arrays, "PIECE", 200)
    X, Y = save(np.load("X.npy"), np.load("Y.npy"))
    table = scored("--features", X, "--responses", Y, "--runs", "runs.csv", out="other.parquet")
    pd.testing.assert_frame_equal(table, before)


def test_csv_has_the_same_values(here: Path) -> None:
    table = scored(*FILES)
    as_csv = scored(*FILES, out="scores.csv")
    assert as_csv["note"].tolist() == [""] * VOXELS
    np.testing.assert_array_equal(as_csv["r"].astype(np.float32), table["r"])


def test_twice_the_same_bytes_and_nothing_left_beside(here: Path) -> None:
    found = []
    for _ in range(2):
        scored(*FILES)
        found.append((Path("scores.parquet").read_bytes(), Path("scores.json").read_bytes()))
    assert found[0] == found[1]
    assert {path.name for path in here.iterdir()} == {
        "X.npy",
        "Y.npy",
        "runs.csv",
        "scores.parquet",
        "scores.json",
    }


def test_layers_and_subjects_are_named_and_in_order(here: Path) -> None:
    X = np.load("X.npy")
    stack = np.stack([np.random.default_rng(50 + layer).standard_normal(X.shape) for layer in range(11)] + [X])
    np.save("stack.npy", stack)
    other = planted(0, voxels=7)[1]
    np.save("sub-02.npy", other)
    arguments = ("--features", "stack.npy", "--responses", "sub-01=Y.npy", "--responses", "sub-02.npy")
    table = scored(*arguments, "--runs", "runs.csv")
    assert list(table["layer"].cat.categories) == [str(layer) for layer in range(12)]
    assert list(table["subject"].cat.categories) == ["sub-01", "sub-02"]
    sizes = table.groupby(["subject", "layer"], observed=True).size()
    assert sizes["sub-01"].tolist() == [VOXELS] * 12
    assert sizes["sub-02"].tolist() == [7] * 12
    best = table[table["voxel"] < PLANTED].groupby(["subject", "layer"], observed=True)["r"].mean()
    assert best["sub-01"].idxmax() == best["sub-02"].idxmax() == "11"
    alone = scored(*FILES, out="alone.parquet")
    np.testing.assert_allclose(table[(table.subject == "sub-01") & (table.layer == "11")]["r"], alone["r"])

    two = scored("--features", "X.npy", "--features", "deep=stack.npy", *FILES[2:])
    assert list(two["layer"].cat.categories) == ["X", *(f"deep:{layer}" for layer in range(12))]


def test_a_long_summary_shows_the_best_layer_of_each_subject(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "LONG_SUMMARY", 1)
    np.save("noise.npy", np.random.default_rng(9).standard_normal((N, WIDTH)))
    result = encode("--features", "noise.npy", *FILES, "--out", "s.csv", *QUICK)
    assert "each subject's best of 2 layers" in unbroken(result)
    assert "│ X " in result.output
    assert "│ noise " not in result.output


def test_one_row_a_tr_is_the_same_as_one_row_a_run(here: Path) -> None:
    before = scored(*FILES)
    names = [f"run-{run}" for run in range(RUNS) for _ in range(LENGTH)]
    pd.DataFrame({"run": names, "onset": range(N)}).to_csv("trs.tsv", sep="\t", index=False)
    result = encode(*FILES[:4], "--runs", "trs.tsv", "--out", "again.parquet", *QUICK)
    assert "runs: trs.tsv has one row a TR: 4 runs" in result.output
    pd.testing.assert_frame_equal(pd.read_parquet("again.parquet"), before)


def test_without_runs_folds_are_contiguous_and_it_is_said(here: Path) -> None:
    result = encode(*FILES[:4], "--out", "scores.parquet", *QUICK)
    assert "folds: 4 contiguous stretches, 10 TRs left out beside each" in result.output
    assert "note: no --runs: all TRs are taken as one run" in result.output
    table = pd.read_parquet("scores.parquet")
    assert table["significant"].sum() == PLANTED
    content = json.loads(Path("scores.json").read_text())
    assert content["folds"] == "contiguous"
    assert content["runs"] == {"all": N}
    assert content["warnings"][0].startswith("no --runs")
    assert "note: --gap 0" in encode(*FILES[:4], "--gap", "0", "--out", "s.csv", *QUICK).output


def test_without_permutations_nothing_is_tested(here: Path) -> None:
    result = encode(*FILES, "--permutations", "0", "--out", "scores.parquet")
    table = pd.read_parquet("scores.parquet")
    assert table["p"].isna().all()
    assert not table["significant"].any()
    assert "test: none" in result.output
    assert "significant" not in result.output


def test_delays_do_not_cross_runs(here: Path) -> None:
    """Responses that follow the features 2 TRs later in each run; rows that a shift leaves empty are 0."""
    X = np.load("X.npy")
    rng = np.random.default_rng(5)
    W = rng.standard_normal((WIDTH, 3))
    Y = np.concatenate(
        [
            np.concatenate([np.zeros((2, 3)), (run @ W)[:-2]]) + 1e-3 * rng.standard_normal((LENGTH, 3))
            for run in np.split(X, RUNS)
        ]
    )
    np.save("Y.npy", Y)
    exact = scored(*FILES, "--hemodynamics", "stack", "--delays", "2")
    assert (exact["r"] > 0.99999).all()
    average = scored(*FILES, "--hemodynamics", "average", "--delays", "2", out="average.parquet")
    np.testing.assert_array_equal(average["r"], exact["r"])
    assert (scored(*FILES, out="none.parquet")["r"] < 0.5).all()
    # Taken for one run, the first TRs of three of the four get features of the run before.
    across = scored(*FILES[:4], "--hemodynamics", "stack", "--delays", "2", out="across.parquet")
    assert (across["r"] < 0.999).all()


def test_trim_drops_the_start_of_each_run_after_the_delays(here: Path) -> None:
    X, Y = np.load("X.npy"), np.load("Y.npy")
    # What is dropped may be anything.
    wild = Y.copy()
    for run in range(RUNS):
        wild[run * LENGTH : run * LENGTH + 4] = np.nan
    np.save("wild.npy", wild)
    table = scored("--features", "X.npy", "--responses", "Y=wild.npy", *FILES[4:], "--trim", "4")
    kept = np.arange(N) % LENGTH >= 4
    np.save("X.npy", X[kept])
    np.save("Y.npy", Y[kept])
    Path("runs.csv").write_text("run,n_trs\n" + "".join(f"{run},{LENGTH - 4}\n" for run in range(RUNS)))
    pd.testing.assert_frame_equal(scored(*FILES, out="cut.parquet"), table)


def test_voxels_that_cannot_be_scored_are_told_and_have_a_note(here: Path) -> None:
    before = scored(*FILES)
    Y = np.load("Y.npy")
    Y[:, 1] = 7
    Y[17, 6] = np.nan
    Y[30, 9] = -np.inf
    np.save("Y.npy", Y)
    result = encode(*FILES, "--out", "scores.parquet", *QUICK)
    said = "subject Y: left out, with r = NaN and a note: 1 constant (voxel 1), 2 NaN or infinite (voxels 6, 9), of 12"
    assert said in result.output
    table = pd.read_parquet("scores.parquet")
    assert {i: note for i, note in enumerate(table["note"]) if note} == {
        1: "constant",
        6: "NaN or infinite",
        9: "NaN or infinite",
    }
    out = table["note"] != ""
    assert table.loc[out, ["r", "p", "alpha"]].isna().all(axis=None)
    assert not table.loc[out, "significant"].any()
    np.testing.assert_allclose(table.loc[~out, "r"], before.loc[~out, "r"], atol=1e-6)
    content = json.loads(Path("scores.json").read_text())
    assert content["left_out"] == {"Y": {"voxels": 12, "constant": 1, "NaN or infinite": 2}}
    assert content["warnings"] == [said]


def test_what_encode_warns_of_is_told_and_kept(here: Path) -> None:
    Y = np.load("Y.npy")
    Y[:LENGTH, 8] = 2
    np.save("Y.npy", Y)
    result = encode(*FILES, "--out", "scores.parquet", *QUICK)
    said = "subject Y: 1 of 12 voxels are constant in a test fold"
    assert f"note: {said}" in result.output
    assert any(said in line for line in json.loads(Path("scores.json").read_text())["warnings"])


def test_constant_features_are_told(here: Path) -> None:
    np.save("flat.npy", np.full((N, 2), 3))
    result = encode("--features", "flat.npy", *FILES, "--out", "scores.csv", *QUICK)
    assert "note: layer flat: all features are constant and can predict nothing" in result.output


def test_regions_and_ceiling(here: Path) -> None:
    rows = "".join(f"{voxel},{'STG' if voxel < PLANTED else 'V1'}\n" for voxel in range(VOXELS - 1))
    Path("rois.csv").write_text(f"voxel,roi\n{rows}")
    ceiling = np.linspace(0.05, 0.9, VOXELS)
    ceiling[3] = np.nan
    np.save("ceiling.npy", ceiling)
    result = encode(*FILES, "--rois", "rois.csv", "--ceiling", "ceiling.npy", "--out", "scores.parquet", *QUICK)
    table = pd.read_parquet("scores.parquet")
    assert table["roi"].tolist() == ["STG"] * PLANTED + ["V1"] * (VOXELS - PLANTED - 1) + [""]
    known = ceiling >= 0.1
    np.testing.assert_allclose(table["r_normalised"][known], table["r"][known] / ceiling[known], rtol=1e-5)
    assert table["r_normalised"][~known].isna().all()
    mean = table["r"][:PLANTED].mean()
    assert any("STG" in line and f"{mean:.3f}" in line for line in result.output.splitlines())
    assert "r / ceiling: where the ceiling is at least 0.1" in unbroken(result)


def test_regions_and_ceiling_of_several_subjects(here: Path) -> None:
    np.save("sub-02.npy", np.load("Y.npy")[:, :3])
    Path("rois.tsv").write_text("subject\tvoxel\troi\nY\t11\tA1\nsub-02\t2\tSTG\n")
    np.save("c.npy", np.full(3, 0.5))
    table = scored(*FILES, "--responses", "sub-02.npy", "--rois", "rois.tsv", "--ceiling", "sub-02=c.npy").set_index(
        ["subject", "voxel"]
    )
    assert table[table["roi"] != ""]["roi"].to_dict() == {("Y", 11): "A1", ("sub-02", 2): "STG"}
    assert table.loc["Y", "r_normalised"].isna().all()
    np.testing.assert_allclose(table.loc["sub-02", "r_normalised"], table.loc["sub-02", "r"] * 2)


def test_provenance_names_options_versions_and_digests(here: Path) -> None:
    zarr.save_array("X.zarr", np.load("X.npy"))
    scored("--features", "X.zarr", *FILES[2:], "--seed", "4")
    content = json.loads(Path("scores.json").read_text())
    entries = {entry["option"]: entry for entry in content["inputs"]}
    for option, name in (("--responses", "Y.npy"), ("--runs", "runs.csv")):
        assert entries[option]["path"] == name
        assert entries[option]["sha256"] == hashlib.sha256(Path(name).read_bytes()).hexdigest()
    assert content["output"]["sha256"] == hashlib.sha256(Path("scores.parquet").read_bytes()).hexdigest()
    assert content["output"]["rows"] == VOXELS
    assert (entries["--responses"]["shape"], entries["--responses"]["dtype"]) == ([N, VOXELS], "float32")
    assert content["options"]["seed"] == 4
    assert content["options"]["log10_alphas"] == [-3, 5, 9]
    assert content["versions"]["numpy"] == np.__version__
    before = entries["--features"]["sha256"]
    zarr.open(Path("X.zarr"), mode="r+")[0, 0] = 5
    assert scores.sha256(Path("X.zarr")) != before


def test_features_are_read_one_layer_at_a_time(here: Path) -> None:
    """The mapping that encode is given: lazy, and the same as what is read at once."""
    X = np.random.default_rng(2).standard_normal((3, N, WIDTH))
    np.save("stack.npy", X)
    array = arrays.open_array(arrays.parse("stack.npy", "--features"))
    runs = {"a": slice(0, 100), "b": slice(100, N)}
    layers = scores.Layers([(array, layer) for layer in range(3)], runs, "stack", (0, 2), 1)
    assert (list(layers), list(layers[1])) == ([0, 1, 2], ["a", "b"])
    b = layers[1]["b"]
    np.testing.assert_array_equal(b[:, :WIDTH], X[1, 101:])
    np.testing.assert_array_equal(b[1:, WIDTH:], X[1, 100:-2])
    assert not b[0, WIDTH:].any()
    with pytest.raises(KeyError):
        layers[3]
    assert np.shares_memory(layers.as_given(2), layers.as_given(2))
    assert not np.shares_memory(scores.Layers([(array, 0)], runs, "none", (), 0)[0]["a"], X)


@pytest.mark.parametrize("columns", [20_000, 19_000])
def test_a_memory_map_is_not_read_into_memory(here: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Checking 19 MB of responses takes little of it; voxels that are left out cost a copy of the others."""
    Y = np.random.default_rng(0).standard_normal((N, 20_000)).astype(np.float32)
    Y[:, columns:] = 0
    np.save("Y.npy", Y)
    monkeypatch.setattr(arrays, "PIECE", 2**18)
    options = scores.Options(("X.npy",), ("Y.npy",), Path("s.csv"), Path("runs.csv"))
    scores.plan(options, lambda _: None)
    tracemalloc.start()
    job = scores.plan(options, lambda _: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert job.Y["Y"]["run-0"].shape == (LENGTH, columns)
    assert peak < Y.nbytes / 2 + (0 if columns == 20_000 else Y.nbytes)


# ---------------------------------------------------------------------- what is refused


def test_shapes_that_do_not_fit(here: Path) -> None:
    X, Y = np.load("X.npy"), np.load("Y.npy")
    np.save("short.npy", Y[:-10])
    said = refused("--features", "X.npy", "--responses", "short.npy")
    assert "--responses short.npy: found 230 TRs (shape (230, 12)), expected 240 as in --features X.npy" in said
    np.save("turned.npy", Y.T)
    assert "is it transposed?" in refused("--features", "X.npy", "--responses", "turned.npy")
    np.save("flat.npy", Y[:, 0])
    said = refused("--features", "X.npy", "--responses", "flat.npy")
    assert "found shape (240,), expected (n_trs, n_voxels); for a single voxel, (n_trs, 1)" in said
    np.save("four.npy", X[None, None])
    said = refused("--features", "four.npy", "--responses", "Y.npy")
    assert "found shape (1, 1, 240, 5), expected (n_trs, n_features) for a layer or" in said
    np.save("empty.npy", X[:, :0])
    said = refused("--features", "empty.npy", "--responses", "Y.npy")
    assert "found shape (240, 0), expected at least 1 along each axis" in said


def test_values_that_cannot_be_used(here: Path) -> None:
    X, Y = np.load("X.npy"), np.load("Y.npy")
    stack = np.stack([X, X])
    stack[1, 17, 3] = np.nan
    stack[1, 20, 0] = np.inf
    np.save("stack.npy", stack)
    said = refused("--features", "stack.npy", *FILES[2:])
    assert "--features stack.npy: layer 1: found nan at TR 17, feature 3 (2 NaN or infinite values in all)" in said
    Y[:] = 1
    Y[0, 0] = np.nan
    np.save("Y.npy", Y)
    said = refused(*FILES)
    assert "--responses Y.npy: found 11 constant (voxels 1, 2, 3, 4, 5 and 6 more), 1 NaN or infinite" in said
    assert "expected at least one voxel to score" in said


class Planted:
    """Were it unpickled, a file would appear."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path("unpickled").touch, ()


def test_pickled_objects_are_refused_and_never_run(here: Path) -> None:
    np.save("objects.npy", np.array([[Planted()]], dtype=object), allow_pickle=True)
    np.savez("objects.npz", X=np.array([[Planted()]], dtype=object))
    Path("pickle.npy").write_bytes(pickle.dumps(Planted()))
    Path("pickle.npz").write_bytes(pickle.dumps(Planted()))
    store = Path("objects.zarr")
    store.mkdir()
    content = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "<f4", "fill_value": 0, "order": "C"}
    (store / ".zarray").write_text(json.dumps({**content, "compressor": {"id": "pickle"}, "filters": None}))
    (store / "0").write_bytes(pickle.dumps(Planted()))
    for name in ("objects.npy", "objects.npz", "pickle.npz"):
        said = refused("--features", name, *FILES[2:])
        assert f"--features {name}: found data type object (pickled Python objects, which are not read)" in said
    for name in ("pickle.npy", "objects.zarr"):
        assert f"--features {name}: found no array that can be read" in refused("--features", name, *FILES[2:])
    assert not Path("unpickled").exists()


def test_text_and_complex_numbers_are_refused(here: Path) -> None:
    np.save("text.npy", np.array([["a", "b"]] * N))
    np.save("complex.npy", np.load("X.npy") + 1j)
    for name, kind in (("text.npy", "<U1"), ("complex.npy", "complex64")):
        said = refused("--features", name, *FILES[2:])
        assert f"--features {name}: found data type {kind}, expected real numbers" in said


def test_files_that_are_none(here: Path) -> None:
    assert "--features nix.npy: not there, expected a file" in refused("--features", "nix.npy", *FILES[2:])
    said = refused("--features", "X.mat", *FILES[2:])
    assert "--features: found 'X.mat', expected a file that ends in .npy, .npz, .zarr, .h5 or .hdf5" in said
    Path("cut.npy").write_bytes(Path("X.npy").read_bytes()[:200])
    assert "cut.npy: found no array that can be read" in refused("--features", "cut.npy", *FILES[2:])
    Path("cut.npz").write_bytes(b"PK\x03\x04")
    assert "cut.npz: found no array that can be read" in refused("--features", "cut.npz", *FILES[2:])
    Path("X.npz").write_bytes(Path("X.npy").read_bytes())
    assert "X.npz: found an .npy file, expected an .npz file" in refused("--features", "X.npz", *FILES[2:])
    Path("empty.zarr").mkdir()
    assert "empty.zarr: found no array that can be read" in refused("--features", "empty.zarr", *FILES[2:])
    zarr.open_group("group.zarr", mode="w")
    assert "group.zarr: found no array in it" in refused("--features", "group.zarr", *FILES[2:])


def test_a_chunk_that_is_damaged_is_told(here: Path) -> None:
    zarr.save_array("Y.zarr", np.load("Y.npy"))
    chunk = next(path for path in Path("Y.zarr").rglob("c/*/*"))
    chunk.write_bytes(b"damaged")
    said = refused("--features", "X.npy", "--responses", "Y.zarr", *FILES[4:])
    assert "--responses Y.zarr: found a part that cannot be read" in said


def test_several_arrays_are_listed(here: Path) -> None:
    X, Y = np.load("X.npy"), np.load("Y.npy")
    save_npz(X, Y)
    said = refused("--features", "both.npz", *FILES[2:])
    assert "--features both.npz: found 2 arrays, expected the name of one, as in both.npz:bold" in said
    assert "\n  bold\n  words" in said
    save_zarr(X, Y)
    said = refused("--features", "data.zarr:bold", *FILES[2:])
    assert "--features data.zarr:bold: found no array 'bold', expected the name of one" in said
    assert "\n  sub-01/bold (240, 12) float32\n  sub-02/bold (240, 3) float32" in said
    assert "X.zarr:a: found a single array, expected no name" in refused("--features", "X.zarr:a", *FILES[2:])
    assert "an .npy file holds one array" in refused("--features", "X.npy:a", *FILES[2:])


def test_h5_arrays_are_listed(here: Path) -> None:
    save_h5(np.load("X.npy"), np.load("Y.npy"))
    said = refused("--features", "data.hdf5", *FILES[2:])
    assert "--features data.hdf5: found 2 arrays" in said
    assert "\n  sub-01/bold (240, 12) float32\n  sub-02/bold (240, 3) float32" in said
    Path("cut.h5").write_bytes(b"\x89HDF")
    assert "cut.h5: found no array that can be read" in refused("--features", "cut.h5", *FILES[2:])


def test_without_h5py_it_is_said_what_to_install(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    Path("X.h5").write_bytes(b"")
    assert "--features X.h5: needs the package h5py, which is not here: pip install h5py" in refused(
        "--features", "X.h5", *FILES[2:]
    )


def test_names_that_are_the_same(here: Path) -> None:
    Path("more").mkdir()
    np.save("more/Y.npy", np.load("Y.npy"))
    said = refused(*FILES, "--responses", "more/Y.npy")
    assert "--responses: found subject 'Y' more than once, expected distinct names: --responses NAME=PATH" in said
    said = refused(*FILES, "--features", "X.npy")
    assert "--features: found layer 'X' more than once" in said


def test_a_sign_of_equality_in_a_path_is_no_label(here: Path) -> None:
    Path("X.npy").rename("lr=1.npy")
    assert arrays.parse("lr=1.npy", "--features").label == ""
    assert arrays.parse("deep=lr=1.npy", "--features").label == "deep"
    source = arrays.parse("a=b/store.zarr/sub.h5:x/y", "--features")
    assert (source.label, source.path, source.array) == ("a", Path("b/store.zarr/sub.h5"), "x/y")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "run,n_trs\na,100\nb,100\n",
            "found 200 TRs in 2 runs (one row a run), expected 240 as in --features X.npy",
        ),
        ("run\na\nb\n", "found 2 TRs in 2 runs (one row a TR), expected 240"),
        ("run,n_trs\na,240\nb,0\n", "run 'b': n_trs: found '0', expected a whole number above 0"),
        ("run,n_trs\na,240\nb,\n", "run 'b': n_trs: found '', expected a whole number above 0"),
        ("run,n_trs\na,120\na,120\n", "found run 'a' twice, expected one row a run"),
        ("run,n_trs\na,120\n,120\n", "found no name of the run in row 2"),
        ("run\na\nb\na\n", "row 3: found run 'a' again after 'b', expected the TRs of a run together"),
        ("title,length\na,240\n", "found columns title, length; expected run"),
        ("", "found no table that can be read"),
        ("run,n_trs\na,240\n", "--folds runs: found runs.csv with 1 run, expected at least 2 runs"),
        ("run,n_trs\na,237\nb,3\n", "run b: found 3 TRs, expected more than --trim 3"),
    ],
)
def test_runs_that_cannot_be(here: Path, content: str, said: str) -> None:
    Path("runs.csv").write_text(content)
    assert said in refused(*FILES, "--trim", "3")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--folds", "runs"), "--folds runs: found no --runs, expected at least 2 runs"),
        (("--n-folds", "300"), "--n-folds: found 240 samples, expected at least n_folds = 300"),
        (("--gap", "200"), "--gap: found 200 TRs, with which a fold of 240 samples has no training sample"),
        (("--block", "40"), "--block: found 40 TRs, with which a test fold of 60 TRs has 1 whole blocks"),
        (
            ("--device", "cuda:9"),
            "--device: found 'cuda:9', expected auto, cpu or a CUDA device that is there",
        ),
        (("--delays", "1,2"), "--delays: found it with --hemodynamics none"),
        (("--delays", "1;2"), "--delays: found '1;2', expected numbers of TRs with commas"),
        (("--hemodynamics", "stack"), "--delays: found none with --hemodynamics stack, expected distinct"),
        (("--hemodynamics", "average", "--delays", "3,3"), "--delays: found 3,3 with --hemodynamics average"),
        (
            ("--hemodynamics", "stack", "--delays", "240"),
            "run all: found 240 TRs, expected more than --trim 0",
        ),
        (("--alphas", "5", "-3", "9"), "--alphas: found 5 -3 9, expected the log10 of the lowest"),
        (("--alphas", "nan", "3", "9"), "--alphas: found nan 3 9"),
        (("--alphas", "0", "400", "9"), "--alphas: found 0 400 9"),
        (("--runs", "nix.csv"), "--runs nix.csv: not there, expected a table"),
        (("--runs", "X.npy"), "--runs X.npy: found ending '.npy', expected .csv or .tsv"),
        (("--out", "scores.xlsx"), "--out scores.xlsx: found ending '.xlsx', expected .parquet or .csv"),
        (("--out", "X.npy/scores.csv"), "--out X.npy/scores.csv: cannot be written there"),
        (("--out", "folder.csv"), "--out folder.csv: found a folder, expected the name of a file"),
        (("--out", "runs.csv", "--runs", "runs.csv"), "--out runs.csv: found a file that is read as well"),
        (("--out", "sidecar.csv"), "found sidecar.json beside it, which would be written over"),
    ],
)
def test_options_that_cannot_be(here: Path, options: tuple[str, ...], said: str) -> None:
    Path("folder.csv").mkdir()
    Path("sidecar.json").write_text("{}")
    assert said in refused(*FILES[:4], *options)
    assert Path("sidecar.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("rois", "said"),
    [
        ("voxel,roi\n12,STG\n", "row 1: voxel: found '12', expected a column of the responses of Y, 0 to 11"),
        ("voxel,roi\n-1,STG\n", "row 1: voxel: found '-1'"),
        ("voxel,roi\n3,STG\n3,V1\n", "row 2: roi: found voxel 3 a second time, expected one region a voxel"),
        ("voxel,roi\n3,\n", "row 1: roi: found no name"),
        ("voxel,area\n3,STG\n", "found columns voxel, area; expected voxel and roi"),
        ("subject,voxel,roi\nZ,3,STG\n", "found subject 'Z', expected one of Y"),
    ],
)
def test_regions_that_cannot_be(here: Path, rois: str, said: str) -> None:
    Path("rois.csv").write_text(rois)
    assert said in refused(*FILES, "--rois", "rois.csv")


def test_ceilings_that_cannot_be(here: Path) -> None:
    np.save("c.npy", np.ones(5))
    said = refused(*FILES, "--ceiling", "c.npy")
    assert "--ceiling c.npy: found shape (5,), expected (12,), one a voxel of Y" in said
    assert "found subject 'Z', expected SUBJECT=PATH" in refused(*FILES, "--ceiling", "Z=c.npy")
    np.save("Y2.npy", np.load("Y.npy"))
    said = refused(*FILES, "--responses", "Y2.npy", "--ceiling", "c.npy")
    assert "--ceiling c.npy: found subject 'c', expected SUBJECT=PATH, a subject once, of Y, Y2" in said


def test_an_interruption_writes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scores, "score", interrupted)
    result = encode(*FILES, "--out", "scores.parquet")
    assert result.exit_code == 130
    assert "interrupted; nothing was written" in result.output
    assert not Path("scores.parquet").exists()
