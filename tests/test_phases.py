"""Transitions are found where they are, dated with honest intervals, and not found where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from phaselab.curves import brain_layer, select_layer
from phaselab.errors import PhaselabError
from phaselab.phases import (
    MOVE_COLUMNS,
    Transitions,
    dates_together,
    detachment_power,
    detectable_depth,
    fit_table,
    fit_transitions,
    holm,
    judge,
    log_tokens,
    phase_text,
    sensitivity,
    triple_phase_test,
)
from phaselab.phases.fit import Pieces, autocorrelated, grid_of, refine, remembered, search
from phaselab.phases.three_phases import fall_p, falls_after_rise
from phaselab.results import curve_table
from phaselab.study import PhaseSpec


def grid(n: int) -> np.ndarray:
    """n checkpoints: step 0, then log-spaced from 1e6 to 1e10 tokens."""
    return np.concatenate([[0], np.round(np.logspace(6, 10, n - 1))])


def shape(tokens: np.ndarray, *corners: tuple[float, float]) -> np.ndarray:
    """A continuous piecewise-linear curve through (log10 tokens, value) corners."""
    x, y = zip(*corners, strict=True)
    return np.interp(log_tokens(tokens), x, y)


DIP = ((7.2, 0.3), (7.8, 0.6), (8.5, 0.6), (9.0, 0.4), (9.3, 0.4), (9.8, 0.7))


def study(
    brain: np.ndarray,
    form: np.ndarray,
    accuracy: np.ndarray,
    tokens: np.ndarray,
    layers: int = 1,
    stderr: float = 0.01,
) -> pd.DataFrame:
    """A curves table; brain (n_subjects, n), behaviour (n,)."""
    rows = []
    for i, t in enumerate(tokens):
        place = {"checkpoint": f"c{i}", "step": i, "tokens": int(t)}
        for s, curve in enumerate(brain):
            for layer in range(layers):
                rows.append(
                    place
                    | {"perspective": "brain", "measure": "r_normalised", "roi": "all", "subject": f"s{s}"}
                    | {"task": ""}
                    | {"layer": layer, "value": curve[i] + 0.01 * layer, "stderr": np.nan}
                )
        for measure, curve in (("instruction_following", form), ("accuracy", accuracy)):
            nowhere = {"layer": -1, "roi": "", "subject": ""}
            own = {
                "perspective": "behaviour",
                "measure": measure,
                "task": "t",
                "value": curve[i],
                "stderr": stderr,
            }
            rows.append(place | nowhere | own)
    return curve_table(rows, study="s", model="m")


def three_phases(rng: np.random.Generator, n: int = 24, subjects: int = 4) -> pd.DataFrame:
    t = grid(n)
    brain = shape(t, *DIP) + 0.02 * rng.standard_normal((subjects, n)) + 0.05 * rng.standard_normal((subjects, 1))
    form = shape(t, (7.2, 0.1), (7.8, 0.9)) + 0.02 * rng.standard_normal(n)
    accuracy = shape(t, (9.35, 0.33), (9.9, 0.9)) + 0.01 * rng.standard_normal(n)
    return study(brain, form, accuracy, t, layers=2)


def test_step_zero_goes_one_log_step_before_the_first_positive_count() -> None:
    assert log_tokens([0, 100, 1000, 10000]) == pytest.approx([1, 2, 3, 4])
    assert log_tokens([0, 1000]) == pytest.approx([2, 3])
    with pytest.raises(ValueError, match="tokens: found -1"):
        log_tokens([-1, 2])


def test_the_search_finds_what_brute_force_finds() -> None:
    from itertools import combinations

    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(size=11))
    x = (x - x[0]) / np.ptp(x)
    curves = rng.standard_normal((5, 11))
    found = search(grid_of(tuple(x.tolist()), 3), curves)
    for k in (1, 2, 3):
        for y, rss in zip(curves, found[k][0], strict=True):
            best = np.inf
            for knots in combinations(x[2:-2], k):
                design = np.stack([np.ones(11), x, *(np.maximum(x - c, 0) for c in knots)], axis=1)
                best = min(best, float(((y - design @ np.linalg.lstsq(design, y)[0]) ** 2).sum()))
            assert rss == pytest.approx(best)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_change_points_are_where_two_other_packages_find_them(seed: int) -> None:
    piecewise_regression, ruptures = pytest.importorskip("piecewise_regression"), pytest.importorskip("ruptures")
    x, rng = np.linspace(6, 10, 41), np.random.default_rng(seed)
    y = np.interp(x, [7.2, 8.6], [0, 1]) + 0.03 * rng.standard_normal(41)
    fit = fit_transitions(10**x, y, max_changes=2)
    np.random.seed(seed)  # noqa: NPY002  (the package draws its restarts from the global state)
    theirs = piecewise_regression.Fit(x, y, n_breakpoints=2).get_results()["estimates"]
    assert np.log10(fit.knots) == pytest.approx([theirs[f"breakpoint{k}"]["estimate"] for k in (1, 2)], abs=0.02)
    on_grid = ruptures.Dynp(model="clinear", min_size=2, jump=1).fit(y).predict(2)[:-1]
    assert np.log10(fit.knots) == pytest.approx(x[np.array(on_grid) - 1], abs=0.11)  # a checkpoint is .1 apart


@pytest.mark.parametrize("knot", [7.77, 8.2, 9.05])
def test_a_change_between_checkpoints_is_found_exactly_without_noise(knot: float) -> None:
    t = grid(21)
    fit = fit_transitions(t, shape(t, (knot, 0.2), (10.0, 0.9)))
    assert np.log10(fit.knots) == pytest.approx([knot], abs=1e-3)
    assert fit.kinds == ("flat", "rise")
    assert fit.rises[0].height == pytest.approx(0.7, abs=1e-4)
    assert np.log10(fit.rises[0].midpoint) == pytest.approx((knot + 10) / 2, abs=1e-3)
    assert fit.rises[0].steepness == pytest.approx(0.7 / (10 - knot), rel=1e-3)


def test_a_rise_a_fall_and_a_return_are_dated() -> None:
    t = grid(28)
    y = shape(t, *DIP) + 0.01 * np.random.default_rng(3).standard_normal(28)
    fit = fit_transitions(t, y, max_changes=6)
    assert [move.kind for move in fit.moves] == ["rise", "fall", "rise"]
    assert len(fit.rises) == 2
    assert len(fit.falls) == 1
    for move in fit.moves:
        assert move.onset_low <= move.onset <= move.onset_high
    assert fit.at(t) == pytest.approx(fit.fitted)
    assert "falls" in fit.statement


def test_a_move_is_a_row_of_a_table_by_the_names_of_its_columns() -> None:
    t = grid(28)
    fit = fit_transitions(t, shape(t, *DIP) + 0.01 * np.random.default_rng(3).standard_normal(28), max_changes=6)
    (fall,) = fit.falls
    assert list(vars(fall)) == list(MOVE_COLUMNS[:-4])
    assert 10**7.8 <= fall.turn <= 10**8.6  # on the plateau from which it falls
    assert fall.turn_low < fall.turn < fall.turn_high
    assert fall.height_low < fall.height < fall.height_high < 0
    assert [move.kind for move in fit.moves] == ["rise", "fall", "rise"]


def test_flat_noise_and_steady_rises_have_no_transition() -> None:
    rng = np.random.default_rng(0)
    t = grid(20)
    flat = [fit_transitions(t, rng.standard_normal(20)) for _ in range(100)]
    assert sum(len(f.knots) > 0 for f in flat) <= 12
    assert flat[0].statement.startswith("No transition")
    steady = fit_transitions(t, log_tokens(t) + 0.01 * rng.standard_normal(20))
    assert steady.knots == ()
    assert "rises steadily" in steady.statement
    assert len(steady.rises) == 1
    assert np.isnan(steady.rises[0].onset_low)


def test_the_same_seed_gives_the_same_answer() -> None:
    t = grid(20)
    y = shape(t, (8.0, 0.0), (9.0, 1.0)) + 0.05 * np.random.default_rng(1).standard_normal(20)
    one, two = (fit_transitions(t, y) for _ in range(2))
    assert one.moves == two.moves


def test_order_duplicates_and_gaps_do_not_matter() -> None:
    t = grid(16)
    y = shape(t, (8.0, 0.0), (9.0, 1.0)) + 0.01 * np.random.default_rng(1).standard_normal(16)
    clean = fit_transitions(t, y)
    shuffled = np.random.default_rng(0).permutation(16)
    assert fit_transitions(t[shuffled], y[shuffled]).knots == clean.knots
    messy = fit_transitions(
        np.append(t, [t[4], 5e8]), np.append(np.where(np.arange(16) == 4, y - 0.1, y), [y[4] + 0.1, np.nan])
    )
    assert messy.knots == pytest.approx(clean.knots)
    assert len(messy.notes) == 2


@pytest.mark.parametrize(
    ("tokens", "values"),
    [([], []), ([1e6], [1.0]), ([1e6] * 9, np.arange(9)), (grid(9), [np.nan] * 9), (grid(5), np.arange(5.0))],
)
def test_too_little_is_undecided_and_says_why(tokens: np.ndarray, values: np.ndarray) -> None:
    fit = fit_transitions(tokens, values)
    assert not fit.decided
    assert fit.statement.startswith("Not decided")
    assert not [*fit.rises, *fit.falls, *fit.knots]


def test_what_is_undecided_keeps_its_replicates() -> None:
    several = np.arange(15.0).reshape(3, 5)
    fit = fit_transitions(grid(5), several)
    assert not fit.decided
    assert fit.replicates is not None
    assert fit.replicates.tolist() == several.tolist()
    assert np.isnan(fit.detectable)
    assert np.isnan(fit_transitions([], []).detectable)


def test_a_constant_curve_is_flat() -> None:
    fit = fit_transitions(grid(12), np.full(12, 0.3))
    assert fit.decided
    assert fit.knots == ()
    assert "flat" in fit.statement
    replicated = fit_transitions(grid(12), np.full((3, 12), 0.3))
    assert replicated.knots == ()


def test_replicates_that_disagree_widen_the_intervals() -> None:
    t = grid(20)
    rng = np.random.default_rng(2)
    noise = 0.02 * rng.standard_normal((6, 20))
    same = np.stack([shape(t, (8.0, 0.2), (9.0, 0.8))] * 6) + noise
    apart = np.stack([shape(t, (7.5 + 0.2 * i, 0.2), (8.5 + 0.2 * i, 0.8)) for i in range(6)]) + noise
    one, other = (fit_transitions(t, r, max_changes=2).rises[0] for r in (same, apart))
    assert np.log(other.onset_high / other.onset_low) > 2 * np.log(one.onset_high / one.onset_low)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="values: found shape"):
        fit_transitions(grid(8), np.zeros(7))
    with pytest.raises(ValueError, match="values: found shape"):
        fit_transitions(grid(8), np.zeros((3, 7)))
    with pytest.raises(ValueError, match="stderr: found shape"):
        fit_transitions(grid(8), np.zeros(8), np.zeros(7))


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([np.nan, 0.04, 0.03]) == pytest.approx([np.nan, 0.06, 0.06], nan_ok=True)  # what was not tested


def test_three_phases_that_are_there_are_found() -> None:
    test = triple_phase_test(three_phases(np.random.default_rng(0)), "m")
    table = test.table.set_index("phase")
    assert table["found"].tolist() == [True, True, True]
    assert np.log10(table["tokens"]).tolist() == pytest.approx([7.5, 8.75, 9.55], abs=0.2)
    assert (table["low"] < table["tokens"]).all()
    assert (table["tokens"] < table["high"]).all()
    assert table["effect"].tolist() == pytest.approx([0.3, -0.2, 0.3], abs=0.08)
    assert abs(table.loc[1, "lag"]) < 0.15
    assert np.isnan(table.loc[2, "lag"])
    assert "detachment at" in test.statement


def test_a_rise_alone_is_the_first_phase_alone() -> None:
    t = grid(24)
    rng = np.random.default_rng(1)
    brain = shape(t, (7.0, 0.3), (8.0, 0.6)) + 0.02 * rng.standard_normal((3, 24))
    form = shape(t, (7.0, 0.1), (8.0, 0.9)) + 0.02 * rng.standard_normal(24)
    test = triple_phase_test(study(brain, form, np.full(24, 0.33), t), "m")
    assert test.table["found"].tolist() == [True, False, False]
    assert test.table["p"].isna().tolist() == [False, True, True]
    assert "would have been missed" in test.table["why"][1]
    assert test.statement.startswith("m (one seed): alignment at ")
    assert test.statement.endswith("no detachment, no realignment.")


def test_a_fall_while_accuracy_rises_is_no_detachment() -> None:
    t = grid(24)
    rng = np.random.default_rng(1)
    brain = shape(t, *DIP) + 0.01 * rng.standard_normal((3, 24))
    form = shape(t, (7.0, 0.1), (8.0, 0.9)) + 0.02 * rng.standard_normal(24)
    accuracy = shape(t, (8.4, 0.33), (9.1, 0.9)) + 0.01 * rng.standard_normal(24)
    table = triple_phase_test(study(brain, form, accuracy, t), "m").table.set_index("phase")
    assert not table.loc[2, "found"]
    assert "not shown to pause" in table.loc[2, "why"]


def test_what_is_missing_makes_no_phase() -> None:
    curves = three_phases(np.random.default_rng(0))
    for kept in (
        curves[curves["perspective"] == "brain"],
        curves[curves["perspective"] == "behaviour"],
        curves[curves["step"] < 4],
        curves.assign(value=np.nan),
        curves.assign(value=0.5),
        curves[curves["step"] == 3],
    ):
        test = triple_phase_test(kept, "m")
        assert not test.table["found"].any()
        assert (test.table["why"].str.len() > 10).all()
    with pytest.raises(ValueError, match="model: found 'x'"):
        triple_phase_test(curves, "x")
    with pytest.raises(ValueError, match="missing columns roi"):
        triple_phase_test(curves.drop(columns="roi"), "m")
    for field, value in (("layer", 7), ("roi", "V1"), ("measure", "r_normalized"), ("accuracy", "acc")):
        with pytest.raises(PhaselabError, match=f"{field}: found '?{value}'?, expected .*"):
            triple_phase_test(curves, "m", PhaseSpec(**{field: value}))


def test_what_is_not_decided_is_not_called_a_no() -> None:
    rows = [dict(model="m", perspective="behaviour", measure="accuracy", tokens=t, step=t, value=0.5) for t in range(4)]
    test = triple_phase_test(curve_table(rows, study="s", checkpoint="c"), "m")
    assert set(test.table["verdict"]) == {"not decided"}
    assert test.statement == "m (one seed): alignment not decided, detachment not decided, realignment not decided."
    assert test.table["p"].isna().all()
    assert "**not decided**" in phase_text(test, 1, "r")
    assert "Test: p" not in phase_text(test, 1, "r")


def test_what_too_few_checkpoints_can_test_is_not_known_and_outside_of_all_corrections() -> None:
    t = grid(24)
    fits = [
        fit_transitions(t, shape(t, *corners) + 0.005 * np.random.default_rng(0).standard_normal(24), max_changes=6)
        for corners in (DIP, ((7.2, 0.1), (7.8, 0.9)), ((6.5, 0.2), (7.5, 0.4), (9.4, 0.4), (9.8, 0.9)))
    ]
    known = judge(*fits).table
    assert known["p"].notna().all()
    before, after = (SimpleNamespace(kind="rise", onset=t[k], end=t[k]) for k in (9, 11))
    between = replace(fits[0], moves=(before, after))
    assert np.isnan(between.p(SimpleNamespace(kind="fall", onset=t[10], end=t[10])))
    with pytest.MonkeyPatch.context() as patch:
        real = Transitions.p
        patch.setattr(Transitions, "p", lambda fit, move: np.nan if move.kind == "fall" else real(fit, move))
        table = judge(*fits).table
    assert table["verdict"].tolist()[:2] == ["found", "not decided"]
    assert table["p_holm"].isna().tolist()[:2] == [False, True]
    assert table["p_holm"][0] < known["p_holm"][0]  # fewer phases were tested
    assert "Too few checkpoints lie around one of these moves to test it." in table["why"][1]


def test_a_table_keeps_what_it_cannot_test_out_of_q(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.concat([learning().query("model == 'lifts'").assign(model=name) for name in "ab"])
    alone = fit_table(table.query("model == 'b'"), by=["model"]).moves
    known = iter([np.nan, alone["p"][0]])
    monkeypatch.setattr(Transitions, "p", lambda fit, move: next(known))
    fitted = fit_table(table, by=["model"])
    moves = fitted.moves
    assert fitted.said(("a",)).endswith("Rise not tested, of too few checkpoints.")
    assert moves["q"].isna().tolist() == [True, False]
    assert moves["p"].isna().tolist() == [True, False]
    assert moves["q"][1] <= 2 * alone["q"][0]


def test_replicates_that_share_their_noise_are_read_as_one_curve() -> None:
    t, rng = grid(40), np.random.default_rng(3)
    truth = shape(t, (7.0, 0.0), (7.8, 1.0))
    apart, shared = [], []
    for _ in range(8):
        own, drift = 0.05 * rng.standard_normal((2, 6, 40)), 0.05 * autocorrelated(rng, (1, 40), 0.8)
        apart.append(fit_transitions(t, truth + own[0], max_changes=6, n_bootstrap=20)._noise[2])
        shared.append(fit_transitions(t, truth + own[1] + drift, max_changes=6, n_bootstrap=20)._noise[2])
    assert max(apart) <= 0.3
    assert sum(share > 0.1 for share in shared) >= 4  # not where the fit has followed the drift
    assert fit_transitions(t, truth + drift[0], max_changes=6)._noise[2] == 1.0  # one curve cannot tell


def test_accuracy_that_moves_before_the_brain_is_back_does_not_pause() -> None:
    # With so much noise the level between fall and return is not seen, and their corner lies in the middle of it.
    t, rng = grid(40), np.random.default_rng(0)
    form = fit_transitions(t, shape(t, (7.0, 0.1), (7.8, 0.9)) + 0.005 * rng.standard_normal(40), max_changes=6)
    corners = (7.6, 0.6), (8.2, 0.45), (9.0, 0.6), (9.4, 0.6), (10.0, 0.9)
    right = fit_transitions(t, shape(t, *corners) + 0.005 * rng.standard_normal(40), max_changes=6)
    brain = shape(t, (6.8, 0.0), (7.4, 10.0), (8.0, 10.0), (8.4, 7.0), (8.92, 7.0), (9.32, 10.0))
    fits = [fit_transitions(t, brain + rng.standard_normal((6, 40)), max_changes=6, n_bootstrap=60) for _ in range(12)]
    assert sum(judge(fit, form, right).table["found"][1] for fit in fits) <= 1


def test_a_missing_perspective_is_told_with_what_there_is() -> None:
    curves = three_phases(np.random.default_rng(0))
    why = triple_phase_test(curves[curves["perspective"] == "brain"], "m", n_bootstrap=20).table["why"]
    assert why[0] == "Instruction following: curves: perspective: found brain; expected 'behaviour'"
    with pytest.raises(PhaselabError, match="tasks: found no instruction_following of x, expected some of t"):
        triple_phase_test(curves, "m", tasks=["t", "x"])


def test_without_a_ceiling_correlations_are_tested() -> None:
    curves = three_phases(np.random.default_rng(0))
    known = triple_phase_test(curves, "m", n_bootstrap=20).table
    raw = curves.replace({"measure": {"r_normalised": "r"}})
    assert triple_phase_test(raw, "m", n_bootstrap=20).table.equals(known)


def test_the_layer_is_chosen_once_for_the_whole_curve() -> None:
    brain = pd.DataFrame({"layer": [0, 0, 1, 1, 2, 2], "value": [0.9, 0.9, 0.6, 0.6, 0.5, 0.7]})
    assert select_layer(brain) == 1
    assert select_layer(brain.iloc[:0]) == -1


def test_sensitivity_says_what_the_verdict_hangs_on() -> None:
    curves = three_phases(np.random.default_rng(0))
    # A log-probability that rises all along: the return then has no partner of its own there.
    right = curves[curves["measure"] == "accuracy"]
    steady = right.assign(measure="log_probability", value=np.linspace(-4.0, -1.0, len(right)))
    table = sensitivity(pd.concat([curves, steady]), "m", n_bootstrap=60)
    # The two layers, the only region and the only measure are the rule's own, or come to them.
    assert set(table["varied"]) == {"", "layer", "penalty", "max_changes", "margin", "lag", "accuracy"}
    assert set(table.loc[table["varied"] == "layer", "choice"]) == {"0.33", "mean"}  # of layers 0 and 1
    assert (table.groupby(["varied", "choice"]).size() == 3).all()
    assert table.loc[table["varied"] == "", "agrees"].all()
    second = table[(table["varied"] == "accuracy") & (table["phase"] == 2)].iloc[0]
    assert not second["found"]
    assert second["note"] == "found in the discontinuous measure alone"


def test_one_layer_stands_for_all_models_without_a_look_at_their_scores() -> None:
    rows = [
        {"perspective": "brain", "measure": "r", "roi": "all", "layer": layer, "value": 1.0 / (1 + layer), "model": "m"}
        for layer in range(7)
    ]
    curves = curve_table(rows, study="s", checkpoint="c", subject="s1", tokens=1, step=1)
    assert brain_layer(curves) == 4  # two thirds of the way to layer 6, though the embedding scores best
    assert [brain_layer(curves, choice) for choice in (0.0, 1.0, 3, "best", "mean")] == [0, 6, 3, 1, -1]
    curves.attrs["layer"] = 0.5
    assert brain_layer(curves) == 3
    assert brain_layer(curves[curves["layer"] >= 0]) == 3  # a selection keeps what the study said


def test_tokens_rounded_in_names_are_told_apart_by_steps() -> None:
    curves = three_phases(np.random.default_rng(0))
    exact = curves.assign(step=(curves["tokens"] // 10**5), tokens=curves["tokens"] // 10**5 * 10**5)
    rounded = exact.assign(tokens=(exact["tokens"] / 1e9).round().astype("int64") * 10**9)
    assert rounded["tokens"].nunique() < exact["tokens"].nunique()
    test = triple_phase_test(rounded, "m", n_bootstrap=20)
    assert test.brain.tokens.size == exact["step"].nunique()
    assert "with the tokens of another: steps times 100,000 tokens instead" in test.brain.notes[0]
    no_steps = triple_phase_test(rounded.assign(step=0), "m", n_bootstrap=20)
    assert "with the tokens of another, averaged" in no_steps.brain.notes[0]


def test_seeds_are_replicates_of_one_curve() -> None:
    several = [three_phases(np.random.default_rng(k)).assign(model=f"m{k}") for k in range(4)]
    test = triple_phase_test(pd.concat(several), [f"m{k}" for k in range(4)], n_bootstrap=60)
    assert test.brain.replicates is not None
    assert test.brain.replicates.shape[0] == 4
    assert test.table["found"].tolist() == [True, True, True]
    assert set(test.table["seeds"]) == {4}
    assert "(4 seeds)" in test.statement
    assert "This is one seed" not in phase_text(test, 1, "r")
    fewer = [several[0], several[1][several[1]["step"] != 5]]
    test = triple_phase_test(pd.concat(fewer), ["m0", "m1"], n_bootstrap=20)
    assert "1 checkpoint that not every seed has left out" in test.brain.notes


def test_seeds_are_different_models_and_are_compared_in_one_measure() -> None:
    curves = three_phases(np.random.default_rng(0))
    both = curves.replace({"measure": {"r_normalised": "r"}}).query("perspective == 'brain'")
    one = pd.concat([curves, both.assign(value=both["value"] / 2)])
    other = one[one["measure"] != "r_normalised"].assign(model="m1")
    test = triple_phase_test(pd.concat([one, other]), ["m", "m1"], n_bootstrap=20)
    assert test.brain.replicates is not None
    assert np.array_equal(*test.brain.replicates)
    for models, found in ((["m", "m"], "m, m"), ([], "none")):
        with pytest.raises(PhaselabError, match=f"model: found {found}, expected a name, or other ones of seeds"):
            triple_phase_test(curves, models)


def test_an_accuracy_that_never_rises_is_told_with_the_chance_of_its_tasks() -> None:
    curves = three_phases(np.random.default_rng(0))
    right = curves["measure"] == "accuracy"
    rng = np.random.default_rng(1)
    curves.loc[right, "value"] = 0.33 + 0.004 * rng.standard_normal(right.sum())
    chance = curves[right].assign(measure="chance", value=0.2)
    other = curves[curves["perspective"] == "behaviour"].assign(task="u")
    table = pd.concat([curves, other, chance, chance.assign(task="u", value=0.5)])
    for tasks, level in ((None, 0.35), (["t"], 0.2)):
        row = triple_phase_test(table, "m", tasks=tasks, n_bootstrap=20).table.loc[1]
        assert row["verdict"] == "nothing to stagnate"
        assert row["why"].endswith(f"but accuracy never rises: it stays at 0.33 (chance {level:.2f}).")
    logs = table.replace({"measure": {"accuracy": "log_probability"}})
    why = triple_phase_test(logs, "m", PhaseSpec(accuracy="log_probability"), n_bootstrap=20).table["why"][1]
    assert why.endswith("it stays at 0.33.")
    curves.loc[right, "value"] -= np.linspace(0, 0.3, right.sum())
    assert "never rises: its mean is 0.18." in triple_phase_test(curves, "m", n_bootstrap=20).table["why"][1]


def test_a_fall_until_training_ends_leaves_the_return_not_decided() -> None:
    t, rng = grid(24), np.random.default_rng(0)
    brain = shape(t, (7.0, 0.1), (7.6, 0.6), (8.6, 0.6), (10.0, 0.2)) + 0.01 * rng.standard_normal((4, 24))
    form = shape(t, (7.0, 0.1), (7.6, 0.9)) + 0.01 * rng.standard_normal(24)
    accuracy = shape(t, (8.0, 0.3), (8.6, 0.8)) + 0.01 * rng.standard_normal(24)
    test = triple_phase_test(study(brain, form, accuracy, t), "m", n_bootstrap=60)
    assert test.table["verdict"][2] == "not decided"
    assert test.table["why"][2] == "The brain curve falls until training ends: it has no time to return."
    assert test.statement.endswith("realignment not decided.")


def test_the_rule_is_part_of_the_result() -> None:
    curves = three_phases(np.random.default_rng(0))
    one, other = (triple_phase_test(curves, "m", rule, n_bootstrap=20) for rule in (PhaseSpec(), PhaseSpec(lag=0.01)))
    assert set(one.table["rule"]) != set(other.table["rule"])
    assert not other.table["found"][0]
    assert "not shown to be within a factor of 1" in other.table["why"][0]
    assert other.table["p"][0] > 0.05  # a lag outside the rule's has a p-value as well


def test_models_that_learn_the_form_later_and_align_later_go_together() -> None:
    form = 10 ** np.array([7.0, 7.4, 7.9, 8.1, 8.6, 9.0])
    told = dates_together(form * 1.5, form)
    assert told["tau"] == pytest.approx(1.0)
    assert told["p"] == pytest.approx(2 / 720)  # one order of six out of all, both ways
    assert told["mean_lag"] == pytest.approx(np.log10(1.5))
    assert told["p_lag"] < 0.001
    assert np.isnan(dates_together(form[:3], form[:3])["tau"])
    assert np.isnan(dates_together(np.where(form > 1e8, np.nan, form), form)["p"])


def test_a_study_says_how_many_items_would_do() -> None:
    t = grid(24)
    rng = np.random.default_rng(1)
    brain = shape(t, *DIP) + 0.01 * rng.standard_normal((4, 24))
    form = shape(t, (7.2, 0.1), (7.8, 0.9)) + 0.02 * rng.standard_normal(24)
    accuracy = shape(t, (6.5, 0.2), (7.5, 0.4), (9.35, 0.4), (9.7, 0.9)) + 0.005 * rng.standard_normal(24)
    row = triple_phase_test(study(brain, form, accuracy, t, stderr=0.03), "m").table.iloc[1]
    assert row["verdict"] == "not decided"
    assert np.isnan(row["p"])
    assert "items would do" in row["why"]
    assert triple_phase_test(study(brain, form, accuracy, t, stderr=0.005), "m").table["found"][1]


# --------------------------------------------------------------------------------- any table


def learning(n: int = 20) -> pd.DataFrame:
    """Three curves on one task: one lifts off after a slow drift, one is noise, one is too short."""
    t = grid(n)
    rng = np.random.default_rng(4)
    curves = {
        "lifts": shape(t, (6.0, 0.1), (8.0, 0.16), (9.0, 0.9)) + 0.01 * rng.standard_normal(n),
        "noise": 0.3 + 0.01 * rng.standard_normal(n),
    }
    rows = [
        {"model": name, "tokens": x, "value": y}
        for name, curve in curves.items()
        for x, y in zip(t, curve, strict=True)
    ]
    rows += [{"model": "short", "tokens": x, "value": 0.5} for x in t[:3]]
    return pd.DataFrame(rows)


def test_a_table_of_curves_gives_a_row_a_move_and_says_what_has_none() -> None:
    fitted = fit_table(learning(), by=["model"])
    assert list(fitted.fits) == [("lifts",), ("noise",), ("short",)]
    moves = fitted.moves.set_index("model")
    assert moves["kind"].to_dict() == {"lifts": "rise", "noise": "flat", "short": "undecided"}
    lifts = moves.loc["lifts"]
    # The drift is a part of the rise; the lift-off is where it is steepest.
    assert lifts["onset"] < 1e7
    assert np.log10(lifts["liftoff"]) == pytest.approx(8.0, abs=0.1)
    assert lifts["liftoff_low"] <= lifts["liftoff"] <= lifts["liftoff_high"]
    assert lifts["p"] <= lifts["q"] <= 0.05
    assert moves.loc[["noise", "short"], "p"].isna().all()
    assert moves.loc["short", "statement"].startswith("Not decided")


def test_a_table_without_names_is_one_curve_and_says_what_it_averaged() -> None:
    table = learning()[lambda d: d["model"] != "short"]
    fitted = fit_table(table.rename(columns={"tokens": "steps"}), "steps")
    assert list(fitted.fits) == [()]
    assert set(fitted.moves["notes"]) == {"20 checkpoints with the tokens of another, averaged"}


def test_replicates_of_a_curve_are_a_column() -> None:
    t, rng = grid(20), np.random.default_rng(3)
    rows = [
        {"step": x, "acc": y, "seed": seed, "task": "a"}
        for seed in range(5)
        for x, y in zip(t, shape(t, (8.0, 0.1), (8.5, 0.9)) + 0.05 * rng.standard_normal(20), strict=True)
        if not (seed == 4 and x > 1e9)
    ]
    fitted = fit_table(pd.DataFrame(rows), "step", "acc", ["task"], replicates="seed")
    fit = fitted.fits["a",]
    assert fit.replicates is not None
    assert fit.replicates.shape == (4, 20)
    assert fit.notes[0] == "replicate left out for want of a value at some checkpoints: 4"
    assert "Rise beyond chance (p = " in fitted.said(("a",))
    small = fit_table(pd.DataFrame(rows), "step", "acc", ["task"], replicates="seed", min_effect=0.9)
    assert small.moves["kind"].tolist() == ["flat"]


def test_every_row_of_replicates_that_is_left_out_is_said() -> None:
    t = grid(12)
    table = pd.DataFrame([(f"s{k}", x, x > 1e8) for k in range(3) for x in t], columns=["seed", "tokens", "value"])
    table = table.astype({"value": float})
    last, third = table["seed"] == "s2", table["tokens"] == t[2]
    for lost, said in (
        (last, "replicate left out for want of a value at some checkpoints: s2"),
        (third, "1 checkpoint at which no replicate has a value left out"),
    ):
        fit = fit_table(table.assign(value=table["value"].mask(lost)), replicates="seed").fits[()]
        assert fit.notes == (said,)
    fit = fit_table(table.assign(tokens=table["tokens"].mask(last & third)), replicates="seed").fits[()]
    assert fit.notes[0] == "1 row without a place on the axis dropped"
    assert "share" not in "".join(fit.notes)
    gaps = ((table["seed"] == "s0") & (table["tokens"] == t[4])) | ((table["seed"] == "s1") & (table["tokens"] == t[5]))
    fit = fit_table(table.assign(value=table["value"].mask(gaps)), replicates="seed").fits[()]
    assert fit.notes == ("only the 10 checkpoints that all replicates have",)  # rather than one seed of three
    assert len(fit.replicates) == 3


def test_what_falls_beyond_chance_and_what_comes_back() -> None:
    t, rng = grid(24), np.random.default_rng(0)
    corners = {
        "returns": ((7.0, 0.8), (8.0, 0.2), (9.0, 0.6)),
        "stays": ((7.0, 0.8), (8.0, 0.2)),
        "rises": ((7.0, 0.2), (8.0, 0.8)),
    }
    rows = [
        {"size": "s", "model": model, "seed": seed, "tokens": x, "value": y}
        for model, own in corners.items()
        for seed in range(4)
        for x, y in zip(t, shape(t, *own) + 0.02 * rng.standard_normal(24), strict=True)
    ]
    fitted = fit_table(pd.DataFrame(rows), by=["size", "model"], replicates="seed")
    back = fitted.returned().set_index("model")["back"]
    assert back["returns"] == pytest.approx(0.4, abs=0.05)
    assert np.isnan(back["stays"])
    assert list(back.index) == ["returns", "stays"]
    assert fitted.sure("rise")["model"].tolist() == ["returns", "rises"]
    alone = fit_table(pd.DataFrame(rows).query("model == 'returns'"), replicates="seed")
    assert alone.returned()["back"].tolist() == pytest.approx([0.4], abs=0.05)


def test_curves_that_nothing_could_be_tested_of_are_no_tests() -> None:
    table = learning()
    short = pd.concat([table[table["model"] == "short"].assign(model=f"short {k}") for k in range(200)])
    alone, among = (fit_table(t, by=["model"]).moves.iloc[0] for t in (table, pd.concat([table, short])))
    assert among["q"] == alone["q"]


def test_a_move_that_is_too_small_to_count_is_no_flat_curve() -> None:
    table = learning()[lambda d: d["model"] == "lifts"]
    fit = fit_table(table, min_effect=2.0).fits[()]
    assert fit.statement == "No transition: the curve moves, but no rise or fall reaches 2, the smallest that counts."
    assert "is flat" in fit_table(table.assign(value=0.5), min_effect=2.0).fits[()].statement


def test_a_table_is_drawn_in_parts() -> None:
    table = pd.concat([learning().assign(seed=k) for k in range(3)])
    fitted = fit_table(table, by=["model", "seed"])
    parts = [*fitted.parts(4)]
    assert [len(part.fits) for part in parts] == [4, 4, 1]
    assert sum(len(part.moves) for part in parts) == len(fitted.moves)


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({}, {"x": "step"}, "x: found no column 'step', expected one of model, tokens, value"),
        ({"value": "high"}, {}, "y: column 'value': found 'high' in row 1, expected a number"),
        ({"tokens": -1.0}, {}, "x: column 'tokens': found -1, expected 0 or more"),
        ({"error": -0.1}, {"stderr": "error"}, "stderr: column 'error': found -0.1"),
        ({"model": None}, {"by": ["model"]}, "by: column 'model': found 43 empty cells"),
        ({}, {"by": ["task"]}, "by: found no column 'task'"),
        ({}, {"by": ["model", "model"]}, "by: found columns tokens, value, model, model, expected distinct ones"),
        ({"kind": "a"}, {"by": ["kind"]}, "by: found kind, expected none called as a column of the moves"),
    ],
)
def test_a_wrong_table_is_told_by_its_column(change: dict[str, object], options: dict[str, object], said: str) -> None:
    with pytest.raises(PhaselabError, match=said):
        fit_table(learning().assign(**change), **options)
    with pytest.raises(PhaselabError, match="found no rows"):
        fit_table(learning().iloc[:0])


def test_the_depth_that_a_design_finds() -> None:
    power = pd.DataFrame(
        {
            "checkpoints": [12, 12, 20, 20, 20, 40, 40, 40, 40],
            "subjects": 3,
            "depth": [0.0, 4.0, 0.0, 2.0, 4.0, 0.0, 1.0, 2.0, 4.0],
            "power": [0.0, 0.5, 0.0, 0.6, 1.0, 0.0, 0.0, 1.0, 1.0],
        }
    )
    depth = detectable_depth(power).set_index("checkpoints")["depth"]
    assert np.isnan(depth[12])
    assert depth[20] == pytest.approx(3.0)
    assert depth[40] == pytest.approx(1.8)  # between the depths beside it, not from where the power was last lower


# ------------------------------------------------------------------------------------ calibration


def falls_found(subjects: int, n: int, rho: float, shared: float, simulations: int = 40) -> int:
    """Of so many noisy plateaus, how many are said to fall."""
    t = grid(n)
    plateau = shape(t, (7.0, 0.0), (7.8, 1.0))
    rng = np.random.default_rng([subjects, n])
    hits = 0
    for _ in range(simulations):
        own = 0.1 * autocorrelated(rng, (subjects, n), rho)
        fit = fit_transitions(t, plateau + own + shared * rng.standard_normal(n), max_changes=6, n_bootstrap=60)
        hits += any(fall_p(fit, fall) <= 0.05 for fall in falls_after_rise(fit))
    return hits


@pytest.mark.parametrize(
    ("subjects", "n", "rho", "shared"),
    [(1, 20, 0.0, 0.0), (1, 20, 0.6, 0.0), (3, 20, 0.6, 0.0), (4, 12, 0.0, 0.1)],
)
def test_noise_on_a_plateau_is_no_fall(subjects: int, n: int, rho: float, shared: float) -> None:
    # At a rate of 5 %, more than 6 of 40 come up 4 times in 1,000.
    assert falls_found(subjects, n, rho, shared) <= 6


def test_deeper_falls_are_found_more_often() -> None:
    table = detachment_power((0.0, 2.0, 6.0), 24, 6, n_simulations=15)
    assert table["power"].is_monotonic_increasing
    assert table["power"].iloc[0] <= 0.2
    assert table["power"].iloc[-1] >= 0.9
    assert ((table["low"] <= table["power"]) & (table["power"] <= table["high"])).all()


@pytest.mark.parametrize("subjects", [1, 6])
def test_intervals_cover_the_truth(subjects: int) -> None:
    t = grid(20)
    truth = shape(t, (7.7, 0.0), (8.9, 1.0))
    rng = np.random.default_rng([5, subjects])
    covered, steep, fits = np.zeros(2), 0, 0
    for _ in range(80):
        noise = 0.06 * np.sqrt(subjects) * rng.standard_normal((subjects, 20))
        fit = fit_transitions(t, truth + noise)
        if len(fit.knots) != 2:
            continue
        fits += 1
        (rise,) = fit.rises
        low, high = np.log10([(rise.onset_low, rise.end_low), (rise.onset_high, rise.end_high)])
        covered += (low <= [7.7, 8.9]) & (high >= [7.7, 8.9])
        steep += rise.steepness_low <= 1 / 1.2 <= rise.steepness_high
    assert fits >= 50
    # 95 % within three standard errors of the simulation
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / fits) <= covered.mean() / fits
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / fits) <= steep / fits
    assert (high - low).max() < 2.0


# ------------------------------------------------------------------------- real learning curves

DATA = Path(__file__).parents[1] / "book" / "data" / "pythia" / "zero_shot.csv"
SIZES = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
TOKENS_A_STEP = 2_097_152


@pytest.fixture(scope="module")
def pythia() -> pd.DataFrame:
    return pd.read_csv(DATA)


def real(table: pd.DataFrame, size: str, task: str) -> Transitions:
    rows = table[(table["model"] == size) & (table["task"] == task) & (table["metric"] == "acc")]
    return fit_transitions(rows["tokens"], rows["value"], rows["stderr"], max_changes=4)


@pytest.mark.parametrize("size", SIZES)
def test_pythia_lambada_lifts_off_between_step_512_and_3000(pythia: pd.DataFrame, size: str) -> None:
    fit = real(pythia, size, "lambada_openai")
    assert fit.kinds[0] == "flat"
    assert 511.5 <= fit.rises[0].onset / TOKENS_A_STEP <= 3000


@pytest.mark.parametrize("size", SIZES)
def test_pythia_logiqa_never_rises(pythia: pd.DataFrame, size: str) -> None:
    assert not real(pythia, size, "logiqa").rises


def test_pythia_small_models_fall_late_and_the_large_one_does_not(pythia: pd.DataFrame) -> None:
    for size in ("70m", "160m"):
        (fall,) = real(pythia, size, "lambada_openai").falls
        assert fall.onset / TOKENS_A_STEP > 30_000
        assert fall.height_high < 0
    assert not real(pythia, "12b", "lambada_openai").falls
    assert "flat" in real(pythia, "70m", "winogrande").statement


def test_noise_of_a_single_curve_is_not_estimated_too_small_or_too_short() -> None:
    """A fit takes variance and memory out of residuals: n - p and plain autocorrelations would miss a third."""
    x, rng = np.linspace(0.0, 1.0, 40), np.random.default_rng(5)
    noise = autocorrelated(rng, (300, 40), 0.6)
    curves = np.interp(x, [0.0, 0.3, 0.6, 1.0], [0.0, 0.0, 8.0, 8.0]) + noise
    fits = refine(x, curves, np.tile([0.3, 0.6], (300, 1)))
    plain = fits.rss.mean() / (40 - 6)
    alone = [Pieces(*(part[i : i + 1] for part in fits)) for i in range(300)]
    told = np.array([remembered(x, fit, 40 - 6) for fit in alone])
    assert plain < 0.75
    assert 1.0 <= np.median(told[:, 0]) <= 1.4  # one standard error more memory asks for more variance
    assert np.median(told[:, 1]) == pytest.approx(0.6 + 1 / np.sqrt(40), abs=0.1)
