"""Every figure of the book, from tables alone.

Each function takes tables (rows of the curves table, transitions, scores of vertices) and gives a
matplotlib ``Figure``, or a plotly one where looking around helps. Nothing is computed here but
means and intervals; nothing is read from disk. A figure that shows brain data takes ``simulated``
and says so in the picture itself, so that a copied figure still says it.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), told apart by markers and line
styles as well. The background is white in light and in dark pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phaselab.phases import MOVE_COLUMNS, amount, select_layer
from phaselab.study import digest_of

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from phaselab.phases import FittedTable, TriplePhase
    from phaselab.study import Study

#: Okabe and Ito's colours, in the order in which lines take them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
PERSPECTIVE_COLOURS = {"brain": "#D55E00", "behaviour": "#0072B2", "internal": "#009E73"}
#: Tints that shade the three phases; each is also named in the figure.
PHASE_TINTS = {1: "#FBE3B5", 2: "#D9D9D9", 3: "#CFE8DD"}
PHASE_NAMES = {1: "I", 2: "II", 3: "III"}
GREY = "#5A5A5A"

#: What a panel says of a measure of the curves table: its name, and what the y axis counts.
MEASURES = {
    "r": ("brain score", "correlation r"),
    "r_normalised": ("brain score", "share of the ceiling"),
    "instruction_following": ("instruction following", "share of items"),
    "accuracy": ("accuracy", "share of items"),
    "accuracy_greedy": ("greedy accuracy", "share of items"),
    "chance_corrected_accuracy": ("accuracy above chance", "share of what is above"),
    "log_probability": ("log-probability of the right answer", "nats"),
    "log_probability_normalised": ("log-probability of the right answer among the options", "nats"),
    "brier": ("Brier score", "squared distance"),
    "entropy": ("entropy over the options", "nats"),
    "intrinsic_dimension": ("intrinsic dimension (TwoNN)", "dimensions"),
    "participation_ratio": ("participation ratio", "dimensions"),
    "effective_rank": ("effective rank", "dimensions"),
    "anisotropy": ("anisotropy", "mean cosine"),
    "norm": ("norm", "length"),
    "probe_advantage": ("probes above shuffled labels", "score"),
}
#: Measures whose axis goes from 0 to 1.
SHARES = ("instruction_following", "accuracy", "accuracy_greedy")
TOKENS = "training tokens (log scale)"
SIMULATED = "SIMULATED BRAIN"
WIDTH = 7.2
DPI = 144
_STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10.5,
    "legend.fontsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.constrained_layout.h_pad": 0.08,
}


class NothingToDraw(ValueError):
    """The table lacks what a figure shows; the message says what was wanted and what there is."""


# ----------------------------------------------------------------- the token axis


@dataclass(frozen=True)
class TokenAxis:
    """Training tokens on a logarithmic axis on which step 0 has a place of its own.

    Zero has no logarithm. It stands left of the first positive count, apart from it by a gap that
    is marked as a break of the axis, with its own tick "0".

    Attributes
    ----------
    zero : position of 0 tokens, in log10 tokens.
    first, last : log10 of the smallest and largest positive counts.
    has_zero : whether 0 is among the counts.
    """

    zero: float
    first: float
    last: float
    has_zero: bool

    @classmethod
    def of(cls, tokens: Sequence[float] | np.ndarray | pd.Series) -> TokenAxis:
        """The axis for these counts of tokens, (n,), each >= 0; ValueError for a negative one."""
        counts = np.asarray(tokens, dtype=float)
        if (counts < 0).any():
            raise ValueError(f"tokens: found {counts.min():g}, expected counts of 0 or more")
        positive = counts[counts > 0]
        first = float(np.log10(positive.min())) if positive.size else 0.0
        last = float(np.log10(positive.max())) if positive.size else 1.0
        gap = max(0.12 * (last - first), 0.2)
        return cls(first - gap, first, last, bool((counts == 0).any()))

    def __call__(self, tokens: Any) -> Any:
        """Positions of counts of tokens: log10, or that of zero; a count between 0 and 1 is as 0."""
        counts = np.asarray(tokens, dtype=float)
        with np.errstate(divide="ignore"):
            positions = np.where(counts > 0, np.log10(np.maximum(counts, 1e-300)), self.zero)
        # An interval may reach below the first checkpoint: it ends where zero stands.
        positions = np.maximum(positions, self.zero)
        return float(positions) if positions.ndim == 0 else positions

    def ticks(self, wide: bool = True) -> tuple[list[float], list[str]]:
        """Positions and labels of the major ticks: 0 where it is, and powers of ten.

        On a `wide` panel with few powers their threefold as well.
        """
        powers = [float(p) for p in range(int(np.ceil(self.first)), int(np.floor(self.last)) + 1)]
        if wide and len(powers) == 2:
            threes = [p + float(np.log10(3)) for p in (powers[0] - 1, *powers)]
            powers = sorted([*powers, *(t for t in threes if self.first <= t <= self.last)])
        if len(powers) < 2:
            powers = sorted({round(self.first, 2), *powers, round(self.last, 2)})
        labels = [_short(10**p) for p in powers]
        return ([self.zero, *powers], ["0", *labels]) if self.has_zero else (powers, labels)

    def decorate(self, ax: Axes, label: bool = True, text: str = TOKENS, wide: bool = True) -> None:
        """Set limits, ticks, the break after 0, and the label of the x axis."""
        positions, labels = self.ticks(wide)
        ax.set_xticks(positions, labels)
        minor = [
            p + np.log10(k) for p in range(int(self.first) - 1, int(self.last) + 1) for k in range(2, 10)
        ]
        ax.set_xticks([m for m in minor if self.first <= m <= self.last], minor=True)
        left = self.zero if self.has_zero else self.first
        margin = 0.03 * (self.last - left)
        ax.set_xlim(left - margin, self.last + margin)
        if self.has_zero:
            middle = (self.zero + self.first) / 2
            ax.plot(
                [middle - margin / 4, middle + margin / 4],
                [0, 0],
                transform=ax.get_xaxis_transform(),
                marker=[(-0.5, -1), (0.5, 1)],
                markersize=8,
                linestyle="none",
                color="black",
                markeredgewidth=1,
                clip_on=False,
                zorder=5,
            )
        if label:
            ax.set_xlabel(text)


# --------------------------------------------------------------- means and intervals


def brain_measure(curves: pd.DataFrame) -> str:
    """``r_normalised`` where the ceiling is known, otherwise ``r``."""
    return "r_normalised" if (curves["measure"] == "r_normalised").any() else "r"


def best_layer(curves: pd.DataFrame, measure: str | None = None, roi: str = "all") -> int:
    """The layer with the highest brain score over all checkpoints and subjects (``phases.select_layer``)."""
    return select_layer(
        select(curves, perspective="brain", measure=measure or brain_measure(curves), roi=roi)
    )


def select(curves: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """The rows whose columns have the `wanted` values; NothingToDraw, with what there is, if none."""
    rows = curves
    for column, value in wanted.items():
        found = rows[rows[column] == value]
        if found.empty:
            there = ", ".join(map(str, sorted(rows[column].unique()))) or "no rows"
            raise NothingToDraw(f"curves: {column}: found {there}; expected {value!r}")
        rows = found
    return rows


def _rows(frame: pd.DataFrame) -> Any:
    """The rows of a table as named tuples."""
    return frame.itertuples(index=False)


def of_tasks(curves: pd.DataFrame, tasks: Sequence[str] | None) -> pd.DataFrame:
    """All rows but those of the behaviour in other tasks than these; all rows for None."""
    if tasks is None:
        return curves
    return curves[(curves["perspective"] != "behaviour") | curves["task"].isin(tasks)]


def interval_over(rows: pd.DataFrame, by: Sequence[str] = ("tokens",)) -> pd.DataFrame:
    """Mean of ``value`` over the rows of each group with its 95 % interval.

    Student's t interval over the rows (subjects, seeds): ``mean ± t(.975, n - 1) s / sqrt(n)``. With
    one row the interval is that row's own ``stderr`` times 1.96, or NaN without it.

    Returns
    -------
    DataFrame of `by`, value, low, high, n; one row a group, in order of `by`.
    """
    from scipy import stats

    out = []
    for key, group in rows.dropna(subset=["value"]).groupby(list(by), sort=True):
        values, n = group["value"].to_numpy(), len(group)
        if n > 1:
            half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
        else:
            half = 1.96 * float(group["stderr"].iloc[0])
        mean = float(values.mean())
        out.append((*key, mean, mean - half, mean + half, n))
    return pd.DataFrame(out, columns=[*by, "value", "low", "high", "n"])


def interval_of(rows: pd.DataFrame, by: Sequence[str] = ("tokens",)) -> pd.DataFrame:
    """Mean over the rows of each group whose ``stderr`` are independent: items of tasks, folds of probes.

    The standard error of the mean of k rows is ``sqrt(sum(stderr**2)) / k``; the interval is 1.96 of
    it to both sides. Columns as in ``interval_over``; ``n`` is k.
    """
    out = []
    for key, group in rows.dropna(subset=["value"]).groupby(list(by), sort=True):
        half = 1.96 * float(np.sqrt((group["stderr"] ** 2).sum(skipna=False))) / len(group)
        mean = float(group["value"].mean())
        out.append((*key, mean, mean - half, mean + half, len(group)))
    return pd.DataFrame(out, columns=[*by, "value", "low", "high", "n"])


def brain_curve(
    curves: pd.DataFrame, roi: str = "all", layer: int | None = None, measure: str | None = None
) -> pd.DataFrame:
    """Brain score of one model by tokens: mean over subjects with its 95 % interval.

    `layer` is the best one (``best_layer``) unless given; `measure` that of ``brain_measure``.
    """
    measure = measure or brain_measure(curves)
    layer = best_layer(curves, measure) if layer is None else layer
    return interval_over(select(curves, perspective="brain", measure=measure, roi=roi, layer=layer))


def chance_level(curves: pd.DataFrame) -> float:
    """Accuracy of guessing, mean over the tasks of the table; NaN where the table does not say."""
    return float(curves.loc[curves["measure"] == "chance", "value"].mean())


def subjects_text(n: int, simulated: bool) -> str:
    """How many subjects, and that they are simulated where they are: ``"n = 3 simulated subjects"``."""
    return f"n = {n} {'simulated ' if simulated else ''}subject{'s' if n != 1 else ''}"


# ------------------------------------------------------------------- drawing blocks


def _figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure in the book's style, `width` by `height` inches, known to nobody else."""
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(width, height), dpi=DPI, layout="constrained")
    # Made through pyplot so that a notebook knows how to show it, closed so that it shows it once.
    plt.close(fig)
    return fig


