"""Curves over training, on one axis of tokens: of one model, of several side by side, and from anywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from scipy import stats
from scipy.optimize import isotonic_regression

from phaselab import curves as query
from phaselab.errors import number_of
from phaselab.figures import drawing as draw
from phaselab.phases import FittedTable

__all__ = ["across_models", "behaviour_curves", "by_seeds", "controls_bars", "fitted_curves"]
__all__ += ["internals_curves", "layer_checkpoint_heatmap", "loss_curve", "move_raster", "over_replicates"]
__all__ += ["perspectives", "power_curve", "probe_curves", "roi_curves", "significance_curves", "transition_raster"]

BEHAVIOUR, BRAIN, INTERNAL = draw.COLOURS[:3]
MONOTONE = "closest curve that never falls"
MEANS: dict[str, dict[str, Any]] = {
    "mean over subjects": {"color": BRAIN, "marker": "o"},
    "mean of tasks": {"color": BEHAVIOUR, "marker": "s"},
    draw.HIDDEN: {"color": INTERNAL, "marker": "^"},
    MONOTONE: {"color": "black", "linestyle": "--", "linewidth": 1.3, "zorder": 3},
}
#: Tasks take first the colours that stand for no perspective.
TASK_COLOURS = (*draw.COLOURS[3:6], *draw.COLOURS[2::-1], draw.COLOURS[6])
PROBES = {"probe_accuracy": "probe", "probe_correlation": "probe"}
PROBES |= {"probe_control": "control: one label per word type", "probe_shuffled": "control: shuffled labels"}
#: How seaborn draws points with given intervals.
DOTS: dict[str, Any] = {"x": "y", "linestyle": "none", "markersize": 6, "linewidth": 2.2, **draw.GIVEN}


def _task_looks(curves: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """The looks of all tasks, of the study where the table says (``Lab.curves``): the same on every page of it."""
    there = sorted(set(curves.loc[curves["perspective"] == "behaviour", "task"]))
    return draw.looks(dict.fromkeys([*curves.attrs.get("tasks", ()), *there]), TASK_COLOURS)


def _behaviour(curves: pd.DataFrame, measure: str, moves: pd.DataFrame | None = None, mean: bool = False) -> draw.Panel:
    """A measure of behaviour, one line per task or their mean with the tasks as thin lines; chance beside accuracy."""
    rows = query.select(curves, perspective="behaviour", measure=measure).sort_values("tokens")
    rows = rows.assign(line=rows["task"], unit=rows["task"])
    level = query.chance_level(curves, "accuracy" if measure.startswith("accuracy") else measure)
    thin = rows if mean and rows["task"].nunique() > 1 else None
    if mean:
        rows = query.behaviour_by_task(curves, measure).rows.assign(line="mean of tasks")
    table = query.interval_of(rows, by=("line", "tokens"))
    return draw.Panel.of(measure, table, moves=moves, thin=thin, level=level, level_name="chance")


@draw.styled
def perspectives(
    curves: pd.DataFrame,
    measure: str = "",
    *,
    simulated: bool,
    transitions: pd.DataFrame | None = None,
    phases: pd.DataFrame | None = None,
    tasks: query.Names = None,
    best_monotone: bool = False,
) -> Figure:
    """The phase figure: brain, behaviour and internal states of one model on one token axis.

    measure : one measure of behaviour, task by task: it alone is drawn below the brain, whose tie a phase claims.
    transitions : ``transitions_of``. phases : ``TriplePhase.table``. tasks : those to take the mean of; default: all.
    best_monotone : draw also the closest curve that never falls (isotonic regression): what lies below is the fall.
    """
    own = query.of_tasks(curves, tasks)
    curve = query.brain_by_subject(own)
    rows = curve.rows.assign(line="mean over subjects", unit=curve.rows["subject"])
    mean, n = query.interval_over(rows, by=("line", "tokens")), len(curve.names)
    if best_monotone:
        closest = mean[["tokens"]].assign(value=isotonic_regression(mean["value"]).x, line=MONOTONE)
        mean = pd.concat([mean, closest])
    which, thin = query.brain_measure(own), rows if n <= 6 else None
    note = f"{query.subjects_text(n, simulated)}; 95 % intervals"
    drawn = [draw.Panel.of(which, mean, f", layer {curve.layer}", transitions, thin=thin)]
    if measure:
        drawn.append(_behaviour(own, measure, transitions))
    else:
        there = [m for m in ("instruction_following", "accuracy") if (own["measure"] == m).any()]
        drawn += [_behaviour(own, m, transitions, mean=True) for m in there]
        inner = query.internal_layer(own)
        dimension = query.interval_of(own[(own["measure"] == "intrinsic_dimension") & (own["layer"] == inner)])
        states = {"probe_advantage": query.model_curve(own, "probes"), "intrinsic_dimension": dimension}
        note += "".join(f"\nprobes: {said}" for said in states["probe_advantage"].attrs["notes"])
        for (name, rows), level in zip(states.items(), (0.0, np.nan), strict=True):
            if len(rows):
                hidden = rows.assign(line=draw.HIDDEN)
                drawn.append(draw.Panel.of(name, hidden, f", layer {inner}", transitions, level=level))
    how: dict[str, Any] = {"phases": phases, "room": 1.7 if measure else 1.2, "note": note, "simulated": simulated}
    return draw.panels(drawn, MEANS | _task_looks(curves), **how)


@draw.styled
def behaviour_curves(
    curves: pd.DataFrame, measures: Sequence[str] = ("instruction_following", "accuracy", "log_probability")
) -> Figure:
    """Each measure of behaviour by tokens, one line per task, with the interval over items."""
    there = set(query.select(curves, perspective="behaviour")["measure"])
    drawn = [_behaviour(curves, measure) for measure in measures if measure in there]
    return draw.panels(drawn, _task_looks(curves), note="bands: 95 % intervals over items (1.96 standard errors)")


@draw.styled
def internals_curves(
    curves: pd.DataFrame, measures: Sequence[str] = ("intrinsic_dimension", "participation_ratio")
) -> Figure:
    """Measures of the hidden states by tokens, one line per layer, on a logarithmic axis."""
    rows = query.select(curves, perspective="internal").sort_values("layer")
    rows["line"] = rows["layer"].map("layer {}".format)
    table = query.interval_of(rows, by=("measure", "line", "tokens"))
    drawn = [draw.Panel.of(m, table[table["measure"] == m]) for m in measures if (table["measure"] == m).any()]
    note = "layer 0 is the embedding; bands where given: 95 % intervals"
    fig = draw.panels(drawn, draw.in_order(rows["line"].unique()), room=1.7, note=note)
    for ax in fig.axes:
        ax.set_yscale("log")
        ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter="")
    return fig


@draw.styled
def probe_curves(curves: pd.DataFrame) -> Figure:
    """A panel for each probed label: the probe in ``internal_layer``, its two controls and chance, by tokens."""
    layer = query.internal_layer(curves)
    rows, said = query.told_apart(curves[(curves["layer"] == layer) & curves["measure"].str.startswith("probe_")])
    if rows.empty:
        raise query.NothingToDraw("curves: found no 'probe_...'; expected probes in the study (internals.probes)")
    drawn = []
    for label, own in rows.assign(line=rows["measure"].map(PROBES)).groupby("task"):
        score = "correlation" if (own["measure"] == "probe_correlation").any() else "accuracy"
        chance = own.loc[own["measure"] == "probe_chance", "value"].mean()
        table = query.interval_of(own.dropna(subset=["line"]), by=("line", "tokens"))
        drawn.append(draw.Panel(table, f"{label} ({score})", "score", level=chance, level_name="chance"))
    style = draw.looks(dict.fromkeys(PROBES.values()), (INTERNAL, draw.COLOURS[6], draw.GREY))
    note = "\n".join([f"layer {layer}; bands: 95 % intervals over folds", *said])
    return draw.panels(drawn, style, columns=2, share_y=True, note=note)


@draw.styled
def layer_checkpoint_heatmap(curves: pd.DataFrame, *, simulated: bool) -> Figure:
    """Brain score of each layer at each checkpoint: mean over subjects; a dot marks the best layer of a checkpoint."""
    measure = query.brain_measure(curves)
    rows = query.select(curves, perspective="brain", measure=measure, roi="all")
    table = rows.pivot_table(index="layer", columns="tokens", values="value", aggfunc="mean").sort_index()
    fig = draw.new_figure(1.0 + 0.3 * len(table))
    ax = fig.subplots()
    bar = {"label": f"{query.MEASURES[measure][1]}\n(mean of voxels)", "pad": 0.01}
    sns.heatmap(table, ax=ax, cmap="cividis", cbar_kws=bar)
    shown = np.arange(0, table.shape[1], -(-table.shape[1] // 5))
    ax.set_xticks(shown + 0.5, [query.amount(tokens) for tokens in table.columns.to_numpy()[shown]], rotation=0)
    best = table.to_numpy().argmax(axis=0)
    ax.plot(np.arange(len(best)) + 0.5, best + 0.5, "o", markerfacecolor="white", markeredgecolor="black")
    ax.invert_yaxis()
    ax.tick_params(axis="y", rotation=0)
    ax.set(xlabel="training tokens (one step per checkpoint)", ylabel=draw.LAYER)
    n = query.subjects_text(rows["subject"].nunique(), simulated)
    seen = f"Highest score: {np.nanmax(table):.3g}; highest layer at the end: {table.index.to_numpy()[best[-1]]}."
    return draw.foot(fig, f"mean over {n}; dot: best layer", simulated, seen=seen)


@draw.styled
def roi_curves(curves: pd.DataFrame, *, simulated: bool) -> Figure:
    """A panel for each region: its brain score by tokens, with the mean of all voxels in grey."""
    whole, measure = query.brain_by_subject(curves), query.brain_measure(curves)
    rows = query.select(curves, perspective="brain", measure=measure, layer=whole.layer).dropna(subset=["value"])
    names, every = (sorted(set(of) - {"all"}) for of in (rows["roi"], curves[curves["perspective"] == "brain"]["roi"]))
    grey = query.interval_over(whole.rows)[["tokens", "value"]].assign(line=draw.HIDDEN + "all voxels")
    own = {name: query.brain_curve(curves, name, whole.layer).assign(line=draw.HIDDEN + name) for name in names}
    drawn = [draw.Panel(pd.concat([grey, own[name]]), name, query.MEASURES[measure][1]) for name in names]
    style = draw.looks((draw.HIDDEN + name for name in every), lines=["-"])  # as on pages that show every region
    style[draw.HIDDEN + "all voxels"] = {"color": draw.PALE, "linewidth": 2.5, "zorder": 1}
    note = f"layer {whole.layer}; {query.subjects_text(len(whole.names), simulated)}, 95 % intervals; grey: all voxels"
    return draw.panels(drawn, style, columns=2, share_y=True, note=note, simulated=simulated)


@draw.styled
def significance_curves(curves: pd.DataFrame, *, simulated: bool, fdr: float = 0.05) -> Figure:
    """Share of voxels whose score is significant, by tokens: one line per layer, mean over subjects."""
    rows = query.select(curves, perspective="brain", measure="significant", roi="all").sort_values("layer")
    rows["line"] = rows["layer"].map("layer {}".format)
    table = query.interval_over(rows, by=("line", "tokens"))
    panel = draw.Panel(table, unit=f"share of voxels\nwith q < {fdr:g}", limits=(-0.03, 1.03))
    note = f"{query.subjects_text(rows['subject'].nunique(), simulated)}, 95 % intervals"
    return draw.panels([panel], draw.in_order(rows["line"].unique()), room=1.8, note=note, simulated=simulated)


@draw.styled
def controls_bars(
    curves: pd.DataFrame, controls: pd.DataFrame, *, simulated: bool, ceiling: Mapping[str, float] | None = None
) -> Figure:
    """The trained model beside its controls; `ceiling` : subject -> mean noise ceiling of its voxels, if known."""
    table = query.control_table(curves, controls, ceiling=ceiling)
    summary = query.interval_over(table.assign(stderr=np.nan), by=("order", "condition"))
    fig = draw.new_figure(0.7 + 0.33 * len(summary))
    ax = fig.subplots()
    palette = {name: BRAIN if name.startswith("trained") else draw.GREY for name in summary["condition"]}
    how: dict[str, Any] = {"y": "condition", "hue": "condition", "palette": palette, "ax": ax, "legend": False}
    sns.stripplot(table, x="value", jitter=False, marker="|", size=9, linewidth=1.3, alpha=0.7, **how)
    sns.pointplot(draw.spread(summary), **how | DOTS)
    for y, value in enumerate(summary["value"]):
        ax.text(1.02, y, f"{value:.3f}", transform=ax.get_yaxis_transform(), va="center", fontsize=8.5)
    ax.axvline(0, color="black", linewidth=1)
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="correlation r, mean of voxels", ylabel="")
    n = query.subjects_text(table["subject"].nunique(), simulated)
    seen = ", ".join(f"{row.condition} {row.value:.3f}" for row in query.each_row(summary))
    return draw.foot(fig, f"{n} (strokes), 95 % intervals", simulated, seen=f"{seen}.")


@draw.styled
def loss_curve(losses: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss on held-out text by tokens, one line per model: label -> DataFrame of tokens and loss (nats per token)."""
    rows = pd.concat([frame.rename(columns={"loss": "value"}).assign(line=name) for name, frame in losses.items()])
    return draw.panels([draw.Panel(rows, unit="loss on held-out text\n(nats per token)")], draw.looks(losses), room=1.7)


