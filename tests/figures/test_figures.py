"""Figures from a made-up curves table: what they show, what they say, and that they look whole."""

from html import unescape
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from scipy import stats

from phaselab import curves as curve_queries
from phaselab import figures, results
from phaselab.phases import fit_table
from phaselab.study import load_study
from tiny import LABEL

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


#: Groups of models whose replicates are seeds.
SEEDS = {"GPT-NeoX": MODELS[:2], "others": MODELS[2:]}


def a_difference() -> pd.DataFrame:
    """Three pairs of seeds that are apart by 0.1, 0.2 and 0.3 at each of four checkpoints, and of eight people."""
    rows = [
        (10.0**k, n, 0.1 * (n + 1), f"of {many}", many) for k in range(3, 7) for many in (3, 8) for n in range(many)
    ]
    table = pd.DataFrame(rows, columns=["tokens", "replicate", "value", "line", "over"])
    return table.assign(over=table["over"].map({3: "pairs of seeds", 8: "people"}))


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


def lines_of(ax) -> dict[str, np.ndarray]:
    """Label -> values of the lines that the legend names and that have a marker, or a width of their own."""
    return {line.get_label(): line.get_ydata() for line in ax.lines if not line.get_label().startswith("_child")}


def band_of(ax, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the `number`-th band of a panel, by x."""
    from matplotlib.collections import FillBetweenPolyCollection

    bands = [c for c in ax.collections if isinstance(c, FillBetweenPolyCollection)]
    edges = pd.DataFrame(bands[number].get_paths()[0].vertices, columns=["x", "y"]).groupby("x")["y"]
    return edges.min().to_numpy(), edges.max().to_numpy()


# ------------------------------------------------------------------- the token axis


def place(axis, tokens: float) -> float:
    """Where a count of tokens stands, in pixels from the left."""
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    axis.decorate(ax)
    return float(ax.transData.transform((tokens, 0))[0])


def test_zero_tokens_have_a_place_left_of_the_first_checkpoint_and_a_tick():
    axis = figures.TokenAxis([0, 2048, 4096, 2_000_000])
    assert axis.ticks() == pytest.approx([0, 1e4, 1e5, 1e6])
    decade = place(axis, 1e6) - place(axis, 1e5)
    assert place(axis, 1e5) - place(axis, 1e4) == pytest.approx(decade)
    assert place(axis, 2048) - place(axis, 0) == pytest.approx(axis.gap * decade)
    assert axis.gap == pytest.approx(0.12 * np.log10(2_000_000 / 2048))


def test_the_axis_of_a_table_has_as_many_ticks_as_there_is_room_for():
    assert figures.TokenAxis([1e9, 1e12]).ticks() == pytest.approx([1e9, 1e10, 1e11, 1e12])
    assert figures.TokenAxis([0, 2e6, 3e11]).ticks(most=3) == pytest.approx([0, 1e7, 1e9, 1e11])
    assert figures.TokenAxis([0, 5e4, 2e6]).ticks() == pytest.approx([0, 1e5, 3e5, 1e6])
    assert figures.TokenAxis([2e6, 7e6]).ticks() == pytest.approx([2e6, 7e6])
    assert len(figures.TokenAxis([0]).ticks()) >= 2


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


def test_select_says_what_there_is(one):
    with pytest.raises(curve_queries.NothingToDraw, match="roi: found all, anterior temporal.*expected 'V1'"):
        figures.select(one, perspective="brain", roi="V1")


def test_a_figure_without_its_rows_says_so_where_a_notebook_shows_it(one):
    from IPython.core.pylabtools import print_figure

    empty = figures.behaviour_curves(one[one["perspective"] != "behaviour"])
    assert "nothing to draw in this study" in texts_of(empty)
    # IPython shows no figure that has no axes.
    assert print_figure(empty)


def test_means_are_taken_over_the_tasks_that_are_asked_for(one):
    row = figures.comparison(one, figures.families(load_study("demo")), {MODELS[0]: ["facts"]}).iloc[0]
    facts = one[(one["measure"] == "accuracy") & (one["task"] == "facts") & (one["tokens"] == one["tokens"].max())]
    assert row["accuracy"] == pytest.approx(facts["value"].iloc[0], abs=1e-3)
    words = texts_of(figures.perspectives(one, simulated=True, tasks=["facts"]))
    assert "reading" not in words
    assert (figures.of_tasks(one, ["facts"])["perspective"] == "brain").sum() > 0


def test_families_group_models_that_differ_in_their_seed_alone():
    table = figures.families(load_study("demo"))
    assert table["group"].nunique() < len(table)
    one_group = table[table["group"] == table["group"].iloc[0]]
    assert one_group["seed"].is_unique
    assert len(one_group) >= 2


def test_values_on_the_surface_reach_no_farther_than_they_should():
    from nilearn.datasets import load_fsaverage
    from scipy.spatial.distance import cdist

    vertices = {"S1": np.array([100, 10242 + 50]), "S2": np.array([100])}
    values = {"S1": np.array([0.2, 0.8]), "S2": np.array([0.4])}
    spread = figures.on_surface(vertices, values, reach=10.0)
    assert spread.shape == (20484,)
    several = figures.on_surface(vertices, {s: np.stack([v, 2 * v], axis=1) for s, v in values.items()}, reach=10.0)
    assert pytest.approx(np.stack([spread, 2 * spread]), nan_ok=True) == several.T
    assert spread[100] == pytest.approx(0.3)  # mean over the two subjects who share the vertex
    assert spread[10242 + 50] == pytest.approx(0.8)
    places = load_fsaverage("fsaverage5")["white_matter"].parts["left"].coordinates
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
        "perspectives": lambda **k: figures.perspectives(one, transitions=mine, phases=PHASES, **k),
        "pair": lambda **k: figures.perspectives(one, "accuracy", best_monotone=True, **k),
        "layer_checkpoint_heatmap": lambda **k: figures.layer_checkpoint_heatmap(one, **k),
        "roi_curves": lambda **k: figures.roi_curves(one, **k),
        "controls_bars": lambda **k: figures.controls_bars(one, made_up_controls(one), **k),
        "significance_curves": lambda **k: figures.significance_curves(one, **k),
        "by_region": lambda **k: figures.by_region(rois, ceiling, label="noise ceiling", **k),
        "across_models": lambda **k: figures.across_models(curves, models, **k),
        "by_seeds": lambda **k: figures.by_seeds(curves, SEEDS, ["brain", "accuracy"], **k),
        "over_replicates": lambda **k: figures.over_replicates(a_difference(), unit="difference", **k),
        "transition_raster": lambda **k: figures.transition_raster(moved, models, curves["tokens"], **k),
    }


@pytest.mark.parametrize("name", list(drawings(None, None)))
def test_a_figure_says_that_a_brain_is_simulated_and_no_text_lies_outside(name, curves, one):
    draw = drawings(curves, one)[name]
    assert "simulated" not in texts_of(draw(simulated=False)).lower()
    figure = draw(simulated=True)
    assert figures.SIMULATED in texts_of(figure)
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts] + [own.get_window_extent() for own in figure.legends]
    for box in boxes:
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -3
    # What stands below the panels covers none of them, and no legend does.
    below = max([text.get_window_extent().y1 for text in figure.texts])
    assert below <= min(box.y0 for box in boxes[: len(figure.axes)]) + 1
    for own in figure.legends:
        assert own.get_window_extent().y0 >= max(box.y1 for box in boxes[: len(figure.axes)]) - 1


def test_a_picture_says_in_numbers_what_is_seen(one):
    mine = made_up_transitions()
    figure = figures.perspectives(one, simulated=True, transitions=mine[mine["model"] == MODELS[0]])
    _, metadata = figure._repr_mimebundle_()
    said, curve = metadata["image/png"]["alt"], figures.brain_curve(one)["value"]
    ends = f"{curve.iloc[0]:.3g} at 0, {curve.iloc[-1]:.3g} at 3.07 M (between {curve.min():.3g} and {curve.max():.3g})"
    assert f"brain score, layer 2: mean over subjects {ends}; fitted rise at 9 k; fitted fall at 100 k." in said
    assert "simulated brain" in said
    medians = figures.by_region({"S1": np.array(["b", "a", "a"])}, {"S1": np.arange(3.0)}, simulated=False, label="r")
    assert medians.get_label().startswith("Medians: a 1.5, b 0.")


def test_letters_are_large_enough_for_a_phone(one):
    from matplotlib.text import Text

    figure = figures.perspectives(one, simulated=True, phases=PHASES)
    scale = 345 / figure.bbox.width * figure.dpi / 72  # pixels of a phone a point
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) * scale >= 8


def test_three_and_more_fitted_moves_stand_in_the_legend(one):
    moved = made_up_transitions()
    drawn = figures.perspectives(one, simulated=True, transitions=moved[moved["model"] == MODELS[0]])
    assert figures.drawing.MOVED in [text.get_text() for text in drawn.legends[0].get_texts()]
    without = figures.perspectives(one, simulated=True)
    assert figures.drawing.MOVED not in texts_of(without)


def test_sizes_have_a_sequence_of_colours():
    import matplotlib as mpl

    ax = figures.fitted_curves(fits(), ordered=True).axes[0]
    used = {line.get_label(): mpl.colors.to_hex(line.get_color()) for line in ax.lines}
    assert [used["a"], used["b"]] == [mpl.colors.to_hex(mpl.colormaps["viridis"](at)) for at in (0.0, 0.85)]


def test_panels_grow_with_what_is_drawn_or_scaled_after_them(one):
    for ax in (*figures.internals_curves(one).axes, *figures.fitted_curves(fits(), over="seeds").axes):
        assert ax.get_autoscaley_on()
        low, high = ax.get_ylim()
        drawn = np.concatenate([line.get_ydata() for line in ax.lines if line.get_transform() == ax.transData])
        assert low < np.nanmin(drawn)
        assert np.nanmax(drawn) < high


def test_the_three_perspectives_name_only_phases_that_were_found(one):
    words = texts_of(figures.perspectives(one, simulated=True, phases=PHASES))
    assert "phase 1" in words
    assert "phase 2" in words
    assert "phase 3" not in words
    assert "n = 3 simulated subjects" in words


def test_the_three_perspectives_leave_out_what_a_study_has_not(one):
    poor = one[(one["perspective"] == "brain") | (one["measure"] == "accuracy")]
    poor = poor[poor["measure"] != "r_normalised"]
    figure = figures.perspectives(poor, simulated=False)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["brain score, layer 2", "accuracy"]
    assert figure.axes[0].get_ylabel() == "correlation r"


def test_many_subjects_and_missing_regions_are_drawn():
    table = made_up_curves(models=("m",), subjects=tuple(f"s{k:02d}" for k in range(27)), checkpoints=6)
    table.loc[(table["roi"] == "frontal") & (table["measure"] == "r_normalised"), "value"] = np.nan
    titles = [ax.get_title(loc="left") for ax in figures.roi_curves(table, simulated=False).axes]
    assert "medial" in titles
    assert "frontal" not in titles
    assert "n = 27 subjects" in texts_of(figures.perspectives(table, simulated=False))


def test_a_region_keeps_its_colour_where_another_is_left_out():
    table = made_up_curves(models=("m",), checkpoints=6)
    table.loc[(table["roi"] == "frontal") & (table["measure"] == "r_normalised"), "value"] = np.nan
    axes = {ax.get_title(loc="left"): ax for ax in figures.roi_curves(table, simulated=True).axes}
    rois, values = {"S1": np.array(ROIS)}, {"S1": np.arange(5.0)}
    dots = figures.by_region(rois, values, simulated=True, label="r").axes[0].collections
    of = {roi: to_hex(own.get_facecolor()[0]) for roi, own in zip(ROIS, dots[::2], strict=True)}  # between bars
    for roi in {*ROIS} - {"frontal"}:
        (line,) = [line for line in axes[roi].lines if line.get_label() == figures.drawing.HIDDEN + roi]
        assert to_hex(line.get_color()) == of[roi], roi


def test_a_label_of_wide_letters_is_cut_where_there_is_no_room_for_them():
    cut = figures.drawing.short("日" * 40 + "!", 50)
    assert cut.startswith("日日")
    assert " … " in cut
    assert cut.endswith("!")
    assert figures.drawing.width(cut) <= 52
    assert figures.drawing.short("日" * 25, 50) == "日" * 25
    assert figures.drawing.short("a" * 50, 50) == "a" * 50
    assert figures.drawing.short("") == ""


def test_letters_are_of_a_font_that_has_them_and_boxes_are_told_once(one, monkeypatch, capsys):
    fonts = {name: fontManager.findfont(name) for name in ("cmr10", "DejaVu Sans")}
    monkeypatch.setattr(figures.drawing, "_fonts", lambda: fonts)
    figures.drawing._told.cache_clear()
    for _ in range(2):
        figure = figures.behaviour_curves(one.assign(task="é日本"))
        assert {tuple(text.get_fontfamily()) for text in figure.findobj(Text)} == {("cmr10", "DejaVu Sans")}
    said = capsys.readouterr().out
    assert said.startswith("Boxes stand for 日 本 in the figures: no font that is installed here has them. ")
    assert said.count("\n") == 1
    del fonts["cmr10"]
    figure = figures.behaviour_curves(one.assign(task="é"))
    assert {tuple(text.get_fontfamily()) for text in figure.findobj(Text)} == {("sans-serif",)}
    assert not capsys.readouterr().out


def test_line_and_band_are_mean_and_interval_over_subjects(one):
    ax = figures.perspectives(one, simulated=True).axes[0]
    want = figures.brain_curve(one)
    thick = [line for line in ax.lines if line.get_marker() == "o"]
    assert thick[0].get_xdata() == pytest.approx(want["tokens"])
    assert thick[0].get_ydata() == pytest.approx(want["value"])
    low, high = band_of(ax)
    assert low == pytest.approx(want["low"])
    assert high == pytest.approx(want["high"])
    # And each subject as a thin line.
    rows = one[(one["measure"] == "r_normalised") & (one["roi"] == "all") & (one["layer"] == 2)]
    thin = [line.get_ydata() for line in ax.lines if line.get_linewidth() == 1.0 and len(line.get_xdata()) > 2]
    assert sorted(map(sum, thin)) == pytest.approx(sorted(rows.groupby("subject")["value"].sum()))


def test_every_panel_draws_its_own_rows(one, curves):
    behaviour = figures.behaviour_curves(one)
    rows = one[(one["measure"] == "accuracy") & (one["task"] == "reading")]
    assert lines_of(behaviour.axes[1])["reading"] == pytest.approx(rows["value"])
    low, high = band_of(behaviour.axes[1], 1)
    assert high - low == pytest.approx(2 * 1.96 * rows["stderr"])
    region = figures.roi_curves(one, simulated=True).axes[2]
    assert lines_of(region)[figures.drawing.HIDDEN + "medial"] == pytest.approx(
        figures.brain_curve(one, "medial")["value"]
    )
    assert lines_of(region)[figures.drawing.HIDDEN + "all voxels"] == pytest.approx(figures.brain_curve(one)["value"])
    inner = figures.internals_curves(one).axes[1]
    ratio = one[(one["measure"] == "participation_ratio") & (one["layer"] == 3)]
    assert lines_of(inner)["layer 3"] == pytest.approx(ratio["value"])
    models = figures.families(load_study("demo"))
    (first, second, *_), ax = models["label"], figures.across_models(curves, models, simulated=True).axes[0]
    other = curves[curves["model"] == MODELS[1]]
    assert lines_of(ax)[second] == pytest.approx(figures.brain_curve(other)["value"])
    look = {line.get_label(): (line.get_color(), line.get_marker(), line.get_linestyle()) for line in ax.lines}
    assert look[first][0] == look[second][0]  # seeds of one model: one colour, told apart all the same
    assert look[first][1:] != look[second][1:]


def test_curves_over_seeds_are_means_of_models_with_their_spread(curves):
    from scipy import stats

    brain, accuracy = figures.by_seeds(curves, SEEDS, ["brain", "accuracy"], simulated=True).axes[:2]
    own = [figures.brain_curve(curves[curves["model"] == name])["value"].to_numpy() for name in MODELS[:2]]
    drawn = [line.get_ydata() for line in brain.lines if line.get_label() == "GPT-NeoX"]
    assert any(np.allclose(line, np.mean(own, axis=0)) for line in drawn if len(line) == len(own[0]))
    band = brain.collections[0].get_paths()[0].vertices[:, 1]
    half = stats.t.ppf(0.975, 1) * np.std(own, axis=0, ddof=1) / np.sqrt(2)
    assert band.max() == pytest.approx((np.mean(own, axis=0) + half).max())
    assert accuracy.get_title(loc="left") == "accuracy"


def test_replicates_of_each_kind_have_a_panel_with_their_own_interval():
    how = {"unit": "difference", "level_name": "none", "simulated": False}
    ax, people = figures.over_replicates(a_difference(), **how).axes
    assert [panel.get_title(loc="left") or panel.get_title() for panel in (ax, people)] == [
        "mean over 3 pairs of seeds",
        "mean over 8 people",
    ]
    assert len(ax.lines) - len(people.lines) == 3  # each of few is a line of its own, of many none is
    assert any(np.allclose(line.get_ydata(), 0.2) for line in ax.lines if len(line.get_ydata()) == 4)
    assert ax.collections[0].get_paths()[0].vertices[:, 1].min() == pytest.approx(0.2 - 4.302653 * 0.1 / np.sqrt(3))


def test_two_models_of_one_label_are_two_lines(curves):
    study = load_study("demo")
    same = [model.model_copy(update={"label": "the same"}) for model in study.models]
    models = figures.families(study.model_copy(update={"models": same}))
    assert models["group"].is_unique == (models.drop(columns="seed")["architecture"].is_unique)
    drawn = lines_of(figures.across_models(curves, models, simulated=True).axes[0])
    assert f"the same ({MODELS[1]})" in drawn
    assert len(drawn) == len(models)


def test_a_task_has_one_colour_on_all_pages(one):
    def colour(figure) -> str:
        return {line.get_label(): line.get_color() for ax in figure.axes for line in ax.lines}["reading"]

    every = one[one["task"] != "facts"]  # a model without the first task
    every.attrs["tasks"] = ["facts", "reading"]
    pages = [
        figures.behaviour_curves(one),
        figures.behaviour_curves(every),
        figures.perspectives(one, "accuracy", simulated=True, tasks=["reading"]),
        figures.perspectives(one, simulated=True),
    ]
    assert len({colour(page) for page in pages}) == 1


def test_matrices_and_maps_of_layers_show_their_table(one):
    rows = one[(one["measure"] == "r_normalised") & (one["roi"] == "all")]
    table = rows.pivot_table(index="layer", columns="tokens", values="value")
    ax = figures.layer_checkpoint_heatmap(one, simulated=True).axes[0]
    assert np.asarray(ax.collections[0].get_array()).reshape(table.shape) == pytest.approx(table.to_numpy())
    assert ax.lines[0].get_ydata() == pytest.approx(table.to_numpy().argmax(axis=0) + 0.5)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "2", "3"]
    matrix = np.array([[1.0, 0.25], [0.25, 1.0]])
    shown = figures.similarity_matrices({"a": matrix, "b": matrix / 2}, ["0", "1"], label="linear CKA")
    assert np.asarray(shown.axes[1].collections[0].get_array()).reshape(2, 2) == pytest.approx(matrix / 2)
    assert "0.25" in texts_of(shown)


def test_points_with_intervals_stand_where_the_table_says(one):
    def points(ax) -> dict[float, tuple[float, float, float]]:
        """Row -> value, low, high."""
        marks, bars = {}, {}
        for line in ax.lines:
            own = [(float(y), float(x)) for x, y in zip(*line.get_data(), strict=True) if np.isfinite(x)]
            if line.get_marker() != "None":
                marks |= dict(own)
            elif len(own) == 2 and own[0][0] == own[1][0]:
                bars[own[0][0]] = sorted(x for _, x in own)
        return {y: (x, *bars[y]) for y, x in marks.items()}

    table = figures.control_table(one, made_up_controls(one)).assign(stderr=np.nan)
    want = figures.interval_over(table, by=("order", "condition"))
    drawn = points(figures.controls_bars(one, made_up_controls(one), simulated=True).axes[0])
    trained = want["condition"].tolist().index("trained model, layer 2")
    assert drawn[trained] == pytest.approx(tuple(want.loc[trained, ["value", "low", "high"]]))


def test_numbers_of_controls_stand_beside_the_panel_where_nothing_is_drawn(one):
    figure = figures.controls_bars(one, made_up_controls(one), simulated=True)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert len(ax.texts) == len(ax.get_yticklabels())
    assert all(text.get_window_extent().x0 > ax.bbox.x1 for text in ax.texts)


def test_regions_have_a_dot_a_voxel_and_a_bar_for_the_median():
    rois = {"S1": np.array(["b", "a", "a"]), "S2": np.array(["b", "b", "a"])}
    values = {"S1": np.array([0.5, 0.1, 0.2]), "S2": np.array([0.7, np.nan, 0.6])}
    ax = figures.by_region(rois, values, simulated=False, label="r").axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    dots = np.concatenate([c.get_offsets() for c in ax.collections if len(c.get_offsets()) > 1])
    assert sorted(x for x, y in dots if y < 0.5) == pytest.approx([0.1, 0.2, 0.6])


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
    run = SimpleNamespace(texts=["she", "went"], onsets=np.array([0.4, 1.1]), tr=2.0)
    grid = figures.words_on_grid(run, 0, np.ones(4), np.ones(4))
    assert "she" in texts_of(grid)


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
    verdict = result.table.loc[result.table["phase"] == 2, "verdict"].iloc[0]
    assert text.startswith(f"Phase 2 (detachment) is **{verdict}** in {MODELS[0]}.")
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
    assert "layer (0: embedding)" in texts_of(figures.by_layer(table, "cosine"))
    courses = figures.time_courses({"S1": np.sin(np.arange(50))}, 2.0, simulated=True, label="run 1")
    assert courses.axes[0].lines[0].get_xdata()[-1] == 98.0
    assert figures.SIMULATED in texts_of(courses)
    power = pd.DataFrame({"depth": [0, 0.1], "power": [0.05, 0.9], "low": [0.01, 0.8], "high": [0.1, 0.95]})
    power = power.assign(checkpoints=20, subjects=3)
    drawn = figures.power_curve(power, label="depth (share)", note="30 studies")
    assert "depth (share)" in texts_of(drawn)
    assert drawn.axes[0].lines[0].get_ydata() == pytest.approx([0.05, 0.9])
    bars = [segment for c in drawn.axes[0].collections for segment in c.get_segments()]
    assert [tuple(bar[:, 1]) for bar in bars] == [pytest.approx((0.01, 0.1)), pytest.approx((0.8, 0.95))]


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
    figure = figures.phase_interactive(curves, models, simulated=True, tasks={})
    first = figure.data[0]
    assert first.name == "brain score"
    assert first.customdata[-1][0] == curves["checkpoint"][curves["tokens"].idxmax()]
    want = figures.brain_curve(curves[curves["model"] == MODELS[0]])
    assert first.y == pytest.approx(want["value"])
    assert first.error_y.array == pytest.approx(want["high"] - want["value"])
    assert 10 ** first.x[1:] == pytest.approx(want["tokens"][1:])
    # The brain above, the rest below; each curve is in the legend once.
    assert {trace.name for trace in figure.data if trace.yaxis == "y2"} == {"brain score"}
    assert figure.layout.yaxis2.domain[0] > figure.layout.yaxis.domain[1]
    assert figure.layout.yaxis2.title.text == "share of the ceiling"
    assert all(trace.showlegend and trace.legendgroup is None for trace in figure.data)
    menu = figure.layout.updatemenus[0].buttons
    assert [button.label for button in menu] == models["label"].tolist()
    for button, model in zip(menu, models["model"], strict=True):
        visible = button.args[0]["visible"]
        assert {trace.customdata[0][5] for trace, v in zip(figure.data, visible, strict=True) if v} == {model}
    assert [note.text for note in figure.layout.annotations] == [f"<b>{figures.SIMULATED}</b>"]
    measured = figures.phase_interactive(curves, models, simulated=False, tasks={})
    assert not measured.layout.annotations


def test_the_surface_view_is_small_and_tells_region_and_value_of_each_map_on_its_scale():
    values = np.full(20484, np.nan, dtype=np.float32)
    values[:5000] = np.linspace(0.1, 0.3, 5000)
    regions = np.where(np.arange(20484) < 100, "<b>a", "b").astype(object)
    steps = {"0": values / 3, "1 M": values}
    maps = {"last": values, "ceiling": values * 3}
    figure = figures.surface_interactive(maps, steps, regions, simulated=True, label="r")
    html = figure.to_html(full_html=False, include_plotlyjs=False)
    assert len(html) < 1_500_000
    assert "src=" not in html
    assert "http" not in html.replace("http://www.w3.org", "")
    assert figures.SIMULATED in html
    bare, mesh = figure.data
    assert len(bare.i) + len(mesh.i) == 40960  # every triangle once
    assert mesh.intensity == pytest.approx(values[:5000])
    assert [unescape(name) for name in (mesh.customdata[0], mesh.customdata[-1])] == ["<b>a", "b"]
    assert "<b>a" not in mesh.customdata[0]
    # A map of the list has its own scale, all places of the slider have one.
    menu, views = figure.layout.updatemenus
    ends = [button.args[0]["cmax"][0] for button in menu.buttons]
    assert ends == pytest.approx([0.3, 0.9])
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["0", "1 M"]
    assert [step.args[0]["cmax"][0] for step in slider.steps] == pytest.approx([0.3, 0.3])
    assert slider.steps[0].args[0]["intensity"][0] == pytest.approx(values[:5000] / 3)
    assert slider.steps[0].args[0]["colorbar.title.text"] == ["r, after 0 tokens"]
    assert all(change.args[1] == (1,) for change in (*menu.buttons, *slider.steps))  # never bare cortex
    assert [view.label for view in views.buttons] == ["left", "right", "top", "back"]
    assert bare.x[:10242].max() < bare.x[10242:].min() - 20


def test_the_still_surface_draws_four_views():
    values = np.full(20484, np.nan)
    values[:3000] = 0.4
    figure = figures.surface(values, simulated=True, label="noise ceiling (correlation)")
    words = texts_of(figure)
    assert all(f"{h}, {v}" in words for h in ("left", "right") for v in ("lateral", "medial"))


def test_every_figure_draws_a_label_as_text(one, curves):
    models = figures.families(load_study("demo"))
    strange = curves.replace(
        {"roi": {"medial": LABEL}, "task": {"facts": LABEL, "who": LABEL}, "subject": {"S1": LABEL}}
    )
    named = models.replace({"label": {models["label"][0]: LABEL}, "group": {models["group"][0]: LABEL}})
    own, loss = strange[strange["model"] == MODELS[0]], pd.DataFrame({"tokens": [0, 10], "loss": [5.5, 4.0]})
    run = SimpleNamespace(texts=[LABEL, "went"], onsets=np.array([0.4, 1.1]), tr=2.0)
    rois, values = {LABEL: np.array([LABEL, "b"])}, {LABEL: np.array([0.1, 0.2])}
    matrix, layers = np.eye(2), pd.DataFrame({"layer": [0, 1], "condition": LABEL, "value": [1.0, 2.0]})
    table = pd.DataFrame({"model": "m", "task": LABEL, "tokens": 10.0 ** np.arange(5, 11), "value": np.arange(6.0)})
    fitted, moved = fit_table(table, by=["model", "task"]), made_up_transitions()
    layers = pd.concat([layers, layers.assign(condition="b")])
    drawn = [
        figures.perspectives(own, "accuracy", simulated=True),
        figures.behaviour_curves(own),
        figures.probe_curves(own),
        figures.roi_curves(own, simulated=True),
        figures.loss_curve({LABEL: loss, "b": loss}),
        figures.across_models(strange, named, simulated=True),
        figures.fitted_curves(fitted, x=LABEL, y=LABEL),
        figures.move_raster(fitted),
        figures.transition_raster(moved, named, curves["tokens"], simulated=True),
        figures.by_region(rois, values, simulated=True, label=LABEL),
        figures.time_courses({LABEL: np.arange(9.0)}, 2.0, simulated=True, label=LABEL),
        figures.words_on_grid(run, 0, np.ones(4), np.ones(4)),
        figures.by_layer(layers, LABEL),
        figures.similarity_matrices({LABEL: matrix}, [LABEL, "b"], label=LABEL),
    ]
    for figure in drawn:
        figure.draw_without_rendering()
        # Broken into lines or not; where there is little room, without its middle.
        shown = {
            "".join(label.split())
            for label in (LABEL, figures.drawing.short(LABEL, 50), figures.drawing.short(LABEL, 30))
        }
        assert any(label in "".join(texts_of(figure).split()) for label in shown)
    legend = [text.get_text() for text in figures.across_models(strange, named, simulated=True).legends[0].get_texts()]
    assert legend == [*(figures.drawing.short(label, 50) for label in named["label"]), "chance"]


def test_interactive_figures_draw_a_label_as_text(curves):
    models = figures.families(load_study("demo")).replace({"label": {"GPT-NeoX, one language, seed 0": LABEL}})
    figure = figures.phase_interactive(curves, models, simulated=True, tasks={})
    shown = {trace.name for trace in figure.data} | {button.label for button in figure.layout.updatemenus[0].buttons}
    assert not [name for name in shown if "<" in name]
    assert {unescape(name) for name in shown} >= {LABEL, "brain score"}


def test_figures_import_without_torch_and_plotly():
    import subprocess
    import sys

    code = "import sys, phaselab.figures; sys.exit('torch' in sys.modules or 'plotly' in sys.modules)"
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
    fitted = fits()
    figure = figures.fitted_curves(fitted, x="steps", y="score")
    fit, (points, line) = fitted.fits["a", "up"], figure.axes[0].lines[:2]
    assert points.get_ydata() == pytest.approx(fit.values)
    assert line.get_ydata() == pytest.approx(fit.at(line.get_xdata()))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["up", "none"]
    assert {ax.get_ylabel() for ax in figure.axes} == {"score", ""}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def replicated():
    """Fits of four curves in three seeds, of one name each."""
    from phaselab.phases import fit_table

    tokens, rng = np.logspace(6, 10, 12), np.random.default_rng(0)
    rows = [
        {"task": task, "tokens": x, "value": height * (x > 1e8) + 0.1 * rng.standard_normal(), "seed": seed}
        for task, height in zip("abcd", (1, 2, 3, 4), strict=True)
        for seed in range(3)
        for x in tokens
    ]
    return fit_table(pd.DataFrame(rows), by=["task"], replicates="seed")


def test_bars_over_replicates_are_students_intervals_and_each_curve_has_its_panel():
    fitted = replicated()
    figure = figures.fitted_curves(fitted, over="seeds")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["a", "b", "c", "d"]
    own = fitted.fits[("b",)].replicates
    ends = [segment[:, 1] for segment in figure.axes[1].collections[-1].get_segments()]
    for k, (low, high) in enumerate(ends):
        assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, own[:, k].mean(), stats.sem(own[:, k])))
    assert "points: means over seeds (n = 3), bars: 95 % intervals; lines: fits" in texts_of(figure)


def test_a_few_curves_with_replicates_share_a_panel():
    fitted = replicated()
    two = fitted._replace(fits={key: fit for key, fit in fitted.fits.items() if key[0] in "ab"})
    (ax,) = figures.fitted_curves(two, over="seeds").axes
    assert sum(isinstance(bars, LineCollection) for bars in ax.collections) == 2


def test_the_raster_shows_the_interval_of_the_date_that_is_asked_for():
    fitted = fits()
    (ax,) = figures.move_raster(fitted, date="end").axes
    whiskers = [c.get_segments()[0][:, 0] for c in ax.collections if c.get_linewidth()[0] == pytest.approx(1.1)]
    moves = fitted.moves[fitted.moves["kind"].isin(["rise", "fall"])]
    for (low, high), move in zip(whiskers, moves.itertuples(), strict=True):
        assert (low, high) == pytest.approx((move.end_low, move.end_high))


def test_the_raster_has_a_row_a_curve():
    fitted = fits()
    assert fitted.moves["kind"].tolist() == ["rise", "rise", "flat", "undecided"]
    assert (fitted.moves["q"] <= 0.05).tolist() == [True, True, False, False]
    (ax,) = figures.move_raster(fitted).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "a", "b"]
    assert {"up", "none"} <= {text.get_text() for text in ax.texts}
    rises = [line for line in ax.lines if line.get_marker() == "^"]
    assert [float(line.get_ydata()[0]) for line in rises] == [0.0, 1.0]
    moves = fitted.moves[fitted.moves["kind"] == "rise"]
    assert [float(line.get_xdata()[0]) for line in rises] == pytest.approx(moves["midpoint"])
    moves = fitted.moves[fitted.moves["kind"].isin(["rise", "fall"])]
    bars = [tuple(c.get_segments()[0][:, 0]) for c in ax.collections if c.get_linewidth()[0] == 4]
    assert bars == [pytest.approx(pair) for pair in zip(moves["onset"], moves["end"], strict=True)]


def test_the_raster_of_transitions_has_their_intervals(curves):
    moved = made_up_transitions()
    (ax,) = figures.transition_raster(
        moved, figures.families(load_study("demo")), curves["tokens"], simulated=True
    ).axes
    first = moved.iloc[0]
    assert ax.lines[0].get_xdata() == pytest.approx([first["tokens"]])
    assert ax.collections[0].get_segments()[0][:, 0] == pytest.approx([first["low"], first["high"]])
    assert [label.get_text() for label in ax.get_yticklabels()][1:3] == ["instruction following", "accuracy"]
    assert ax.texts[0].get_text() == "GPT-NeoX, one language, seed 0"
    colours = [line.get_color() for line in ax.lines if line.get_marker() in ("^", "v")]
    perspectives = {"brain": figures.training.BRAIN, "instruction_following": figures.training.BEHAVIOUR}
    perspectives["accuracy"] = figures.training.BEHAVIOUR  # as in all other figures
    kept = moved[moved["kind"].isin(["rise", "fall"])]
    assert colours == [perspectives[measure] for measure in kept["measure"]]


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
