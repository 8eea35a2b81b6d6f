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
    fig, regions, rng = draw.new_figure(3.0), table.groupby("roi")["value"], np.random.default_rng(7)
    ax = fig.subplots()
    for x, (colour, (_, own)) in enumerate(zip(cycle(draw.COLOURS), regions, strict=False)):
        ax.scatter(x + rng.uniform(-0.3, 0.3, len(own)), own, 9, colour, alpha=0.55, linewidth=0)
        ax.hlines(own.median(), x - 0.36, x + 0.36, "black", linewidth=2)
    ax.set_xticks(range(len(regions)), [str(name).replace(" ", "\n", 1) for name in regions.groups])
    ax.grid(axis="x", visible=False)
    ax.set(ylabel=label, ylim=(min(0.0, float(table["value"].min())) - 0.02, None))
    sizes = sorted({len(own) for own in values.values()})
    voxels = " to ".join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))
    return draw.foot(fig, f"{subjects_text(len(values), simulated)}, {voxels} voxels each; bar: median", simulated)


@draw.styled
def time_courses(series: Arrays, tr: float, *, simulated: bool, label: str) -> Figure:
    """Time courses below each other: name -> (n_trs,) in standard deviations; `label` : what they have in common."""
    tables = {name: pd.DataFrame({"time": np.arange(len(own)) * tr, "value": own}) for name, own in series.items()}
    drawn = [draw.Panel(table.assign(line=draw.HIDDEN + name), name, "s.d.") for name, table in tables.items()]
    style = {draw.HIDDEN + name: {"color": of["color"], "linewidth": 1.2} for name, of in draw.looks(series).items()}
    how: dict[str, Any] = {"by": "time", "x": "seconds from the start of the run", "room": 0.95, "share_y": True}
    return draw.panels(drawn, style, note=label, simulated=simulated, **how)


@draw.styled
def words_on_grid(
    run: Run, first: float, before: np.ndarray, after: np.ndarray, names: Sequence[str] = WORDS
) -> Figure:
    """Words at their onsets over the TR grid, 20 s from `first` on, and a regressor (n_trs,) `before` and `after`."""
    fig, last = draw.new_figure(3.9), first + 20
    words, series = fig.subplots(2, 1, sharex=True, height_ratios=(1.1, 1))
    said = [(text, onset) for text, onset in zip(run.texts, run.onsets, strict=True) if first <= onset < last]
    for number, (text, onset) in enumerate(said):
        words.vlines(onset, 0, 5.75 - number % 6, "#B0B0B0", linewidth=0.7)
        words.text(onset, 6 - number % 6, text, fontsize=9, va="center")
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
    fig.legend(loc="outside upper left", ncols=2)
    return draw.foot(fig, f"vertical lines: TRs of {run.tr:g} s")


@draw.styled
def by_layer(table: pd.DataFrame, label: str, *, note: str = "") -> Figure:
    """A line over layers for each condition; columns layer, condition, value. `label` : what the values are."""
    rows = table.rename(columns={"condition": "line"})
    style = draw.looks(rows["line"].unique())
    fig = draw.panels([draw.Panel(rows, unit=label)], style, room=2.0, by="layer", x="layer", note=note)
    layers = sorted(rows["layer"].unique())
    fig.axes[0].set_xticks(layers, draw.layer_names(layers))
    return fig


@draw.styled
def similarity_matrices(
    matrices: Arrays, names: Sequence[str], *, label: str, axis: str = "layer", note: str = "", simulated: bool = False
) -> Figure:
    """Similarities between 0 and 1: title -> (k, k), at most three; `names` : of rows and columns, which are `axis`."""
    count = len(matrices)
    fig = draw.new_figure(0.8 + 5.76 / count) if count > 1 else draw.new_figure(4.4, width=5.2)
    *axes, bar = fig.subplots(1, count + 1, width_ratios=[1] * count + [0.06])
    how: dict[str, Any] = {"vmin": 0, "vmax": 1, "cmap": "cividis", "square": True, "fmt": ".2f"}
    how["xticklabels"] = names = [draw.short(name, 24) for name in names]
    how |= {"annot": len(names) <= 8, "annot_kws": {"size": 9}, "cbar_ax": bar, "cbar_kws": {"label": label}}
    for ax, (title, matrix) in zip(axes, matrices.items(), strict=True):
        sns.heatmap(matrix, ax=ax, cbar=ax is axes[-1], yticklabels=names if ax is axes[0] else False, **how)
        ax.set(title=title, xlabel=axis, anchor="E")
        ax.tick_params(axis="y", rotation=0)
    axes[0].set_ylabel(axis)
    return draw.foot(fig, note, simulated)


def on_surface(vertices: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], reach: float = 12.0) -> np.ndarray:
    """Values (n,) of each subject's `vertices` (right: + 10242) on all of fsaverage5, to be looked at only: (20484,).

    A vertex takes the mean over subjects of the nearest sampled one within `reach` mm on the white surface, else NaN.
    """
    from nilearn.datasets import load_fsaverage

    table = pd.concat([pd.DataFrame({"vertex": vertices[s], "value": values[s]}) for s in values])
    mean = table.groupby("vertex")["value"].mean()
    out = np.full((2, HEMISPHERE), np.nan, dtype=np.float32)
    for side, hemi in enumerate(("left", "right")):
        places = load_fsaverage("fsaverage5")["white_matter"].parts[hemi].coordinates
        own = mean[mean.index // HEMISPHERE == side]
        if len(own):
            nearest = cKDTree(places[own.index % HEMISPHERE]).query(places, distance_upper_bound=reach)[1]
            out[side] = np.append(own, np.nan)[nearest]  # one past the end: none within reach
    return out.ravel()


def inflated(values: np.ndarray, limits: tuple[float, float], **how: Any) -> Any:
    """The inflated surface by nilearn: values over cortex that is grey by the depth of its sulci."""
    from nilearn import datasets, plotting, surface

    mesh = datasets.load_fsaverage("fsaverage5")["inflated"]
    image = surface.SurfaceImage(mesh, dict(zip(("left", "right"), np.split(values.astype(float), 2), strict=True)))
    sulci = datasets.load_fsaverage_data("fsaverage5", mesh_type="inflated", data_type="sulcal")
    return plotting.plot_surf(mesh, image, bg_map=sulci, cmap="cividis", vmin=limits[0], vmax=limits[1], **how)


@draw.styled
def surface(values: np.ndarray, *, simulated: bool, label: str, note: str = "") -> Figure:
    """Four views of `values` on the inflated fsaverage5, (20484,), left hemisphere first; NaN is bare cortex."""
    limits = min(0.0, float(np.nanmin(values))), float(np.nanmax(values))
    fig = draw.new_figure(4.9)
    axes = fig.subplots(2, 2, subplot_kw={"projection": "3d"})
    for (row, column), ax in np.ndenumerate(axes):
        view, hemi = ("lateral", "medial")[row], ("left", "right")[column]
        inflated(values, limits, hemi=hemi, view=view, engine="matplotlib", axes=ax, figure=fig, colorbar=False)
        ax.set_title(f"{hemi}, {view}", loc="center", y=0.98)
        ax.set_box_aspect(None, zoom=1.75)
    scale = cm.ScalarMappable(colors.Normalize(*limits), "cividis")
    fig.colorbar(scale, ax=axes, label=label, shrink=0.6, pad=0.02).outline.set_visible(False)
    return draw.foot(fig, note, simulated)
