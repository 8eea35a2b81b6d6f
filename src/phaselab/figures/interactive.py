"""Figures to explore, by plotly; they hold all that they need and ask for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phaselab.curves import (
    MEASURES,
    amount,
    best_layer,
    brain_curve,
    brain_measure,
    each_row,
    model_curve,
    of_tasks,
    probe_advantage,
)
from phaselab.figures.drawing import COLOURS, SIMULATED, TOKENS, TokenAxis
from phaselab.figures.surface import HEMISPHERE, mesh, sulcal_depth

if TYPE_CHECKING:
    import plotly.graph_objects as go

#: First of 256 colours that stands for a value; those before it are bare cortex.
SCALE = 32


def phase_interactive(
    curves: pd.DataFrame,
    models: pd.DataFrame,
    *,
    simulated: bool,
    transitions: pd.DataFrame | None = None,
    tasks: Mapping[str, Sequence[str]] | None = None,
) -> go.Figure:
    """The phase figure to explore: a list to choose the model, a legend to switch measures on and off.

    Each point tells its checkpoint, step, tokens, value and interval when it is pointed at.

    Parameters
    ----------
    curves : rows of several models.
    models : what ``families`` gives.
    transitions : as in ``transition_raster``; drawn as vertical lines in the panel of their measure.
    tasks : model -> tasks of which the mean is taken; default: all.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    axis = TokenAxis.of(curves["tokens"])
    measure = brain_measure(curves)
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    owner: list[str] = []
    symbols = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
    for row in each_row(models):
        own = of_tasks(curves[curves["model"] == row.model], (tasks or {}).get(row.model))
        if own.empty:
            continue
        names = own.drop_duplicates("tokens").set_index("tokens")[["checkpoint", "step"]]
        layer = best_layer(own, measure)
        regions = sorted(set(own.loc[own["perspective"] == "brain", "roi"]) - {"all"})
        wanted = [("whole brain", 1, "#D55E00", brain_curve(own), True)]
        for number, roi in enumerate(regions):
            # The whole brain has the second colour to itself.
            colour = COLOURS[(number if number == 0 else number + 1) % len(COLOURS)]
            wanted.append((roi, 1, colour, brain_curve(own, roi, layer), False))
        for key, colour in (("instruction_following", "#0072B2"), ("accuracy", "#E69F00")):
            if (own["measure"] == key).any():
                wanted.append((key.replace("_", " "), 2, colour, model_curve(own, key), True))
        probes = probe_advantage(own)
        if len(probes):
            wanted.append(("probes", 2, "#009E73", probes, True))
        for number, (name, panel, colour, curve, on) in enumerate(wanted):
            info = names.loc[curve["tokens"]]
            owner.append(row.model)
            fig.add_trace(
                go.Scatter(
                    x=axis(curve["tokens"]),
                    y=curve["value"],
                    error_y={
                        "type": "data",
                        "symmetric": False,
                        "array": (curve["high"] - curve["value"]).fillna(0),
                        "arrayminus": (curve["value"] - curve["low"]).fillna(0),
                        "thickness": 0.8,
                        "width": 0,
                    },
                    mode="lines+markers",
                    name=name,
                    line={"color": colour, "width": 2},
                    marker={"symbol": symbols[number % len(symbols)], "size": 7, "color": colour},
                    customdata=np.column_stack(
                        [
                            info["checkpoint"],
                            info["step"],
                            [amount(t) for t in curve["tokens"]],
                            curve["low"].round(3),
                            curve["high"].round(3),
                        ]
                    ),
                    hovertemplate=(
                        f"<b>{name}</b>: %{{y:.3f}} (%{{customdata[3]}} to %{{customdata[4]}})<br>"
                        "%{customdata[0]}<br>step %{customdata[1]}, %{customdata[2]} tokens<extra></extra>"
                    ),
                    visible=_shown(row.model == models["model"].iloc[0], on),
                    meta={"on": on},
                ),
                row=panel,
                col=1,
            )
    drawn = list(dict.fromkeys(owner))
    changes = [
        {"visible": [_shown(o == name, trace.meta["on"]) for o, trace in zip(owner, fig.data, strict=True)]}
        for name in drawn
    ]
    shapes = [_plotly_lines(transitions, name, axis) for name in drawn]
    labels = models.set_index("model")["label"]
    positions, texts = axis.ticks()
    fig.update_xaxes(tickvals=positions, ticktext=texts, zeroline=False)
    fig.update_xaxes(title_text=TOKENS, row=2, col=1)
    fig.update_yaxes(title_text=MEASURES[measure][1], row=1, col=1, zeroline=False)
    fig.update_yaxes(title_text="share of items; score", range=[-0.05, 1.05], row=2, col=1, zeroline=False)
    fig.update_layout(
        template="plotly_white",
        autosize=True,
        height=560,
        margin={"l": 55, "r": 10, "t": 50, "b": 40},
        font={"size": 12},
        legend={
            "orientation": "h",
            "y": -0.14,
            "x": 0,
            "yanchor": "top",
            "entrywidth": 105,
            "font": {"size": 11},
        },
        hovermode="closest",
        shapes=shapes[0] if shapes else [],
        updatemenus=[menu([labels[n] for n in drawn], changes, layouts=[{"shapes": s} for s in shapes])],
        annotations=plotly_mark(simulated, yref="y domain"),
    )
    return fig


