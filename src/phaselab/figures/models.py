"""Several models side by side, and curves from anywhere: fits, when each rises and falls, the power to find that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from phaselab import curves as query
from phaselab.figures import drawing as draw
from phaselab.phases import FittedTable

__all__ = ["across_models", "final_scores", "loss_curve", "transition_raster"]
__all__ += ["fitted_curves", "move_raster", "power_curve"]


@draw.styled
def loss_curve(losses: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss on held-out text by tokens, one line per model: label -> DataFrame of tokens and loss (nats per token)."""
    rows = pd.concat([frame.rename(columns={"loss": "value"}).assign(line=name) for name, frame in losses.items()])
    return draw.panels([draw.Panel(rows, unit="loss on held-out text\n(nats per token)")], draw.looks(losses), room=2.1)


@draw.styled
def across_models(
    curves: pd.DataFrame, models: pd.DataFrame, *, simulated: bool, tasks: Sequence[str] | None = None
) -> Figure:
    """Brain score, instruction following and accuracy of every model on one token axis.

    Models that differ in their seed alone share a colour; seeds differ in marker and line style. `models` : what
    ``families`` gives; `tasks` : those to take the mean of, which all models can have learnt; default: all.
    """
    curves = query.of_tasks(curves, tasks)
    models = draw.distinct(models[models["model"].isin(curves["model"])])
    groups, repeats = models["group"].factorize()[0], models.groupby("group").cumcount().to_numpy()
    own = draw.looks(range(models["group"].nunique() * len(models)))
    numbers = zip(models["label"], groups, groups + repeats * models["group"].nunique(), repeats, strict=True)
    style = {label: own[k] | {"color": own[g]["color"], "linestyle": draw.LINES[r % 4]} for label, g, k, r in numbers}
    drawn = []
    for measure in ("brain", "instruction_following", "accuracy"):
        if measure == "brain" or (curves["measure"] == measure).any():
            tables = [query.model_curve(curves[curves["model"] == model], measure) for model in models["model"]]
            rows = pd.concat([table.assign(line=label) for table, label in zip(tables, models["label"], strict=True)])
            level = query.chance_level(curves) if measure == "accuracy" else np.nan
            name, more = (query.brain_measure(curves), ", best layer") if measure == "brain" else (measure, "")
            drawn.append(draw.Panel.of(name, rows, more, level=level, level_name="chance"))
    n = query.select(curves, perspective="brain")["subject"].nunique()
    asked = sorted(set(curves.loc[curves["perspective"] == "behaviour", "task"]))
    note = f"{query.subjects_text(n, simulated)}, 95 % intervals{'; tasks: ' if asked else ''}{', '.join(asked)}"
    return draw.panels(drawn, style, room=1.9, note=note, simulated=simulated)


@draw.styled
def final_scores(
    curves: pd.DataFrame, models: pd.DataFrame, *, simulated: bool, tasks: Sequence[str] | None = None
) -> Figure:
    """The last checkpoint of every model: a dot per model with its interval, groups side by side.

    The spread within a group is the seeds' spread; a difference between groups that is no larger
    says nothing about families or mixes.
    """
    curves, models = query.of_tasks(curves, tasks), draw.distinct(models)
    names = {
        "brain": ("r", f"brain score\n({query.MEASURES[query.brain_measure(curves)][1]})"),
        "accuracy": ("accuracy", "accuracy\n(share of items)"),
        "probes": ("probe_shuffled", "probes above\nshuffled labels"),
    }
    drawn = {panel: label for panel, (needed, label) in names.items() if (curves["measure"] == needed).any()}
    fig = draw.new_figure(1.2 + 0.34 * len(models))
    axes = fig.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    style = draw.looks(models["group"].unique())
    how: dict[str, Any] = {"linestyle": "none", "markersize": 6, "linewidth": 2.2, **draw.GIVEN}
    how |= {"palette": {g: v["color"] for g, v in style.items()}, "markers": [v["marker"] for v in style.values()]}
    for ax, (panel, label) in zip(axes, drawn.items(), strict=True):
        last = [query.model_curve(curves[curves["model"] == model], panel).tail(1) for model in models["model"]]
        table = pd.concat(last).assign(label=models["label"].tolist(), group=models["group"].tolist())
        sns.pointplot(draw.spread(table), x="y", y="label", hue="group", ax=ax, **how)
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.set(xlabel=label, ylabel="")
    n = query.select(curves, perspective="brain")["subject"].nunique()
    return draw.foot(fig, f"last checkpoint; {query.subjects_text(n, simulated)}; 95 % intervals", simulated)


