"""Figures to explore, by plotly: each holds all that it needs and asks for nothing."""

from collections.abc import Mapping
from functools import partial
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from phaselab import curves as query
from phaselab.figures.brain import HEMISPHERE
from phaselab.figures.drawing import COLOURS, MARK, SIMULATED, TOKENS, TokenAxis

__all__ = ["phase_interactive", "surface_interactive"]

FIXED = {"brain score": COLOURS[1], "instruction following": COLOURS[0], "accuracy": COLOURS[5], "probes": COLOURS[2]}
HOVER = (
    "<b>%{fullData.name}</b>: %{y:.3f} (%{customdata[3]} to %{customdata[4]})<br>"
    "%{customdata[0]}<br>step %{customdata[1]}, %{customdata[2]} tokens<extra></extra>"
)
#: Millimetres between the hemispheres, both to be seen from inside; gyri light, sulci dark; light from all sides.
APART, BARE = 24, [[0, "#D9D9D9"], [1, "#8C8C8C"]]
LIGHT = {"ambient": 0.8, "diffuse": 0.35, "specular": 0.02, "roughness": 0.9, "fresnel": 0.05}
EYES = {"left": (-1.5, 0, 0.1), "right": (1.5, 0, 0.1), "top": (0, -0.01, 1.7), "back": (0, -1.6, 0.2)}
MENU: dict[str, Any] = {"x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}
#: A label as plotly, which reads a little HTML, draws it as it stands.
_text = partial(escape, quote=False)


def _curves_of(curves: pd.DataFrame) -> pd.DataFrame:
    """Every curve of one model that the figure shows: columns curve, checkpoint, step and those of intervals."""
    there = [m for m in ("instruction_following", "accuracy") if (curves["measure"] == m).any()]
    drawn = {"brain score": query.brain_curve(curves)}
    drawn |= {m.replace("_", " "): query.model_curve(curves, m) for m in [*there, "probes"]}
    names = curves.drop_duplicates("tokens")[["tokens", "checkpoint", "step"]]
    names["checkpoint"] = names["checkpoint"].map(_text)
    return pd.concat([table.merge(names, on="tokens").assign(curve=curve) for curve, table in drawn.items()])


def phase_interactive(curves: pd.DataFrame, models: pd.DataFrame, *, simulated: bool, tasks: query.Tasks) -> Any:
    """The phase figure to explore: a list to choose the model (and its `tasks`), a legend to switch measures."""
    import plotly.express as px

    axis = TokenAxis(curves["tokens"])
    zero, ticks = axis.first / 10**axis.gap, axis.ticks()
    labels = models[models["model"].isin(curves["model"])].set_index("model")["label"]
    own = {model: query.of_tasks(curves[curves["model"] == model], tasks.get(model)) for model in labels.index}
    table = pd.concat([_curves_of(rows).assign(model=model) for model, rows in own.items()], ignore_index=True)
    table = table.assign(at=np.log10(table["tokens"].clip(lower=zero)), amount=table["tokens"].map(query.amount))
    table = table.assign(up=table["high"] - table["value"], down=table["value"] - table["low"])
    table["panel"] = np.where(table["curve"] == "brain score", "brain", "rest")
    how = {"color_discrete_map": FIXED, "facet_row_spacing": 0.06, "template": "plotly_white", "height": 560}
    how["custom_data"] = ["checkpoint", "step", "amount", "low", "high", "model"]
    how |= {"color": "curve", "symbol": "curve", "line_group": "model", "facet_row": "panel", "markers": True}
    fig = px.line(table.round({"low": 3, "high": 3}), x="at", y="value", error_y="up", error_y_minus="down", **how)
    look = {"marker_size": 7, "hovertemplate": HOVER, "showlegend": True, "legendgroup": None}
    fig.update_traces(error_y={"thickness": 0.8, "width": 0}, **look)
    shown = [{"visible": [trace.customdata[0][5] == model for trace in fig.data]} for model in labels.index]
    at = np.log10(np.maximum(ticks, zero))
    fig.update_xaxes(tickvals=at, ticktext=[*map(query.amount, ticks)], zeroline=False, title="")
    fig.update_xaxes(title=TOKENS, row=1)  # plotly counts panels from below: the brain's is the second
    fig.update_yaxes(matches=None, zeroline=False, title=query.MEASURES[query.brain_measure(curves)][1])
    fig.update_yaxes(title="share of items; score", range=[-0.05, 1.05], row=1)
    fig.update_layout(
        margin={"l": 55, "r": 10, "t": 50, "b": 40},
        legend={"orientation": "h", "y": -0.14, "yanchor": "top", "entrywidth": 105, "title": ""},
        updatemenus=[MENU | {"buttons": _buttons("restyle", labels, shown)}],
    )
    fig.plotly_restyle(shown[0])
    fig.layout.annotations = _mark(simulated, yref="y2 domain")  # instead of the names of the panels
    return fig


def _mark(simulated: bool, yref: str) -> list[dict[str, Any]]:
    """The mark of a simulated brain, in the lower right corner of a panel (``y2 domain``) or the figure."""
    place = {"xref": "paper", "yref": yref, "x": 1, "y": 0, "xanchor": "right", "yanchor": "bottom", "xshift": -4}
    frame = {"yshift": 4, "showarrow": False, "bgcolor": MARK[0], "bordercolor": MARK[1], "borderpad": 2}
    text = {"text": f"<b>{SIMULATED}</b>", "font": {"size": 11, "color": MARK[1]}}
    return [text | place | frame] if simulated else []


def _buttons(method: str, names: Any, changes: Any, *traces: list[int]) -> list[dict[str, Any]]:
    """Entries of a list or a slider: each name with the change that it makes, of all traces unless some are given."""
    steps = zip(names, changes, strict=True)
    return [{"label": _text(name), "method": method, "args": [change, *traces]} for name, change in steps]


def surface_interactive(
    maps: Mapping[str, np.ndarray], steps: Mapping[str, np.ndarray], regions: np.ndarray, *, simulated: bool, label: str
) -> Any:
    """Both hemispheres of the inflated fsaverage5 to turn around; a vertex that is pointed at tells region and value.

    maps : list entry -> as in ``surface``, each with its own scale; `steps` : place on a slider -> the same, with one
        scale. regions : (20484,) names.
    """
    from nilearn import datasets
    from plotly.graph_objects import Figure, Mesh3d

    mesh = datasets.load_fsaverage("fsaverage5")["inflated"].parts
    sulci = datasets.load_fsaverage_data("fsaverage5", mesh_type="inflated", data_type="sulcal").data.parts
    places = np.concatenate([mesh["left"].coordinates, mesh["right"].coordinates]).astype(np.float32)
    places[:, 0] += np.repeat([-1, 1], HEMISPHERE) * (APART / 2 + places[:, 0].max())
    faces = np.concatenate([mesh["left"].faces, mesh["right"].faces + HEMISPHERE])
    every = {**maps, **steps}
    known = np.isfinite(np.stack([*every.values()])).all(axis=0)
    inside, number = known[faces].all(axis=1), np.cumsum(known) - 1

    def cortex(vertices: Any, triangles: np.ndarray, **how: Any) -> Mesh3d:
        of = zip("xyzijk", (*places[vertices].T, *triangles.T.astype(np.uint16)), strict=True)
        return Mesh3d(**dict(of), lighting=LIGHT, **how)

    def paint(name: str) -> dict[str, list[Any]]:
        same = np.stack([*steps.values()] if name in steps else [maps[name]])[:, known]
        title = _text(f"{label}, {f'after {name} tokens' if name in steps else name}")
        ends = {"cmin": [min(0.0, float(same.min()))], "cmax": [float(same.max())]}
        return ends | {"intensity": [every[name][known].astype(np.float32)], "colorbar.title.text": [title]}

    depth = np.concatenate([sulci["left"], sulci["right"]]).astype(np.float32)
    bare = {"intensity": depth, "colorscale": BARE, "showscale": False, "hoverinfo": "skip"}
    bar = {"orientation": "h", "y": 0, "yanchor": "top", "thickness": 12, "len": 0.8, "tickformat": ".2f"}
    told: dict[str, Any] = {"hovertemplate": "%{customdata}: %{intensity:.3f}<extra></extra>", "colorscale": "cividis"}
    told |= {"customdata": [_text(str(name)) for name in regions[known]], "colorbar": bar | {"title.side": "bottom"}}
    fig = Figure([cortex(slice(None), faces[~inside], **bare), cortex(known, number[faces[inside]], **told)])
    fig.plotly_restyle(paint(next(iter(every))), 1)
    eyes = [{"eye": dict(zip("xyz", eye, strict=True))} for eye in EYES.values()]
    views = _buttons("relayout", EYES, [{"scene.camera": eye} for eye in eyes])
    turn = MENU | {"buttons": views, "x": 1.0, "y": 1.0, "xanchor": "right", "type": "buttons", "direction": "right"}
    slider = {"steps": _buttons("restyle", steps, map(paint, steps), [1]), "active": len(steps) - 1, "pad": {"t": 65}}
    fig.update_scenes(aspectmode="data", camera=eyes[0], xaxis_visible=False, yaxis_visible=False, zaxis_visible=False)
    fig.update_layout(
        height=560,
        margin={"l": 15, "r": 15, "t": 85, "b": 150},
        updatemenus=[MENU | {"buttons": _buttons("restyle", maps, map(paint, maps), [1]), "pad": {"b": 40}}, turn],
        sliders=[slider | {"currentvalue": {"prefix": "after tokens: "}}],
        annotations=_mark(simulated, "paper"),
    )
    return fig