def _shown(chosen: bool, on: bool) -> bool | str:
    """What plotly calls visible: drawn, in the legend alone, or absent."""
    return (True if on else "legendonly") if chosen else False


def _plotly_lines(transitions: pd.DataFrame | None, model: str, axis: TokenAxis) -> list[dict[str, Any]]:
    """Vertical lines at the transitions of a model, each in its panel."""
    if transitions is None:
        return []
    rows = transitions[transitions["model"] == model]
    return [
        {
            "type": "line",
            "xref": "x",
            "x0": axis(row.tokens),
            "x1": axis(row.tokens),
            "yref": "y domain" if row.perspective == "brain" else "y2 domain",
            "y0": 0,
            "y1": 1,
            "line": {"color": "#5A5A5A", "width": 1, "dash": "dot"},
        }
        for row in each_row(rows)
    ]


def surface_interactive(
    maps: Mapping[str, np.ndarray],
    *,
    simulated: bool,
    label: str,
    limits: tuple[float, float] | None = None,
) -> go.Figure:
    """Both hemispheres of the inflated fsaverage5 to turn around, one of several maps at a time.

    Everything is in the figure itself (0.3 MB of places, 0.3 MB of faces and 0.06 MB a map, each map
    with the mesh once more), so that the view needs neither a file nor a request of its own.

    Parameters
    ----------
    maps : name of a button -> (20484,) values; NaN is drawn as bare cortex.
    label : what the values are, for the colour bar.
    """
    import plotly.graph_objects as go
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    known = np.concatenate([m[np.isfinite(m)] for m in maps.values()])
    low, high = limits or (min(0.0, float(known.min())), float(known.max()))
    places, faces = [], []
    for number, hemisphere in enumerate(("left", "right")):
        xyz, corners = mesh(hemisphere, "inflated")
        # Inflated hemispheres overlap where they are; apart, both can be seen from the inside too.
        shift = -12 - xyz[:, 0].max() if number == 0 else 12 - xyz[:, 0].min()
        places.append(xyz + np.array([shift, 0, 0]))
        faces.append(corners + number * HEMISPHERE)
    xyz = np.concatenate(places).astype(np.float32)
    corners = np.concatenate(faces).astype(np.uint16)

    # One byte a face: two greys of bare cortex (sulcus, gyrus) below, the scale from SCALE to 255 above.
    bare = np.where(sulcal_depth()[corners].mean(axis=1) > 0, 8, 24)
    share = SCALE / 255
    greys = [(0.0, "#A8A8A8"), (share / 2, "#A8A8A8"), (share / 2, "#CFCFCF"), (share, "#CFCFCF")]
    ramp = [(share + (1 - share) * t, to_hex(colormaps["cividis"](t))) for t in np.linspace(0, 1, 12)]
    ramp[-1] = (1.0, ramp[-1][1])
    ticks = np.linspace(low, high, 4)
    fig = go.Figure()
    for number, (name, values) in enumerate(maps.items()):
        of_face = values[corners].mean(axis=1)  # NaN where one of its three vertices is bare
        scaled = np.clip((of_face - low) / (high - low), 0, 1)
        code = np.where(np.isfinite(scaled), SCALE + np.round((255 - SCALE) * np.nan_to_num(scaled)), bare)
        fig.add_trace(
            go.Mesh3d(
                x=xyz[:, 0],
                y=xyz[:, 1],
                z=xyz[:, 2],
                i=corners[:, 0],
                j=corners[:, 1],
                k=corners[:, 2],
                intensity=code.astype(np.uint8),
                intensitymode="cell",
                cmin=0,
                cmax=255,
                colorscale=greys + ramp,
                colorbar={
                    "title": {"text": label, "side": "right"},
                    "thickness": 14,
                    "len": 0.7,
                    "tickvals": [SCALE + (255 - SCALE) * k / 3 for k in range(4)],
                    "ticktext": [f"{tick:.2f}" for tick in ticks],
                },
                lighting={"ambient": 0.65, "diffuse": 0.5, "specular": 0.05},
                name=name,
                hoverinfo="skip",
                visible=number == 0,
            )
        )
    hidden = {"visible": False}
    views = {"left": (-1.9, 0, 0.2), "right": (1.9, 0, 0.2), "top": (0, -0.01, 2.1), "back": (0, -2.1, 0.3)}
    cameras = [
        {"scene.camera": {"eye": dict(zip("xyz", eye, strict=True)), "up": {"x": 0, "y": 0, "z": 1}}}
        for eye in views.values()
    ]
    buttons = menu(list(views), [{}] * len(views), layouts=cameras, y=0.0, yanchor="top", type="buttons")
    fig.update_layout(
        template="plotly_white",
        height=460,
        autosize=True,
        margin={"l": 0, "r": 0, "t": 55, "b": 50},
        scene={
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "data",
            "camera": cameras[0]["scene.camera"],
        },
        annotations=plotly_mark(simulated, yref="paper"),
        updatemenus=[
            menu(list(maps), [{"visible": [i == n for i in range(len(maps))]} for n in range(len(maps))]),
            buttons | {"direction": "right"},
        ],
    )
    return fig


def plotly_mark(simulated: bool, yref: str) -> list[dict[str, Any]]:
    """The mark of a simulated brain, in the lower right corner of a panel (``y domain``) or the figure."""
    if not simulated:
        return []
    return [
        {
            "text": f"<b>{SIMULATED}</b>",
            "xref": "paper",
            "yref": yref,
            "x": 1,
            "y": 0,
            "xanchor": "right",
            "yanchor": "bottom",
            "xshift": -4,
            "yshift": 4,
            "showarrow": False,
            "font": {"size": 11, "color": "#7A3B00"},
            "bgcolor": "#FFF3E0",
            "bordercolor": "#7A3B00",
            "borderpad": 2,
        }
    ]


def menu(names: Sequence[str], changes: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A drop-down list of plotly: each name with the change of traces (and layout) that it makes."""
    layouts = more.pop("layouts", [{}] * len(names))
    return {
        "type": "dropdown",
        "direction": "down",
        "x": 0,
        "y": 1.02,
        "xanchor": "left",
        "yanchor": "bottom",
        "showactive": True,
        "buttons": [
            {"label": name, "method": "update", "args": [change, layout]}
            for name, change, layout in zip(names, changes, layouts, strict=True)
        ],
        **more,
    }
