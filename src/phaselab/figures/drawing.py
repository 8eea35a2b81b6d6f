"""The style of all figures, the axis of training tokens, and the pieces that several figures share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phaselab.curves import MEASURES, PHASE_NAMES, NothingToDraw, amount, chance_level, each_row, interval_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, in the order in which lines take them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


MARKERS = ("o", "s", "^", "D", "v", "P", "X")


LINES = ("-", "--", "-.", ":")


PERSPECTIVE_COLOURS = {"brain": "#D55E00", "behaviour": "#0072B2", "internal": "#009E73"}


#: Tints that shade the three phases; each is also named in the figure.
PHASE_TINTS = {1: "#FBE3B5", 2: "#D9D9D9", 3: "#CFE8DD"}


GREY = "#5A5A5A"


#: Measures whose axis goes from 0 to 1.
SHARES = ("instruction_following", "accuracy", "accuracy_greedy")


TOKENS = "training tokens (log scale)"


SIMULATED = "SIMULATED BRAIN"


WIDTH = 7.2


DPI = 144


STYLE: dict[Any, Any] = {
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
        labels = [short(10**p) for p in powers]
        return ([self.zero, *powers], ["0", *labels]) if self.has_zero else (powers, labels)

    def decorate(self, ax: Axes, label: bool = True, text: str = TOKENS, wide: bool = True) -> None:
        """Set limits, ticks, the break after 0, and the label of the x axis."""
        positions, labels = self.ticks(wide)
        ax.set_xticks(positions, labels)
        minor = [p + np.log10(k) for p in range(int(self.first) - 1, int(self.last) + 1) for k in range(2, 10)]
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


def short(tokens: float) -> str:
    """A count of tokens to two digits."""
    return amount(float(f"{tokens:.2g}"))


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure in the book's style, `width` by `height` inches, known to nobody else."""
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(width, height), dpi=DPI, layout="constrained")
    # Made through pyplot so that a notebook knows how to show it, closed so that it shows it once.
    plt.close(fig)
    return fig


def styled(function: Any) -> Any:
    """Run a figure function in the book's style and leave the caller's settings alone.

    Where the table lacks what the figure shows (a study without tasks, say), the figure says so: a
    page is then whole, and its reader knows why there is nothing to see.
    """
    import functools

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            try:
                return function(*args, **kwargs)
            except NothingToDraw as error:
                fig = new_figure(1.2)
                # On axes, though they are not seen: a notebook shows no figure that has none.
                ax = fig.add_subplot()
                ax.set_axis_off()
                ax.text(0.5, 0.5, f"nothing to draw in this study\n{error}", ha="center", va="center", wrap=True)
                return fig

    return inside


def foot(fig: Figure, note: str = "", simulated: bool = False) -> None:
    """The line below a figure: that the brain is simulated, what n and the intervals are.

    The mark stands at the left, where it is seen first on a screen that is narrower than the figure.
    """
    height = fig.get_figheight()
    room = 0.3 / height
    fig.get_layout_engine().set(rect=(0, room, 1, 1 - room))  # type: ignore[union-attr, call-arg]
    at = 0.07 / height
    fig.text(0.99, at, note, fontsize=9, color=GREY, ha="right", va="bottom")
    if simulated:
        box = {"boxstyle": "round,pad=0.25", "facecolor": "#FFF3E0", "edgecolor": "#7A3B00", "linewidth": 0.8}
        fig.text(
            0.015,
            at,
            SIMULATED,
            fontsize=9,
            fontweight="bold",
            color="#7A3B00",
            ha="left",
            va="bottom",
            bbox=box,
        )


def draw_line(ax: Axes, axis: TokenAxis, curve: pd.DataFrame, colour: str, number: int = 0, **style: Any) -> None:
    """A curve with its interval as a band; `number` chooses the marker."""
    x = axis(curve["tokens"])
    ax.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.18, linewidth=0)
    style.setdefault("marker", MARKERS[number % len(MARKERS)])
    ax.plot(x, curve["value"], color=colour, **style)


def subject_lines(ax: Axes, axis: TokenAxis, rows: pd.DataFrame, colour: str, most: int = 6) -> None:
    """Each subject as a thin line, where there are few enough to be seen."""
    if rows["subject"].nunique() <= most:
        for _, own in rows.sort_values("tokens").groupby("subject"):
            ax.plot(axis(own["tokens"]), own["value"], color=colour, linewidth=0.7, alpha=0.6)


def task_lines(ax: Axes, axis: TokenAxis, tasks: pd.DataFrame) -> None:
    """One line a task with the interval over its items."""
    for number, (task, own) in enumerate(tasks.groupby("task")):
        draw_line(
            ax,
            axis,
            interval_of(own),
            COLOURS[number % len(COLOURS)],
            number,
            linestyle=LINES[number % len(LINES)],
            label=task,
        )


def shade_phases(axes: Any, axis: TokenAxis, phases: pd.DataFrame | None) -> None:
    """Shade the phases that were found over all panels, named at the top of the first."""
    if phases is None:
        return
    for row in each_row(phases[phases["found"].astype(bool)]):
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


def mark_transitions(ax: Axes, axis: TokenAxis, transitions: pd.DataFrame | None, **where: Any) -> None:
    """Vertical lines at the transitions of a panel, a bar along the bottom for each interval."""
    if transitions is None or transitions.empty:
        return
    rows = transitions
    for column, value in where.items():
        rows = rows[rows[column].isin([value] if isinstance(value, str) else value)]
    for row in each_row(rows):
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


def name_panel(ax: Axes, measure: str, more: str = "") -> None:
    """Title and y label of a panel; shares get an axis from 0 to 1."""
    title, unit = MEASURES.get(measure, (measure.replace("_", " "), ""))
    ax.set_title(f"{title}{more}")
    ax.set_ylabel(unit)
    if measure in SHARES:
        ax.set_ylim(-0.05, 1.05)


def chance_line(ax: Axes, curves: pd.DataFrame) -> None:
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


def legend_above(fig: Figure, ax: Axes, columns: int = 4) -> None:
    """The legend of a panel above all panels, where it covers no data."""
    handles, labels = ax.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=9.5)


def legend_inside(ax: Axes, **options: Any) -> None:
    options = {"loc": "best", "framealpha": 0.85, "frameon": True, "edgecolor": "none", **options}
    ax.legend(**options)


def layer_names(layers: Sequence[int] | pd.Index) -> list[str]:
    return ["0 (embedding)" if layer == 0 else str(layer) for layer in layers]


def layer_colours(layers: Any) -> list[tuple[int, Any, int]]:
    """Layers in order with a colour from dark (early) to light, and a number for the marker."""
    import matplotlib as mpl

    ordered = sorted(int(layer) for layer in layers)
    # Viridis without its palest end, which is hard to see on white.
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(ordered)))
    return [(layer, tuple(shade), number) for number, (layer, shade) in enumerate(zip(ordered, shades, strict=True))]
