"""phaselab encode: scores of arrays that are not of a study, and what is said when they cannot be had."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
import zarr
from typer.testing import CliRunner, Result

from phaselab import encoding
from phaselab.cli import app
from phaselab.encode_options import EncodeJob
from phaselab.encoding import job as scores
from phaselab.encoding.ridge import Plan
from phaselab.errors import PhaselabError
from phaselab.results import digest_code, digest_file
from phaselab.stages import one_thread
from phaselab.stimuli import convolve
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


def job(**fields: object) -> EncodeJob:
    """Of the files of `here`."""
    return EncodeJob(**{"features": "X.npy", "responses": "Y.npy", "runs": "runs.csv", "out": "s.csv"} | fields)


def handed_over(monkeypatch: pytest.MonkeyPatch, **fields: object) -> tuple[Any, Any]:
    """Features and responses as encode is given them."""
    given: list[tuple[Any, Any]] = []

    def noted(X: Any, Y: Any, *_: object) -> None:
        given.append((X, Y))
        raise PhaselabError("enough")

    with monkeypatch.context() as patch, pytest.raises(PhaselabError, match="enough"):
        patch.setattr(encoding, "encode", noted)
        scores.run(job(**fields), lambda _: None)
    return given[0]


def unbroken(result: Result) -> str:
    """What is on the screen, without the line breaks of titles and captions of tables."""
    return " ".join(result.output.split())


def refused(*arguments: str | Path) -> str:
    """What is said of arguments that cannot be used; nothing has been computed or written then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "__init__", lambda *_: pytest.fail("scores were computed"))
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
    assert list(table) == scores.COLUMNS
    assert table["voxel"].tolist() == list(range(VOXELS))
    assert table["significant"].tolist() == [True] * PLANTED + [False] * (VOXELS - PLANTED)
    assert (table["r"][:PLANTED] > 0.5).all()
    assert (table["r"][PLANTED:].abs() < 0.25).all()
    assert set(table["subject"]) == {"Y"}
    assert set(table["layer"]) == {"X"}
    assert (table["note"] == "").all()
    for said in ("1 layer of 240 TRs in 4 runs", "folds: runs", "significant  share", "5  0.417", "scores.json"):
        assert said in result.output


def test_scores_are_those_of_encode(here: Path) -> None:
    table = scored(*FILES, "--seed", "3")
    X, Y = np.load("X.npy"), np.load("Y.npy")
    cut = {str(run): slice(run * LENGTH, (run + 1) * LENGTH) for run in range(RUNS)}
    with one_thread():  # as the command does: sums in the same order
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
    seen: list[tuple[int, int]] = []
    two = job(features=("a=X.npy", "b=X.npy"), permutations=9)
    scores.run(two, lambda _: None, lambda done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("save", [save_npz, save_zarr, save_h5, save_wide])
def test_every_format_gives_the_same_table(
    here: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[np.ndarray, np.ndarray], tuple[str, str]]
) -> None:
    before = scored(*FILES)
    # A piece is then a few rows.
    monkeypatch.setattr(scores, "PIECE", 200)
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


def test_one_row_a_tr_is_the_same_as_one_row_a_run(here: Path) -> None:
    before = scored(*FILES)
    names = [f"run-{run}" for run in range(RUNS) for _ in range(LENGTH)]
    pd.DataFrame({"run": names, "onset": range(N)}).to_csv("trs.tsv", sep="\t", index=False)
    result = encode(*FILES[:4], "--runs", "trs.tsv", "--out", "again.parquet", *QUICK)
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(pd.read_parquet("again.parquet"), before)


