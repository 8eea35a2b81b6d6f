"""Page 13: its tables are what their READMEs say, and its alternative texts say what the tables show."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import jupytext
import numpy as np
import pandas as pd
import pytest

from phaselab.phases import fit_table
from sentences import numbers

ROOT = Path(__file__).parents[2]
DATA = ROOT / "book" / "data"
FOLDERS = sorted(path for path in DATA.iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_table_lies_with_its_licence_source_commit_and_digest(folder: Path) -> None:
    (table,) = folder.glob("*.csv")
    readme = (folder / "README.md").read_text()
    assert f"`{table.name}`: `{hashlib.sha256(table.read_bytes()).hexdigest()}`" in readme
    commit, repository = re.search(r"commit ([0-9a-f]{7,8})", readme), re.search(r"<https://github.com/(.*?)>", readme)
    assert commit
    assert repository
    page = (ROOT / "notebooks" / "13_real_models.md").read_text()
    licence = "Apache-2.0" if "Apache License" in (folder / "LICENSE").read_text() else "MIT"
    assert f"{repository[1]} {commit[1]} ({licence})" in page
    assert {"MIT": "MIT licence", "Apache-2.0": "Apache License"}[licence] in readme


def alt(name: str) -> str:
    """The alternative text of a figure of the page."""
    cells = jupytext.read(ROOT / "notebooks" / "13_real_models.md").cells
    images = [cell.metadata.get("mystnb", {}) for cell in cells]
    (found,) = (image["image"]["alt"] for image in images if image.get("figure", {}).get("name") == name)
    return str(found)


def read(path: str) -> pd.DataFrame:
    return pd.read_csv(DATA / path)


def test_alternative_texts_of_bert_say_what_the_table_shows() -> None:
    table = read("bert_fmri/decoding.csv")
    mean = table.groupby(["model", "step"])["value"].mean()
    start, low, end = numbers(
        alt("fig-bert-runs"), r"starting near #\. .* falls to about # by step 70 and .* to about #;"
    )
    assert [start, low, end] == pytest.approx(
        [mean["SST", 0], mean["SST", 70], mean["SST"].iloc[-10:].mean()], abs=0.06
    )
    (level,) = numbers(alt("fig-bert-runs"), r"in SQuAD it drops to # between steps 15 and 25 and stays")
    assert level == pytest.approx(mean["SQuAD"].loc[25:].mean(), abs=0.01)
    assert mean["SQuAD"].loc[:15].mean() - level > 0.09
    half = table.groupby(["model", "run", "step"])["value"].mean().groupby(["model", "step"]).sem()
    people = table.groupby(["model", "subject", "step"])["value"].mean().groupby(["model", "step"]).sem()
    four = ["MNLI", "QQP", "SQuAD", "SST"]
    assert 3.18 * half[four].median() > 0.1
    assert 2.36 * people[four].median() == pytest.approx(0.03, abs=0.01)


def test_the_raster_of_bert_is_filled_where_its_alternative_text_says() -> None:
    table = read("bert_fmri/decoding.csv")
    whole = table[table.groupby(["model", "step"])["value"].transform("size") == 32]
    filled = {}
    for unit in ("run", "subject"):
        means = whole.groupby(["model", unit, "step"], as_index=False)["value"].mean()
        moves = fit_table(means, "step", by=["model"], replicates=unit).moves
        filled[unit] = moves[moves["q"] <= 0.05]
    assert filled["run"].empty
    assert (filled["subject"]["kind"] == "fall").sum() > 1
    assert filled["subject"].query("model == 'SST'")["kind"].tolist() == ["fall", "rise"]


def test_alternative_texts_of_blimp_say_what_the_table_shows() -> None:
    table = read("blimp_seeds/accuracy.csv")
    assert table.groupby(["seed", "tokens"])["paradigms"].sum().eq(67).all()
    own = table.assign(value=table["value"] * table["paradigms"])
    sums = own.groupby(["phenomenon", "tokens"])[["value", "paradigms"]].sum()
    mean = sums["value"] / sums["paradigms"]
    said = alt("fig-blimp-phenomena")
    anaphor, ellipsis = numbers(said, r"falls to # in anaphor agreement and to # in ellipsis by 268 million tokens")
    island, before, after = numbers(said, r"to # in island effects by two billion, and from # to # in filler gap")
    steps = [2_097_152 * step for step in (32, 128, 1000)]
    assert [anaphor, ellipsis, island, before, after] == [
        pytest.approx(mean[phenomenon, steps[k]], abs=0.0051)
        for phenomenon, k in (
            ("Anaphor agreement", 1),
            ("Ellipsis", 1),
            ("Island effects", 2),
            ("Filler gap", 0),
            ("Filler gap", 2),
        )
    ]
    whole = own.groupby("tokens")["value"].sum() / own.groupby("tokens")["paradigms"].sum()
    early = whole.loc[:1e9]
    assert early.idxmax() == steps[0]  # "until about 65 million": one checkpoint alone is that high
    assert whole.loc[: 10**7].mean() == pytest.approx(0.51, abs=0.005)
    assert whole.loc[2 * 10**10 :].mean() == pytest.approx(0.8, abs=0.02)


def test_standard_errors_and_parameters_that_captions_give_are_those_of_the_tables() -> None:
    pythia = read("pythia/zero_shot.csv").query("metric == 'acc'")
    largest = pythia.groupby("task")["stderr"].max().round(2)
    assert largest["wsc"] == 0.05
    assert pythia[pythia["task"] != "wsc"]["stderr"].max() < 0.0175
    vision = read("vision_brain/scores.csv")
    assert vision["model_id"].nunique() == 43
    assert not vision.duplicated(["model_id", "region", "n_samples_seen"]).any()
    untuned = read("bert_fmri/decoding.csv").query("step == 0").groupby("subject")["value"]
    assert (untuned.nunique() == 1).all()  # "one measurement a subject, repeated"
    assert np.isfinite(untuned.mean()).all()
