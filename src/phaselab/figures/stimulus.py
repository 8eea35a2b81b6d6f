"""The text and the responses before any training: words in time, voxels by region, layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phaselab.curves import subjects_text
from phaselab.figures.drawing import (
    COLOURS,
    LINES,
    MARKERS,
    WIDTH,
    foot,
    layer_names,
    legend_above,
    legend_inside,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def by_region(
    rois: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], *, simulated: bool, label: str
) -> Figure:
    """A value of every voxel, region by region: a dot a voxel, a bar the median.

    Parameters
    ----------
    rois : subject -> (n_voxels,) names of regions.
    values : subject -> (n_voxels,) noise ceilings, scores ...
    label : what the values are, with their unit.
    """
    table = pd.concat(
        [pd.DataFrame({"roi": rois[s], "value": values[s], "subject": s}) for s in values], ignore_index=True
    )
    names = sorted(table["roi"].unique())
    fig = new_figure(3.0)
    ax = fig.subplots()
    rng = np.random.default_rng(0)  # for the sideways spread of the dots alone
    for number, name in enumerate(names):
        own = table.loc[table["roi"] == name, "value"].to_numpy()
        x = number + rng.uniform(-0.28, 0.28, len(own))
        ax.plot(
            x,
            own,
            linestyle="none",
            marker="o",
            markersize=2.6,
            alpha=0.55,
            color=COLOURS[number % len(COLOURS)],
        )
        ax.plot([number - 0.36, number + 0.36], [np.nanmedian(own)] * 2, color="black", linewidth=2)
    ax.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
    ax.grid(axis="x", visible=False)
    ax.set_ylabel(label)
    ax.set_ylim(min(0.0, float(table["value"].min())) - 0.02, None)
    per = table.groupby("subject").size()
    voxels = f"{per.iloc[0]}" if per.nunique() == 1 else f"{per.min()} to {per.max()}"
    foot(fig, f"{subjects_text(len(per), simulated)}, {voxels} voxels each; bar: median", simulated)
    return fig


@styled
def time_courses(series: Mapping[str, np.ndarray], tr: float, *, simulated: bool, label: str) -> Figure:
    """Some time courses below each other: what a voxel's response looks like.

    Parameters
    ----------
    series : name -> (n_trs,) in standard deviations.
    tr : seconds.
    label : what they have in common, for the note below.
    """
    fig = new_figure(0.8 + 0.85 * len(series))
    axes = fig.subplots(len(series), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for number, (ax, (name, values)) in enumerate(zip(axes, series.items(), strict=True)):
        ax.plot(np.arange(len(values)) * tr, values, color=COLOURS[number % len(COLOURS)], linewidth=1.2)
        ax.set_title(name)
        ax.set_ylabel("s.d.")
    axes[-1].set_xlabel("seconds from the start of the run")
    foot(fig, label, simulated)
    return fig


@styled
def words_on_grid(
    texts: Sequence[str],
    onsets: np.ndarray,
    tr: float,
    first: float,
    last: float,
    before: np.ndarray,
    after: np.ndarray,
    *,
    names: tuple[str, str] = ("words in the TR", "the same after the haemodynamic response"),
) -> Figure:
    """Words at their onsets over the TR grid, and one regressor before and after the haemodynamic response.

    Parameters
    ----------
    texts, onsets : words and their onsets in seconds.
    tr : seconds; `first`, `last` : the stretch that is shown, seconds.
    before, after : (n_trs,) the regressor of the run, without and with the haemodynamic response.
    """
    fig = new_figure(3.9)
    axes = fig.subplots(2, 1, sharex=True, height_ratios=(1.1, 1))
    shown = [(t, o) for t, o in zip(texts, onsets, strict=True) if first <= o < last]
    levels = 6
    for number, (text, onset) in enumerate(shown):
        y = levels - number % levels
        axes[0].plot([onset, onset], [0, y - 0.25], color="#B0B0B0", linewidth=0.7)
        axes[0].annotate(
            text, (onset, y), fontsize=9, ha="left", va="center", xytext=(-1, 0), textcoords="offset points"
        )
    axes[0].set_ylim(0, levels + 0.8)
    axes[0].set_yticks([])
    axes[0].grid(False)
    axes[0].set_ylabel("words")
    times = np.arange(len(before)) * tr
    inside = (times >= first - tr) & (times <= last)
    axes[1].step(times[inside], before[inside], where="post", color="#5A5A5A", linewidth=1.2, label=names[0])
    scaled = after * (np.nanmax(before[inside]) / max(float(np.nanmax(after[inside])), 1e-12))
    axes[1].plot(
        times[inside] + tr / 2,
        scaled[inside],
        color=COLOURS[1],
        marker="o",
        markersize=3.5,
        label=f"{names[1]} (scaled)",
    )
    axes[1].set_ylabel("value in the TR")
    axes[1].set_xlabel("seconds from the start of the run")
    axes[1].set_xlim(first, last)
    if (before >= 0).all():
        axes[1].set_ylim(0, None)
    for ax in axes:
        for edge in np.arange(np.ceil(first / tr) * tr, last, tr):
            ax.axvline(edge, color="#D8D8D8", linewidth=0.8, zorder=0)
    axes[1].grid(axis="x", visible=False)
    legend_above(fig, axes[1])
    foot(fig, f"vertical lines: TRs of {tr:g} s")
    return fig


@styled
def by_layer(table: pd.DataFrame, label: str, *, note: str = "") -> Figure:
    """A line over layers for each condition.

    Parameters
    ----------
    table : columns layer, condition, value.
    label : what the values are, with their unit.
    """
    fig = new_figure(2.9)
    ax = fig.subplots()
    for number, (condition, own) in enumerate(table.groupby("condition", sort=False)):
        ax.plot(
            own["layer"],
            own["value"],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            linestyle=LINES[number % len(LINES)],
            label=condition,
        )
    layers = sorted(table["layer"].unique())
    ax.set_xticks(layers, layer_names(layers))
    ax.set_xlabel("layer")
    ax.set_ylabel(label)
    legend_inside(ax)
    foot(fig, note)
    return fig


@styled
def similarity_matrices(
    matrices: Mapping[str, np.ndarray],
    names: Sequence[str],
    *,
    label: str,
    axis: str = "layer",
    note: str = "",
    simulated: bool = False,
) -> Figure:
    """Square matrices of similarities between 0 and 1 side by side, with their values written in.

    Parameters
    ----------
    matrices : title -> (k, k); at most three.
    names : k names of rows and columns; `axis` says what they are.
    """
    count = len(matrices)
    fig = new_figure(0.9 + WIDTH / count * 0.85) if count > 1 else new_figure(4.4, width=5.2)
    axes = fig.subplots(1, count, squeeze=False)[0]
    for ax, (title, matrix) in zip(axes, matrices.items(), strict=True):
        image = ax.imshow(matrix, vmin=0, vmax=1, cmap="cividis")
        ax.set_title(title)
        ax.grid(False)
        ax.set_xticks(range(len(names)), names)
        ax.set_yticks(range(len(names)), names)
        ax.set_xlabel(axis)
        if len(names) <= 8:
            for i, j in np.ndindex(matrix.shape):
                colour = "black" if matrix[i, j] > 0.6 else "white"
                ax.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=9, color=colour)
    axes[0].set_ylabel(axis)
    bar = fig.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)  # type: ignore[operator]
    if note or simulated:
        foot(fig, note, simulated)
    return fig
