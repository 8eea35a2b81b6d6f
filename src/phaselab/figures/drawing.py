"""The style of all figures, the axis of training tokens, and the panels of which figures of curves are made."""

import functools
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ParamSpec, Self
from unicodedata import east_asian_width

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from phaselab.curves import MEASURES, NothingToDraw, amount, each_row
from phaselab.errors import number_of

# Said in a sentence of our own (``in_letters``), once and not at each drawing.
warnings.filterwarnings("ignore", message="Glyph .* missing from font")

P = ParamSpec("P")
#: Name of a line -> how it is drawn, in matplotlib's words.
Looks = Mapping[Any, Mapping[str, Any]]

#: Colours of Okabe and Ito (2008, "Color Universal Design"), in the order in which lines take them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
#: Tints that shade the three phases; each is also named in the figure.
PHASE_TINTS = {1: "#FBE3B5", 2: "#D9D9D9", 3: "#CFE8DD"}
GREY, PALE = "#5A5A5A", "#9A9A9A"
KINDS, MOVED = {"rise": "^", "fall": "v"}, "fit: rise ▲, fall ▼ (95 %)"
#: Inches of all figures, so that their letters can be read at the width of a phone and are not huge on a desk.
WIDTH = 4.8
TOKENS, LAYER = "training tokens (log scale)", "layer (0: embedding)"
SIMULATED, MARK = "SIMULATED BRAIN", ("#FFF3E0", "#7A3B00")
#: How the name of a line begins that the legend leaves out, as matplotlib does with all that begin with "_".
HIDDEN = "_hidden: "
#: How the thin lines of a panel are drawn, and points instead of them.
HAIR = {"marker": "", "linewidth": 1.0, "alpha": 0.85}
POINTS = {"linestyle": "none", "markersize": 3.2, "markeredgewidth": 0, "alpha": 0.55, "markevery": None}
#: The middle of the three rows of ``spread`` as the value, the outer two as its interval.
GIVEN: dict[str, Any] = {"estimator": "median", "errorbar": ("pi", 100), "legend": False}
STYLE: dict[Any, Any] = {
    "font.sans-serif": ["DejaVu Sans"],
    "text.parse_math": False,  # a label with dollar signs is text
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "figure.dpi": 216,
    "figure.constrained_layout.h_pad": 0.06,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}


class TokenAxis:
    """Training tokens (n,) on a log axis with a linear stretch (symlog), `gap` decades wide, from 0 to the first."""

    def __init__(self, tokens: npt.ArrayLike) -> None:
        counts = np.asarray(tokens, dtype=float)
        positive = counts[counts > 0] if (counts > 0).any() else np.array([1.0, 10.0])
        self.first, self.last, self.has_zero = float(positive.min()), float(positive.max()), bool((counts == 0).any())
        self.gap = max(0.12 * float(np.log10(self.last / self.first)), 0.2)

    def ticks(self, most: int = 9) -> list[float]:
        """Counts with a label: 0, at most `most` powers of ten and, if these are few, their threefold or the ends."""
        powers = 10.0 ** np.arange(np.ceil(np.log10(self.first)), np.floor(np.log10(self.last)) + 1)
        if len(powers) < 2:
            powers = np.unique([self.first, *powers, self.last])
        elif len(powers) == 2 and most > 4:
            powers = np.unique([*powers, *(3 * powers)[3 * powers <= self.last]])
        shown = powers[:: -int(np.ceil(len(powers) / most))][::-1].tolist()
        return [0.0, *shown] if self.has_zero else shown

    def decorate(self, ax: Axes, most: int = 9) -> None:
        """Set the scale, limits and ticks of the x axis, and mark the break after 0."""
        margin = 0.03 * (np.log10(self.last / self.first) + self.gap)
        subs = range(2, 10) if self.last / self.first < 1e5 else [1]
        ax.set_xscale("symlog", linthresh=self.first, linscale=0.9 * self.gap, subs=subs)
        ax.set_xlim(self.first * (1 - self.has_zero - margin / self.gap), self.last * 10**margin)
        ticks = self.ticks(most)
        ax.set_xticks(ticks, [amount(tick) for tick in ticks])
        if self.has_zero:
            at = self.first * (0.5 + np.array([-0.25, 0.25]) * margin / self.gap)
            look: dict[str, Any] = {"linestyle": "none", "marker": [(-0.5, -1), (0.5, 1)], "markersize": 8}
            ax.plot(at, [0, 0], "k", transform=ax.get_xaxis_transform(), clip_on=False, zorder=5, **look)


