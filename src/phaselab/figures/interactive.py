"""Figures to explore, by plotly: each holds all that it needs and asks for nothing."""

from collections.abc import Mapping
from functools import partial
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from phaselab import curves as query
from phaselab.figures.brain import HEMISPHERE, inflated
from phaselab.figures.drawing import COLOURS, GREY, MARK, SIMULATED, TOKENS, TokenAxis

__all__ = ["phase_interactive", "surface_interactive"]

#: Colours of the curves that are no region's; no region has the whole brain's.
FIXED = {"whole brain": COLOURS[1], "instruction following": COLOURS[0], "accuracy": COLOURS[5], "probes": COLOURS[2]}
HOVER = (
    "<b>%{fullData.name}</b>: %{y:.3f} (%{customdata[3]} to %{customdata[4]})<br>"
    "%{customdata[0]}<br>step %{customdata[1]}, %{customdata[2]} tokens<extra></extra>"
)
#: Millimetres between the hemispheres of the cortex, so that both can be seen from the inside too.
APART = 24
EYES = {"left": (-1.9, 0, 0.2), "right": (1.9, 0, 0.2), "top": (0, -0.01, 2.1), "back": (0, -2.1, 0.3)}
#: A label as plotly, which reads a little HTML, draws it as it stands.
_text = partial(escape, quote=False)


def _curves_of(curves: pd.DataFrame) -> pd.DataFrame:
    """Every curve of one model that the figure shows: columns panel, curve, checkpoint, step and those of intervals."""
    layer = query.brain_layer(curves)
    rois = sorted(set(curves.loc[curves["perspective"] == "brain", "roi"]) - {"all"})
    drawn = {("brain", "whole brain"): query.brain_curve(curves)}
    drawn |= {("brain", roi): query.brain_curve(curves, roi, layer) for roi in rois}
    there = [m for m in ("instruction_following", "accuracy") if (curves["measure"] == m).any()]
    drawn |= {("rest", m.replace("_", " ")): query.model_curve(curves, m) for m in [*there, "probes"]}
    names = curves.drop_duplicates("tokens")[["tokens", "checkpoint", "step"]]
    names = names.assign(checkpoint=names["checkpoint"].map(_text))
    named = {(panel, _text(curve)): table.merge(names, on="tokens") for (panel, curve), table in drawn.items()}
    parts = [table.assign(panel=panel, curve=curve) for (panel, curve), table in named.items() if len(table)]
    return pd.concat(parts, ignore_index=True)


