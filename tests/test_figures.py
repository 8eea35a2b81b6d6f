"""Figures from a made-up curves table: what they show, what they say, and that they look whole."""

import numpy as np
import pandas as pd
import pytest

from phaselab import figures, results
from phaselab.study import load_study

SUBJECTS = ("S1", "S2", "S3")
ROIS = ("anterior temporal", "frontal", "medial", "parietal", "posterior temporal")
LAYERS = (0, 1, 2, 3)
TASKS = ("facts", "reading")
PROBES = ("mood", "place", "progress", "who")
MODELS = ("neox-en-s0", "neox-en-s1", "olmo2-en-s0", "neox-two-s0")


def made_up_curves(
    models=MODELS, subjects=SUBJECTS, rois=ROIS, tasks=TASKS, probes=PROBES, checkpoints=20, normalised=True
) -> pd.DataFrame:
    """A curves table with a rise, a dip and a rise: nobody's results, only something to draw."""
    rng = np.random.default_rng(7)
    steps = np.unique(np.concatenate([[0], np.geomspace(1, 1500, checkpoints - 1).round()])).astype(int)
    rows = []
    for number, model in enumerate(models):
        for step in steps:
            x = np.log10(step + 1) / np.log10(1501)
            same = {"study": "made-up", "model": model, "checkpoint": f"step{step}-tokens{step * 2048}"}
            same |= {"step": int(step), "tokens": int(step * 2048), "task": "", "subject": "", "roi": ""}
            same |= {"layer": -1, "stderr": np.nan}
            level = 0.3 + 0.4 * x - 0.12 * np.exp(-(((x - 0.6) / 0.08) ** 2)) + 0.02 * number
            for layer in LAYERS:
                for subject in subjects:
                    offset = 0.03 * list(subjects).index(subject)
                    for place, roi in enumerate(("all", *rois)):
                        share = level - 0.05 * (layer - 2) ** 2 + offset + 0.02 * place + rng.normal(0, 0.008)
                        brain = {
                            **same,
                            "perspective": "brain",
                            "layer": layer,
                            "subject": subject,
                            "roi": roi,
                        }
                        rows.append({**brain, "measure": "r", "value": share * 0.6, "stderr": 0.01})
                        if normalised:
                            rows.append({**brain, "measure": "r_normalised", "value": share, "stderr": 0.02})
                        rows.append({**brain, "measure": "significant", "value": np.clip(share * 1.3, 0, 1)})
                inner = {**same, "perspective": "internal", "layer": layer}
                rows.append({**inner, "measure": "intrinsic_dimension", "value": 6 + 8 * x + layer, "stderr": 0.4})
                rows.append({**inner, "measure": "participation_ratio", "value": 20 - 10 * x + 2 * layer})
                for probe in probes:
                    task = {**inner, "task": probe}
                    score = "probe_correlation" if probe == "progress" else "probe_accuracy"
                    value = 0.2 + 0.5 * x + rng.normal(0, 0.01)
                    rows.append({**task, "measure": score, "value": value, "stderr": 0.02})
                    rows.append({**task, "measure": "probe_control", "value": 0.22, "stderr": 0.01})
                    rows.append({**task, "measure": "probe_selectivity", "value": value - 0.22, "stderr": 0.025})
                    rows.append({**task, "measure": "probe_shuffled", "value": 0.12, "stderr": 0.01})
                    rows.append({**task, "measure": "probe_chance", "value": 0.13, "stderr": 0.0})
            for place, task in enumerate(tasks):
                does = {**same, "perspective": "behaviour", "task": task}
                follows = 1 / (1 + np.exp(-(x - 0.35 - 0.1 * place) * 25))
                right = 0.33 + 0.62 / (1 + np.exp(-(x - 0.65 - 0.12 * place) * 30))
                for measure, value in (
                    ("instruction_following", follows),
                    ("accuracy", right),
                    ("log_probability", -5 + 4.5 * x),
                    ("chance", 1 / 3),
                ):
                    rows.append({**does, "measure": measure, "value": value, "stderr": 0.03})
    return results.curve_table(rows)