class Drawn(Figure):
    """A figure whose label says in numbers what is seen in it; a notebook keeps it beside the picture."""

    def _repr_mimebundle_(self, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {"image/png": {"alt": self.get_label()}}


def new_figure(height: float) -> Figure:
    """An empty figure, `height` inches high, known to nobody else."""
    fig = plt.figure(figsize=(WIDTH, height), layout="constrained", FigureClass=Drawn)
    plt.close(fig)  # made through pyplot so that a notebook knows how to show it, closed so that it shows it once
    return fig


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a figure function in the book's style; where the table lacks what it shows, the figure says so instead."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(sns.axes_style("ticks") | sns.plotting_context("paper") | STYLE):
            try:
                return in_letters(function(*args, **kwargs))
            except NothingToDraw as error:
                fig = new_figure(1.2)
                fig.add_subplot().set_axis_off()  # not seen, but a notebook shows no figure that has no axes
                fig.text(0.5, 0.5, f"nothing to draw in this study\n{error}", ha="center", va="center", wrap=True)
                return in_letters(fig)

    return inside


@functools.cache
def _fonts() -> dict[str, str]:
    """Name -> file of the installed fonts: first DejaVu Sans, then those for Chinese, Japanese and Korean."""
    for path in {*findSystemFonts()} - {font.fname for font in fontManager.ttflist}:
        with suppress(OSError, RuntimeError, NotImplementedError):  # of one that matplotlib cannot draw
            fontManager.addfont(path)  # installed since matplotlib made its list

    def order(font: Any) -> tuple[Any, ...]:
        cjk = [part not in font.name for part in ("CJK JP", "CJK")]
        return font.name != "DejaVu Sans", *cjk, font.name, font.weight == 400 and font.style == "normal"

    # Of a name the last counts, the upright one. A font of last resort has a box for everything.
    return {font.name: font.fname for font in sorted(fontManager.ttflist, key=order) if "Last" not in font.name}


_told = functools.cache(print)


def in_letters(fig: Figure) -> Figure:
    """Have every letter of a figure drawn by some installed font; print a sentence about those that none has."""
    texts = fig.findobj(Text)
    lacking, names = {letter for text in texts for letter in text.get_text() if letter.isprintable()}, list[str]()
    for name, file in _fonts().items():
        font = FT2Font(file)
        if there := {letter for letter in lacking if font.get_char_index(ord(letter))}:
            names, lacking = [*names, name], lacking - there
        if not lacking:
            break
    for text in texts if len(names) > 1 else ():
        text.set_fontfamily(names)
    if lacking:
        boxes = f"Boxes stand for {' '.join(sorted(lacking))} in the figures: no font that is installed here has them."
        _told(f"{boxes} On Debian and Ubuntu, fonts-noto-cjk has those of Chinese, Japanese and Korean.")
    return fig


def foot(fig: Figure, note: str = "", simulated: bool = False, x: str = "", seen: str = "") -> Figure:
    """Write below a figure its x axis, a note, and what is simulated; `seen` : what there is to see, in numbers."""
    fig.set_label(f"{seen} {note}{'; simulated brain' if simulated else ''}".replace("\n", " ").strip())
    note = "\n".join(textwrap.fill(line, 54 if simulated else 72) for line in note.split("\n"))
    height = fig.get_figheight()
    line = 0.27 + 0.145 * note.count("\n") if note or simulated else 0.0
    fig.set_figheight(height := height + line)
    room = (line + 0.2 * bool(x)) / height
    fig.get_layout_engine().set(rect=(0, room, 1, 1 - room))  # type: ignore[union-attr, call-arg]
    fig.text(0.5, (line + 0.03) / height, x, fontsize=mpl.rcParams["axes.labelsize"], ha="center", va="bottom")
    fig.text(0.99, 0.06 / height, note, fontsize=8.2, color=GREY, ha="right", va="bottom")
    if simulated:
        box = {"boxstyle": "round,pad=0.25", "facecolor": MARK[0], "edgecolor": MARK[1], "linewidth": 0.8}
        look: dict[str, Any] = {"fontsize": 8.2, "fontweight": "bold", "color": MARK[1], "bbox": box}
        fig.text(0.02, 0.08 / height, SIMULATED, va="bottom", **look)
    return fig


def looks(names: Iterable[Any], colours: Any = COLOURS, lines: Sequence[str] = LINES) -> dict[Any, dict[str, Any]]:
    """Name -> colour, marker and line style, each taken in turn."""
    turns = {"color": colours, "marker": MARKERS, "linestyle": lines}
    return {name: {what: own[k % len(own)] for what, own in turns.items()} for k, name in enumerate(names)}


def width(text: str) -> int:
    """How many places a text takes: letters of Chinese, Japanese and Korean take two each."""
    return sum(1 + (east_asian_width(letter) in "WF") for letter in text)


def short(label: str, most: int = 60) -> str:
    """A label without its middle where it is longer than a figure has room for."""
    most = most * len(label) // max(1, width(label))
    return label if len(label) <= most else f"{label[: 2 * most // 3]} … {label[3 - most // 3 :]}"


def in_order(names: Iterable[Any]) -> dict[Any, dict[str, Any]]:
    """The looks of layers, sizes and all else that has an order, from dark to light, without viridis' pale end."""
    names = [*names]
    return looks(names, mpl.colormaps["viridis"](np.linspace(0, 0.85, len(names))), ["-"])


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of value, low and high as three rows of ``y``, of which seaborn draws value and interval (``GIVEN``)."""
    known = [name for name in ("low", "value", "high") if name in table]
    return table.melt([name for name in table if name not in known], known, value_name="y")


@dataclass(frozen=True)
class Panel:
    """What one panel of a figure of curves shows."""

    rows: pd.DataFrame  # line, tokens, value and, where they are known, low and high
    title: str = ""
    unit: str = ""  # of the y axis, with `limits`
    thin: pd.DataFrame | None = None  # line (whose colour it takes), unit (each a thin line of its own), tokens, value
    level: float = np.nan  # of a dotted line across, with its name in the legend
    level_name: str = ""
    moves: pd.DataFrame | None = None  # kind, tokens, low, high: lines down, with bars for intervals at the bottom
    limits: tuple[float, float] | None = None

    @classmethod
    def of(cls, measure: str, rows: pd.DataFrame, more: str = "", moves: Any = None, **rest: Any) -> Self:
        """A panel named after a measure of the curves table, with those of all transitions that are its own."""
        title, unit = MEASURES.get(measure, (measure.replace("_", " "), ""))
        if moves is not None:
            moves = moves[moves["measure"] == ("brain" if measure in ("r", "r_normalised") else measure)]
        limits = (-0.05, 1.05) if unit == "share of items" else None
        return cls(rows, title + more, unit, limits=limits, moves=moves, **rest)

    def draw(self, ax: Axes, looks: Looks, hair: Mapping[str, Any], narrow: bool, **how: Any) -> None:
        """Draw the lines, in the order of `looks`, the level, and the transitions."""
        for line, look in looks.items():
            for rows, more in ((self.thin, {"units": "unit", "estimator": None, **hair}), (self.rows, {})):
                if rows is not None and (rows["line"] == line).any():
                    look = {"label": line, "markeredgewidth": 0.5, **look}
                    sns.lineplot(spread(rows[rows["line"] == line]), y="y", ax=ax, **GIVEN | how | look | more)
        if np.isfinite(self.level):
            ax.axhline(self.level, color=GREY, linewidth=1.1, linestyle=":", label=self.level_name)
        unit = self.unit if "\n" in self.unit else textwrap.fill(self.unit, 16)
        ax.set(title=textwrap.fill(short(self.title, 80), 26 if narrow else 48), xlabel="", ylabel=unit)
        if self.limits:
            ax.set_ylim(*self.limits)
        low: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "color": "black"}
        mark = low | {"markersize": 8.5, "markeredgecolor": "white", "clip_on": False, "zorder": 6}
        for move in [] if self.moves is None else each_row(self.moves):
            ax.axvline(move.tokens, color="black", linewidth=1, linestyle=(0, (4, 2)), zorder=1, label=MOVED)
            ax.plot([move.low, move.high], [0.06, 0.06], linewidth=3, alpha=0.55, solid_capstyle="butt", **low)
            ax.plot(move.tokens, 0.06, marker=KINDS[move.kind], **mark)

    def seen(self, by: str) -> str:
        """For who cannot see it: the ends and the range of up to four lines, and the dates of transitions."""
        lines, said = [*self.rows.dropna(subset=["value"]).sort_values(by).groupby("line", sort=False)], []
        for line, own in lines[:4]:
            name, values = str(line).removeprefix(HIDDEN).removeprefix(self.title), own["value"]
            ends = ", ".join(f"{values.iloc[k]:.3g} at {amount(own[by].iloc[k])}" for k in (0, -1))
            said.append(f"{name} {ends} (between {values.min():.3g} and {values.max():.3g})".strip())
        said += [number_of(len(lines) - 4, "more line")] * (len(lines) > 4)
        said += [] if self.moves is None else [f"fitted {m.kind} at {amount(m.tokens)}" for m in each_row(self.moves)]
        return f"{self.title or self.unit}: {'; '.join(said)}.".replace("\n", " ")


def panels(
    drawn: Sequence[Panel],
    looks: Looks,
    *,
    columns: int = 1,
    room: float = 1.5,
    by: str = "tokens",
    x: str = TOKENS,
    share_y: bool = False,
    phases: pd.DataFrame | None = None,
    hair: Mapping[str, Any] = HAIR,
    note: str = "",
    simulated: bool = False,
    **how: Any,
) -> Figure:
    """A figure of `drawn` panels that share their x axis, `columns` beside each other, each row `room` inches high.

    by, x : what the x axis counts, and its label. hair : how thin lines are drawn. how : more for seaborn's lineplot.
    phases : ``TriplePhase.table``; those found are shaded, and named at the top of the first panel.
    """
    if not drawn:
        raise NothingToDraw("curves: found none of the measures that this figure shows")
    count = -(-len(drawn) // columns)
    fig = new_figure(0.6 + room * count)
    every = fig.subplots(count, columns, sharex=True, sharey=share_y, squeeze=False).ravel()
    axes, handles = every[: len(drawn)], dict[str, Any]()
    for ax in every[len(drawn) :]:
        ax.remove()
    for number, (ax, panel) in enumerate(zip(axes, drawn, strict=True)):
        panel.draw(ax, looks, hair, columns > 1, x=by, **how)
        shown = {name for name in [*looks, panel.level_name, MOVED] if name and not name.startswith(HIDDEN)}
        handles |= {line.get_label(): line for line in ax.lines if line.get_label() in shown}
        ax.tick_params(labelbottom=number + columns >= len(drawn))
        ax.set_ylabel("" if number % columns else ax.get_ylabel())
    if by == "tokens":
        axis = TokenAxis(pd.concat([panel.rows[by] for panel in drawn]))
        for ax in axes:
            axis.decorate(ax, most=6 if columns == 1 else 3)
    for row in (found := [] if phases is None else [*each_row(phases[phases["found"].astype(bool)])]):
        for ax in axes:
            ax.axvspan(row.start, row.stop, color=PHASE_TINTS[row.phase], alpha=0.75, linewidth=0, zorder=0)
        middle = float(np.sqrt(row.start * min(row.stop, axes[0].get_xlim()[1])))
        look: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 9.5, "fontweight": "bold", "zorder": 6}
        look["bbox"] = {"facecolor": PHASE_TINTS[row.phase], "edgecolor": "none", "pad": 1}  # not crossed by a date
        axes[0].text(middle, 0.97, f"phase {row.phase}", transform=axes[0].get_xaxis_transform(), **look)
    if found:  # room for the names above the curves
        axes[0].set_ylim(top=axes[0].get_ylim()[1] + 0.25 * np.ptp(axes[0].get_ylim()))
    names = list(dict.fromkeys(name for name in [*looks, *handles] if name in handles))
    if len(names) > 1:
        columns = 70 // (min(50, max(map(width, names))) + 8)
        rows = -(-len(names) // columns)
        fig.set_figheight(fig.get_figheight() + 0.2 * rows)
        how = {"loc": "outside upper left", "ncols": -(-len(names) // rows)}
        fig.legend([handles[n] for n in names], [short(name, 50) for name in names], **how)
    return foot(fig, note, simulated, x, " ".join(panel.seen(by) for panel in drawn) if by != "time" else "")