@draw.styled
def across_models(curves: pd.DataFrame, models: pd.DataFrame, *, simulated: bool, tasks: query.Names = None) -> Figure:
    """Brain score, instruction following and accuracy (mean of `tasks`, default: all) of the models of ``families``."""
    curves, models = query.of_tasks(curves, tasks), models[models["model"].isin(curves["model"])]
    colours = draw.looks(models["group"].unique())
    style = draw.looks(models["label"], [colours[group]["color"] for group in models["group"]])
    there = ["brain", *(m for m in ("instruction_following", "accuracy") if (curves["measure"] == m).any())]
    drawn = [_of_measure(curves, measure, _of_models(curves, models, measure)) for measure in there]
    n = query.select(curves, perspective="brain")["subject"].nunique()
    asked = sorted(set(curves.loc[curves["perspective"] == "behaviour", "task"]))
    note = f"{query.subjects_text(n, simulated)}, 95 % intervals{'; tasks: ' if asked else ''}{', '.join(asked)}"
    return draw.panels(drawn, style, room=1.5, note=note, simulated=simulated)


@draw.styled
def by_seeds(
    curves: pd.DataFrame, groups: Mapping[str, Sequence[str]], measures: Sequence[str], *, simulated: bool
) -> Figure:
    """Means of each measure over the seeds of `groups`, name -> models that differ in their seed alone.

    Bands are Student's intervals over seeds: what they say is about training, not about people.
    """
    seeds, drawn = [(m, n, name) for name, own in groups.items() for n, m in enumerate(own)], []
    for measure in measures:
        each = _of_models(curves, pd.DataFrame(seeds, columns=["model", "label", "group"]), measure)
        rows = each.rename(columns={"line": "unit", "group": "line"})[["line", "unit", "tokens", "value"]]
        drawn.append(_of_measure(curves, measure, query.interval_over(rows, by=("line", "tokens")), thin=rows))
    note = f"{number_of(max(map(len, groups.values())), 'seed')}, 95 % intervals over seeds; thin: each seed"
    return draw.panels(drawn, draw.looks(groups), room=1.5, note=note, simulated=simulated)