def _places(keys: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, str]]:
    """Key of a curve -> its panel and line, panel by panel: the last part of a key is its panel, the rest its line.

    Curves that one column alone names are lines of one panel without a name.
    """
    places = {key: (key[-1], ", ".join(key[:-1])) if len(key) > 1 else ("", key[0]) for key in keys}
    order = list(dict.fromkeys(panel for panel, _ in places.values()))
    return dict(sorted(places.items(), key=lambda item: order.index(item[1][0])))


@draw.styled
def fitted_curves(fitted: FittedTable, *, x: str = draw.TOKENS, y: str = "value", note: str = "") -> Figure:
    """Learning curves with the lines fitted to them: a panel for each value of the last column of `by`.

    `fitted` : what ``phases.fit_table`` gives; a curve that could not be decided has points alone.
    """
    points, lines = [], []
    for key, (panel, line) in _places(fitted.fits).items():
        fit, same = fitted.fits[key], {"panel": panel, "line": line, "unit": line}
        where = np.unique([*fit.tokens, *fit.knots])
        points.append(pd.DataFrame({"tokens": fit.tokens, "value": fit.values, **same}))
        lines.append(pd.DataFrame({"tokens": where, "value": fit.at(where) if fit.decided else np.nan, **same}))
    seen, drawn = pd.concat(points), pd.concat(lines)
    names, style = seen["panel"].unique(), draw.looks(seen["line"].unique())
    for number, look in enumerate(style.values()):
        # The legend shows the marker; along the fit itself there are only those of the points.
        look |= {"linewidth": 1.3, "markevery": [], "linestyle": draw.LINES[number // len(draw.COLOURS) % 4]}
    shown = [draw.Panel(drawn[drawn["panel"] == p], p, y, thin=seen[seen["panel"] == p]) for p in names]
    how: dict[str, Any] = {"columns": min(3, len(names)), "room": 2.4 if len(names) == 1 else 1.75}
    how["note"] = note or "points: checkpoints; lines: piecewise-linear fits"
    return draw.panels(shown, style, x=x, hair=draw.POINTS, **how)


@draw.styled
def power_curve(table: pd.DataFrame, *, label: str, note: str = "") -> Figure:
    """How often an effect of a given size is found in simulated curves.

    `table` : columns depth (of which `label` tells the unit), power, low, high, as ``phases.detachment_power`` gives;
    where it has checkpoints and subjects too, a panel a number of checkpoints, a line a number of subjects.
    """
    rows = table.assign(**{name: 0 for name in ("checkpoints", "subjects") if name not in table})
    names = {k: f"{k} subject{'s' if k != 1 else ''}" for k in sorted(rows["subjects"].unique())}
    rows = rows.rename(columns={"power": "value"}).assign(line=rows["subjects"].map(names))
    several = rows["checkpoints"].nunique() > 1
    drawn = [
        draw.Panel(own, f"{n} checkpoints" if several else "", "share of curves", level=0.8, limits=(-0.05, 1.05))
        for n, own in rows.groupby("checkpoints")
    ]
    how: dict[str, Any] = {"by": "depth", "x": label, "err_style": "bars", "err_kws": {"capsize": 3}}
    return draw.panels(drawn, draw.looks(names.values()), columns=len(drawn), room=2.1, share_y=True, note=note, **how)


@draw.styled
def move_raster(fitted: FittedTable, *, x: str = draw.TOKENS, level: float = 0.05, note: str = "") -> Figure:
    """When every curve of ``phases.fit_table`` rises and falls: a row per curve, a bar per move, from onset to end.

    ▲ and ▼ stand at the midpoints of rises and falls, the black whisker is the 95 % interval of the lift-off, where
    the steepest piece begins. A move that could be autocorrelated noise (q above `level`) has a hollow marker and a
    pale bar. A grey line is a curve without moves; a row without anything could not be decided. `x` : what the axis
    counts.
    """
    places = _places(fitted.fits)
    names = {"midpoint": "tokens", "onset": "start", "end": "stop", "liftoff_low": "low", "liftoff_high": "high"}
    moves = fitted.moves.assign(colour=np.where(fitted.moves["kind"] == "rise", *draw.COLOURS[:2]))
    moves = moves.assign(sure=moves["q"] <= level).rename(columns=names)
    moves["row"] = [places[key] for key in moves[[*fitted.by]].itertuples(index=False, name=None)]
    note = note or f"▲ rise, ▼ fall (hollow: q > {level:g}); black: 95 % interval of the lift-off"
    tokens = np.concatenate([fit.tokens for fit in fitted.fits.values()])
    return _raster(moves, list(places.values()), tokens, x, note=note)


@draw.styled
def transition_raster(transitions: pd.DataFrame, models: pd.DataFrame, tokens: Any, *, simulated: bool) -> Figure:
    """When each curve of each model changes: a marker a transition, a bar for its 95 % interval.

    `transitions` : ``transitions_of`` all models; `models` : what ``families`` gives; `tokens` : of all checkpoints.
    """
    measures = [m for m in ("brain", "instruction_following", "accuracy") if (transitions["measure"] == m).any()]
    labels = draw.distinct(models).set_index("model")["label"]
    moves = transitions[transitions["model"].isin(labels.index) & transitions["measure"].isin(measures)]
    moves = moves.rename(columns={"low": "start", "high": "stop"}).assign(sure=True, low=np.nan, high=np.nan)
    moves["colour"] = moves["measure"].map(dict(zip(measures, draw.COLOURS, strict=False)))
    moves["row"] = [(labels[m.model], m.measure.replace("_", " ")) for m in query.each_row(moves)]
    rows = [(label, measure.replace("_", " ")) for label in labels for measure in measures]
    return _raster(moves, rows, tokens, room=0.22, note="▲ rise, ▼ fall; bars: 95 % intervals", simulated=simulated)


def _raster(
    moves: pd.DataFrame, rows: list[tuple[str, str]], tokens: Any, x: str = draw.TOKENS, room: float = 0.17, **how: Any
) -> Figure:
    """One row for each of `rows` (panel, line), panels apart.

    `moves` : columns row, kind, start and stop (of a bar), low and high (of a whisker), tokens (of a marker), colour
    and sure.
    """
    order = list(dict.fromkeys(panel for panel, _ in rows))
    ys = {row: number + 0.8 * order.index(row[0]) for number, row in enumerate(rows)}
    fig = draw.new_figure(1.4 + room * (len(rows) + 0.8 * len(order)))
    ax = fig.subplots()
    for move in query.each_row(moves[moves["kind"] != "undecided"]):
        y = ys[move.row]
        if move.kind == "flat":
            ax.axhline(y, color=draw.PALE, linewidth=0.9)
            continue
        ax.hlines(y, move.start, move.stop, move.colour, linewidth=4, alpha=0.45 if move.sure else 0.2)
        ax.hlines(y, move.low, move.high, "black", linewidth=1.1)
        face, marker = move.colour if move.sure else "white", draw.KINDS.get(move.kind, "o")
        ax.plot(move.tokens, y, marker, color=move.colour, markerfacecolor=face, markersize=6.5)
    first = {panel: line for panel, line in reversed(rows)}
    for panel in order[1:]:
        ax.axhline(ys[panel, first[panel]] - 0.9, color="#BDBDBD", linewidth=0.8)
    labels = [": ".join(filter(None, row if first[row[0]] == row[1] else row[1:])) for row in rows]
    ax.set_yticks(list(ys.values()), labels, fontsize=9)
    ax.set_ylim(max(ys.values(), default=0) + 0.7, -0.9)
    ax.grid(axis="y", visible=False)
    draw.TokenAxis.of(tokens).decorate(ax)
    ax.set_xlabel(x)
    return draw.foot(fig, **how)