def _styled(function: Any) -> Any:
    """Run a figure function in the book's style and leave the caller's settings alone.

    Where the table lacks what the figure shows (a study without tasks, say), the figure says so: a
    page is then whole, and its reader knows why there is nothing to see.
    """
    import functools

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        import matplotlib as mpl

        with mpl.rc_context(_STYLE):
            try:
                return function(*args, **kwargs)
            except NothingToDraw as error:
                fig = _figure(1.2)
                fig.text(
                    0.5, 0.5, f"nothing to draw in this study\n{error}", ha="center", va="center", wrap=True
                )
                return fig

    return inside


def _foot(fig: Figure, note: str = "", simulated: bool = False) -> None:
    """The line below a figure: what n and the intervals are, and that the brain is simulated."""
    height = fig.get_figheight()
    room = 0.3 / height
    fig.get_layout_engine().set(rect=(0, room, 1, 1 - room))  # type: ignore[union-attr, call-arg]
    at = 0.07 / height
    fig.text(0.01, at, note, fontsize=9, color=GREY, ha="left", va="bottom")
    if simulated:
        fig.text(
            0.99,
            at,
            SIMULATED,
            fontsize=9,
            fontweight="bold",
            color="#7A3B00",
            ha="right",
            va="bottom",
            bbox={
                "boxstyle": "round,pad=0.25",
                "facecolor": "#FFF3E0",
                "edgecolor": "#7A3B00",
                "linewidth": 0.8,
            },
        )


def _line(ax: Axes, axis: TokenAxis, curve: pd.DataFrame, colour: str, number: int = 0, **style: Any) -> None:
    """A curve with its interval as a band; `number` chooses the marker."""
    x = axis(curve["tokens"])
    ax.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.18, linewidth=0)
    style.setdefault("marker", MARKERS[number % len(MARKERS)])
    ax.plot(x, curve["value"], color=colour, **style)


def _subject_lines(ax: Axes, axis: TokenAxis, rows: pd.DataFrame, colour: str, most: int = 6) -> None:
    """Each subject as a thin line, where there are few enough to be seen."""
    if rows["subject"].nunique() <= most:
        for _, own in rows.sort_values("tokens").groupby("subject"):
            ax.plot(axis(own["tokens"]), own["value"], color=colour, linewidth=0.7, alpha=0.6)


def _shade(axes: Any, axis: TokenAxis, phases: pd.DataFrame | None) -> None:
    """Shade the phases that were found over all panels, named at the top of the first."""
    if phases is None:
        return
    for row in _rows(phases[phases["found"].astype(bool)]):
        low, high = axis(row.start), min(axis(row.stop), axis.last)
        for ax in axes:
            ax.axvspan(low, high, color=PHASE_TINTS[row.phase], alpha=0.75, linewidth=0, zorder=0)
        axes[0].annotate(
            f"phase {PHASE_NAMES[row.phase]}",
            ((low + high) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, -3),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9.5,
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": PHASE_TINTS[row.phase], "edgecolor": "none"},
            zorder=6,
        )


def transitions_of(result: TriplePhase) -> pd.DataFrame:
    """Every rise and fall that the test of the phases fitted, as a table.

    Returns
    -------
    DataFrame of model, perspective, measure (``brain``, ``instruction_following``, ``accuracy``), kind
    (``rise``, ``fall``), onset, tokens (its midpoint), low, high (95 % interval of the midpoint), end
    and height (in units of the measure).
    """
    rows = []
    for perspective, measure, fit in (
        ("brain", "brain", result.brain),
        ("behaviour", "instruction_following", result.form),
        ("behaviour", "accuracy", result.accuracy),
    ):
        for move in sorted((*fit.rises, *fit.falls), key=lambda m: m.onset):
            kind = "rise" if move.direction == "rising" else "fall"
            dates = (move.onset, move.midpoint, move.midpoint_low, move.midpoint_high, move.end, move.height)
            rows.append((result.model, perspective, measure, kind, *dates))
    names = ["model", "perspective", "measure", "kind", "onset", "tokens", "low", "high", "end", "height"]
    return pd.DataFrame(rows, columns=names)


def phase_text(result: TriplePhase, phase: int, unit: str) -> str:
    """What the test says of a phase (1, 2, 3), in sentences: found or not, why, when, how much.

    `unit` : what the brain curve counts (``MEASURES[...][1]``).
    """
    row = result.table[result.table["phase"] == phase].iloc[0]
    verdict = "**found**" if row["found"] else "**not found**"
    parts = [f"Phase {PHASE_NAMES[phase]} ({row['name']}) is {verdict} in {result.model}. {row['why']}"]
    if np.isfinite(row["tokens"]):
        verb = "rise" if row["effect"] > 0 else "fall"
        midpoint = _with_interval(row, "tokens", "low", "high", amount)
        height = _with_interval(row, "effect", "effect_low", "effect_high", "{:+.3f}".format)
        parts.append(
            f"The {verb} of the brain score goes from {amount(row['start'])} to {amount(row['stop'])} "
            f"tokens, with its midpoint at {midpoint}; its height is {height}, as {unit}."
        )
    if np.isfinite(row["lag"]):
        times = {name: f"{10 ** row[name]:.2g}" for name in ("lag", "lag_low", "lag_high")}
        parts.append(
            f"The brain's midpoint comes at {times['lag']} times the tokens of the behaviour's (95 % "
            f"interval {times['lag_low']} to {times['lag_high']}; a rise at a random time comes as close "
            f"with p = {row['lag_p']:.2g})."
        )
        if row["lag_p"] > 0.05:
            parts.append("Closeness in time is thus no evidence by itself that the two belong together.")
    parts.append(
        f"Test: p = {row['p']:.2g}, after Holm's correction over the three phases {row['p_holm']:.2g}."
    )
    return " ".join(parts)


