"""Several models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phaselab.curves import (
    MEASURES,
    brain_measure,
    each_row,
    model_curve,
    of_tasks,
    select,
    subjects_text,
)
from phaselab.figures.drawing import (
    COLOURS,
    LINES,
    MARKERS,
    TokenAxis,
    chance_line,
    draw_line,
    foot,
    legend_above,
    name_panel,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def across_models(
    curves: pd.DataFrame, models: pd.DataFrame, *, simulated: bool, tasks: Sequence[str] | None = None
) -> Figure:
    """Brain score, instruction following and accuracy of every model on one token axis.

    Models that differ in their seed alone share a colour; seeds differ in marker and line style.

    Parameters
    ----------
    curves : rows of several models.
    models : what ``families`` gives.
    tasks : those to take the mean of: the ones that all models can have learnt; default: all.
    """
    curves = of_tasks(curves, tasks)
    axis = TokenAxis.of(curves["tokens"])
    panels = ["brain", "instruction_following", "accuracy"]
    panels = [p for p in panels if p == "brain" or (curves["measure"] == p).any()]
    fig = new_figure(1.1 + 1.9 * len(panels))
    axes = fig.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    groups = list(dict.fromkeys(models["group"]))
    seen: dict[str, int] = {}
    for row in each_row(models):
        own = curves[curves["model"] == row.model]
        if own.empty:
            continue
        number = groups.index(row.group)
        repeat = seen.get(row.group, 0)
        seen[row.group] = repeat + 1
        for panel, ax in zip(panels, axes, strict=True):
            draw_line(
                ax,
                axis,
                model_curve(own, panel),
                COLOURS[number % len(COLOURS)],
                number + repeat * len(groups),
                linestyle=LINES[repeat % len(LINES)],
                label=row.label,
            )
    measure = brain_measure(curves)
    for panel, ax in zip(panels, axes, strict=True):
        name_panel(ax, measure if panel == "brain" else panel, ", best layer" if panel == "brain" else "")
        if panel == "accuracy":
            chance_line(ax, curves)
        axis.decorate(ax, label=ax is axes[-1])
    legend_above(fig, axes[0], columns=2)
    n = select(curves, perspective="brain")["subject"].nunique()
    asked = sorted(set(curves.loc[curves["perspective"] == "behaviour", "task"]))
    shared = f"; tasks: {', '.join(asked)}" if asked else ""
    foot(fig, f"{subjects_text(n, simulated)}, 95 % intervals{shared}", simulated)
    return fig


@styled
def final_scores(
    curves: pd.DataFrame, models: pd.DataFrame, *, simulated: bool, tasks: Sequence[str] | None = None
) -> Figure:
    """The last checkpoint of every model: a dot a model with its interval, groups side by side.

    The spread within a group is the seeds' spread; a difference between groups that is no larger
    says nothing about families or mixes.
    """
    from matplotlib.ticker import MaxNLocator

    curves = of_tasks(curves, tasks)
    there = set(curves["measure"])
    needed = {"brain": "r", "accuracy": "accuracy", "probes": "probe_shuffled"}
    panels = [panel for panel, measure in needed.items() if measure in there]
    groups = list(dict.fromkeys(models["group"]))
    fig = new_figure(1.2 + 0.34 * len(models))
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    labels = models["label"].tolist()
    for panel, ax in zip(panels, axes, strict=True):
        for y, row in enumerate(each_row(models)):
            curve = model_curve(curves[curves["model"] == row.model], panel)
            last = curve.iloc[-1]
            number = groups.index(row.group)
            colour = COLOURS[number % len(COLOURS)]
            ax.plot([last["low"], last["high"]], [y, y], color=colour, linewidth=2.2)
            ax.plot(last["value"], y, MARKERS[number % len(MARKERS)], color=colour, markersize=7)
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.set_xlabel(
            {
                "brain": f"brain score\n({MEASURES[brain_measure(curves)][1]})",
                "accuracy": "accuracy\n(share of items)",
                "probes": "probes above\nshuffled labels",
            }[panel]
        )
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
    n = select(curves, perspective="brain")["subject"].nunique()
    foot(fig, f"last checkpoint; {subjects_text(n, simulated)}; 95 % intervals", simulated)
    return fig


@styled
def transition_raster(transitions: pd.DataFrame, models: pd.DataFrame, tokens: Any, *, simulated: bool) -> Figure:
    """When each curve of each model changes: a marker a transition, a bar for its 95 % interval.

    Parameters
    ----------
    transitions : ``transitions_of`` all models.
    models : what ``families`` gives.
    tokens : all counts of tokens of the study, for the axis.
    """
    axis = TokenAxis.of(tokens)
    measures = [m for m in ("brain", "instruction_following", "accuracy") if (transitions["measure"] == m).any()]
    fig = new_figure(1.3 + 0.24 * len(models) * max(len(measures), 1))
    ax = fig.subplots()
    ticks, labels = [], []
    y = 0.0
    for row in each_row(models):
        for number, measure in enumerate(measures):
            own = transitions[(transitions["model"] == row.model) & (transitions["measure"] == measure)]
            colour = COLOURS[number % len(COLOURS)]
            for change in each_row(own):
                if np.isfinite(change.low) and np.isfinite(change.high):
                    ax.plot(
                        [axis(change.low), min(axis(change.high), axis.last)],
                        [y, y],
                        color=colour,
                        linewidth=3,
                        alpha=0.4,
                    )
                marker = {"rise": "^", "fall": "v"}.get(change.kind, "o")
                ax.plot(axis(change.tokens), y, marker, color=colour, markersize=7.5)
            ticks.append(y)
            labels.append(f"{row.label}: {measure.replace('_', ' ')}" if number == 0 else measure.replace("_", " "))
            y += 1
        ax.axhline(y - 0.25, color="#BDBDBD", linewidth=0.8)
        y += 0.5
    ax.set_yticks(ticks, labels, fontsize=9)
    ax.set_ylim(y - 0.5, -0.75)
    ax.grid(axis="y", visible=False)
    axis.decorate(ax)
    foot(fig, "▲ rise, ▼ fall; bars: 95 % intervals", simulated)
    return fig