@draw.styled
def over_replicates(rows: pd.DataFrame, *, unit: str, level_name: str = "", simulated: bool) -> Figure:
    """Values over training with their interval over replicates, a panel for each kind of these, which are never mixed.

    rows : line, tokens, value, replicate, and `over`, what the replicates are ("seeds", "people"). unit : of the
        values; `level_name` : what a line at 0 stands for.
    """
    drawn, level = [], 0.0 if level_name else np.nan
    for over, own in rows.groupby("over", sort=False):
        mean, thin = query.interval_over(own, by=("line", "tokens")), own.assign(unit=own["replicate"])
        few, n = mean["n"].max() <= 6, " or ".join(map(str, sorted({*mean["n"]})))  # more lines are a thicket
        drawn.append(draw.Panel(mean, f"mean over {n} {over}", unit, thin if few else None, level, level_name))
    note = "bands: 95 % intervals over what a title names; thin: each"
    return draw.panels(drawn, draw.looks(rows["line"].unique()), room=1.7, note=note, simulated=simulated)


def _of_measure(curves: pd.DataFrame, measure: str, rows: pd.DataFrame, **rest: Any) -> draw.Panel:
    """A panel of several models: the brain score with the layer that stands for them, accuracy beside chance."""
    if measure != "brain":
        level = query.chance_level(curves) if measure == "accuracy" else np.nan
        measure = {"probes": "probe_advantage"}.get(measure, measure)
        return draw.Panel.of(measure, rows, level=level, level_name="chance", **rest)
    layers = {query.brain_layer(own) for _, own in curves.groupby("model")}
    depth = f", layer {layers.pop()}" if len(layers) == 1 else ", one depth"
    return draw.Panel.of(query.brain_measure(curves), rows, depth, **rest)


