"""Every notebook is executed on a study of seconds, and its sentences say what the tables say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from filelock import FileLock

from phaselab.book import runner
from phaselab.phases import triple_phase_test
from phaselab.results import Store
from phaselab.study import load_study
from tiny import TINY, sweep

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.md"))
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e-?\d+)?"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Study file and results of the tiny study, made once for all workers of a session."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if base.name.startswith("popen-") else base
    study = base / "tiny.yaml"
    with FileLock(base / "tiny.lock"):
        if not study.is_file():
            content = yaml.safe_dump(TINY)
            (base / "aside.yaml").write_text(content)
            outcome = sweep(load_study(base / "aside.yaml"), Store(base / "results"))
            assert not outcome.failures
            study.write_text(content)
    return base


def curves_of(folder: Path, model: str) -> pd.DataFrame:
    """The curves table, put together from the files of the stages."""
    files = sorted((folder / "results" / "tiny" / model).glob("*/*/curves.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def numbers(text: str, pattern: str) -> list[float]:
    """The numbers in what `pattern` (with # for a number) finds in `text`."""
    found = re.search(pattern.replace("#", f"({NUMBER})"), " ".join(text.split()))
    assert found, f"no sentence {pattern!r} in\n{text}"
    return [float(group) for group in found.groups()]


def brain_alignment(text: str, folder: Path) -> None:
    """Best layer, first, last and highest score; the point by hand; the control of the folds."""
    curves = curves_of(folder, "one")
    brain = curves[(curves["measure"] == "r_normalised") & (curves["roi"] == "all")]
    means = brain.groupby("layer")["value"].mean()
    layer = min(means.index, key=lambda k: abs(k - 2 / 3 * means.index.max()))
    curve = brain[brain["layer"] == layer].groupby("tokens")["value"].mean()
    said = numbers(text, r"Layer # stands for the model .* has a mean of #, and the highest one is #, of layer #\.")
    assert said == [layer, round(means[layer], 4), round(means.max(), 4), means.idxmax()]
    said = numbers(text, r"Its score .* is # at the first .* and # at the last .* the highest is #,")
    assert said == [round(v, 3) for v in (curve.iloc[0], curve.iloc[-1], curve.max())]
    one = curves[(curves["measure"] == "r") & (curves["roi"] == "all") & (curves["layer"] == layer)]
    own = one[(one["tokens"] == one["tokens"].max()) & (one["subject"] == one["subject"].min())]["value"].item()
    for name in ("himalaya", "phaselab", "the curves table"):
        assert numbers(text, rf"<td>{name}</td> <td>#</td>")[0] == pytest.approx(own, abs=1e-3)
    assert numbers(text, r"<td>the folds of this study</td> <td>#</td>")[0] == pytest.approx(0, abs=0.05)
    assert numbers(text, r"<td>shuffled TRs</td> <td>#</td>")[0] > 0.2


def behaviour(text: str, folder: Path) -> None:
    """Following and right answers at the last checkpoint, from the items themselves; steps of accuracy."""
    files = sorted((folder / "results" / "tiny" / "one").glob("*/behaviour/items.parquet"), key=steps_of)
    items = [pd.read_parquet(file) for file in files]
    last = items[-1].groupby("task")[["follows", "correct"]].mean().mean()
    said = numbers(text, r"follows the instruction in #% of the items and is right in #%")
    assert said == [round(100 * last["follows"]), round(100 * last["correct"])]
    steps = pd.Series([table[table["task"] == "reading"]["correct"].mean() for table in items]).diff().iloc[1:]
    said = numbers(text, r"In \*reading\* the largest step of accuracy between two checkpoints is #,")
    assert abs(said[0]) == pytest.approx(steps.abs().max(), abs=0.0051)


def phase_one(text: str, folder: Path) -> None:
    """The verdict, and its p-values where something was tested."""
    row = triple_phase_test(curves_of(folder, "one"), "one").table.set_index("phase").loc[1]
    assert f"is **{row['verdict']}** in one. {row['why']}" in " ".join(text.split())
    if np.isnan(row["p"]):  # no p of a test that was not made
        assert "Test: p" not in text
    else:
        assert numbers(text, r"Test: p = #[,.]") == [float(f"{row['p']:.2g}")]
    assert numbers(text, r"the layer at #% of the depth") == [67]


CHECKS: dict[str, Callable[[str, Path], None]] = {
    "03_brain_alignment": brain_alignment,
    "05_behaviour": behaviour,
    "06_phase_one": phase_one,
}


def steps_of(file: Path) -> int:
    found = re.search(r"step(\d+)", file.parts[-3])
    assert found
    return int(found[1])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_page_is_executed_and_says_what_the_tables_say(
    source: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # from where some pages read published tables and kept results
    given = {"study": str(folder / "tiny.yaml"), "results": str(folder / "results")}
    if source.stem.startswith("13"):
        published = pd.read_csv(ROOT / "book" / "data" / "pythia" / "zero_shot.csv")
        sizes, tasks = published["model"].unique()[:2], ["lambada_openai", "logiqa", "sciq"]
        few = published[published["model"].isin(sizes) & published["task"].isin(tasks)]
        few.to_csv(tmp_path / "few.csv", index=False)
        given["curves"] = str(tmp_path / "few.csv")
    output = tmp_path / f"{source.stem}.ipynb"
    assert runner.execute(source, output, given)
    cells = nbformat.read(output, as_version=4).cells
    outputs = [o for cell in cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    shown = [o.data.get("text/markdown") or o.data.get("text/html", "") for o in outputs if "data" in o]
    CHECKS.get(source.stem, lambda text, folder: None)("\n".join(shown), folder)