def test_without_runs_folds_are_contiguous_and_it_is_said(here: Path) -> None:
    result = encode(*FILES[:4], "--out", "scores.parquet", *QUICK)
    assert "folds: contiguous" in result.output
    assert "note: no runs: all TRs are taken as one" in result.output
    table = pd.read_parquet("scores.parquet")
    assert table["significant"].sum() == PLANTED
    content = json.loads(Path("scores.json").read_text())
    assert content["options"]["folds"] == "contiguous"
    assert content["runs"] == {"all": N}
    assert content["warnings"][0].startswith("no runs")
    assert "note: gap 0" in encode(*FILES[:4], "--gap", "0", "--out", "s.csv", *QUICK).output


def test_without_permutations_nothing_is_tested(here: Path) -> None:
    result = encode(*FILES, "--permutations", "0", "--out", "scores.parquet")
    table = pd.read_parquet("scores.parquet")
    assert table["p"].isna().all()
    assert not table["significant"].any()
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
    said = [
        "99 permutations: no p is below 0.01, and a layer has no significant voxel unless 20% of its voxels have that p"
    ]
    said += [f"subject Y: left out, with r = NaN and a note: {what}" for what in ("1 constant", "2 NaN or infinite")]
    assert all(f"note: {line}" in result.output for line in said)
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
    assert content["warnings"] == said
    assert content["left_out"] == 3


def test_what_encode_warns_of_is_told_and_kept(here: Path) -> None:
    Y = np.load("Y.npy")
    Y[:LENGTH, 8] = 2
    np.save("Y.npy", Y)
    result = encode(*FILES, "--out", "scores.parquet", *QUICK)
    said = "subject Y: 1 of 12 voxels constant in a test fold"
    assert f"note: {said}" in result.output
    assert any(said in line for line in json.loads(Path("scores.json").read_text())["warnings"])


def test_regions_and_ceiling(here: Path) -> None:
    rows = "".join(f"{voxel},{'STG' if voxel < PLANTED else 'V1'}\n" for voxel in range(VOXELS - 1))
    Path("rois.csv").write_text(f"voxel,roi\n{rows}")
    ceiling = np.linspace(0.05, 0.9, VOXELS)
    ceiling[3] = np.nan
    np.save("ceiling.npy", ceiling)
    result = encode(*FILES, "--rois", "rois.csv", "--ceiling", "ceiling.npy", "--out", "scores.parquet", *QUICK)
    table = pd.read_parquet("scores.parquet")
    assert table["roi"].tolist() == ["STG"] * PLANTED + ["V1"] * (VOXELS - PLANTED - 1) + [""]
    assert "ceiling.npy" in json.loads(Path("scores.json").read_text())["digests"]
    known = ceiling >= 0.1
    np.testing.assert_allclose(table["r_normalised"][known], table["r"][known] / ceiling[known], rtol=1e-5)
    assert table["r_normalised"][~known].isna().all()
    mean = table["r"][:PLANTED].mean()
    lines = result.output.splitlines()
    assert any("STG" in line and f"{mean:.3f}" in line for line in lines)
    assert any(f"{VOXELS} {table['r'].mean():.3f}" in " ".join(line.split()) for line in lines)  # of all voxels
    assert "mean r / ceiling" in result.output


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
    for name in ("X.zarr", "Y.npy", "runs.csv", "scores.parquet"):
        assert content["digests"][name] == digest_file(Path(name))
    assert content["options"]["seed"] == 4
    assert content["options"]["log10_alphas"] == [-3, 5, 9]
    assert content["versions"]["numpy"] == np.__version__
    assert content["code"] == digest_code("encoding", "encode_options", "stimuli", "study")