def _of_models(curves: pd.DataFrame, models: pd.DataFrame, measure: str) -> pd.DataFrame:
    """``model_curve`` of every model, with its label (line) and group."""
    own = {row: curves[curves["model"] == row.model] for row in query.each_row(models)}
    tables = (query.model_curve(c, measure).assign(line=row.label, group=row.group) for row, c in own.items())
    return pd.concat(tables)


def _places(fitted: FittedTable, apart: bool = False) -> dict[tuple[str, ...], tuple[str, str]]:
    """Key of a curve -> its panel (the last of several parts) and line (the rest), panel by panel; or all `apart`."""
    places = {key: (key[-1], ", ".join(key[:-1])) if len(key) > 1 else ("", "".join(key)) for key in fitted.fits}
    if apart and len(fitted.by) == 1:
        return {key: (key[0], draw.HIDDEN) for key in places}
    order = [panel for panel, _ in places.values()]
    return dict(sorted(places.items(), key=lambda item: order.index(item[1][0])))


@draw.styled
def fitted_curves(
    fitted: FittedTable, *, x: str = draw.TOKENS, y: str = "value", over: str = "", ordered: bool = False
) -> Figure:
    """The curves of ``phases.fit_table`` with their fits, if decided: a panel for each value of the last of `by`.

    over : what the replicates are ("seeds"), of which points are means, and bars Student's 95 % intervals. More than
        three such curves of one name each have a panel of their own.
    ordered : lines are sizes, or something else with an order, and their colours have it too.
    """
    points, lines = [], []
    for key, (panel, line) in _places(fitted, apart=bool(over) and len(fitted.fits) > 3).items():
        fit, same = fitted.fits[key], {"panel": panel, "line": line, "unit": line}
        where, half = np.unique([*fit.tokens, *fit.knots]), np.full(fit.tokens.size, np.nan)
        if over and fit.replicates is not None:
            half = stats.t.ppf(0.975, len(fit.replicates) - 1) * stats.sem(fit.replicates)
        points.append(pd.DataFrame({"tokens": fit.tokens, "value": fit.values, "half": half, **same}))
        lines.append(pd.DataFrame({"tokens": where, "value": fit.at(where) if fit.decided else np.nan, **same}))
    seen, drawn = pd.concat(points), pd.concat(lines)
    names, by_seven = seen["panel"].unique(), [line for line in draw.LINES for _ in draw.COLOURS]
    style = draw.in_order(seen["line"].unique()) if ordered else draw.looks(seen["line"].unique(), lines=by_seven)
    for look in style.values():
        look |= {"linewidth": 1.3, "markevery": []}  # the legend shows the marker; the fit itself has those of points
    dots = seen.drop(columns="half")
    shown = [draw.Panel(drawn[drawn["panel"] == p], p, y, thin=dots[dots["panel"] == p]) for p in names]
    counts = {1 if fit.replicates is None else len(fit.replicates) for fit in fitted.fits.values()}
    n = " to ".join(map(str, dict.fromkeys((min(counts), max(counts)))))
    means = f"points: means over {over} (n = {n}), bars: 95 % intervals; lines: fits"
    how: dict[str, Any] = {"columns": min(2, len(names)), "room": 1.9 if len(names) <= 2 else 1.5}
    how["note"] = means if over else "points: checkpoints; lines: piecewise-linear fits"
    fig = draw.panels(shown, style, x=x, hair=draw.POINTS, **how)
    for panel, ax in zip(names, fig.axes, strict=True):
        for line, own in seen[seen["panel"] == panel].groupby("line"):
            ends = own["value"] - own["half"], own["value"] + own["half"]
            ax.vlines(own["tokens"], *ends, style[line]["color"], linewidth=0.9, alpha=0.55)
    return fig


