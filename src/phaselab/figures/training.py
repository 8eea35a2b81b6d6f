"""Learning curves: what one model does over its training, from all three perspectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phaselab.curves import (
    MEASURES,
    NothingToDraw,
    best_layer,
    brain_by_subject,
    brain_curve,
    brain_measure,
    control_table,
    each_row,
    internal_layer,
    interval_of,
    interval_over,
    model_curve,
    monotone,
    of_tasks,
    probe_advantage,
    select,
    subjects_text,
)
from phaselab.figures.drawing import (
    COLOURS,
    GREY,
    LINES,
    MARKERS,
    PERSPECTIVE_COLOURS,
    TokenAxis,
    chance_line,
    draw_line,
    foot,
    layer_colours,
    layer_names,
    legend_above,
    legend_inside,
    mark_transitions,
    name_panel,
    new_figure,
    shade_phases,
    short,
    styled,
    subject_lines,
    task_lines,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def three_perspectives(
    curves: pd.DataFrame,
    *,
    simulated: bool,
    transitions: pd.DataFrame | None = None,
    phases: pd.DataFrame | None = None,
    tasks: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """The phase figure: brain, behaviour and internal states of one model on one token axis.

    Parameters
    ----------
    curves : rows of the curves table of one model.
    simulated : whether the brain is simulated.
    transitions : what ``transitions_of`` gives; their midpoints and intervals are drawn.
    phases : ``TriplePhase.table``; from ``start`` to ``stop`` of each phase that was found is shaded.
    tasks : the tasks of which the mean is taken; default: all.
    """
    curves = of_tasks(curves, tasks)
    axis = TokenAxis.of(curves["tokens"])
    measure = brain_measure(curves)
    layer, inner = best_layer(curves, measure), internal_layer(curves)
    panels = ["brain", "instruction_following", "accuracy"]
    probes = probe_advantage(curves)
    panels += ["probes"] if len(probes) else []
    panels += ["intrinsic_dimension"] if (curves["measure"] == "intrinsic_dimension").any() else []
    panels = [p for p in panels if p in ("brain", "probes") or (curves["measure"] == p).any()]

    fig = new_figure(0.75 + 1.35 * len(panels))
    axes = fig.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    shade_phases(axes, axis, phases)
    brain = brain_by_subject(curves, layer=layer, measure=measure)
    n = len(brain.names)
    for panel, ax in zip(panels, axes, strict=True):
        if panel == "brain":
            subject_lines(ax, axis, brain.rows, PERSPECTIVE_COLOURS["brain"])
            draw_line(ax, axis, interval_over(brain.rows), PERSPECTIVE_COLOURS["brain"])
            name_panel(ax, measure, f", layer {layer}")
            mark_transitions(ax, axis, transitions, perspective="brain")
        elif panel == "probes":
            draw_line(ax, axis, probes, PERSPECTIVE_COLOURS["internal"], 2)
            ax.axhline(0, color=GREY, linewidth=1, linestyle=":")
            name_panel(ax, "probe_advantage", f", layer {inner}")
            mark_transitions(ax, axis, transitions, measure="probe_advantage")
        elif panel == "intrinsic_dimension":
            own = interval_of(select(curves, perspective="internal", measure=panel, layer=inner))
            draw_line(ax, axis, own, PERSPECTIVE_COLOURS["internal"], 3)
            name_panel(ax, panel, f", layer {inner}")
            mark_transitions(ax, axis, transitions, measure=panel)
        else:
            asked = select(curves, perspective="behaviour", measure=panel)
            for number, (task, own) in enumerate(asked.sort_values("tokens").groupby("task")):
                ax.plot(
                    axis(own["tokens"]),
                    own["value"],
                    color=PERSPECTIVE_COLOURS["behaviour"],
                    linewidth=0.8,
                    linestyle=LINES[number % len(LINES)],
                    alpha=0.7,
                    label=task,
                )
            draw_line(ax, axis, model_curve(curves, panel), PERSPECTIVE_COLOURS["behaviour"], 1)
            name_panel(ax, panel)
            if panel == "accuracy":
                chance_line(ax, curves)
            if panel == "instruction_following" and asked["task"].nunique() > 1:
                legend_inside(ax, loc="upper left", fontsize=8.5)
            mark_transitions(ax, axis, transitions, measure=panel)
    for ax in axes:
        axis.decorate(ax, label=ax is axes[-1])
    if title:
        fig.suptitle(title, fontsize=11, x=0.01, ha="left")
    note = f"{subjects_text(n, simulated)}; 95 % intervals; ▲ ▼ fitted rise, fall, with its interval"
    foot(fig, note, simulated)
    return fig


@styled
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

    Parameters
    ----------
    curves : rows of one model.
    measure : a measure of the perspective ``behaviour``.
    best_monotone : draw, with the brain curve, the closest curve that never falls (isotonic
        regression, weights equal): what lies below it is the fall that has to be explained.
    transitions, phases, tasks : as in ``three_perspectives``.
    """
    curves = of_tasks(curves, tasks)
    axis = TokenAxis.of(curves["tokens"])
    score = brain_measure(curves)
    layer = best_layer(curves, score)
    rows = brain_by_subject(curves, layer=layer, measure=score).rows
    asked = select(curves, perspective="behaviour", measure=measure)
    fig = new_figure(5.2)
    axes = fig.subplots(2, 1, sharex=True)
    shade_phases(axes, axis, phases)
    brain = interval_over(rows)
    subject_lines(axes[0], axis, rows, PERSPECTIVE_COLOURS["brain"])
    draw_line(axes[0], axis, brain, PERSPECTIVE_COLOURS["brain"], label="mean over subjects")
    if best_monotone:
        axes[0].plot(
            axis(brain["tokens"]),
            monotone(brain["value"]),
            color="black",
            linewidth=1.3,
            linestyle="--",
            label="closest curve that never falls",
        )
        legend_inside(axes[0], loc="upper left")
    name_panel(axes[0], score, f", layer {layer}")
    mark_transitions(axes[0], axis, transitions, perspective="brain")
    task_lines(axes[1], axis, asked)
    if measure.startswith("accuracy"):
        chance_line(axes[1], curves)
    name_panel(axes[1], measure)
    mark_transitions(axes[1], axis, transitions, measure=measure)
    legend_inside(axes[1], loc="upper left")
    for ax in axes:
        axis.decorate(ax, label=ax is axes[-1])
    n = rows["subject"].nunique()
    note = f"{subjects_text(n, simulated)}; 95 % intervals; ▲ ▼ fitted rise, fall, with its interval"
    foot(fig, note, simulated)
    return fig


