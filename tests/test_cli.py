"""The command line, where it does more than pass on: phaselab phases on any table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from phaselab.cli import app
from phaselab.phases.transitions import FittedTable


def phases(*arguments: str | Path) -> Result:
    # Wide, so that messages are not broken into lines.
    return CliRunner().invoke(app, ["phases", *map(str, arguments)], env={"COLUMNS": "500"})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    tokens = np.concatenate([[0], np.round(np.logspace(6, 10, 19))])
    late = np.interp(np.log10(np.maximum(tokens, 1e5)), [8, 9], [0.2, 0.8])
    noise = 0.01 * np.random.default_rng(0).standard_normal((2, 20))
    parts = [
        pd.DataFrame({"model": m, "task": "t", "seen": tokens, "score": curve, "error": 0.01})
        for m, curve in (("late", late + noise[0]), ("never", 0.2 + noise[1]))
    ]
    path = tmp_path / "curves.csv"
    pd.concat(parts).to_csv(path, index=False)
    return path


COLUMNS = ("--x", "seen", "--y", "score")


def test_a_table_gives_a_table_and_figures(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = phases(table, *COLUMNS, "--by", "model,task", "--stderr", "error", "--out", out)
    assert result.exit_code == 0, result.output
    assert "late, t: The curve rises from" in result.output
    assert "seen (" in result.output
    assert "never, t: No transition" in result.output
    assert "Rise beyond chance (p = " in result.output
    moves = pd.read_csv(out / "transitions.csv").set_index("model")
    assert moves["kind"].to_dict() == {"late": "rise", "never": "flat"}
    assert np.log10(moves.loc["late", "liftoff"]) == pytest.approx(8, abs=0.2)
    for name in ("curves.png", "raster.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_without_names_a_table_is_one_curve(table: Path, tmp_path: Path) -> None:
    one = pd.read_csv(table).query("model == 'late'")
    one.to_csv(tmp_path / "one.csv", index=False)
    result = phases(tmp_path / "one.csv", *COLUMNS, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "one.csv: The curve " in result.output
    assert "rise beyond chance (p = " in result.output.lower()
    assert (tmp_path / "out" / "raster.png").is_file()


def test_many_curves_with_replicates_and_a_file_of_what_was_found(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FittedTable.parts.__defaults__ == (60,)
    monkeypatch.setattr(FittedTable.parts, "__defaults__", (3,))  # of which a figure takes seconds to draw
    frame = pd.read_csv(table).query("model == 'late'")
    many = pd.concat([frame.assign(task=f"t{k}", seed=seed) for k in range(4) for seed in (0, 1)])
    many.rename(columns={"seen": "step", "score": "value"}).to_csv(tmp_path / "many.csv", index=False)
    found, out = tmp_path / "found.json", tmp_path / "out"
    options = ("--axis", "step", "--by", "task", "--replicates", "seed", "--min-effect", "0.1")
    result = phases(tmp_path / "many.csv", *options, "--json", found, "--out", out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.glob("*.png")} == {f"{n}-{k}.png" for n in ("curves", "raster") for k in (1, 2)}
    content = json.loads(found.read_text())
    assert [row["kind"] for row in content["moves"]] == ["rise"] * 4
    assert content["moves"][0]["turn"] is None
    assert " steps (" in content["statements"]["t0"]
    assert content["statements"]["t0"].startswith("The curve rises from")


def test_parquet_and_tabs_give_the_same(table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table)
    frame.to_parquet(tmp_path / "same.parquet")
    frame.to_csv(tmp_path / "same.tsv", sep="\t", index=False)
    found = []
    for path in (table, tmp_path / "same.parquet", tmp_path / "same.tsv"):
        out = tmp_path / path.suffix[1:]
        assert phases(path, *COLUMNS, "--by", "model", "--out", out).exit_code == 0
        found.append((out / "transitions.csv").read_bytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--axis: found no column 'tokens', expected one of model, task, seen"),
        (("--x", "seen"), "--y: found no column 'value', expected one of model, task, seen"),
        (("--x", "seen", "--y", "model"), "--y: column 'model': found 'late' in row 1, expected a number"),
        ((*COLUMNS, "--by", "model,size"), "--by: found no column 'size'"),
        ((*COLUMNS, "--stderr", "se"), "--stderr: found no column 'se'"),
        ((*COLUMNS, "--replicates", "seed"), "--replicates: found no column 'seed'"),
        (
            (*COLUMNS, "--by", "model", "--stderr", "error", "--replicates", "task"),
            "--stderr: found 'error', expected none",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_told(table: Path, options: tuple[str, ...], said: str) -> None:
    result = phases(table, *options)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_table_that_is_none_and_options_without_a_table(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not parquet")
    assert "found no table that can be read" in phases(broken, *COLUMNS).output
    assert "No such file" in phases(tmp_path / "none.csv", *COLUMNS).output
    result = phases("demo", "--x", "tokens")
    assert result.exit_code == 2
    assert "demo: found --axis, expected them with a table" in result.output


def test_a_library_of_an_extra_that_is_not_installed_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jupytext", None)
    source = Path(__file__).parents[1] / "notebooks" / "03_brain_alignment.md"
    result = CliRunner().invoke(app, ["notebook", str(source)], env={"COLUMNS": "500"})
    assert result.exit_code == 2
    assert "jupytext" in result.output
    assert "pip install 'phaselab[book,hub,tasks]'" in result.output


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device", "x.parquet"), 2, "phaselab: x.parquet: No space left on device\n"),
        (MemoryError(), 2, "memory ran out (all of it was taken); expected more of it, fewer workers (--jobs 1)"),
        (KeyError("nothing such"), 1, "KeyError: 'nothing such' (run.py, line "),
        (KeyError("nothing such"), 1, "; not foreseen: set PHASELAB_TRACEBACK=1 to see where, and please report it\n"),
        (RuntimeError("x" * 10**6), 1, "RuntimeError: xxxx"),
        (RuntimeError("Symlink loop from '/x/y'"), 2, "phaselab: /x/y: found a link that leads to itself, expected a"),
    ],
)
def test_no_error_ends_in_a_traceback_unless_that_is_asked_for(
    error: Exception, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("phaselab.cli.run.load_study", fail)
    result = CliRunner().invoke(app, ["run", "demo"], env={"COLUMNS": "500"})
    assert (result.exit_code, type(result.exception)) == (code, SystemExit)
    assert said in result.output
    assert len(result.output) < 500
    asked = CliRunner().invoke(app, ["run", "demo"], env={"PHASELAB_TRACEBACK": "1"})
    assert asked.exception is error