def phase_interactive(
    curves: pd.DataFrame, models: pd.DataFrame, *, simulated: bool, transitions: pd.DataFrame, tasks: query.Tasks
) -> Any:
    """The phase figure to explore: a list to choose the model (and its `tasks`), a legend to switch measures."""
    import plotly.express as px

    axis = TokenAxis(curves["tokens"])
    zero = float(np.log10(axis.first)) - axis.gap

    def place(tokens: Any) -> Any:
        return np.log10(np.maximum(tokens, 10**zero))

    labels = models[models["model"].isin(curves["model"])].set_index("model")["label"]
    own = {model: query.of_tasks(curves[curves["model"] == model], tasks.get(model)) for model in labels.index}
    table = pd.concat([_curves_of(rows).assign(model=model) for model, rows in own.items()], ignore_index=True)
    table = table.assign(at=place(table["tokens"]), amount=table["tokens"].map(query.amount))
    table = table.assign(up=table["high"] - table["value"], down=table["value"] - table["low"])
    regions = [name for name in table["curve"].unique() if name not in FIXED]
    colours = FIXED | dict(zip(regions, (COLOURS[:1] + COLOURS[2:]) * len(regions), strict=False))
    how = {"color_discrete_map": colours, "facet_row_spacing": 0.06, "template": "plotly_white", "height": 560}
    how["custom_data"] = ["checkpoint", "step", "amount", "low", "high", "model"]
    how |= {"color": "curve", "symbol": "curve", "line_group": "model", "facet_row": "panel", "markers": True}
    fig = px.line(table.round({"low": 3, "high": 3}), x="at", y="value", error_y="up", error_y_minus="down", **how)
    fig.update_traces(error_y={"thickness": 0.8, "width": 0}, marker_size=7, hovertemplate=HOVER)
    fig.update_traces(showlegend=True, legendgroup=None)
    states = [(trace.customdata[0][5], "legendonly" if trace.name in regions else True) for trace in fig.data]
    shown = [{"visible": [own == model and state for own, state in states]} for model in labels.index]
    # Plotly counts panels from below: the brain's is the second.
    line: dict[str, Any] = {"type": "line", "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1, "dash": "dot"}}
    shapes: dict[str, list[Any]] = {model: [] for model in labels.index}
    for move in query.each_row(transitions[transitions["model"].isin(labels.index)]):
        x, panel = place(move.tokens), "y2 domain" if move.perspective == "brain" else "y domain"
        shapes[move.model].append(line | {"x0": x, "x1": x, "xref": "x", "yref": panel})
    ticks = axis.ticks()
    fig.update_xaxes(tickvals=place(ticks), ticktext=[query.amount(t) for t in ticks], zeroline=False, title="")
    fig.update_xaxes(title=TOKENS, row=1)
    fig.update_yaxes(matches=None, zeroline=False, title=query.MEASURES[query.brain_measure(curves)][1])
    fig.update_yaxes(title="share of items; score", range=[-0.05, 1.05], row=1)
    fig.update_layout(
        margin={"l": 55, "r": 10, "t": 50, "b": 40},
        legend={"orientation": "h", "y": -0.14, "yanchor": "top", "entrywidth": 105, "title": ""},
        shapes=shapes[labels.index[0]],
        updatemenus=[_menu(labels, shown, [{"shapes": own} for own in shapes.values()])],
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


def _menu(names: Any, changes: Any, layouts: Any, *traces: list[int], **more: Any) -> dict[str, Any]:
    """A list of plotly: each name with the change of traces (all, unless given) and of the layout that it makes."""
    steps = zip(names, changes, layouts, strict=True)
    buttons = [{"label": _text(name), "method": "update", "args": [*step, *traces]} for name, *step in steps]
    return {"buttons": buttons, "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom", **more}


def surface_interactive(maps: Mapping[str, np.ndarray], *, simulated: bool, label: str) -> Any:
    """Both hemispheres of the inflated fsaverage5 to turn around, 1.7 MB; `maps` : button -> as in ``surface``."""
    every = np.stack(list(maps.values()))
    limits = min(0.0, float(np.nanmin(every))), float(np.nanmax(every))
    how = {"hemi": "both", "engine": "plotly", "title_font_size": 12, "cbar_tick_format": ".2f"}
    fig, *others = [inflated(values, limits, **how).figure for values in maps.values()]
    mesh, bar = fig.data
    mesh.x = mesh.x + np.repeat(np.array([0, APART], np.float32), HEMISPHERE)
    bar.colorbar.update(title={"text": _text(label), "side": "right"}, thickness=14, len=0.7)
    paints = [{"vertexcolor": [one.data[0].vertexcolor]} for one in (fig, *others)]
    # nilearn's own views may be turned about: z points up in all of these.
    upright = {"up": {"x": 0, "y": 0, "z": 1}, "center": {"x": 0, "y": 0, "z": 0}}
    cameras = [{"scene.camera": upright | {"eye": dict(zip("xyz", eye, strict=True))}} for eye in EYES.values()]
    views = _menu(EYES, [{}] * len(EYES), cameras, y=0.0, yanchor="top", type="buttons", direction="right")
    fig.update_layout(
        height=460,
        margin={"l": 0, "r": 0, "t": 55, "b": 50},
        scene={"aspectmode": "data", "camera": cameras[0]["scene.camera"]},
        updatemenus=[_menu(maps, paints, [{}] * len(maps), [0]), views],
        annotations=_mark(simulated, "paper"),
    )
    return fig