def _with_interval(row: Any, value: str, low: str, high: str, show: Any) -> str:
    """``value (low to high)``, or the value alone where the interval is not known."""
    if np.isfinite(row[low]) and np.isfinite(row[high]):
        return f"{show(row[value])} (95 % interval {show(row[low])} to {show(row[high])})"
    return f"{show(row[value])}"


def _mark_transitions(ax: Axes, axis: TokenAxis, transitions: pd.DataFrame | None, **where: Any) -> None:
    """Vertical lines at the transitions of a panel, a bar along the bottom for each interval."""
    if transitions is None or transitions.empty:
        return
    rows = transitions
    for column, value in where.items():
        rows = rows[rows[column].isin([value] if isinstance(value, str) else value)]
    for row in _rows(rows):
        at = axis(row.tokens)
        ax.axvline(at, color="black", linewidth=1, linestyle=(0, (4, 2)), zorder=1)
        if np.isfinite(row.low) and np.isfinite(row.high):
            ax.plot(
                [axis(row.low), min(axis(row.high), axis.last)],
                [0.06, 0.06],
                transform=ax.get_xaxis_transform(),
                color="black",
                linewidth=3,
                alpha=0.55,
                solid_capstyle="butt",
            )
        ax.plot(
            at,
            0.06,
            marker={"rise": "^", "fall": "v"}.get(row.kind, "o"),
            transform=ax.get_xaxis_transform(),
            color="black",
            markersize=8.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            clip_on=False,
            zorder=6,
        )


def _name(ax: Axes, measure: str, more: str = "") -> None:
    """Title and y label of a panel; shares get an axis from 0 to 1."""
    title, unit = MEASURES.get(measure, (measure.replace("_", " "), ""))
    ax.set_title(f"{title}{more}")
    ax.set_ylabel(unit)
    if measure in SHARES:
        ax.set_ylim(-0.05, 1.05)


def _chance_line(ax: Axes, curves: pd.DataFrame) -> None:
    """A dotted line at the accuracy of guessing, where the table has it (mean over tasks)."""
    level = chance_level(curves)
    if np.isnan(level):
        return
    ax.axhline(level, color=GREY, linewidth=1.1, linestyle=":")
    ax.annotate(
        "chance",
        (1.0, level),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8.5,
        color=GREY,
    )


def _legend_above(fig: Figure, ax: Axes, columns: int = 4) -> None:
    """The legend of a panel above all panels, where it covers no data."""
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=9.5)


def _legend(ax: Axes, **options: Any) -> None:
    options = {"loc": "best", "framealpha": 0.85, "frameon": True, "edgecolor": "none", **options}
    ax.legend(**options)


# -------------------------------------------------------- the three perspectives


@_styled
def three_perspectives(
    curves: pd.DataFrame,
    *,
    simulated: bool,
    transitions: pd.DataFrame | None = None,
    phases: pd.DataFrame | None = None,
    tasks: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """The phase figure: brain, behaviour and internal states of one model on one token axis.

    Parameters
    ----------
    curves : rows of the curves table of one model.
    simulated : whether the brain is simulated.
    transitions : what ``transitions_of`` gives; their midpoints and intervals are drawn.
    phases : ``TriplePhase.table``; from ``start`` to ``stop`` of each phase that was found is shaded.
    tasks : the tasks of which the mean is taken; default: all.
    """
    curves = of_tasks(curves, tasks)
    axis = TokenAxis.of(curves["tokens"])
    measure = brain_measure(curves)
    layer, inner = best_layer(curves, measure), internal_layer(curves)
    panels = ["brain", "instruction_following", "accuracy"]
    probes = probe_advantage(curves)
    panels += ["probes"] if len(probes) else []
    panels += ["intrinsic_dimension"] if (curves["measure"] == "intrinsic_dimension").any() else []
    panels = [p for p in panels if p in ("brain", "probes") or (curves["measure"] == p).any()]

    fig = _figure(0.75 + 1.35 * len(panels))
    axes = fig.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    _shade(axes, axis, phases)
    rows = select(curves, perspective="brain", measure=measure, roi="all", layer=layer)
    n = rows["subject"].nunique()
    for panel, ax in zip(panels, axes, strict=True):
        if panel == "brain":
            _subject_lines(ax, axis, rows, PERSPECTIVE_COLOURS["brain"])
            _line(ax, axis, interval_over(rows), PERSPECTIVE_COLOURS["brain"])
            _name(ax, measure, f", layer {layer}")
            _mark_transitions(ax, axis, transitions, perspective="brain")
        elif panel == "probes":
            _line(ax, axis, probes, PERSPECTIVE_COLOURS["internal"], 2)
            ax.axhline(0, color=GREY, linewidth=1, linestyle=":")
            _name(ax, "probe_advantage", f", layer {inner}")
            _mark_transitions(ax, axis, transitions, measure="probe_advantage")
        elif panel == "intrinsic_dimension":
            own = interval_of(select(curves, perspective="internal", measure=panel, layer=inner))
            _line(ax, axis, own, PERSPECTIVE_COLOURS["internal"], 3)
            _name(ax, panel, f", layer {inner}")
            _mark_transitions(ax, axis, transitions, measure=panel)
        else:
            asked = select(curves, perspective="behaviour", measure=panel)
            for number, (task, own) in enumerate(asked.sort_values("tokens").groupby("task")):
                ax.plot(
                    axis(own["tokens"]),
                    own["value"],
                    color=PERSPECTIVE_COLOURS["behaviour"],
                    linewidth=0.8,
                    linestyle=LINES[number % len(LINES)],
                    alpha=0.7,
                    label=task,
                )
            _line(ax, axis, interval_of(asked), PERSPECTIVE_COLOURS["behaviour"], 1)
            _name(ax, panel)
            if panel == "accuracy":
                _chance_line(ax, curves)
            if panel == "instruction_following" and asked["task"].nunique() > 1:
                _legend(ax, loc="upper left", fontsize=8.5)
            _mark_transitions(ax, axis, transitions, measure=panel)
    for ax in axes:
        axis.decorate(ax, label=ax is axes[-1])
    if title:
        fig.suptitle(title, fontsize=11, x=0.01, ha="left")
    note = f"{subjects_text(n, simulated)}; 95 % intervals; ▲ ▼ fitted rise, fall, with its interval"
    _foot(fig, note, simulated)
    return fig


def internal_layer(curves: pd.DataFrame) -> int:
    """The layer whose probes are highest above shuffled labels over the whole of training.

    Without probes: the best layer of the brain.
    """
    rows = _above_shuffled(curves)
    return select_layer(rows) if len(rows) else best_layer(curves)


def probe_advantage(curves: pd.DataFrame, layer: int | None = None) -> pd.DataFrame:
    """Probe score above that for shuffled labels, mean over labels; columns of ``interval_of``.

    Empty where the study has no probes. `layer` is that of ``internal_layer`` unless given.
    """
    rows = _above_shuffled(curves)
    if rows.empty:
        return pd.DataFrame(columns=["tokens", "value", "low", "high", "n"])
    return interval_of(rows[rows["layer"] == (internal_layer(curves) if layer is None else layer)])


def _above_shuffled(curves: pd.DataFrame) -> pd.DataFrame:
    """Rows of probes with what shuffled labels give taken off; standard errors added as independent."""
    keys = ["model", "tokens", "layer", "task"]
    internal = curves[curves["perspective"] == "internal"]
    score = internal[internal["measure"].isin(["probe_accuracy", "probe_correlation"])]
    shuffled = internal[internal["measure"] == "probe_shuffled"]
    both = score.merge(shuffled[[*keys, "value", "stderr"]], on=keys, suffixes=("", "_shuffled"))
    value = both["value"] - both["value_shuffled"]
    return both.assign(value=value, stderr=np.hypot(both["stderr"], both["stderr_shuffled"]))


@_styled
def perspective_pair(
    curves: pd.DataFrame,
    measure: str,
    *,
    simulated: bool,
    transitions: pd.DataFrame | None = None,
    phases: pd.DataFrame | None = None,
    tasks: Sequence[str] | None = None,
    best_monotone: bool = False,
) -> Figure:
    """The brain curve above one measure of behaviour, task by task: what a phase is claimed to tie together.

    Parameters
    ----------
    curves : rows of one model.
    measure : a measure of the perspective ``behaviour``.
    best_monotone : draw, with the brain curve, the closest curve that never falls (isotonic
        regression, weights equal): what lies below it is the fall that has to be explained.
    transitions, phases, tasks : as in ``three_perspectives``.
    """
    curves = of_tasks(curves, tasks)
    axis = TokenAxis.of(curves["tokens"])
    score = brain_measure(curves)
    layer = best_layer(curves, score)
    rows = select(curves, perspective="brain", measure=score, roi="all", layer=layer)
    asked = select(curves, perspective="behaviour", measure=measure)
    fig = _figure(5.2)
    axes = fig.subplots(2, 1, sharex=True)
    _shade(axes, axis, phases)
    brain = interval_over(rows)
    _subject_lines(axes[0], axis, rows, PERSPECTIVE_COLOURS["brain"])
    _line(axes[0], axis, brain, PERSPECTIVE_COLOURS["brain"], label="mean over subjects")
    if best_monotone:
        axes[0].plot(
            axis(brain["tokens"]),
            monotone(brain["value"]),
            color="black",
            linewidth=1.3,
            linestyle="--",
            label="closest curve that never falls",
        )
        _legend(axes[0], loc="upper left")
    _name(axes[0], score, f", layer {layer}")
    _mark_transitions(axes[0], axis, transitions, perspective="brain")
    _task_lines(axes[1], axis, asked)
    if measure.startswith("accuracy"):
        _chance_line(axes[1], curves)
    _name(axes[1], measure)
    _mark_transitions(axes[1], axis, transitions, measure=measure)
    _legend(axes[1], loc="upper left")
    for ax in axes:
        axis.decorate(ax, label=ax is axes[-1])
    n = rows["subject"].nunique()
    note = f"{subjects_text(n, simulated)}; 95 % intervals; ▲ ▼ fitted rise, fall, with its interval"
    _foot(fig, note, simulated)
    return fig


def monotone(values: Sequence[float] | np.ndarray | pd.Series) -> np.ndarray:
    """The closest curve that never falls, by least squares (isotonic regression); (n,)."""
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(np.asarray(values, dtype=float)).x)


