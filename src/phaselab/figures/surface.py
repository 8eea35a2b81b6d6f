"""Values on the cortical surface, fsaverage5 as it comes with nilearn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from phaselab.figures.drawing import foot, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Vertices of one hemisphere of fsaverage5.
HEMISPHERE = 10242


def mesh(hemisphere: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (n_vertices, 3) in mm and faces (n_faces, 3) of a surface that comes with nilearn."""
    from nilearn.datasets import load_fsaverage

    part = load_fsaverage("fsaverage5")[kind].parts[hemisphere]
    return np.asarray(part.coordinates), np.asarray(part.faces)


def on_surface(vertices: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], reach: float = 12.0) -> np.ndarray:
    """Values of sampled vertices of all subjects spread to the whole of fsaverage5.

    Each vertex of the surface takes the mean of the sampled ones that are nearest to it among those
    within `reach` mm on the white surface; farther from any sample it is NaN. For looking at only.

    Parameters
    ----------
    vertices, values : subject -> (n,) vertex numbers (right hemisphere from 10242) and their values.
    reach : mm, in a straight line.

    Returns
    -------
    float32 (20484,)
    """
    from scipy.spatial import cKDTree

    table = pd.concat([pd.DataFrame({"vertex": vertices[s], "value": values[s]}) for s in values])
    mean = table.groupby("vertex")["value"].mean()
    out = np.full(2 * HEMISPHERE, np.nan, dtype=np.float32)
    for number, hemisphere in enumerate(("left", "right")):
        places, _ = mesh(hemisphere, "white_matter")
        first = number * HEMISPHERE
        own = mean[(mean.index >= first) & (mean.index < first + HEMISPHERE)]
        if own.empty:
            continue
        distance, nearest = cKDTree(places[own.index.to_numpy() - first]).query(places, distance_upper_bound=reach)
        near = np.isfinite(distance)
        out[first : first + HEMISPHERE][near] = own.to_numpy()[nearest[near]]
    return out


def sulcal_depth() -> np.ndarray:
    """Depth of the sulci of fsaverage5, (20484,), for the grey below the colours."""
    from nilearn.datasets import load_fsaverage_data

    parts = load_fsaverage_data("fsaverage5", data_type="sulcal").data.parts
    return np.concatenate([np.asarray(parts[h]).ravel() for h in ("left", "right")])


@styled
def surface(
    values: np.ndarray,
    *,
    simulated: bool,
    label: str,
    limits: tuple[float, float] | None = None,
    note: str = "",
) -> Figure:
    """Values on the inflated fsaverage5 surface: lateral and medial views of both hemispheres.

    Parameters
    ----------
    values : (20484,) left hemisphere first; NaN is drawn as bare cortex.
    label : what the values are, for the colour bar.
    limits : lowest and highest colour; default: 0 (or less) to the largest value.
    """
    import matplotlib as mpl
    from nilearn import plotting

    low, high = limits or (min(0.0, float(np.nanmin(values))), float(np.nanmax(values)))
    fig = new_figure(4.9)
    grid = fig.subplots(2, 2, subplot_kw={"projection": "3d"})
    sulci = sulcal_depth()
    for row, view in enumerate(("lateral", "medial")):
        for column, hemisphere in enumerate(("left", "right")):
            part = slice(column * HEMISPHERE, (column + 1) * HEMISPHERE)
            places, faces = mesh(hemisphere, "inflated")
            plotting.plot_surf(
                [places, faces],
                surf_map=np.where(np.isfinite(values[part]), values[part], np.nan),
                bg_map=sulci[part],
                bg_on_data=False,
                hemi=hemisphere,
                view=view,
                cmap="cividis",
                vmin=low,
                vmax=high,
                colorbar=False,
                axes=grid[row, column],
                figure=fig,
                engine="matplotlib",
            )
            grid[row, column].set_title(f"{hemisphere}, {view}", fontsize=10, loc="center", y=0.98)
            grid[row, column].set_box_aspect(None, zoom=1.75)
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(low, high), cmap="cividis")
    bar = fig.colorbar(scale, ax=grid, shrink=0.6, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)  # type: ignore[operator]
    foot(fig, note, simulated)
    return fig