def test_features_are_read_when_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mapping that encode is given: lazy, each run delayed by itself, and trimmed."""
    X = np.random.default_rng(2).standard_normal((3, N, WIDTH))
    np.save("stack.npy", X)
    Path("runs.csv").write_text("run,n_trs\na,100\nb,140\n")
    found, _ = handed_over(monkeypatch, features="stack.npy", hemodynamics="stack", delays=(0, 2), trim=1)
    assert (list(found), list(found[1])) == ([0, 1, 2], ["a", "b"])
    b = found[1]["b"]
    np.testing.assert_array_equal(b[:, :WIDTH], X[1, 101:])
    np.testing.assert_array_equal(b[1:, WIDTH:], X[1, 100:-2])
    assert not b[0, WIDTH:].any()
    with pytest.raises(KeyError):
        found[3]


@pytest.mark.parametrize("columns", [20_000, 19_000])
def test_a_memory_map_is_not_read_into_memory(here: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Checking 19 MB of responses takes little of it, whether or not voxels are left out."""
    Y = np.random.default_rng(0).standard_normal((N, 20_000)).astype(np.float32)
    Y[:, columns:] = 0
    np.save("Y.npy", Y)
    monkeypatch.setattr(scores, "PIECE", 2**18)
    handed_over(monkeypatch)
    tracemalloc.start()
    _, found = handed_over(monkeypatch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["Y"]["run-0"].shape == (LENGTH, columns)
    np.testing.assert_array_equal(found["Y"]["run-1"][:, 5:900], Y[LENGTH : 2 * LENGTH, 5:900])
    assert peak < Y.nbytes / 4


# ---------------------------------------------------------------------- what is refused


def test_shapes_that_do_not_fit(here: Path) -> None:
    X, Y = np.load("X.npy"), np.load("Y.npy")
    for name, wrong in {"short": Y[:-10], "turned": Y.T, "flat": Y[:, 0]}.items():
        np.save(f"{name}.npy", wrong)
        said = refused("--features", "X.npy", "--responses", f"{name}.npy")
        assert f"responses: {name}.npy: found shape {wrong.shape}, expected (240, n_voxels), with the TRs of" in said
    for name, wrong in {"four": X[None, None], "short": X[:-10]}.items():
        np.save(f"{name}.npy", wrong)
        said = refused("--features", "X.npy", "--features", f"{name}.npy", "--responses", "Y.npy")
        assert f"features: {name}.npy: found shape {wrong.shape}, expected (TRs, features) or" in said
    np.save("empty.npy", X[:, :0])
    said = refused("--features", "empty.npy", "--responses", "Y.npy")
    assert "of shape (240, 0), expected real numbers, at least 1 along each axis" in said


def test_values_that_cannot_be_used(here: Path) -> None:
    X, Y = np.load("X.npy"), np.load("Y.npy")
    stack = np.stack([X, X])
    stack[1, 17, 3] = np.nan
    stack[1, 20, 0] = np.inf
    np.save("stack.npy", stack)
    said = refused("--features", "stack.npy", *FILES[2:])
    assert "features: layer 1: run run-0: found NaN or infinite values, expected none" in said
    Y[:] = 1
    Y[0, 0] = np.nan
    np.save("Y.npy", Y)
    said = refused(*FILES)
    assert "responses: Y.npy: found each voxel constant, NaN or infinite, expected at least one to score" in said


def test_names_that_are_the_same(here: Path) -> None:
    Path("more").mkdir()
    np.save("more/Y.npy", np.load("Y.npy"))
    said = refused(*FILES, "--responses", "more/Y.npy")
    assert "responses: found one of Y twice, expected names: SUBJECT=PATH" in said
    assert "features: found layer 'X' twice" in refused(*FILES, "--features", "X.npy")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("run,n_trs\na,100\nb,100\n", "runs.csv: found 200 TRs in 2 runs, 100 at least, expected 240"),
        ("run\na\nb\n", "runs.csv: found 2 TRs in 2 runs"),
        ("run,n_trs\na,240\nb,0\n", "runs.csv: found 240 TRs in 2 runs, 0 at least"),
        ("run,n_trs\na,240\nb,\n", "runs.csv: n_trs: found ['240', ''], expected whole numbers"),
        ("run,n_trs\na,120\na,120\n", "found run ['a'] in two places, expected a row per run"),
        ("run,n_trs\na,120\n,120\n", "runs.csv: found an empty cell, expected a value in run"),
        ("run\na\nb\na\n", "found run ['a'] in two places"),
        ("title,length\na,240\n", "found columns title, length, expected run"),
        ("", "runs.csv: found no table"),
        ("run,n_trs\na,240\n", "runs: found 1 distinct, expected at least 2"),
        ("run,n_trs\na,237\nb,3\n", "found 240 TRs in 2 runs, 3 at least, expected 240, more than trim (3) in each"),
    ],
)
def test_runs_that_cannot_be(here: Path, content: str, said: str) -> None:
    Path("runs.csv").write_text(content)
    assert said in refused(*FILES, "--trim", "3")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--folds", "runs"), "runs: found 1 distinct, expected at least 2"),
        (("--n-folds", "300"), "n: found 240 samples, expected at least n_folds = 300"),
        (("--gap", "200"), "gap: found 200 TRs, with which a fold of 240 samples has no training sample"),
        (("--block", "40"), "block: found 40 rows, with which a test fold of 60 has 1 whole block"),
        (("--device", "cuda:9"), "device: found 'cuda:9', expected auto, cpu or a CUDA device that is there"),
        (("--delays", "1,2"), "delays: found (1, 2) with hemodynamics none, expected distinct numbers"),
        (("--delays", "1;2"), "delays.0: found '1;2'"),
        (("--hemodynamics", "stack", "--delays", "2,-1"), "delays.1: found '-1'"),
        (("--hemodynamics", "hrf"), "tr: found None with hemodynamics hrf, expected seconds"),
        (("--tr", "2"), "tr: found 2.0 with hemodynamics none, expected seconds, with hrf alone"),
        (("--tr", "0", "--hemodynamics", "hrf"), "tr: found 0.0"),
        (
            ("--n-folds", "1", "--fdr", "1"),
            "n_folds: found 1; Input should be greater than or equal to 2\n  fdr: found 1",
        ),
        (("--n-folds", "four"), "valid integer"),
        (("--folds", "random"), "'random' is not one of 'runs', 'groups', 'contiguous', 'shuffled'"),
        (("--hemodynamics", "stack"), "delays: found () with hemodynamics stack"),
        (("--hemodynamics", "average", "--delays", "3,3"), "delays: found (3, 3) with hemodynamics average"),
        (("--alphas", "5", "-3", "9"), "alphas: found 5 to -3, expected the lowest before the highest"),
        (("--alphas", "0", "4", "1"), "found 0 to 4, expected the lowest before the highest, and more than one"),
        (("--alphas", "nan", "3", "9"), "log10_alphas.0: found nan"),
        (("--alphas", "0", "400", "9"), "log10_alphas.1: found 400"),
        (("--runs", "nix.csv"), "nix.csv: cannot be read: No such file"),
        (("--runs", "X.npy"), "X.npy: found no table that can be read (it ends"),
        (("--out", "scores.xlsx"), "out: found scores.xlsx, expected a .parquet or .csv"),
        (("--out", "X.npy/scores.csv"), "X.npy/scores.csv: cannot be written"),
        (("--out", "folder.csv"), "out: found folder.csv"),
        (("--out", "runs.csv", "--runs", "runs.csv"), "out: found runs.csv, expected"),
        (("--out", "/proc/scores.csv"), "/proc/scores.csv"),
        (("--runs", "runs.csv", "--n-folds", "3"), "n_folds: found 3 with folds: runs, expected no such field"),
        (("--runs", "runs.csv", "--gap", "3"), "gap: found 3 with folds: runs, expected none: it would be ignored"),
        (("--null", "circular", "--block", "3"), "block: found 3 with null: circular, expected no such field"),
        (("--permutations", "0", "--fdr", "0.1"), "fdr: found 0.1 with permutations: 0, expected no such field"),
        (("--permutations", "99999999999"), "permutations: found 99999999999; Input should be less than"),
        (("--hemodynamics", "average", "--delays", "10000"), "delays.0: found '10000'; Input should be less than"),
        (("--out", "sidecar.csv"), "and no sidecar.json of another program there"),
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
        ("voxel,roi\n12,STG\n", "found rows [[12]], expected voxels (from 0) that are there, once"),
        ("voxel,roi\n-1,STG\nx,STG\n", "rois.csv: voxel: found 'x' in row 2, expected a number"),
        ("voxel,roi\n3,STG\n3,V1\n", "found rows [[3]]"),
        ("voxel,roi\n3,\n", "found an empty cell"),
        ("voxel,roi\n", "rois.csv: found no row, expected a value in voxel and roi"),
        ("voxel,roi\n1e30,V1\n", "rois.csv: voxel: found ['1e30'], expected whole numbers"),
        ("voxel,area\n3,STG\n", "found columns voxel, area, expected voxel, roi"),
        ("subject,voxel,roi\nZ,3,STG\n", "found rows [['Z', 3]]"),
    ],
)
def test_regions_that_cannot_be(here: Path, rois: str, said: str) -> None:
    Path("rois.csv").write_text(rois)
    assert said in refused(*FILES, "--rois", "rois.csv")