@_styled
def power_curve(table: pd.DataFrame, *, label: str, note: str = "") -> Figure:
    """How often an effect of a given size is found in simulated curves.

    Parameters
    ----------
    table : columns depth, power, low, high (95 % interval), as ``phases.detachment_power`` gives; where
        it has checkpoints and subjects too, a panel a number of checkpoints, a line a number of subjects.
    label : what the sizes are, with their unit.
    """
    designs = table.assign(**{name: 0 for name in ("checkpoints", "subjects") if name not in table})
    checkpoints = sorted(designs["checkpoints"].unique())
    subjects = sorted(designs["subjects"].unique())
    fig = _figure(2.9 if len(checkpoints) * len(subjects) == 1 else 3.2)
    axes = fig.subplots(1, len(checkpoints), sharey=True, squeeze=False)[0]
    for ax, n in zip(axes, checkpoints, strict=True):
        for number, count in enumerate(subjects):
            own = designs[(designs["checkpoints"] == n) & (designs["subjects"] == count)]
            power = own["power"]
            ax.errorbar(
                own["depth"],
                power,
                yerr=[(power - own["low"]).clip(lower=0), (own["high"] - power).clip(lower=0)],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle=LINES[number % len(LINES)],
                capsize=3,
                label=f"{count} subject{'s' if count != 1 else ''}",
            )
        ax.axhline(0.8, color=GREY, linewidth=1.1, linestyle=":")
        ax.set_ylim(-0.05, 1.05)
        if len(checkpoints) > 1:
            ax.set_title(f"{n} checkpoints")
    axes[0].set_ylabel("share of curves")
    if len(subjects) > 1:
        _legend_above(fig, axes[0])
    axes[(len(axes) - 1) // 2].set_xlabel(label)
    _foot(fig, note)
    return fig


def _task_lines(ax: Axes, axis: TokenAxis, tasks: pd.DataFrame) -> None:
    """One line a task with the interval over its items."""
    for number, (task, own) in enumerate(tasks.groupby("task")):
        _line(
            ax,
            axis,
            interval_of(own),
            COLOURS[number % len(COLOURS)],
            number,
            linestyle=LINES[number % len(LINES)],
            label=task,
        )


# ------------------------------------------------------------------------- brain


@_styled
def layer_checkpoint_heatmap(curves: pd.DataFrame, *, simulated: bool, measure: str = "") -> Figure:
    """Brain score of each layer at each checkpoint: mean over subjects, one column a checkpoint.

    A white dot marks the best layer of each checkpoint.
    """
    measure = measure or brain_measure(curves)
    rows = select(curves, perspective="brain", measure=measure, roi="all")
    table = rows.pivot_table(index="layer", columns="tokens", values="value", aggfunc="mean").sort_index()
    fig = _figure(1.5 + 0.36 * len(table))
    ax = fig.subplots()
    image = ax.imshow(
        table.to_numpy(), aspect="auto", origin="lower", cmap="cividis", interpolation="nearest"
    )
    ax.plot(
        range(table.shape[1]),
        np.argmax(table.to_numpy(), axis=0),
        linestyle="none",
        marker="o",
        markersize=5,
        markerfacecolor="white",
        markeredgecolor="black",
        label="best layer",
    )
    ax.grid(False)
    ax.set_yticks(range(len(table)), _layer_names(table.index))
    every = max(1, int(np.ceil(table.shape[1] / 8)))
    shown = list(range(0, table.shape[1], every))
    ax.set_xticks(shown, [_short(table.columns.to_numpy()[i]) for i in shown])
    ax.set_xlabel("training tokens at each checkpoint (even steps, not to scale)")
    ax.set_ylabel("layer")
    bar = fig.colorbar(image, ax=ax, pad=0.01)
    bar.set_label(f"{MEASURES[measure][1]}\n(mean of voxels)")
    bar.outline.set_visible(False)  # type: ignore[operator]
    _foot(fig, f"mean over {subjects_text(rows['subject'].nunique(), simulated)}; dot: best layer", simulated)
    return fig


def _short(tokens: float) -> str:
    """A count of tokens to two digits."""
    return amount(float(f"{tokens:.2g}"))


def _layer_names(layers: Sequence[int] | pd.Index) -> list[str]:
    return ["0 (embedding)" if layer == 0 else str(layer) for layer in layers]


@_styled
def roi_curves(
    curves: pd.DataFrame, *, simulated: bool, layer: int | None = None, measure: str = ""
) -> Figure:
    """A panel for each region: its brain score by tokens, with the mean of all voxels in grey."""
    measure = measure or brain_measure(curves)
    layer = best_layer(curves, measure) if layer is None else layer
    rows = select(curves, perspective="brain", measure=measure, layer=layer).dropna(subset=["value"])
    axis = TokenAxis.of(rows["tokens"])
    names = [name for name in sorted(rows["roi"].unique()) if name != "all"]
    columns = 2 if len(names) in (2, 4) else min(3, len(names))
    lines = int(np.ceil(len(names) / columns))
    fig = _figure(0.9 + 1.75 * lines)
    axes = fig.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    whole = interval_over(rows[rows["roi"] == "all"])
    for number, ax in enumerate(axes.flat):
        if number >= len(names):
            ax.set_visible(False)
            continue
        own = rows[rows["roi"] == names[number]]
        ax.plot(axis(whole["tokens"]), whole["value"], color="#9A9A9A", linewidth=2.5)
        _line(ax, axis, interval_over(own), COLOURS[number % len(COLOURS)], number, markersize=3.5)
        ax.set_title(names[number])
        bottom = number + columns >= len(names)
        axis.decorate(ax, label=bottom, text="training tokens", wide=False)
        ax.tick_params(labelbottom=bottom)
    for ax in axes[:, 0]:
        ax.set_ylabel(MEASURES[measure][1])
    n = rows["subject"].nunique()
    _foot(fig, f"layer {layer}; {subjects_text(n, simulated)}, 95 % intervals; grey: all voxels", simulated)
    return fig


@_styled
def controls_bars(
    curves: pd.DataFrame,
    controls: pd.DataFrame,
    *,
    simulated: bool,
    ceiling: Mapping[str, float] | None = None,
) -> Figure:
    """The score of the trained model beside what it must be compared with.

    Parameters
    ----------
    curves, controls : rows of one model, and of its controls.
    ceiling : subject -> mean noise ceiling of its voxels (correlation), if known.
    """
    table = control_table(curves, controls, ceiling=ceiling)
    summary = interval_over(table.assign(stderr=np.nan), by=("order", "condition"))
    fig = _figure(1.15 + 0.36 * len(summary))
    ax = fig.subplots()
    names = summary["condition"].tolist()[::-1]
    for row in _rows(summary):
        y = names.index(row.condition)
        own = table.loc[table["condition"] == row.condition, "value"]
        colour = PERSPECTIVE_COLOURS["brain"] if row.condition.startswith("trained") else "#4D4D4D"
        ax.plot(own, np.full(len(own), y), "|", color=colour, markersize=9, alpha=0.7)
        ax.plot([row.low, row.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        ax.plot(row.value, y, "o", color=colour, markersize=7)
        ax.annotate(
            f"{row.value:.3f}",
            (row.value, y),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.35)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("correlation r of predicted and measured responses, mean of voxels")
    n = table["subject"].nunique()
    _foot(fig, f"{subjects_text(n, simulated)} (strokes), mean and 95 % interval", simulated)
    return fig


def control_table(
    curves: pd.DataFrame, controls: pd.DataFrame, ceiling: Mapping[str, float] | None = None, roi: str = "all"
) -> pd.DataFrame:
    """Trained and untrained model, ceiling and controls in correlation units, one row a subject.

    The layer is the best one of the whole training for trained and untrained alike, and for the
    shuffled stimulus; shuffles are averaged. Controls of a study that has none are left out.

    Returns
    -------
    DataFrame of order, condition, subject, value.
    """
    layer = best_layer(curves)
    rows = select(curves, perspective="brain", measure="r", roi=roi, layer=layer)
    parts = []
    if ceiling:
        parts.append(
            ("noise ceiling", pd.DataFrame({"subject": list(ceiling), "value": list(ceiling.values())}))
        )
    known = controls[(controls["measure"] == "r") & (controls["roi"] == roi)]
    for name in ("control: true latents",):
        if (known["model"] == name).any():
            parts.append((name.removeprefix("control: "), known[known["model"] == name]))
    parts.append((f"trained model, layer {layer}", rows[rows["tokens"] == rows["tokens"].max()]))
    if (rows["tokens"] == 0).any():
        parts.append((f"untrained model, layer {layer}", rows[rows["tokens"] == 0]))
    for name in sorted(set(known["model"]) - {"control: true latents"}):
        own = known[known["model"] == name]
        own = own[own["layer"] == layer] if own["layer"].nunique() > 1 else own
        parts.append((name.removeprefix("control: "), own))
    out = []
    for order, (condition, part) in enumerate(parts):
        mean = part.groupby("subject", as_index=False)["value"].mean()
        out.append(mean.assign(order=order, condition=condition))
    return pd.concat(out, ignore_index=True)[["order", "condition", "subject", "value"]]


@_styled
def significance_curves(curves: pd.DataFrame, *, simulated: bool, fdr: float = 0.05) -> Figure:
    """Share of voxels whose score is significant, by tokens: one line a layer, mean over subjects."""
    rows = select(curves, perspective="brain", measure="significant", roi="all")
    axis = TokenAxis.of(rows["tokens"])
    fig = _figure(3.2)
    ax = fig.subplots()
    for layer, colour, number in _layer_colours(rows["layer"].unique()):
        _line(ax, axis, interval_over(rows[rows["layer"] == layer]), colour, number, label=f"layer {layer}")
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel(f"share of voxels with q < {fdr:g}")
    axis.decorate(ax)
    _legend(ax, ncols=2)
    _foot(fig, f"{subjects_text(rows['subject'].nunique(), simulated)}, 95 % intervals", simulated)
    return fig


def _layer_colours(layers: Any) -> list[tuple[int, Any, int]]:
    """Layers in order with a colour from dark (early) to light, and a number for the marker."""
    import matplotlib as mpl

    ordered = sorted(int(layer) for layer in layers)
    # Viridis without its palest end, which is hard to see on white.
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(ordered)))
    return [
        (layer, tuple(shade), number)
        for number, (layer, shade) in enumerate(zip(ordered, shades, strict=True))
    ]


@_styled
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
    fig = _figure(3.0)
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
    _foot(fig, f"{subjects_text(len(per), simulated)}, {voxels} voxels each; bar: median", simulated)
    return fig


@_styled
def time_courses(series: Mapping[str, np.ndarray], tr: float, *, simulated: bool, label: str) -> Figure:
    """Some time courses below each other: what a voxel's response looks like.

    Parameters
    ----------
    series : name -> (n_trs,) in standard deviations.
    tr : seconds.
    label : what they have in common, for the note below.
    """
    fig = _figure(0.8 + 0.85 * len(series))
    axes = fig.subplots(len(series), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for number, (ax, (name, values)) in enumerate(zip(axes, series.items(), strict=True)):
        ax.plot(np.arange(len(values)) * tr, values, color=COLOURS[number % len(COLOURS)], linewidth=1.2)
        ax.set_title(name)
        ax.set_ylabel("s.d.")
    axes[-1].set_xlabel("seconds from the start of the run")
    _foot(fig, label, simulated)
    return fig


@_styled
def by_layer(table: pd.DataFrame, label: str, *, note: str = "") -> Figure:
    """A line over layers for each condition.

    Parameters
    ----------
    table : columns layer, condition, value.
    label : what the values are, with their unit.
    """
    fig = _figure(2.9)
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
    ax.set_xticks(layers, _layer_names(layers))
    ax.set_xlabel("layer")
    ax.set_ylabel(label)
    _legend(ax)
    _foot(fig, note)
    return fig


# ----------------------------------------------------------------------- surfaces

#: Vertices of one hemisphere of fsaverage5.
HEMISPHERE = 10242
#: First of 256 colours that stands for a value; those before it are bare cortex.
SCALE = 32


def _mesh(hemisphere: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (n_vertices, 3) in mm and faces (n_faces, 3) of a surface that comes with nilearn."""
    from nilearn.datasets import load_fsaverage

    part = load_fsaverage("fsaverage5")[kind].parts[hemisphere]
    return np.asarray(part.coordinates), np.asarray(part.faces)


def on_surface(
    vertices: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], reach: float = 12.0
) -> np.ndarray:
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
        places, _ = _mesh(hemisphere, "white_matter")
        first = number * HEMISPHERE
        own = mean[(mean.index >= first) & (mean.index < first + HEMISPHERE)]
        if own.empty:
            continue
        distance, nearest = cKDTree(places[own.index.to_numpy() - first]).query(
            places, distance_upper_bound=reach
        )
        near = np.isfinite(distance)
        out[first : first + HEMISPHERE][near] = own.to_numpy()[nearest[near]]
    return out


@_styled
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
    fig = _figure(4.9)
    grid = fig.subplots(2, 2, subplot_kw={"projection": "3d"})
    sulci = _sulci()
    for row, view in enumerate(("lateral", "medial")):
        for column, hemisphere in enumerate(("left", "right")):
            part = slice(column * HEMISPHERE, (column + 1) * HEMISPHERE)
            places, faces = _mesh(hemisphere, "inflated")
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
    _foot(fig, note, simulated)
    return fig


def _sulci() -> np.ndarray:
    """Depth of the sulci of fsaverage5, (20484,), for the grey below the colours."""
    from nilearn.datasets import load_fsaverage_data

    parts = load_fsaverage_data("fsaverage5", data_type="sulcal").data.parts
    return np.concatenate([np.asarray(parts[h]).ravel() for h in ("left", "right")])


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
        xyz, corners = _mesh(hemisphere, "inflated")
        # Inflated hemispheres overlap where they are; apart, both can be seen from the inside too.
        shift = -12 - xyz[:, 0].max() if number == 0 else 12 - xyz[:, 0].min()
        places.append(xyz + np.array([shift, 0, 0]))
        faces.append(corners + number * HEMISPHERE)
    xyz = np.concatenate(places).astype(np.float32)
    corners = np.concatenate(faces).astype(np.uint16)

    # One byte a face: two greys of bare cortex (sulcus, gyrus) below, the scale from SCALE to 255 above.
    bare = np.where(_sulci()[corners].mean(axis=1) > 0, 8, 24)
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
    buttons = _menu(list(views), [{}] * len(views), layouts=cameras, x=1.0, xanchor="right", type="buttons")
    fig.update_layout(
        template="plotly_white",
        height=460,
        autosize=True,
        margin={"l": 0, "r": 0, "t": 60, "b": 10},
        scene={
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "data",
            "camera": cameras[0]["scene.camera"],
        },
        annotations=_plotly_mark(simulated, yref="paper"),
        updatemenus=[
            _menu(list(maps), [{"visible": [i == n for i in range(len(maps))]} for n in range(len(maps))]),
            buttons | {"direction": "right"},
        ],
    )
    return fig


def _plotly_mark(simulated: bool, yref: str) -> list[dict[str, Any]]:
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


def _menu(names: Sequence[str], changes: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
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


# ------------------------------------------------------------ stimulus and features


@_styled
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
    fig = _figure(3.9)
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
    _legend_above(fig, axes[1])
    _foot(fig, f"vertical lines: TRs of {tr:g} s")
    return fig


@_styled
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
    fig = _figure(0.9 + WIDTH / count * 0.85) if count > 1 else _figure(4.4, width=5.2)
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
        _foot(fig, note, simulated)
    return fig


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of two sets of features of the same n samples, between 0 and 1.

    ``||X'Y||² / (||X'X|| ||Y'Y||)`` with centred columns and Frobenius norms; Kornblith et al. 2019,
    equation 4. NaN when a set is constant.

    Parameters
    ----------
    x, y : (n, p) and (n, q).
    """
    x, y = x - x.mean(0), y - y.mean(0)
    norm = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(x.T @ y) ** 2) / norm if norm > 0 else float("nan")


@_styled
def loss_curve(losses: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss on held-out text by tokens, one line a model.

    Parameters
    ----------
    losses : label of a model -> DataFrame of tokens and loss (nats a token).
    """
    axis = TokenAxis.of(pd.concat([frame["tokens"] for frame in losses.values()]))
    fig = _figure(3.0)
    ax = fig.subplots()
    for number, (name, frame) in enumerate(losses.items()):
        ax.plot(
            axis(frame["tokens"]),
            frame["loss"],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            linestyle=LINES[number % len(LINES)],
            label=name,
        )
    ax.set_ylabel("loss on held-out text\n(nats a token)")
    axis.decorate(ax)
    _legend(ax)
    return fig


# ------------------------------------------------------- behaviour, internal states


@_styled
def behaviour_curves(
    curves: pd.DataFrame,
    measures: Sequence[str] = ("instruction_following", "accuracy", "log_probability"),
) -> Figure:
    """Each measure of behaviour by tokens, one line a task, with the interval over items."""
    rows = select(curves, perspective="behaviour")
    axis = TokenAxis.of(rows["tokens"])
    measures = [m for m in measures if (rows["measure"] == m).any()]
    fig = _figure(0.8 + 1.75 * len(measures))
    axes = fig.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
    for ax, measure in zip(axes, measures, strict=True):
        tasks = rows[rows["measure"] == measure]
        _task_lines(ax, axis, tasks)
        _name(ax, measure)
        if measure.startswith("accuracy"):
            _chance_line(ax, curves)
        axis.decorate(ax, label=ax is axes[-1])
    _legend_above(fig, axes[0])
    _foot(fig, "bands: 95 % intervals over items (1.96 standard errors)")
    return fig


@_styled
def internals_curves(
    curves: pd.DataFrame, measures: Sequence[str] = ("intrinsic_dimension", "participation_ratio")
) -> Figure:
    """Measures of the hidden states by tokens, one line a layer, on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    rows = select(curves, perspective="internal")
    axis = TokenAxis.of(rows["tokens"])
    measures = [m for m in measures if (rows["measure"] == m).any()]
    fig = _figure(0.8 + 2.1 * len(measures))
    axes = fig.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
    for ax, measure in zip(axes, measures, strict=True):
        own = rows[rows["measure"] == measure]
        for layer, colour, number in _layer_colours(own["layer"].unique()):
            _line(ax, axis, interval_of(own[own["layer"] == layer]), colour, number, label=f"layer {layer}")
        _name(ax, measure)
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(ScalarFormatter())
        ax.yaxis.set_minor_formatter(NullFormatter())
        axis.decorate(ax, label=ax is axes[-1])
    _legend(axes[0], ncols=2)
    _foot(fig, "layer 0 is the embedding; bands where given: 95 % intervals")
    return fig


@_styled
def probe_curves(curves: pd.DataFrame, layer: int | None = None) -> Figure:
    """A panel for each probed label: the probe, its two controls and chance, by tokens.

    `layer` : that of ``internal_layer`` unless given. Labels that are classes are scored by
    accuracy, values by correlation; the panel's title says which.
    """
    layer = internal_layer(curves) if layer is None else layer
    rows = curves[(curves["perspective"] == "internal") & (curves["layer"] == layer)]
    rows = rows[rows["measure"].str.startswith("probe_")]
    if rows.empty:
        raise NothingToDraw(
            "curves: measure: found no 'probe_...'; expected probes in the study (internals.probes)"
        )
    axis = TokenAxis.of(rows["tokens"])
    names = sorted(rows["task"].unique())
    columns = 2 if len(names) in (2, 4) else min(3, len(names))
    lines = int(np.ceil(len(names) / columns))
    fig = _figure(1.2 + 1.8 * lines)
    axes = fig.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for number, ax in enumerate(axes.flat):
        if number >= len(names):
            ax.set_visible(False)
            continue
        own = rows[rows["task"] == names[number]]
        score = "probe_accuracy" if (own["measure"] == "probe_accuracy").any() else "probe_correlation"
        for measure, colour, line, marker, text in (
            (score, PERSPECTIVE_COLOURS["internal"], "-", 0, "probe"),
            ("probe_control", COLOURS[3], "--", 1, "control: one label a word type"),
            ("probe_shuffled", "#4D4D4D", "-.", 2, "control: shuffled labels"),
        ):
            curve = interval_of(own[own["measure"] == measure])
            _line(ax, axis, curve, colour, marker, linestyle=line, label=text, markersize=3.5)
        chance = interval_of(own[own["measure"] == "probe_chance"])
        ax.plot(
            axis(chance["tokens"]), chance["value"], color=GREY, linewidth=1.1, linestyle=":", label="chance"
        )
        ax.set_title(f"{names[number]} ({score.removeprefix('probe_')})")
        bottom = number + columns >= len(names)
        axis.decorate(ax, label=bottom, text="training tokens", wide=False)
        ax.tick_params(labelbottom=bottom)
    for ax in axes[:, 0]:
        ax.set_ylabel("score")
    _legend_above(fig, axes[0, 0])
    _foot(fig, f"layer {layer}; bands: 95 % intervals over folds")
    return fig


# ------------------------------------------------------------------- across models


def families(study: Study) -> pd.DataFrame:
    """The models of a study and what they differ in: model, label, architecture, mix, seed, group.

    Models of one `group` differ in their seed alone; its name is their label without the seed. A
    model that was found and not trained here is a group of its own.
    """
    rows: list[dict[str, str]] = []
    names: dict[str, str] = {}
    for model in study.models:
        spec, label = model.train, model.label or model.name
        row = {"model": model.name, "label": label, "architecture": "", "mix": "", "seed": "", "group": label}
        if spec is not None:
            row |= {"architecture": spec.architecture, "mix": spec.mix, "seed": str(spec.seed)}
            key = digest_of(spec.model_dump(mode="json", exclude={"seed"}))
            row["group"] = names.setdefault(key, re.sub(r"[\s,;(]*seed \d+\)?$", "", label))
            if (
                any(other["group"] == row["group"] for other in rows)
                and list(names.values()).count(row["group"]) > 1
            ):
                # Two groups whose labels tell no difference are told apart by a model's name.
                row["group"] = names[key] = f"{row['group']} ({model.name})"
        rows.append(row)
    return pd.DataFrame(rows)


def model_curve(curves: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One curve of one model, columns of ``interval_over``.

    `measure` is ``brain`` (best layer, all voxels), ``probes`` or a measure of behaviour, of which the
    mean over tasks is taken.
    """
    if measure == "brain":
        return brain_curve(curves)
    if measure == "probes":
        return probe_advantage(curves)
    return interval_of(select(curves, perspective="behaviour", measure=measure))


@_styled
def across_models(
    curves: pd.DataFrame, models: pd.DataFrame, *, simulated: bool, tasks: Sequence[str] | None = None
) -> Figure:
    """Brain score, instruction following and accuracy of every model on one token axis.

    Models that differ in their seed alone share a colour; seeds differ in marker and line style.

    Parameters
    ----------
    curves : rows of several models.
    models : what ``families`` gives.
    tasks : those to take the mean of: the ones that all models can have learnt; default: all.
    """
    curves = of_tasks(curves, tasks)
    axis = TokenAxis.of(curves["tokens"])
    panels = ["brain", "instruction_following", "accuracy"]
    panels = [p for p in panels if p == "brain" or (curves["measure"] == p).any()]
    fig = _figure(1.1 + 1.9 * len(panels))
    axes = fig.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    groups = list(dict.fromkeys(models["group"]))
    seen: dict[str, int] = {}
    for row in _rows(models):
        own = curves[curves["model"] == row.model]
        if own.empty:
            continue
        number = groups.index(row.group)
        repeat = seen.get(row.group, 0)
        seen[row.group] = repeat + 1
        for panel, ax in zip(panels, axes, strict=True):
            _line(
                ax,
                axis,
                model_curve(own, panel),
                COLOURS[number % len(COLOURS)],
                number + repeat * len(groups),
                linestyle=LINES[repeat % len(LINES)],
                label=row.label,
            )
    measure = brain_measure(curves)
    for panel, ax in zip(panels, axes, strict=True):
        _name(ax, measure if panel == "brain" else panel, ", best layer" if panel == "brain" else "")
        if panel == "accuracy":
            _chance_line(ax, curves)
        axis.decorate(ax, label=ax is axes[-1])
    _legend_above(fig, axes[0], columns=2)
    n = select(curves, perspective="brain")["subject"].nunique()
    asked = sorted(set(curves.loc[curves["perspective"] == "behaviour", "task"]))
    shared = f"; tasks: {', '.join(asked)}" if asked else ""
    _foot(fig, f"{subjects_text(n, simulated)}, 95 % intervals{shared}", simulated)
    return fig


@_styled
def final_scores(
    curves: pd.DataFrame, models: pd.DataFrame, *, simulated: bool, tasks: Sequence[str] | None = None
) -> Figure:
    """The last checkpoint of every model: a dot a model with its interval, groups side by side.

    The spread within a group is the seeds' spread; a difference between groups that is no larger
    says nothing about families or mixes.
    """
    from matplotlib.ticker import MaxNLocator

    curves = of_tasks(curves, tasks)
    there = set(curves["measure"])
    needed = {"brain": "r", "accuracy": "accuracy", "probes": "probe_shuffled"}
    panels = [panel for panel, measure in needed.items() if measure in there]
    groups = list(dict.fromkeys(models["group"]))
    fig = _figure(1.2 + 0.34 * len(models))
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    labels = models["label"].tolist()
    for panel, ax in zip(panels, axes, strict=True):
        for y, row in enumerate(_rows(models)):
            curve = model_curve(curves[curves["model"] == row.model], panel)
            last = curve.iloc[-1]
            number = groups.index(row.group)
            colour = COLOURS[number % len(COLOURS)]
            ax.plot([last["low"], last["high"]], [y, y], color=colour, linewidth=2.2)
            ax.plot(last["value"], y, MARKERS[number % len(MARKERS)], color=colour, markersize=7)
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        ax.set_xlabel(
            {
                "brain": f"brain score\n({MEASURES[brain_measure(curves)][1]})",
                "accuracy": "accuracy\n(share of items)",
                "probes": "probes above\nshuffled labels",
            }[panel]
        )
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
    n = select(curves, perspective="brain")["subject"].nunique()
    _foot(fig, f"last checkpoint; {subjects_text(n, simulated)}; 95 % intervals", simulated)
    return fig


@_styled
def transition_raster(
    transitions: pd.DataFrame, models: pd.DataFrame, tokens: Any, *, simulated: bool
) -> Figure:
    """When each curve of each model changes: a marker a transition, a bar for its 95 % interval.

    Parameters
    ----------
    transitions : ``transitions_of`` all models.
    models : what ``families`` gives.
    tokens : all counts of tokens of the study, for the axis.
    """
    axis = TokenAxis.of(tokens)
    measures = [
        m for m in ("brain", "instruction_following", "accuracy") if (transitions["measure"] == m).any()
    ]
    fig = _figure(1.3 + 0.24 * len(models) * max(len(measures), 1))
    ax = fig.subplots()
    ticks, labels = [], []
    y = 0.0
    for row in _rows(models):
        for number, measure in enumerate(measures):
            own = transitions[(transitions["model"] == row.model) & (transitions["measure"] == measure)]
            colour = COLOURS[number % len(COLOURS)]
            for change in _rows(own):
                if np.isfinite(change.low) and np.isfinite(change.high):
                    ax.plot(
                        [axis(change.low), min(axis(change.high), axis.last)],
                        [y, y],
                        color=colour,
                        linewidth=3,
                        alpha=0.4,
                    )
                marker = {"rise": "^", "fall": "v"}.get(change.kind, "o")
                ax.plot(axis(change.tokens), y, marker, color=colour, markersize=7.5)
            ticks.append(y)
            labels.append(
                f"{row.label}: {measure.replace('_', ' ')}" if number == 0 else measure.replace("_", " ")
            )
            y += 1
        ax.axhline(y - 0.25, color="#BDBDBD", linewidth=0.8)
        y += 0.5
    ax.set_yticks(ticks, labels, fontsize=9)
    ax.set_ylim(y - 0.5, -0.75)
    ax.grid(axis="y", visible=False)
    axis.decorate(ax)
    _foot(fig, "▲ rise, ▼ fall; bars: 95 % intervals", simulated)
    return fig


def _panels(keys: Iterable[tuple[str, ...]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Panel -> line -> key of a curve, in order: the last part of a key is its panel, the rest its line.

    Curves that one column alone names are lines of one panel without a name.
    """
    panels: dict[str, dict[str, tuple[str, ...]]] = {}
    for key in keys:
        panel, line = (key[-1], ", ".join(key[:-1])) if len(key) > 1 else ("", "".join(key))
        panels.setdefault(panel, {})[line] = key
    return panels


@_styled
def fitted_curves(fitted: FittedTable, *, x: str = TOKENS, y: str = "value", note: str = "") -> Figure:
    """Learning curves with the lines fitted to them: a panel for each value of the last column of `by`.

    Parameters
    ----------
    fitted : what ``phases.fit_table`` gives; a curve that could not be decided has points alone.
    x, y : what the axes count. note : the line below the figure.
    """
    panels = _panels(fitted.fits)
    columns = min(3, len(panels))
    count = -(-len(panels) // columns)
    axis = TokenAxis.of(np.concatenate([fit.tokens for fit in fitted.fits.values()]))
    lines = list(dict.fromkeys(line for own in panels.values() for line in own))
    fig = _figure(1.2 + 0.12 * len(lines) + (2.4 if columns == 1 else 1.75) * count)
    axes = fig.subplots(count, columns, squeeze=False).ravel()
    for place, ax in enumerate(axes):
        if place >= len(panels):
            ax.remove()
            continue
        panel = list(panels)[place]
        for line, key in panels[panel].items():
            fit, number = fitted.fits[key], lines.index(line)
            look: dict[str, Any] = {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": LINES[number // len(COLOURS) % len(LINES)],
                "linewidth": 1.3,
            }
            marker = MARKERS[number % len(MARKERS)]
            if fit.decided:
                where = np.unique([*fit.tokens, *fit.knots])
                ax.plot(axis(where), fit.at(where), **look)
            ax.plot(axis(fit.tokens), fit.values, marker, color=look["color"], markersize=2.6, alpha=0.55)
            ax.plot([], [], marker=marker, label=line, **look)
        ax.set_title(panel)
        axis.decorate(ax, label=False)
        if columns > 1:  # narrow panels have room for every other label
            positions, names = axis.ticks()
            first = int(axis.has_zero)
            ax.set_xticks(positions, [n if i < first or (i - first) % 2 else "" for i, n in enumerate(names)])
        last_of_column = place + columns >= len(panels)
        ax.tick_params(labelbottom=last_of_column)
        if last_of_column and place % columns == (columns - 1) // 2:
            ax.set_xlabel(x)
        if place % columns == 0:
            ax.set_ylabel(y)
    if len(lines) > 1:
        _legend_above(fig, axes[0])
    _foot(fig, note or "points: checkpoints; lines: piecewise-linear fits")
    return fig


@_styled
def move_raster(fitted: FittedTable, *, x: str = TOKENS, level: float = 0.05, note: str = "") -> Figure:
    """When every curve of a table rises and falls: a row a curve, a bar a move, from its onset to its end.

    ▲ and ▼ stand at the midpoints of rises and falls, the black whisker is the 95 % interval of the
    lift-off, where the steepest piece begins. A move that could be autocorrelated noise (q above
    `level`) has a hollow marker and a pale bar. A grey line is a curve without moves; a row without
    anything could not be decided.

    Parameters
    ----------
    fitted : what ``phases.fit_table`` gives. x : what the axis counts. note : the line below the figure.
    """
    panels = _panels(fitted.fits)
    axis = TokenAxis.of(np.concatenate([fit.tokens for fit in fitted.fits.values()]))
    keys = fitted.moves[[*fitted.by]].itertuples(index=False, name=None)
    moves: dict[tuple[str, ...], list[Any]] = {}
    for key, move in zip(keys, _rows(fitted.moves[list(MOVE_COLUMNS)]), strict=True):
        moves.setdefault(key, []).append(move)
    gap = 0.8
    fig = _figure(1.4 + 0.17 * (len(moves) + gap * len(panels)))
    ax = fig.subplots()
    ticks: list[float] = []
    labels: list[str] = []
    y = 0.0
    for panel, own in panels.items():
        for line, key in own.items():
            for move in moves[key]:
                _move_bar(ax, axis, move, y, level)
            labels.append(
                ": ".join(part for part in ("" if line != next(iter(own)) else panel, line) if part)
            )
            ticks.append(y)
            y += 1.0
        ax.axhline(y - 0.5 + gap / 2, color="#BDBDBD", linewidth=0.8)
        y += gap
    ax.set_yticks(ticks, labels, fontsize=9)
    ax.set_ylim(y - gap - 0.4, -0.9)
    ax.grid(axis="y", visible=False)
    axis.decorate(ax, text=x)
    _foot(fig, note or f"▲ rise, ▼ fall (hollow: q > {level:g}); black: 95 % interval of the lift-off")
    return fig


def _move_bar(ax: Axes, axis: TokenAxis, move: Any, y: float, level: float) -> None:
    """One row of ``move_raster``: a rise, a fall, or the grey line of a curve without either."""
    if move.kind == "undecided":
        return
    if move.kind == "flat":
        ax.plot(
            [axis.zero if axis.has_zero else axis.first, axis.last], [y, y], color="#9A9A9A", linewidth=0.9
        )
        return
    colour, marker = (COLOURS[0], "^") if move.kind == "rise" else (COLOURS[1], "v")
    sure = move.q <= level
    ends = [axis(move.onset), axis(move.end)]
    ax.plot(ends, [y, y], color=colour, linewidth=4, alpha=0.5 if sure else 0.2, solid_capstyle="butt")
    if np.isfinite(move.liftoff_low):
        ax.plot([axis(move.liftoff_low), axis(move.liftoff_high)], [y, y], color="black", linewidth=1.1)
    face = colour if sure else "white"
    ax.plot(axis(move.midpoint), y, marker, color=colour, markerfacecolor=face, markersize=6)


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
    for row in _rows(models):
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
        updatemenus=[_menu([labels[n] for n in drawn], changes, layouts=[{"shapes": s} for s in shapes])],
        annotations=_plotly_mark(simulated, yref="y domain"),
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
        for row in _rows(rows)
    ]


def comparison(
    curves: pd.DataFrame, models: pd.DataFrame, tasks: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """One row a model: brain score first and last, its best layer, behaviour and probes at the end.

    Parameters as in ``phase_interactive``.
    """
    measure = brain_measure(curves)
    out = []
    for row in _rows(models):
        own = of_tasks(curves[curves["model"] == row.model], (tasks or {}).get(row.model))
        if own.empty:
            continue
        brain = brain_curve(own)
        entry: dict[str, Any] = {
            "model": row.label,
            "tokens": amount(own["tokens"].max()),
            "best layer": best_layer(own, measure),
            "brain, first": round(brain["value"].iloc[0], 3),
            "brain, last": round(brain["value"].iloc[-1], 3),
        }
        for key in ("instruction_following", "accuracy"):
            if (own["measure"] == key).any():
                entry[key.replace("_", " ")] = round(float(model_curve(own, key)["value"].iloc[-1]), 3)
        probes = probe_advantage(own)
        if len(probes):
            entry["probes above shuffled"] = round(float(probes["value"].iloc[-1]), 3)
        out.append(entry)
    return pd.DataFrame(out)
