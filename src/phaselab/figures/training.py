"""What one model does over its training: brain score, behaviour and internal states on one axis of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from phaselab import curves as query
from phaselab.figures import drawing as draw

__all__ = ["behaviour_curves", "internals_curves", "perspective_pair", "probe_curves", "three_perspectives"]
__all__ += ["controls_bars", "layer_checkpoint_heatmap", "roi_curves", "significance_curves"]

BEHAVIOUR, BRAIN, INTERNAL = draw.COLOURS[:3]
MONOTONE = "closest curve that never falls"
MEANS: dict[str, dict[str, Any]] = {
    "mean over subjects": {"color": BRAIN, "marker": "o"},
    "mean of tasks": {"color": BEHAVIOUR, "marker": "s"},
    "_internal": {"color": INTERNAL, "marker": "^"},
    MONOTONE: {"color": "black", "linestyle": "--", "linewidth": 1.3, "zorder": 3},
}
#: Tasks take first the colours that stand for no perspective.
TASK_COLOURS = (*draw.COLOURS[3:6], *draw.COLOURS[2::-1], draw.COLOURS[6])
PROBES = {"probe_accuracy": "probe", "probe_correlation": "probe"}
PROBES |= {"probe_control": "control: one label a word type", "probe_shuffled": "control: shuffled labels"}
MOVES_NOTE = "95 % intervals; ▲ ▼ fitted rise, fall, with its interval"


def _task_looks(curves: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """The looks of all tasks of a table: the same on every page of a study."""
    return draw.looks(sorted(set(curves.loc[curves["perspective"] == "behaviour", "task"])), TASK_COLOURS)


def _brain(curves: pd.DataFrame, transitions: pd.DataFrame | None) -> tuple[draw.Panel, int]:
    """The panel of the brain score in its best layer, with thin lines for few subjects; the number of subjects."""
    measure = query.brain_measure(curves)
    layer = query.best_layer(curves, measure)
    rows = query.brain_by_subject(curves, layer=layer, measure=measure).rows
    rows = rows.assign(line="mean over subjects", unit=rows["subject"])
    n = rows["subject"].nunique()
    mean, thin = query.interval_over(rows, by=("line", "tokens")), rows if n <= 6 else None
    return draw.Panel.of(measure, mean, f", layer {layer}", transitions, thin=thin), n


def _behaviour(curves: pd.DataFrame, measure: str, moves: pd.DataFrame | None = None, mean: bool = False) -> draw.Panel:
    """A measure of behaviour, one line a task or their mean with the tasks as thin lines; chance beside accuracy."""
    rows = query.select(curves, perspective="behaviour", measure=measure).sort_values("tokens")
    rows = rows.assign(line=rows["task"], unit=rows["task"])
    level = query.chance_level(curves) if measure.startswith("accuracy") else np.nan
    more: dict[str, Any] = {"level": level, "level_name": "chance", "moves": moves}
    if mean:
        more["thin"] = rows if rows["task"].nunique() > 1 else None
        rows = query.behaviour_by_task(curves, measure).rows.assign(line="mean of tasks")
    return draw.Panel.of(measure, query.interval_of(rows, by=("line", "tokens")), **more)


@draw.styled
def three_perspectives(
    curves: pd.DataFrame,
    *,
    simulated: bool,
    transitions: pd.DataFrame | None = None,
    phases: pd.DataFrame | None = None,
    tasks: Sequence[str] | None = None,
) -> Figure:
    """The phase figure: brain, behaviour and internal states of one model on one token axis.

    Parameters
    ----------
    curves : rows of one model.
    transitions : what ``transitions_of`` gives; their midpoints and intervals are drawn.
    phases : ``TriplePhase.table``; from ``start`` to ``stop`` of each phase that was found is shaded.
    tasks : the tasks of which the mean is taken; default: all.
    """
    own = query.of_tasks(curves, tasks)
    brain, n = _brain(own, transitions)
    inner = query.internal_layer(own)
    drawn = [brain]
    for measure in ("instruction_following", "accuracy"):
        if (own["measure"] == measure).any():
            drawn.append(_behaviour(own, measure, transitions, mean=True))
    dimension = own[(own["measure"] == "intrinsic_dimension") & (own["layer"] == inner)]
    states = {"probe_advantage": query.probe_advantage(own), "intrinsic_dimension": query.interval_of(dimension)}
    for (measure, rows), level in zip(states.items(), (0.0, np.nan), strict=True):
        if len(rows):
            rows = rows.assign(line="_internal")
            drawn.append(draw.Panel.of(measure, rows, f", layer {inner}", transitions, level=level))
    note = f"{query.subjects_text(n, simulated)}; {MOVES_NOTE}"
    style = MEANS | _task_looks(curves)
    return draw.panels(drawn, style, phases=phases, room=1.45, note=note, simulated=simulated)


@draw.styled
def perspective_pair(
    curves: pd.DataFrame,
    measure: str,
    *,
    simulated: bool,
    transitions: pd.DataFrame | None = None,
    phases: pd.DataFrame | None = None,
    tasks: Sequence[str] | None = None,
    best_monotone: bool = False,
) -> Figure:
    """The brain curve above one measure of behaviour, task by task: what a phase is claimed to tie together.

    `best_monotone` : draw, with the brain curve, the closest curve that never falls (isotonic regression, weights
    equal): what lies below it is the fall that has to be explained. The rest as in ``three_perspectives``.
    """
    own = query.of_tasks(curves, tasks)
    brain, n = _brain(own, transitions)
    if best_monotone:
        closest = brain.rows[["tokens"]].assign(value=query.monotone(brain.rows["value"]), line=MONOTONE)
        brain = replace(brain, rows=pd.concat([brain.rows, closest]))
    drawn = [brain, _behaviour(own, measure, transitions)]
    note = f"{query.subjects_text(n, simulated)}; {MOVES_NOTE}"
    style = MEANS | _task_looks(curves)
    return draw.panels(drawn, style, phases=phases, room=2.1, note=note, simulated=simulated)


@draw.styled
def behaviour_curves(
    curves: pd.DataFrame, measures: Sequence[str] = ("instruction_following", "accuracy", "log_probability")
) -> Figure:
    """Each measure of behaviour by tokens, one line a task, with the interval over items."""
    there = set(query.select(curves, perspective="behaviour")["measure"])
    drawn = [_behaviour(curves, measure) for measure in measures if measure in there]
    return draw.panels(drawn, _task_looks(curves), note="bands: 95 % intervals over items (1.96 standard errors)")


@draw.styled
def internals_curves(
    curves: pd.DataFrame, measures: Sequence[str] = ("intrinsic_dimension", "participation_ratio")
) -> Figure:
    """Measures of the hidden states by tokens, one line a layer, on a logarithmic axis."""
    rows = query.select(curves, perspective="internal")
    rows = rows.assign(line=rows["layer"].map("layer {}".format))
    table = query.interval_of(rows, by=("measure", "line", "tokens"))
    drawn = [draw.Panel.of(m, table[table["measure"] == m]) for m in measures if (table["measure"] == m).any()]
    note = "layer 0 is the embedding; bands where given: 95 % intervals"
    fig = draw.panels(drawn, draw.layer_looks(rows["layer"]), room=2.1, note=note)
    for ax in fig.axes:
        ax.set_yscale("log")
        ticks = {"major_formatter": ScalarFormatter(), "minor_formatter": NullFormatter()}
        ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), **ticks)
    return fig


@draw.styled
def probe_curves(curves: pd.DataFrame, layer: int | None = None) -> Figure:
    """A panel for each probed label: the probe, its two controls and chance, by tokens.

    `layer` : that of ``internal_layer`` unless given. Labels that are classes are scored by
    accuracy, values by correlation; the panel's title says which.
    """
    layer = query.internal_layer(curves) if layer is None else layer
    rows = curves[(curves["perspective"] == "internal") & (curves["layer"] == layer)]
    rows = rows.assign(line=rows["measure"].map(PROBES))[rows["measure"].str.startswith("probe_")]
    if rows.empty:
        raise query.NothingToDraw("curves: found no 'probe_...'; expected probes in the study (internals.probes)")
    drawn = []
    for label, own in rows.groupby("task"):
        score = "correlation" if (own["measure"] == "probe_correlation").any() else "accuracy"
        chance = own.loc[own["measure"] == "probe_chance", "value"].mean()
        table = query.interval_of(own.dropna(subset=["line"]), by=("line", "tokens"))
        drawn.append(draw.Panel(table, f"{label} ({score})", "score", level=chance, level_name="chance"))
    style = draw.looks(dict.fromkeys(PROBES.values()), (INTERNAL, draw.COLOURS[3], draw.GREY))
    return draw.grid(drawn, style, note=f"layer {layer}; bands: 95 % intervals over folds")


@draw.styled
def layer_checkpoint_heatmap(curves: pd.DataFrame, *, simulated: bool) -> Figure:
    """Brain score of each layer at each checkpoint: mean over subjects, one column a checkpoint.

    A white dot marks the best layer of each checkpoint.
    """
    measure = query.brain_measure(curves)
    rows = query.select(curves, perspective="brain", measure=measure, roi="all")
    table = rows.pivot_table(index="layer", columns="tokens", values="value", aggfunc="mean").sort_index()
    fig = draw.new_figure(1.5 + 0.36 * len(table))
    ax = fig.subplots()
    bar = {"label": f"{query.MEASURES[measure][1]}\n(mean of voxels)", "pad": 0.01}
    sns.heatmap(table, ax=ax, cmap="cividis", cbar_kws=bar, yticklabels=draw.layer_names(table.index))
    shown = np.arange(0, table.shape[1], -(-table.shape[1] // 8))
    ax.set_xticks(shown + 0.5, [query.amount(tokens) for tokens in table.columns.to_numpy()[shown]], rotation=0)
    best = table.to_numpy().argmax(axis=0) + 0.5
    ax.plot(np.arange(len(best)) + 0.5, best, "o", markerfacecolor="white", markeredgecolor="black")
    ax.invert_yaxis()
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="training tokens at each checkpoint (even steps, not to scale)", ylabel="layer")
    n = query.subjects_text(rows["subject"].nunique(), simulated)
    return draw.foot(fig, f"mean over {n}; dot: best layer", simulated)


@draw.styled
def roi_curves(curves: pd.DataFrame, *, simulated: bool, layer: int | None = None) -> Figure:
    """A panel for each region: its brain score by tokens, with the mean of all voxels in grey."""
    measure = query.brain_measure(curves)
    layer = query.best_layer(curves, measure) if layer is None else layer
    rows = query.select(curves, perspective="brain", measure=measure, layer=layer).dropna(subset=["value"])
    by_roi = [query.brain_curve(curves, roi, layer, measure).assign(line=roi) for roi in rows["roi"].unique()]
    table = pd.concat(by_roi, ignore_index=True)
    whole = table["line"] == "all"
    table.loc[whole, ["low", "high"]] = np.nan
    names = sorted(table.loc[~whole, "line"].unique())
    drawn = [draw.Panel(table[whole | (table["line"] == n)], n, query.MEASURES[measure][1]) for n in names]
    style = {name: {**look, "linestyle": "-"} for name, look in draw.looks(names).items()}
    style["all"] = {"color": draw.PALE, "linewidth": 2.5, "zorder": 1}
    n = query.subjects_text(len(query.brain_by_subject(curves, layer=layer, measure=measure).names), simulated)
    note = f"layer {layer}; {n}, 95 % intervals; grey: all voxels"
    return draw.grid(drawn, style, legend=False, note=note, simulated=simulated)


@draw.styled
def significance_curves(curves: pd.DataFrame, *, simulated: bool, fdr: float = 0.05) -> Figure:
    """Share of voxels whose score is significant, by tokens: one line a layer, mean over subjects."""
    rows = query.select(curves, perspective="brain", measure="significant", roi="all")
    table = query.interval_over(rows.assign(line=rows["layer"].map("layer {}".format)), by=("line", "tokens"))
    panel = draw.Panel(table, unit=f"share of voxels\nwith q < {fdr:g}", limits=(-0.03, 1.03))
    note = f"{query.subjects_text(rows['subject'].nunique(), simulated)}, 95 % intervals"
    return draw.panels([panel], draw.layer_looks(rows["layer"]), room=2.2, note=note, simulated=simulated)


@draw.styled
def controls_bars(
    curves: pd.DataFrame, controls: pd.DataFrame, *, simulated: bool, ceiling: Mapping[str, float] | None = None
) -> Figure:
    """The score of the trained model beside what it must be compared with: rows of one model and of its controls.

    `ceiling` : subject -> mean noise ceiling of its voxels (correlation), if known.
    """
    table = query.control_table(curves, controls, ceiling=ceiling)
    summary = query.interval_over(table.assign(stderr=np.nan), by=("order", "condition"))
    fig = draw.new_figure(1.15 + 0.36 * len(summary))
    ax = fig.subplots()
    colours = np.where(summary["condition"].str.startswith("trained"), BRAIN, draw.GREY)
    palette = dict(zip(summary["condition"], colours, strict=True))
    how: dict[str, Any] = {"y": "condition", "hue": "condition", "palette": palette, "ax": ax, "legend": False}
    sns.stripplot(table, x="value", jitter=False, marker="|", size=9, linewidth=1.3, alpha=0.7, **how)
    sns.pointplot(draw.spread(summary), x="y", linestyle="none", markersize=6, linewidth=2.2, **how | draw.GIVEN)
    for y, value in enumerate(summary["value"]):
        ax.annotate(f"{value:.3f}", (value, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8.5)
    ax.axvline(0, color="black", linewidth=1)
    ax.set_ylim(len(summary) - 0.4, -0.65)
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="correlation r of predicted and measured responses, mean of voxels", ylabel="")
    n = query.subjects_text(table["subject"].nunique(), simulated)
    return draw.foot(fig, f"{n} (strokes), mean and 95 % interval", simulated)