@styled
def power_curve(table: pd.DataFrame, *, label: str, note: str = "") -> Figure:
    """How often an effect of a given size is found in simulated curves.

    Parameters
    ----------
    table : columns depth, power, low, high (95 % interval), as ``phases.detachment_power`` gives; where
        it has checkpoints and subjects too, a panel a number of checkpoints, a line a number of subjects.
    label : what the sizes are, with their unit.
    """
    designs = table.assign(**{name: 0 for name in ("checkpoints", "subjects") if name not in table})
    checkpoints = sorted(designs["checkpoints"].unique())
    subjects = sorted(designs["subjects"].unique())
    fig = new_figure(2.9 if len(checkpoints) * len(subjects) == 1 else 3.2)
    axes = fig.subplots(1, len(checkpoints), sharey=True, squeeze=False)[0]
    for ax, n in zip(axes, checkpoints, strict=True):
        for number, count in enumerate(subjects):
            own = designs[(designs["checkpoints"] == n) & (designs["subjects"] == count)]
            power = own["power"]
            ax.errorbar(
                own["depth"],
                power,
                yerr=[(power - own["low"]).clip(lower=0), (own["high"] - power).clip(lower=0)],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle=LINES[number % len(LINES)],
                capsize=3,
                label=f"{count} subject{'s' if count != 1 else ''}",
            )
        ax.axhline(0.8, color=GREY, linewidth=1.1, linestyle=":")
        ax.set_ylim(-0.05, 1.05)
        if len(checkpoints) > 1:
            ax.set_title(f"{n} checkpoints")
    axes[0].set_ylabel("share of curves")
    if len(subjects) > 1:
        legend_above(fig, axes[0])
    axes[(len(axes) - 1) // 2].set_xlabel(label)
    foot(fig, note)
    return fig


@styled
def layer_checkpoint_heatmap(curves: pd.DataFrame, *, simulated: bool, measure: str = "") -> Figure:
    """Brain score of each layer at each checkpoint: mean over subjects, one column a checkpoint.

    A white dot marks the best layer of each checkpoint.
    """
    measure = measure or brain_measure(curves)
    rows = select(curves, perspective="brain", measure=measure, roi="all")
    table = rows.pivot_table(index="layer", columns="tokens", values="value", aggfunc="mean").sort_index()
    fig = new_figure(1.5 + 0.36 * len(table))
    ax = fig.subplots()
    image = ax.imshow(table.to_numpy(), aspect="auto", origin="lower", cmap="cividis", interpolation="nearest")
    ax.plot(
        range(table.shape[1]),
        np.argmax(table.to_numpy(), axis=0),
        linestyle="none",
        marker="o",
        markersize=5,
        markerfacecolor="white",
        markeredgecolor="black",
        label="best layer",
    )
    ax.grid(False)
    ax.set_yticks(range(len(table)), layer_names(table.index))
    every = max(1, int(np.ceil(table.shape[1] / 8)))
    shown = list(range(0, table.shape[1], every))
    ax.set_xticks(shown, [short(table.columns.to_numpy()[i]) for i in shown])
    ax.set_xlabel("training tokens at each checkpoint (even steps, not to scale)")
    ax.set_ylabel("layer")
    bar = fig.colorbar(image, ax=ax, pad=0.01)
    bar.set_label(f"{MEASURES[measure][1]}\n(mean of voxels)")
    bar.outline.set_visible(False)  # type: ignore[operator]
    foot(fig, f"mean over {subjects_text(rows['subject'].nunique(), simulated)}; dot: best layer", simulated)
    return fig


@styled
def roi_curves(curves: pd.DataFrame, *, simulated: bool, layer: int | None = None, measure: str = "") -> Figure:
    """A panel for each region: its brain score by tokens, with the mean of all voxels in grey."""
    measure = measure or brain_measure(curves)
    layer = best_layer(curves, measure) if layer is None else layer
    rows = select(curves, perspective="brain", measure=measure, layer=layer).dropna(subset=["value"])
    axis = TokenAxis.of(rows["tokens"])
    names = [name for name in sorted(rows["roi"].unique()) if name != "all"]
    columns = 2 if len(names) in (2, 4) else min(3, len(names))
    lines = int(np.ceil(len(names) / columns))
    fig = new_figure(0.9 + 1.75 * lines)
    axes = fig.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    whole = brain_curve(curves, layer=layer, measure=measure)
    for number, ax in enumerate(axes.flat):
        if number >= len(names):
            ax.set_visible(False)
            continue
        own = brain_curve(curves, names[number], layer, measure)
        ax.plot(axis(whole["tokens"]), whole["value"], color="#9A9A9A", linewidth=2.5)
        draw_line(ax, axis, own, COLOURS[number % len(COLOURS)], number, markersize=3.5)
        ax.set_title(names[number])
        bottom = number + columns >= len(names)
        axis.decorate(ax, label=bottom, text="training tokens", wide=False)
        ax.tick_params(labelbottom=bottom)
    for ax in axes[:, 0]:
        ax.set_ylabel(MEASURES[measure][1])
    n = len(brain_by_subject(curves, layer=layer, measure=measure).names)
    foot(fig, f"layer {layer}; {subjects_text(n, simulated)}, 95 % intervals; grey: all voxels", simulated)
    return fig


@styled
def controls_bars(
    curves: pd.DataFrame,
    controls: pd.DataFrame,
    *,
    simulated: bool,
    ceiling: Mapping[str, float] | None = None,
) -> Figure:
    """The score of the trained model beside what it must be compared with.

    Parameters
    ----------
    curves, controls : rows of one model, and of its controls.
    ceiling : subject -> mean noise ceiling of its voxels (correlation), if known.
    """
    table = control_table(curves, controls, ceiling=ceiling)
    summary = interval_over(table.assign(stderr=np.nan), by=("order", "condition"))
    fig = new_figure(1.15 + 0.36 * len(summary))
    ax = fig.subplots()
    names = summary["condition"].tolist()[::-1]
    for row in each_row(summary):
        y = names.index(row.condition)
        own = table.loc[table["condition"] == row.condition, "value"]
        colour = PERSPECTIVE_COLOURS["brain"] if row.condition.startswith("trained") else "#4D4D4D"
        ax.plot(own, np.full(len(own), y), "|", color=colour, markersize=9, alpha=0.7)
        ax.plot([row.low, row.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        ax.plot(row.value, y, "o", color=colour, markersize=7)
        ax.annotate(
            f"{row.value:.3f}",
            (row.value, y),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.35)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("correlation r of predicted and measured responses, mean of voxels")
    n = table["subject"].nunique()
    foot(fig, f"{subjects_text(n, simulated)} (strokes), mean and 95 % interval", simulated)
    return fig


@styled
def significance_curves(curves: pd.DataFrame, *, simulated: bool, fdr: float = 0.05) -> Figure:
    """Share of voxels whose score is significant, by tokens: one line a layer, mean over subjects."""
    rows = select(curves, perspective="brain", measure="significant", roi="all")
    axis = TokenAxis.of(rows["tokens"])
    fig = new_figure(3.2)
    ax = fig.subplots()
    for layer, colour, number in layer_colours(rows["layer"].unique()):
        draw_line(ax, axis, interval_over(rows[rows["layer"] == layer]), colour, number, label=f"layer {layer}")
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel(f"share of voxels with q < {fdr:g}")
    axis.decorate(ax)
    legend_inside(ax, ncols=2)
    foot(fig, f"{subjects_text(rows['subject'].nunique(), simulated)}, 95 % intervals", simulated)
    return fig


@styled
def loss_curve(losses: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss on held-out text by tokens, one line a model.

    Parameters
    ----------
    losses : label of a model -> DataFrame of tokens and loss (nats a token).
    """
    axis = TokenAxis.of(pd.concat([frame["tokens"] for frame in losses.values()]))
    fig = new_figure(3.0)
    ax = fig.subplots()
    for number, (name, frame) in enumerate(losses.items()):
        ax.plot(
            axis(frame["tokens"]),
            frame["loss"],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            linestyle=LINES[number % len(LINES)],
            label=name,
        )
    ax.set_ylabel("loss on held-out text\n(nats a token)")
    axis.decorate(ax)
    legend_inside(ax)
    return fig


@styled
def behaviour_curves(
    curves: pd.DataFrame,
    measures: Sequence[str] = ("instruction_following", "accuracy", "log_probability"),
) -> Figure:
    """Each measure of behaviour by tokens, one line a task, with the interval over items."""
    rows = select(curves, perspective="behaviour")
    axis = TokenAxis.of(rows["tokens"])
    measures = [m for m in measures if (rows["measure"] == m).any()]
    fig = new_figure(0.8 + 1.75 * len(measures))
    axes = fig.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
    for ax, measure in zip(axes, measures, strict=True):
        tasks = rows[rows["measure"] == measure]
        task_lines(ax, axis, tasks)
        name_panel(ax, measure)
        if measure.startswith("accuracy"):
            chance_line(ax, curves)
        axis.decorate(ax, label=ax is axes[-1])
    legend_above(fig, axes[0])
    foot(fig, "bands: 95 % intervals over items (1.96 standard errors)")
    return fig


@styled
def internals_curves(
    curves: pd.DataFrame, measures: Sequence[str] = ("intrinsic_dimension", "participation_ratio")
) -> Figure:
    """Measures of the hidden states by tokens, one line a layer, on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    rows = select(curves, perspective="internal")
    axis = TokenAxis.of(rows["tokens"])
    measures = [m for m in measures if (rows["measure"] == m).any()]
    fig = new_figure(0.8 + 2.1 * len(measures))
    axes = fig.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
    for ax, measure in zip(axes, measures, strict=True):
        own = rows[rows["measure"] == measure]
        for layer, colour, number in layer_colours(own["layer"].unique()):
            draw_line(ax, axis, interval_of(own[own["layer"] == layer]), colour, number, label=f"layer {layer}")
        name_panel(ax, measure)
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
        axis.decorate(ax, label=ax is axes[-1])
    legend_inside(axes[0], ncols=2)
    foot(fig, "layer 0 is the embedding; bands where given: 95 % intervals")
    return fig


@styled
def probe_curves(curves: pd.DataFrame, layer: int | None = None) -> Figure:
    """A panel for each probed label: the probe, its two controls and chance, by tokens.

    `layer` : that of ``internal_layer`` unless given. Labels that are classes are scored by
    accuracy, values by correlation; the panel's title says which.
    """
    layer = internal_layer(curves) if layer is None else layer
    rows = curves[(curves["perspective"] == "internal") & (curves["layer"] == layer)]
    rows = rows[rows["measure"].str.startswith("probe_")]
    if rows.empty:
        raise NothingToDraw("curves: measure: found no 'probe_...'; expected probes in the study (internals.probes)")
    axis = TokenAxis.of(rows["tokens"])
    names = sorted(rows["task"].unique())
    columns = 2 if len(names) in (2, 4) else min(3, len(names))
    lines = int(np.ceil(len(names) / columns))
    fig = new_figure(1.2 + 1.8 * lines)
    axes = fig.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for number, ax in enumerate(axes.flat):
        if number >= len(names):
            ax.set_visible(False)
            continue
        own = rows[rows["task"] == names[number]]
        score = "probe_accuracy" if (own["measure"] == "probe_accuracy").any() else "probe_correlation"
        for measure, colour, line, marker, text in (
            (score, PERSPECTIVE_COLOURS["internal"], "-", 0, "probe"),
            ("probe_control", COLOURS[3], "--", 1, "control: one label a word type"),
            ("probe_shuffled", "#4D4D4D", "-.", 2, "control: shuffled labels"),
        ):
            curve = interval_of(own[own["measure"] == measure])
            draw_line(ax, axis, curve, colour, marker, linestyle=line, label=text, markersize=3.5)
        chance = interval_of(own[own["measure"] == "probe_chance"])
        ax.plot(axis(chance["tokens"]), chance["value"], color=GREY, linewidth=1.1, linestyle=":", label="chance")
        ax.set_title(f"{names[number]} ({score.removeprefix('probe_')})")
        bottom = number + columns >= len(names)
        axis.decorate(ax, label=bottom, text="training tokens", wide=False)
        ax.tick_params(labelbottom=bottom)
    for ax in axes[:, 0]:
        ax.set_ylabel("score")
    legend_above(fig, axes[0, 0])
    foot(fig, f"layer {layer}; bands: 95 % intervals over folds")
    return fig