def test_ceilings_that_cannot_be(here: Path) -> None:
    np.save("c.npy", np.ones(5))
    said = refused(*FILES, "--ceiling", "c.npy")
    assert "ceiling: c.npy: found shape (5,) for 12 voxels of Y, expected one number per voxel" in said
    assert (
        "found shape (5,) for 0 voxels of Z, expected one number per voxel, and SUBJECT=PATH for one of Y"
        in refused(*FILES, "--ceiling", "Z=c.npy")
    )


def test_voxels_without_a_normalised_score_are_counted(here: Path) -> None:
    np.save("c.npy", np.r_[np.nan, 0.05, np.full(10, 0.5)])
    assert (
        "note: 2 voxels without a noise ceiling of 0.1 or more"
        in encode(*FILES, "--ceiling", "c.npy", "--out", "s.csv").output
    )


@pytest.mark.parametrize("scale", [1e160, 1e-200])
def test_responses_that_are_no_float32_numbers_are_refused(here: Path, scale: float) -> None:
    np.save("Y.npy", np.load("Y.npy").astype(float) * [1, 1, scale, *[1] * 9])
    assert "responses: Y.npy: found voxel 2: a range of " in refused(*FILES)


def test_the_example_of_the_readme(here: Path) -> None:
    example = "phaselab encode --features X.npy --responses Y.npy --runs runs.csv --out scores.parquet"
    assert example in (Path(__file__).parents[2] / "README.md").read_text()
    assert encode(*example.split()[2:]).exit_code == 0
    assert len(pd.read_parquet("scores.parquet")) == VOXELS


