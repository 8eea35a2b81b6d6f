"""Text and responses before any training, layers, and values on the cortex (fsaverage5 as it comes with nilearn)."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import cm, colors
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from phaselab.curves import subjects_text
from phaselab.errors import number_of
from phaselab.figures import drawing as draw
from phaselab.stimuli import Run

__all__ = ["by_layer", "by_region", "on_surface", "similarity_matrices", "surface", "time_courses", "words_on_grid"]

Arrays = Mapping[str, np.ndarray]
#: Vertices of one hemisphere of fsaverage5.
HEMISPHERE = 10242
#: What a regressor is, before and after, that counts words.
WORDS = ("words in the TR", "the same after the haemodynamic response")


@draw.styled
def by_region(rois: Arrays, values: Arrays, *, simulated: bool, label: str) -> Figure:
    """A dot for every voxel, region by region; `rois`, `values` : subject -> (n_voxels,) regions, what `label` says."""
    table = pd.concat([pd.DataFrame({"roi": rois[s], "value": values[s]}) for s in values], ignore_index=True)
    regions, rng = table.groupby("roi")["value"], np.random.default_rng(7)
    fig = draw.new_figure(0.6 + 0.42 * len(regions))
    ax = fig.subplots()
    for y, (colour, (_, own)) in enumerate(zip(cycle(draw.COLOURS), regions, strict=False)):
        ax.scatter(own, y + rng.uniform(-0.3, 0.3, len(own)), 6, colour, alpha=0.55, linewidth=0)
        ax.vlines(own.median(), y - 0.36, y + 0.36, "black", linewidth=2)
    ax.set_yticks(range(len(regions)), [draw.short(str(name), 30) for name in regions.groups])
    ax.set(xlabel=label.replace("\n", " "), ylim=(len(regions) - 0.5, -0.5))
    note = f"{subjects_text(len(values), simulated)}, {number_of(len(table), 'voxel')}; bar: median"
    seen = f"Medians: {', '.join(f'{name} {value:.3g}' for name, value in regions.median().items())}."
    return draw.foot(fig, note, simulated, seen=seen)


@draw.styled
def time_courses(series: Arrays, tr: float, *, simulated: bool, label: str) -> Figure:
    """Time courses below each other: name -> (n_trs,) in standard deviations; `label` : what they have in common."""
    tables = {name: pd.DataFrame({"time": np.arange(len(own)) * tr, "value": own}) for name, own in series.items()}
    drawn = [draw.Panel(table.assign(line=draw.HIDDEN + name), name, "s.d.") for name, table in tables.items()]
    style = {draw.HIDDEN + name: {"color": of["color"], "linewidth": 1.2} for name, of in draw.looks(series).items()}
    how: dict[str, Any] = {"by": "time", "x": "seconds from the start of the run", "room": 0.8, "share_y": True}
    return draw.panels(drawn, style, note=label, simulated=simulated, **how)


@draw.styled
def words_on_grid(
    run: Run, first: float, before: np.ndarray, after: np.ndarray, names: Sequence[str] = WORDS
) -> Figure:
    """Words at their onsets over the TR grid, 12 s from `first` on, and a regressor (n_trs,) `before` and `after`."""
    fig, last = draw.new_figure(3.3), first + 12
    words, series = fig.subplots(2, 1, sharex=True, height_ratios=(1.1, 1))
    said = [(text, onset) for text, onset in zip(run.texts, run.onsets, strict=True) if first <= onset < last]
    for number, (text, onset) in enumerate(said):
        words.vlines(onset, 0, 5.75 - number % 6, "#B0B0B0", linewidth=0.7)
        words.text(onset, 6 - number % 6, text, va="center")
    words.set(ylim=(0, 6.8), yticks=[], ylabel="words")
    times = np.arange(len(before)) * run.tr
    inside = (times >= first - run.tr) & (times <= last)
    series.step(times[inside], before[inside], where="post", color=draw.GREY, linewidth=1.2, label=names[0])
    scaled = after * (np.nanmax(before[inside]) / max(float(np.nanmax(after[inside])), 1e-12))
    series.plot(times[inside] + run.tr / 2, scaled[inside], "o-", color=draw.COLOURS[1], label=f"{names[1]} (scaled)")
    series.set(xlim=(first, last), ylabel="value in the TR", xlabel="seconds from the start of the run")
    if (before >= 0).all():
        series.set_ylim(0, None)
    for ax in (words, series):
        ax.grid(axis="x", visible=False)
        for edge in np.arange(np.ceil(first / run.tr) * run.tr, last, run.tr):
            ax.axvline(edge, color="#D8D8D8", linewidth=0.8, zorder=0)
    fig.legend(loc="outside upper left")
    return draw.foot(fig, f"vertical lines: TRs of {run.tr:g} s")


@draw.styled
def by_layer(table: pd.DataFrame, label: str, *, note: str = "") -> Figure:
    """A line over layers for each condition; columns layer, condition, value. `label` : what the values are."""
    rows = table.rename(columns={"condition": "line"})
    style = draw.looks(rows["line"].unique())
    fig = draw.panels([draw.Panel(rows, unit=label)], style, room=1.7, by="layer", x=draw.LAYER, note=note)
    fig.axes[0].set_xticks(sorted(rows["layer"].unique()))
    return fig


@draw.styled
def similarity_matrices(
    matrices: Arrays, names: Sequence[str], *, label: str, axis: str = "layer", note: str = "", simulated: bool = False
) -> Figure:
    """Similarities between 0 and 1: title -> (k, k), at most three; `names` : of rows and columns, which are `axis`."""
    count = len(matrices)
    fig = draw.new_figure(0.7 + 3.6 / count)
    *axes, bar = fig.subplots(1, count + 1, width_ratios=[1] * count + [0.06])
    how: dict[str, Any] = {"vmin": 0, "vmax": 1, "cmap": "cividis", "square": True, "fmt": ".2f"}
    how["xticklabels"] = names = [draw.short(name, 24) for name in names]
    how |= {"annot": len(names) * count <= 10, "annot_kws": {"size": 8}, "cbar_ax": bar, "cbar_kws": {"label": label}}
    for ax, (title, matrix) in zip(axes, matrices.items(), strict=True):
        sns.heatmap(matrix, ax=ax, cbar=ax is axes[-1], yticklabels=names if ax is axes[0] else False, **how)
        ax.set(title=title, xlabel=axis, anchor="E")
        ax.tick_params(axis="y", rotation=0)
    axes[0].set_ylabel(axis)
    seen = ", ".join(f"{title}: {names[0]} and {names[-1]} {matrix[0, -1]:.2f}" for title, matrix in matrices.items())
    return draw.foot(fig, note, simulated, seen=seen)


def on_surface(vertices: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], reach: float = 12.0) -> np.ndarray:
    """Values (n,) or (n, k) of each subject's `vertices` (right: + 10242) on fsaverage5, to be looked at only.

    (20484,) or (20484, k): a vertex takes the mean over subjects of the nearest sampled one within `reach` mm on the
    white surface, else NaN.
    """
    from nilearn.datasets import load_fsaverage

    mean = pd.concat([pd.DataFrame(values[s], index=vertices[s]) for s in values]).groupby(level=0).mean()
    out = np.full((2, HEMISPHERE, mean.shape[1]), np.nan, dtype=np.float32)
    for side, part in enumerate(load_fsaverage("fsaverage5")["white_matter"].parts.values()):
        own = mean[mean.index // HEMISPHERE == side]
        if len(own):
            near = cKDTree(part.coordinates[own.index % HEMISPHERE]).query(part.coordinates, distance_upper_bound=reach)
            out[side] = np.vstack([own, np.full(mean.shape[1], np.nan)])[near[1]]  # one past the end: none within reach
    return out.reshape(-1, *next(iter(values.values())).shape[1:])


@draw.styled
def surface(values: np.ndarray, *, simulated: bool, label: str, note: str = "") -> Figure:
    """Four views of `values` on the inflated fsaverage5, (20484,), left hemisphere first; NaN is bare cortex."""
    from nilearn import datasets, plotting
    from nilearn import surface as nilearn_surface

    mesh = datasets.load_fsaverage("fsaverage5")["inflated"]
    halves = dict(zip(("left", "right"), np.split(values.astype(float), 2), strict=True))
    sulci = datasets.load_fsaverage_data("fsaverage5", mesh_type="inflated", data_type="sulcal")
    limits = min(0.0, float(np.nanmin(values))), float(np.nanmax(values))
    how = {"bg_map": sulci, "cmap": "cividis", "vmin": limits[0], "vmax": limits[1], "engine": "matplotlib"}
    fig = draw.new_figure(3.9)
    axes = fig.subplots(2, 2, subplot_kw={"projection": "3d"})
    for (row, column), ax in np.ndenumerate(axes):
        view, hemi = ("lateral", "medial")[row], ("left", "right")[column]
        drawn = {"hemi": hemi, "view": view, "axes": ax, "figure": fig, "colorbar": False}
        plotting.plot_surf(mesh, nilearn_surface.SurfaceImage(mesh, halves), **how, **drawn)
        ax.set_title(f"{hemi}, {view}", loc="center", y=0.98)
        ax.set_box_aspect(None, zoom=1.45)
    scale = cm.ScalarMappable(colors.Normalize(*limits), "cividis")
    fig.colorbar(scale, ax=axes, label=label, location="bottom", shrink=0.7, aspect=30).outline.set_visible(False)
    seen = f"Values from {np.nanmin(values):.3g} to {limits[1]:.3g}, mean {np.nanmean(values):.3g}."
    return draw.foot(fig, note, simulated, seen=seen)