@draw.styled
def power_curve(table: pd.DataFrame, *, label: str, note: str = "") -> Figure:
    """How often an effect is found by simulation, as ``phases.detachment_power`` gives; `label` : of the depth."""
    names = {k: number_of(k, "subject") for k in sorted(table["subjects"].unique())}
    rows = table.rename(columns={"power": "value"}).assign(line=table["subjects"].map(names))
    how: dict[str, Any] = {"unit": "share of\nsimulated studies", "level": 0.8, "limits": (-0.05, 1.05)}
    drawn = [draw.Panel(own, number_of(n, "checkpoint"), **how) for n, own in rows.groupby("checkpoints")]
    how = {"by": "depth", "x": label, "err_style": "bars", "err_kws": {"capsize": 3}}
    return draw.panels(drawn, draw.in_order([*names.values()]), room=1.4, share_y=True, note=note, **how)


@draw.styled
def move_raster(fitted: FittedTable, *, x: str = draw.TOKENS, date: str = "liftoff") -> Figure:
    """When every curve of ``phases.fit_table`` rises and falls: a bar from onset to end, ▲ or ▼ at the midpoint.

    Black: 95 % interval of the `date` of a move; hollow and pale: it could be autocorrelated noise (q > .05); grey
    line: a curve without moves; a row without anything: not decided.
    """
    places = _places(fitted)
    names = {"midpoint": "tokens", "onset": "start", "end": "stop", f"{date}_low": "low", f"{date}_high": "high"}
    moves = fitted.moves.assign(colour=np.where(fitted.moves["kind"] == "rise", *draw.COLOURS[:2]))
    moves = moves.assign(sure=moves["q"] <= 0.05).rename(columns=names)
    moves["row"] = [places[key] for key in moves[[*fitted.by]].itertuples(index=False, name=None)]
    note = f"▲ rise, ▼ fall (hollow: q > 0.05); black: 95 % interval of the {date.replace('liftoff', 'lift-off')}"
    tokens = np.concatenate([fit.tokens for fit in fitted.fits.values()])
    return _raster(moves, list(places.values()), tokens, x, note=note)


