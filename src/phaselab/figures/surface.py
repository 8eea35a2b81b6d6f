"""Values on the cortical surface, fsaverage5 as it comes with nilearn: still, and to turn around."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import cm, colors
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from phaselab.figures import drawing as draw
from phaselab.figures.interactive import mark, menu

__all__ = ["HEMISPHERE", "on_surface", "surface", "surface_interactive"]

#: Vertices of one hemisphere of fsaverage5.
HEMISPHERE = 10242
#: Millimetres between the hemispheres of ``surface_interactive``, so that both can be seen from the inside too.
APART = 24
EYES = {"left": (-1.9, 0, 0.2), "right": (1.9, 0, 0.2), "top": (0, -0.01, 2.1), "back": (0, -2.1, 0.3)}


def on_surface(vertices: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], reach: float = 12.0) -> np.ndarray:
    """Values of sampled vertices of all subjects spread to the whole of fsaverage5: (20484,), left hemisphere first.

    Each vertex of the surface takes the mean of the sampled ones that are nearest to it among those
    within `reach` mm (in a straight line) on the white surface; farther from any sample it is NaN. For looking at only.
    `vertices`, `values` : subject -> (n,) vertex numbers (right hemisphere from 10242) and their values.
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


def _plot(values: np.ndarray, limits: tuple[float, float], **how: Any) -> Any:
    """The inflated surface by nilearn: values over cortex that is grey by the depth of its sulci."""
    from nilearn import datasets, plotting, surface

    mesh = datasets.load_fsaverage("fsaverage5")["inflated"]
    image = surface.SurfaceImage(mesh, dict(zip(("left", "right"), np.split(values.astype(float), 2), strict=True)))
    sulci = datasets.load_fsaverage_data("fsaverage5", mesh_type="inflated", data_type="sulcal")
    return plotting.plot_surf(mesh, image, bg_map=sulci, cmap="cividis", vmin=limits[0], vmax=limits[1], **how)


def _limits(values: Any) -> tuple[float, float]:
    """Lowest and highest colour: 0 (or less) and the largest value."""
    return min(0.0, float(np.nanmin(values))), float(np.nanmax(values))


@draw.styled
def surface(values: np.ndarray, *, simulated: bool, label: str, note: str = "") -> Figure:
    """Values on the inflated fsaverage5 surface: lateral and medial views of both hemispheres.

    `values` : (20484,) left hemisphere first, NaN is drawn as bare cortex; `label` : what they are.
    """
    limits = _limits(values)
    fig = draw.new_figure(4.9)
    axes = fig.subplots(2, 2, subplot_kw={"projection": "3d"})
    for (row, column), ax in np.ndenumerate(axes):
        view, hemi = ("lateral", "medial")[row], ("left", "right")[column]
        _plot(values, limits, hemi=hemi, view=view, engine="matplotlib", axes=ax, figure=fig, colorbar=False)
        ax.set_title(f"{hemi}, {view}", loc="center", y=0.98)
        ax.set_box_aspect(None, zoom=1.75)
    scale = cm.ScalarMappable(colors.Normalize(*limits), "cividis")
    fig.colorbar(scale, ax=axes, label=label, shrink=0.6, pad=0.02).outline.set_visible(False)
    return draw.foot(fig, note, simulated)


def surface_interactive(maps: Mapping[str, np.ndarray], *, simulated: bool, label: str) -> Any:
    """Both hemispheres of the inflated fsaverage5 to turn around, one of several maps at a time; a plotly figure.

    All is in the figure itself (1.7 MB, and 0.2 MB for each further map): the view needs neither a file nor a request.
    `maps` : name of a button -> values as in ``surface``; `label` : what they are.
    """
    limits = _limits(list(maps.values()))
    how = {"hemi": "both", "engine": "plotly", "title_font_size": 12, "cbar_tick_format": ".2f"}
    fig, *others = [_plot(values, limits, **how).figure for values in maps.values()]
    mesh, bar = fig.data
    mesh.x = mesh.x + np.repeat(np.array([0, APART], np.float32), HEMISPHERE)
    bar.colorbar.update(title={"text": label, "side": "right"}, thickness=14, len=0.7)
    paints = [{"vertexcolor": [one.data[0].vertexcolor]} for one in (fig, *others)]
    # nilearn's own views may be turned about: z points up in all of these.
    upright = {"up": {"x": 0, "y": 0, "z": 1}, "center": {"x": 0, "y": 0, "z": 0}}
    cameras = [{"scene.camera": upright | {"eye": dict(zip("xyz", eye, strict=True))}} for eye in EYES.values()]
    views = menu(list(EYES), [{}] * len(EYES), cameras, y=0.0, yanchor="top", type="buttons", direction="right")
    scene = {"aspectmode": "data", "camera": cameras[0]["scene.camera"]}
    fig.update_layout(height=460, margin={"l": 0, "r": 0, "t": 55, "b": 50}, scene=scene)
    fig.update_layout(updatemenus=[menu(list(maps), paints, traces=[0]), views], annotations=mark(simulated, "paper"))
    return fig