def test_what_is_missing_is_told(here: Path) -> None:
    said = refused("--features", "X.npy", "--out", "s.csv")
    assert "responses: missing; expected a value" in said


# ---------------------------------------------------------------------- a job file


def test_a_job_file_is_the_same_as_its_options(here: Path) -> None:
    before = scored(*FILES, "--seed", "3", "--hemodynamics", "stack", "--delays", "1,2")
    job = {"features": "X.npy", "responses": ["Y.npy"], "runs": "runs.csv", "out": "other.parquet", "seed": 3}
    job |= {"log10_alphas": [-3, 5, 9], "permutations": 99, "hemodynamics": "stack", "delays": [1, 2]}
    Path("job.yaml").write_text(yaml.safe_dump(job))
    assert encode("job.yaml").exit_code == 0
    pd.testing.assert_frame_equal(pd.read_parquet("other.parquet"), before)
    # What the provenance keeps is a job file again, and options go before it.
    Path("again.yaml").write_text(json.dumps(json.loads(Path("scores.json").read_text())["options"]))
    assert encode("again.yaml", "--out", "again.parquet").exit_code == 0
    pd.testing.assert_frame_equal(pd.read_parquet("again.parquet"), before)
    assert encode("again.yaml", "--out", "other.parquet", "--seed", "4").exit_code == 0
    assert not pd.read_parquet("other.parquet")["p"].equals(before["p"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed: -1", "seed: found -1"),
        ("sede: 1", "sede: unknown field; expected one of block, ceiling"),
        ("shuffles: 3", "shuffles: unknown field; expected one of"),
        ("delays: 3", "delays: found 3; "),
        ("- a", "job.yaml: found list, expected a mapping of fields"),
        ("a: [", "job.yaml:1: cannot be read as YAML"),
        ("features: []", "features: found []"),
    ],
)
def test_job_files_that_cannot_be(here: Path, content: str, said: str) -> None:
    Path("job.yaml").write_text(content)
    given = () if "features" in content else ("--features", "X.npy")
    assert said in refused("job.yaml", *given, "--responses", "Y.npy")
    assert "nix.yaml: cannot be read: No such file" in refused("nix.yaml")


