"""Queries of the curves table: one rule of what is complete, for figures and the test of the phases alike."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phaselab import curves, figures
from phaselab.curves import NothingToDraw, behaviour_by_task, brain_by_subject, brain_curve, model_curve
from phaselab.errors import PhaselabError, number_of
from phaselab.phases import phase_text, triple_phase_test
from phaselab.results import curve_table
from phaselab.study import PhaseSpec

ROOT = Path(__file__).parents[1]
TOKENS = (0, *np.round(np.logspace(6, 9, 9)).astype(int).tolist())
SUBJECTS = ("s0", "s1", "s2", "s3")


@pytest.fixture
def table() -> pd.DataFrame:
    """Four subjects, two layers and regions, two tasks, ten checkpoints; layer 1 is the higher."""
    rng = np.random.default_rng(0)
    rows = []
    for i, tokens in enumerate(TOKENS):
        place = {"checkpoint": f"c{i}", "step": i, "tokens": tokens, "stderr": 0.02}
        for roi in ("all", "x"):
            for subject in SUBJECTS:
                where = {"perspective": "brain", "measure": "r_normalised", "roi": roi, "subject": subject}
                rows += [place | where | {"layer": k, "value": 0.1 * i + k + rng.normal(0, 0.01)} for k in (0, 1)]
        for measure in ("instruction_following", "accuracy"):
            where = {"perspective": "behaviour", "measure": measure}
            rows += [place | where | {"task": t, "value": 0.1 * i + rng.normal(0, 0.01)} for t in ("a", "b")]
    return curve_table(
        [{"layer": -1, "roi": "", "subject": "", "task": ""} | row for row in rows], study="s", model="m"
    )


def without(table: pd.DataFrame, tokens: int, **where: str) -> pd.DataFrame:
    """The table with NaN at a checkpoint in the rows of `where`."""
    rows = (table[[*where]] == pd.Series(where)).all(axis=1) & (table["tokens"] == tokens)
    assert rows.any()
    return table.assign(value=table["value"].mask(rows))


def drawn(table: pd.DataFrame, panel: int = 0) -> tuple[np.ndarray, str]:
    """Heights of the thick line of a panel of the phase figure, and the line below the figure."""
    figure = figures.perspectives(table, simulated=False)
    (line,) = [
        line for line in figure.axes[panel].lines if line.get_marker() in ("o", "s") and len(line.get_xdata()) > 2
    ]
    return np.asarray(line.get_ydata()), " ".join(text.get_text() for text in figure.texts)


def test_with_a_value_missing_figure_and_test_read_the_same_brain_curve(table: pd.DataFrame) -> None:
    poor = without(table, TOKENS[4], subject="s2", perspective="brain")
    curve = brain_by_subject(poor)
    assert curve.names == ("s0", "s1", "s3")
    assert curve.tokens.tolist() == list(TOKENS)
    assert curve.notes == ("subject left out for want of a value at some checkpoints: s2",)
    shown = brain_curve(poor)
    assert shown["n"].tolist() == [3] * len(TOKENS)
    test = triple_phase_test(poor, "m", n_bootstrap=20)
    assert list(test.brain.tokens) == list(shown["tokens"])
    assert test.brain.values == pytest.approx(shown["value"])
    assert test.brain.replicates is not None
    assert test.brain.replicates.tolist() == curve.values.tolist()
    heights, foot = drawn(poor)
    assert heights == pytest.approx(test.brain.values)
    assert "n = 3 subjects" in foot
    assert test.brain.notes == curve.notes
    assert "s2" in phase_text(test, 1, "share")
    # What is left is what there is of the others, and a row that is absent is as one without a value.
    assert shown.equals(brain_curve(table[table["subject"] != "s2"]))
    assert shown.equals(brain_curve(poor.dropna(subset=["value"])))


def test_a_checkpoint_without_any_value_is_left_out_for_both_and_told(table: pd.DataFrame) -> None:
    poor = without(table, TOKENS[4], perspective="brain")
    test = triple_phase_test(poor, "m", n_bootstrap=20)
    assert list(test.brain.tokens) == brain_curve(poor)["tokens"].tolist() == [t for t in TOKENS if t != TOKENS[4]]
    assert test.brain.notes == ("1 checkpoint at which no subject has a value left out",)
    assert brain_curve(poor)["n"].tolist() == [4] * 9


def test_a_region_without_any_value_is_an_empty_curve(table: pd.DataFrame) -> None:
    poor = table.assign(value=table["value"].mask(table["roi"] == "x"))
    assert brain_curve(poor, "x", layer=1).empty
    assert brain_by_subject(poor, "x").names == ()
    assert not triple_phase_test(poor, "m", PhaseSpec(roi="x"), n_bootstrap=20).brain.decided


def test_where_nobody_is_complete_nothing_is_drawn_or_decided(table: pd.DataFrame) -> None:
    poor = table
    for subject, tokens in zip(SUBJECTS, TOKENS, strict=False):
        poor = without(poor, tokens, subject=subject)
    with pytest.raises(NothingToDraw, match="found no subject with a value at each checkpoint"):
        brain_curve(poor)
    assert "no subject with a value" in triple_phase_test(poor, "m", n_bootstrap=20).table["why"][0]


def test_with_a_value_missing_figure_and_test_read_the_same_behaviour(table: pd.DataFrame) -> None:
    poor = without(table, TOKENS[4], task="b", measure="accuracy")
    assert behaviour_by_task(poor, "accuracy").names == ("a",)
    test = triple_phase_test(poor, "m", n_bootstrap=20)
    shown = model_curve(poor, "accuracy")
    assert list(test.accuracy.tokens) == list(shown["tokens"])
    assert test.accuracy.values == pytest.approx(shown["value"])
    assert drawn(poor, 2)[0] == pytest.approx(test.accuracy.values)
    assert "task left out" in test.accuracy.notes[0]
    half = shown["high"] - shown["value"]
    assert (1.96 * behaviour_by_task(poor, "accuracy").error).tolist() == pytest.approx(half)


def test_a_layer_is_chosen_by_a_rule_a_number_or_a_depth(table: pd.DataFrame) -> None:
    assert brain_by_subject(table).layer == brain_by_subject(table, layer="best").layer == 1
    assert [brain_by_subject(table, layer=which).layer for which in (0, 0.0, 1.0, "mean")] == [0, 0, 1, -1]
    both = [brain_by_subject(table, layer=k).values for k in (0, 1)]
    assert brain_by_subject(table, layer="mean").values == pytest.approx(np.mean(both, axis=0))
    for wrong in (7, 1.5, "deepest"):
        with pytest.raises(PhaselabError, match=r"layer: found .*, expected 'best', 'mean', a depth .* \[0, 1\]"):
            brain_by_subject(table, layer=wrong)


def test_what_is_not_there_is_told_with_what_is(table: pd.DataFrame) -> None:
    with pytest.raises(NothingToDraw, match="roi: found all, x; expected 'V1'"):
        brain_by_subject(table, "V1")
    with pytest.raises(PhaselabError, match="tasks: found no accuracy of c, expected some of a, b"):
        behaviour_by_task(table, "accuracy", ["a", "c"])


def test_a_task_without_a_measure_is_left_out_of_its_mean_and_told(table: pd.DataFrame) -> None:
    # As minimal pairs, which have no form of an answer to follow.
    poor = table[(table["measure"] != "instruction_following") | (table["task"] != "b")]
    for tasks in (["a", "b"], None):
        curve = behaviour_by_task(poor, "instruction_following", tasks)
        assert (curve.names, curve.notes) == (("a",), ("instruction following not asked in b",))
        assert behaviour_by_task(poor, "accuracy", tasks).names == ("a", "b")
    test = triple_phase_test(poor, "m", tasks=["a", "b"], n_bootstrap=20)
    assert "instruction following not asked in b" in test.form.notes
    with pytest.raises(NothingToDraw, match="instruction_following: found no task with a value"):
        behaviour_by_task(poor, "instruction_following", ["b"])


def test_gather_gives_one_table_whatever_the_order_of_files(table: pd.DataFrame, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.parquet" for i in range(3)]
    for i, file in enumerate(files):
        table.iloc[i::3].to_parquet(file)
    one = curves.gather(files)
    assert one.equals(curves.gather(reversed(files)))
    assert len(one) == len(table)
    assert curves.gather([]).empty
    forged = {
        "Failed to parse string: 'x' as a scalar of type int64": table[:1].assign(layer="x"),
        "Float value 0.500000 was truncated converting to int64": table[:1].assign(step=0.5),
        "Casting field 'step' with null values to non-nullable": table[:1].assign(step=np.nan),
        "Casting field 'task' with null values to non-nullable": table[:1].assign(task=None),
    }
    for why, rows in forged.items():
        rows.to_parquet(files[0])
        with pytest.raises(PhaselabError, match=rf"^{files[0]}: found no table that can be read \({why}"):
            curves.gather(files)
    files[0].write_text("x")
    with pytest.raises(PhaselabError, match=f"^{files[0]}: found no table that can be read"):
        curves.gather(files)


def test_probes_of_checkpoints_with_the_same_tokens_are_not_crossed() -> None:
    row = {"model": "m", "tokens": 10**9, "layer": 1, "task": "who", "stderr": 0.1, "step": 0}
    values = {"probe_accuracy": 0.7, "probe_shuffled": 0.5}
    rows = [row | {"checkpoint": c, "measure": m, "value": v} for c in ("step1", "step2") for m, v in values.items()]
    curve = model_curve(pd.DataFrame(rows), "probes")
    (found,) = curve.to_dict("records")
    assert found["n"] == 2
    assert found["high"] - found["value"] == pytest.approx(1.96 * 0.1)
    assert curve.attrs["notes"] == ("1 checkpoint with the tokens of another, averaged",)


def test_probes_of_checkpoints_with_rounded_tokens_are_told_apart_by_steps_and_it_is_said() -> None:
    row = {"perspective": "internal", "model": "m", "tokens": 10**9, "layer": 1, "stderr": 0.1, "task": "who"}
    values = {"probe_accuracy": 0.7, "probe_shuffled": 0.5, "probe_chance": 0.5}
    rows = [row | {"step": k, "checkpoint": f"c{k}", "measure": m, "value": values[m]} for k in (1, 2) for m in values]
    table = curve_table(rows, study="s")
    curve = model_curve(table, "probes")
    assert curve["tokens"].tolist() == [5 * 10**8, 10**9]
    said = "1 checkpoint with the tokens of another: steps times 500,000,000 tokens instead"
    assert curve.attrs["notes"] == (said,)
    figure = figures.probe_curves(table.assign(roi="", subject=""))
    assert said in " ".join(" ".join(text.get_text() for text in figure.texts).split())  # lines are broken


def test_one_of_a_kind_is_told_as_one() -> None:
    assert [number_of(n, "row") for n in (0, 1, np.int64(1), 2, 12_345)] == [
        "0 rows",
        "1 row",
        "1 row",
        "2 rows",
        "12,345 rows",
    ]
    assert [number_of(n, "hour") for n in (1.0, 0.31, 2.5)] == ["1 hour", "0.31 hours", "2.5 hours"]
    assert [number_of(n, "person who listens", "people who listen") for n in (1, 3)] == [
        "1 person who listens",
        "3 people who listen",
    ]


#: What may be one: in a text of the package or of a page the helper says how many there are.
COUNTED = (
    "checkpoint|class(?:e)|core|curve|file|hour|item|layer|minute|model|row|run|sample|seed|subject|task|text|voxel"
)
NEVER_ONE = {
    "{len(counted)} items",
    "{len(paths)} files",
    "{len(order)} voxels",
    "{len(files)} files",
    "{len(means)} rows",
}


@pytest.mark.parametrize("folder", ["src/phaselab", "notebooks", "book/_ext"])
def test_no_text_counts_without_the_helper(folder: str) -> None:
    found = []
    for path in sorted((ROOT / folder).rglob("*")):
        if path.suffix in (".py", ".md") and path.is_file():
            text = path.read_text(encoding="utf-8")
            found += re.findall(rf"\{{len\([^{{}}]*\)[^{{}}]*\}} (?:{COUNTED})s\b", text)
            found += re.findall(r"\w+\{'s' ?(?:\*|if).*", text)
    assert {*found} <= NEVER_ONE