@draw.styled
def transition_raster(transitions: pd.DataFrame, models: pd.DataFrame, tokens: Any, *, simulated: bool) -> Figure:
    """When each curve of each model changes: markers for ``transitions_of``; `tokens` are those of all checkpoints."""
    colours = {"brain": BRAIN, "instruction_following": BEHAVIOUR, "accuracy": BEHAVIOUR}
    moves = transitions.merge(models[["model", "label"]]).rename(columns={"low": "start", "high": "stop"})
    moves = moves.assign(sure=True, low=np.nan, high=np.nan, colour=moves["measure"].map(colours))
    moves["row"] = [*zip(moves["label"], moves["measure"].str.replace("_", " "), strict=True)]
    there = [m.replace("_", " ") for m in colours if (moves["measure"] == m).any()]
    rows = [(label, measure) for label in models["label"] for measure in there]
    return _raster(moves, rows, tokens, room=0.2, note="▲ rise, ▼ fall; bars: 95 % intervals", simulated=simulated)


def _raster(
    moves: pd.DataFrame, rows: list[tuple[str, str]], tokens: Any, x: str = draw.TOKENS, room: float = 0.18, **how: Any
) -> Figure:
    """A row per (panel, line); `moves` has start and stop of a bar, low and high of a whisker, tokens of a marker."""
    panels, names = pd.factorize(np.array([panel for panel, _ in rows], dtype=object))
    places, first = np.arange(len(rows)) + 1.2 * panels, np.diff(panels, prepend=-1) > 0
    ys, seen = dict(zip(rows, places, strict=True)), ""
    fig = draw.new_figure(0.6 + room * (len(rows) + 1.2 * len(names)))
    ax = fig.subplots()
    for move in query.each_row(moves[moves["kind"] != "undecided"]):
        y = ys[move.row]
        if move.kind == "flat":
            ax.axhline(y, color=draw.PALE, linewidth=0.9)
            continue
        ax.hlines(y, move.start, move.stop, move.colour, linewidth=4, alpha=0.45 if move.sure else 0.2)
        ax.hlines(y, move.low, move.high, "black", linewidth=1.1)
        face = move.colour if move.sure else "white"
        ax.plot(move.tokens, y, draw.KINDS[move.kind], color=move.colour, markerfacecolor=face, markersize=5.5)
        sure = "" if move.sure else " (not sure)"
        seen += f"{' '.join(move.row)}: {move.kind} at {query.amount(move.tokens)}{sure}. "
    for y, name in zip(places[first], names, strict=True):
        ax.axhspan(y - 1.6, y - 0.6, color="#EFEFEF", linewidth=0)
        ax.text(0.01, y - 1.1, draw.short(name), transform=ax.get_yaxis_transform(), fontsize=8.8, va="center_baseline")
    ax.set_yticks(places, [draw.short(row, 30) for _, row in rows])
    ax.set_ylim(max(places, default=0) + 0.7, -1.6 if any(names) else -0.7)
    ax.grid(axis="y", visible=False)
    draw.TokenAxis(tokens).decorate(ax)
    ax.set_xlabel(x)
    return draw.foot(fig, seen=seen if len(seen) < 900 else "", **how)