def test_every_field_is_an_option_with_help(here: Path) -> None:
    said = unbroken(encode("--help"))
    for name, field in EncodeJob.model_fields.items():
        assert "--" + name.removeprefix("log10_").replace("_", "-") in said
        assert field.description, name


# ---------------------------------------------------------------------- responses that are slow, and items


def test_the_canonical_response_is_that_of_stimuli_in_each_run(here: Path) -> None:
    X = np.load("X.npy")
    np.save("moved.npy", np.concatenate([convolve(run, 1.5) for run in np.split(X, RUNS)]))
    before = scored("--features", "X=moved.npy", *FILES[2:])
    table = scored(*FILES, "--hemodynamics", "hrf", "--tr", "1.5", out="hrf.parquet")
    pd.testing.assert_frame_equal(table, before)
    assert json.loads(Path("hrf.json").read_text())["options"]["tr"] == 1.5


@pytest.mark.parametrize("null", ["block", "circular", "pooled"])
def test_items_are_left_out_by_whole_groups(here: Path, null: str) -> None:
    """Items without an order in time: a group of 1 to 15 of them is a run, and each is permuted by itself."""
    sizes = [15, 1, 2, 12] * 8
    Path("runs.csv").write_text("run\n" + "".join(f"title-{i}\n" * n for i, n in enumerate(sizes)))
    options = (
        *FILES,
        "--folds",
        "groups",
        "--n-folds",
        "4",
        *(() if null == "circular" else ("--block", "1")),
        "--null",
        null,
        *QUICK,
        "--out",
        "s.parquet",
    )
    if null == "circular":
        assert "found a run of 1 row in a test fold" in refused(*options)
        return
    result = encode(*options)
    assert result.exit_code == 0, result.output
    assert "in 32 runs (none); folds: groups" in result.output
    table = pd.read_parquet("s.parquet")
    assert (table["r"][:PLANTED] > 0.5).all()
    assert table["significant"][:PLANTED].all() == (null == "block")
    said = refused(*FILES, "--folds", "groups", "--n-folds", "33")
    assert "groups: found 32 distinct, expected at least n_folds = 33" in said


def test_other_nulls(here: Path) -> None:
    encode(*FILES, "--null", "circular", "--out", "s.parquet", *QUICK)
    assert pd.read_parquet("s.parquet")["significant"].tolist() == [True] * PLANTED + [False] * (VOXELS - PLANTED)
    assert encode(*FILES, "--null", "pooled", "--out", "s.parquet", *QUICK).exit_code == 0


def test_an_interruption_writes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encoding, "encode", interrupted)
    result = encode(*FILES, "--out", "scores.parquet")
    assert result.exit_code == 130
    assert "interrupted" in result.output
    assert not Path("scores.parquet").exists()