def made_up_controls(curves: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    last = curves[(curves["tokens"] == curves["tokens"].max()) & (curves["measure"] == "r")]
    word_rate = last[last["layer"] == 0].assign(model="control: word rate", value=0.03)
    latents = last[last["layer"] == 0].assign(model="control: true latents", value=0.52)
    shuffles = [
        last.assign(
            model="control: shuffled stimulus",
            checkpoint=f"shuffle-{k}",
            value=rng.normal(0, 0.01, len(last)),
        )
        for k in range(3)
    ]
    return pd.concat([word_rate, latents, *shuffles], ignore_index=True)


def made_up_transitions(models=MODELS) -> pd.DataFrame:
    rows = []
    for k, model in enumerate(models):
        for perspective, measure, kind, tokens in (
            ("brain", "brain", "rise", 9e3),
            ("brain", "brain", "fall", 1e5),
            ("behaviour", "instruction_following", "rise", 2e4),
            ("behaviour", "accuracy", "rise", 3e5),
        ):
            at = tokens * (1 + 0.3 * k)
            rows.append((model, perspective, measure, kind, at, at / 1.6, at * 1.5))
    return pd.DataFrame(rows, columns=["model", "perspective", "measure", "kind", "tokens", "low", "high"])


PHASES = pd.DataFrame(
    {"phase": [1, 2, 3], "found": [True, True, False], "start": [9e3, 1e5, 4e5], "stop": [8e4, 3e5, 3e6]}
)


@pytest.fixture(scope="module")
def curves() -> pd.DataFrame:
    return made_up_curves()


@pytest.fixture(scope="module")
def one(curves: pd.DataFrame) -> pd.DataFrame:
    return curves[curves["model"] == MODELS[0]]


def texts_of(figure) -> str:
    """All that is written in a figure, in one string."""
    from matplotlib.text import Text

    return " | ".join(t.get_text() for t in figure.findobj(Text) if t.get_text())


# ------------------------------------------------------------------- the token axis


def test_zero_tokens_have_a_place_left_of_the_first_checkpoint_and_a_tick():
    axis = figures.TokenAxis.of([0, 2048, 4096, 2_000_000])
    positions, labels = axis.ticks()
    assert labels == ["0", "10 k", "100 k", "1 M"]
    assert positions[0] == axis(0) < axis(2048) - 0.19
    assert axis([2048, 1e6]) == pytest.approx([np.log10(2048), 6.0])
    # The lower end of an interval may be below every checkpoint: it stops where zero stands.
    assert axis(1.0) == axis.zero


def test_an_axis_without_step_zero_has_no_zero():
    axis = figures.TokenAxis.of([1e9, 1e12])
    assert "0" not in axis.ticks()[1]


def test_an_axis_within_a_decade_still_has_two_ticks():
    assert len(figures.TokenAxis.of([2e6, 7e6]).ticks()[0]) >= 2


def test_negative_tokens_are_refused():
    with pytest.raises(ValueError, match="found -1, expected counts of 0 or more"):
        figures.TokenAxis.of([-1, 10])


# ------------------------------------------------------------- means and intervals


def test_interval_over_subjects_is_students():
    rows = pd.DataFrame({"tokens": [0, 0, 0], "value": [0.1, 0.2, 0.3], "stderr": np.nan})
    (row,) = figures.interval_over(rows).to_dict("records")
    # t(.975, 2) = 4.3027; s = 0.1.
    assert row["value"] == pytest.approx(0.2)
    assert row["high"] - row["value"] == pytest.approx(4.3027 * 0.1 / np.sqrt(3), rel=1e-4)
    assert row["n"] == 3


def test_interval_of_independent_rows_adds_their_variances():
    rows = pd.DataFrame({"tokens": [5, 5], "value": [0.2, 0.6], "stderr": [0.03, 0.04]})
    (row,) = figures.interval_of(rows).to_dict("records")
    assert row["value"] == pytest.approx(0.4)
    assert row["high"] - row["value"] == pytest.approx(1.96 * 0.05 / 2)


def test_one_subject_takes_its_own_standard_error_and_none_gives_no_interval():
    rows = pd.DataFrame({"tokens": [0, 1], "value": [0.1, 0.2], "stderr": [0.01, np.nan]})
    table = figures.interval_over(rows)
    assert table["high"].iloc[0] == pytest.approx(0.1196)
    assert np.isnan(table["high"].iloc[1])


def test_best_layer_is_the_one_with_the_highest_mean_over_training(one):
    assert figures.best_layer(one) == 2
    only = one[one["measure"] != "r_normalised"]
    assert figures.brain_measure(only) == "r"
    assert figures.best_layer(only) == 2


def test_select_says_what_there_is(one):
    with pytest.raises(figures.NothingToDraw, match="roi: found all, anterior temporal.*expected 'V1'"):
        figures.select(one, perspective="brain", roi="V1")


def test_a_figure_without_its_rows_says_so_where_a_notebook_shows_it(one):
    from IPython.core.pylabtools import print_figure

    empty = figures.behaviour_curves(one[one["perspective"] != "behaviour"])
    assert "nothing to draw in this study" in texts_of(empty)
    # IPython shows no figure that has no axes.
    assert print_figure(empty)


def test_monotone_is_the_isotonic_fit():
    assert figures.monotone([1, 3, 2, 4]) == pytest.approx([1, 2.5, 2.5, 4])


def test_means_are_taken_over_the_tasks_that_are_asked_for(one):
    row = figures.comparison(one, figures.families(load_study("demo")), {MODELS[0]: ["facts"]}).iloc[0]
    facts = one[(one["measure"] == "accuracy") & (one["task"] == "facts") & (one["tokens"] == one["tokens"].max())]
    assert row["accuracy"] == pytest.approx(facts["value"].iloc[0], abs=1e-3)
    words = texts_of(figures.three_perspectives(one, simulated=True, tasks=["facts"]))
    assert "reading" not in words
    assert (figures.of_tasks(one, ["facts"])["perspective"] == "brain").sum() > 0


def test_families_group_models_that_differ_in_their_seed_alone():
    table = figures.families(load_study("demo"))
    assert table["group"].nunique() < len(table)
    one_group = table[table["group"] == table["group"].iloc[0]]
    assert one_group["seed"].is_unique
    assert len(one_group) >= 2


def test_values_on_the_surface_reach_no_farther_than_they_should():
    from scipy.spatial.distance import cdist

    from phaselab.figures.surface import mesh

    vertices = {"S1": np.array([100, 10242 + 50]), "S2": np.array([100])}
    values = {"S1": np.array([0.2, 0.8]), "S2": np.array([0.4])}
    spread = figures.on_surface(vertices, values, reach=10.0)
    assert spread.shape == (20484,)
    assert spread[100] == pytest.approx(0.3)  # mean over the two subjects who share the vertex
    assert spread[10242 + 50] == pytest.approx(0.8)
    places, _ = mesh("left", "white_matter")
    near = cdist(places, places[[100]])[:, 0] <= 10.0
    assert (np.isfinite(spread[:10242]) == near).all()


# ------------------------------------------------------------------------- figures


def drawings(curves, one):
    """Name -> a call that draws, for all figures that show brain data."""
    models = figures.families(load_study("demo"))
    moved = made_up_transitions()
    mine = moved[moved["model"] == MODELS[0]]
    rng = np.random.default_rng(0)
    ceiling = {s: rng.uniform(0.2, 0.6, 40) for s in SUBJECTS}
    rois = {s: rng.choice(ROIS, 40) for s in SUBJECTS}
    return {
        "three_perspectives": lambda **k: figures.three_perspectives(one, transitions=mine, phases=PHASES, **k),
        "perspective_pair": lambda **k: figures.perspective_pair(one, "accuracy", best_monotone=True, **k),
        "layer_checkpoint_heatmap": lambda **k: figures.layer_checkpoint_heatmap(one, **k),
        "roi_curves": lambda **k: figures.roi_curves(one, **k),
        "controls_bars": lambda **k: figures.controls_bars(one, made_up_controls(one), **k),
        "significance_curves": lambda **k: figures.significance_curves(one, **k),
        "by_region": lambda **k: figures.by_region(rois, ceiling, label="noise ceiling", **k),
        "across_models": lambda **k: figures.across_models(curves, models, **k),
        "final_scores": lambda **k: figures.final_scores(curves, models, **k),
        "transition_raster": lambda **k: figures.transition_raster(moved, models, curves["tokens"], **k),
    }


@pytest.mark.parametrize("name", list(drawings(None, None)))
def test_a_figure_of_a_simulated_brain_says_so_and_one_of_a_real_brain_does_not(name, curves, one):
    draw = drawings(curves, one)[name]
    assert figures.SIMULATED in texts_of(draw(simulated=True))
    assert "simulated" not in texts_of(draw(simulated=False)).lower()


@pytest.mark.parametrize("name", list(drawings(None, None)))
def test_no_text_of_a_figure_lies_outside_it(name, curves, one):
    import io

    figure = drawings(curves, one)[name](simulated=True)
    figure.savefig(io.BytesIO(), format="png", dpi=60)
    width, height = figure.bbox.width, figure.bbox.height
    for ax in figure.axes:
        if ax.get_visible():
            box = ax.get_tightbbox()
            assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -3, ax.get_title()
    overlaps = [t for t in figure.texts if t.get_window_extent().x1 > width]
    assert not overlaps


def test_the_three_perspectives_name_only_phases_that_were_found(one):
    words = texts_of(figures.three_perspectives(one, simulated=True, phases=PHASES))
    assert "phase I" in words
    assert "phase II" in words
    assert "phase III" not in words
    assert "n = 3 simulated subjects" in words


def test_the_three_perspectives_leave_out_what_a_study_has_not(one):
    poor = one[(one["perspective"] == "brain") | (one["measure"] == "accuracy")]
    poor = poor[poor["measure"] != "r_normalised"]
    figure = figures.three_perspectives(poor, simulated=False)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["brain score, layer 2", "accuracy"]
    assert figure.axes[0].get_ylabel() == "correlation r"


def test_many_subjects_and_missing_regions_are_drawn():
    table = made_up_curves(models=("m",), subjects=tuple(f"s{k:02d}" for k in range(27)), checkpoints=6)
    table.loc[(table["roi"] == "frontal") & (table["measure"] == "r_normalised"), "value"] = np.nan
    titles = [ax.get_title(loc="left") for ax in figures.roi_curves(table, simulated=False).axes]
    assert "medial" in titles
    assert "frontal" not in titles
    assert "n = 27 subjects" in texts_of(figures.three_perspectives(table, simulated=False))


def test_the_line_of_a_figure_is_the_mean_over_subjects(one):
    figure = figures.three_perspectives(one, simulated=True)
    rows = one[(one["measure"] == "r_normalised") & (one["roi"] == "all") & (one["layer"] == 2)]
    want = rows.groupby("tokens")["value"].mean().to_numpy()
    thick = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert thick[0].get_ydata() == pytest.approx(want)


def test_controls_compare_like_with_like(one):
    table = figures.control_table(one, made_up_controls(one), ceiling={"S1": 0.6, "S2": 0.6, "S3": 0.6})
    means = table.groupby("condition")["value"].mean()
    assert list(dict.fromkeys(table["condition"]))[:2] == ["noise ceiling", "true latents"]
    last = one[(one["measure"] == "r") & (one["roi"] == "all") & (one["layer"] == 2)]
    assert means["trained model, layer 2"] == pytest.approx(
        last.loc[last["tokens"] == last["tokens"].max(), "value"].mean()
    )
    assert means["untrained model, layer 2"] == pytest.approx(last.loc[last["tokens"] == 0, "value"].mean())
    assert abs(means["shuffled stimulus"]) < 0.02
    assert (table.groupby("condition").size() == 3).all()


def test_probes_show_their_controls_and_their_kind_of_score(one):
    words = texts_of(figures.probe_curves(one))
    assert "progress (correlation)" in words
    assert "who (accuracy)" in words
    assert "shuffled labels" in words


def test_a_figure_of_what_a_study_lacks_says_what_is_missing(one):
    without = figures.probe_curves(one[~one["measure"].str.startswith("probe")])
    assert "internals.probes" in texts_of(without)
    assert "expected 'behaviour'" in texts_of(figures.behaviour_curves(one[one["perspective"] == "brain"]))


def test_behaviour_and_internals_and_the_rest_draw(one, curves):
    assert "chance" in texts_of(figures.behaviour_curves(one))
    assert "participation ratio" in texts_of(figures.internals_curves(one))
    loss = pd.DataFrame({"tokens": [0, 10, 100], "loss": [5.5, 4.0, 2.0]})
    assert "nats" in texts_of(figures.loss_curve({"a": loss}))
    grid = figures.words_on_grid(["she", "went"], np.array([0.4, 1.1]), 2.0, 0, 8, np.ones(4), np.ones(4))
    assert "she" in texts_of(grid)
    matrix = figures.similarity_matrices({"first": np.eye(3)}, ["0", "1", "2"], label="linear CKA")
    assert "1.00" in texts_of(matrix)


def test_transitions_of_a_test_become_a_table_and_sentences(one):
    from phaselab.phases import triple_phase_test

    result = triple_phase_test(one, MODELS[0], n_bootstrap=40)
    moves = figures.transitions_of(result)
    assert set(moves["measure"]) == {"brain", "instruction_following", "accuracy"}
    own = moves[moves["measure"] == "brain"]
    assert own["kind"].tolist() == ["rise", "fall", "rise"]  # what made_up_curves put in
    assert (own["onset"] <= own["tokens"]).all()
    assert (own["tokens"] <= own["end"]).all()
    text = figures.phase_text(result, 2, "share of the ceiling")
    found = bool(result.table.loc[result.table["phase"] == 2, "found"].iloc[0])
    assert text.startswith(f"Phase II (detachment) is {'**found**' if found else '**not found**'} in {MODELS[0]}.")
    assert "The fall of the brain score goes from" in text
    assert "share of the ceiling" in text


def test_an_undated_phase_is_told_without_numbers_that_do_not_exist():
    from phaselab.phases import triple_phase_test

    flat = made_up_curves(models=("m",))
    flat.loc[flat["perspective"] == "brain", "value"] = 0.3
    result = triple_phase_test(flat, "m", n_bootstrap=40)
    assert figures.transitions_of(result).query("measure == 'brain'").empty
    for phase in (1, 2, 3):
        text = figures.phase_text(result, phase, "share")
        assert "not found" in text
        assert "nan" not in text


def test_lines_by_layer_time_courses_and_power_draw():
    table = pd.DataFrame({"layer": [0, 1, 0, 1], "condition": ["a", "a", "b", "b"], "value": [1.0, 2, 3, 4]})
    assert "0 (embedding)" in texts_of(figures.by_layer(table, "cosine"))
    courses = figures.time_courses({"S1": np.sin(np.arange(50))}, 2.0, simulated=True, label="run 1")
    assert courses.axes[0].lines[0].get_xdata()[-1] == 98.0
    assert figures.SIMULATED in texts_of(courses)
    power = pd.DataFrame({"depth": [0, 0.1], "power": [0.05, 0.9], "low": [0.01, 0.8], "high": [0.1, 0.95]})
    assert "depth (share)" in texts_of(figures.power_curve(power, label="depth (share)", note="30 studies"))


def test_a_figure_is_the_same_twice_and_leaves_settings_alone(one):
    import io

    import matplotlib as mpl

    before = mpl.rcParams.copy()

    def png() -> bytes:
        out = io.BytesIO()
        figures.behaviour_curves(one).savefig(out, format="png")
        return out.getvalue()

    assert png() == png()
    assert mpl.rcParams == before


def test_the_interactive_figure_tells_each_checkpoint_and_switches_models(curves):
    models = figures.families(load_study("demo"))
    figure = figures.phase_interactive(curves, models, simulated=True, transitions=made_up_transitions())
    first = figure.data[0]
    assert first.customdata[-1][0] == curves["checkpoint"][curves["tokens"].idxmax()]
    menu = figure.layout.updatemenus[0].buttons
    assert [button.label for button in menu] == models["label"].tolist()
    for button, model in zip(menu, models["model"], strict=True):
        visible = button.args[0]["visible"]
        assert len(visible) == len(figure.data)
        assert sum(v is not False for v in visible) * len(models) == len(figure.data), model
    assert figures.SIMULATED in figure.to_json()
    assert figures.SIMULATED not in figures.phase_interactive(curves, models, simulated=False).to_json()


def test_the_surface_view_is_small_and_asks_for_nothing():
    values = np.full(20484, np.nan, dtype=np.float32)
    values[:5000] = 0.3
    figure = figures.surface_interactive({"ceiling": values, "half": values / 2}, simulated=True, label="r")
    html = figure.to_html(full_html=False, include_plotlyjs=False)
    assert len(html) < 2_500_000
    assert "src=" not in html
    assert "http" not in html.replace("http://www.w3.org", "")
    assert figures.SIMULATED in html


def test_the_still_surface_draws_four_views():
    values = np.full(20484, np.nan)
    values[:3000] = 0.4
    figure = figures.surface(values, simulated=True, label="noise ceiling (correlation)")
    words = texts_of(figure)
    assert all(f"{h}, {v}" in words for h in ("left", "right") for v in ("lateral", "medial"))


def test_figures_import_without_torch():
    import subprocess
    import sys

    code = "import sys, phaselab.figures; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --------------------------------------------------------------- curves from anywhere


def fits():
    """Fits of four curves, two tasks of two models; one of them too short to be decided."""
    from phaselab.phases import fit_table

    tokens = np.concatenate([[0], np.logspace(6, 10, 15)])
    rng = np.random.default_rng(0)
    rise = np.interp(np.log10(np.maximum(tokens, 1e5)), [7.5, 8.5], [0.0, 1.0])
    rows = [
        {"model": m, "task": t, "tokens": x, "value": height * y + 0.02 * rng.standard_normal()}
        for m, t, height, n in (
            ("a", "up", 1, 16),
            ("b", "up", 2, 16),
            ("a", "none", 0, 16),
            ("b", "none", 0, 4),
        )
        for x, y in zip(tokens[:n], rise[:n], strict=True)
    ]
    return fit_table(pd.DataFrame(rows), by=["model", "task"])


def test_fitted_curves_have_a_panel_a_task_and_a_line_a_model():
    figure = figures.fitted_curves(fits(), x="steps", y="score")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["up", "none"]
    assert {ax.get_ylabel() for ax in figure.axes} == {"score", ""}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_the_raster_has_a_row_a_curve():
    fitted = fits()
    assert fitted.moves["kind"].tolist() == ["rise", "rise", "flat", "undecided"]
    (ax,) = figures.move_raster(fitted).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["up: a", "b", "none: a", "b"]
    rises = [line for line in ax.lines if line.get_marker() == "^"]
    assert [float(line.get_ydata()[0]) for line in rises] == [0.0, 1.0]


def test_the_power_of_several_designs_is_a_panel_a_number_of_checkpoints():
    table = pd.DataFrame(
        [(n, s, d, d / 10, d / 10, d / 10) for n in (12, 20) for s in (1, 3) for d in (0.0, 5.0)],
        columns=["checkpoints", "subjects", "depth", "power", "low", "high"],
    )
    many = figures.power_curve(table, label="depth")
    assert [ax.get_title(loc="left") for ax in many.axes] == ["12 checkpoints", "20 checkpoints"]
    one = figures.power_curve(table[(table["checkpoints"] == 12) & (table["subjects"] == 1)], label="depth")
    assert len(one.axes) == 1
    assert not one.legends
