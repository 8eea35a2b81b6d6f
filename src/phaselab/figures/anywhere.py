"""Learning curves from anywhere: fits of ``phases.fit_table``, and when each curve rises and falls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from phaselab.curves import each_row
from phaselab.figures.drawing import (
    COLOURS,
    LINES,
    MARKERS,
    TOKENS,
    TokenAxis,
    foot,
    legend_above,
    new_figure,
    styled,
)
from phaselab.phases import MOVE_COLUMNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from phaselab.phases import FittedTable


def _panels(keys: Iterable[tuple[str, ...]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Panel -> line -> key of a curve, in order: the last part of a key is its panel, the rest its line.

    Curves that one column alone names are lines of one panel without a name.
    """
    panels: dict[str, dict[str, tuple[str, ...]]] = {}
    for key in keys:
        panel, line = (key[-1], ", ".join(key[:-1])) if len(key) > 1 else ("", "".join(key))
        panels.setdefault(panel, {})[line] = key
    return panels


@styled
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
    fig = new_figure(1.2 + 0.12 * len(lines) + (2.4 if columns == 1 else 1.75) * count)
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
        legend_above(fig, axes[0])
    foot(fig, note or "points: checkpoints; lines: piecewise-linear fits")
    return fig


@styled
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
    for key, move in zip(keys, each_row(fitted.moves[list(MOVE_COLUMNS)]), strict=True):
        moves.setdefault(key, []).append(move)
    gap = 0.8
    fig = new_figure(1.4 + 0.17 * (len(moves) + gap * len(panels)))
    ax = fig.subplots()
    ticks: list[float] = []
    labels: list[str] = []
    y = 0.0
    for panel, own in panels.items():
        for line, key in own.items():
            for move in moves[key]:
                _move_bar(ax, axis, move, y, level)
            labels.append(": ".join(part for part in ("" if line != next(iter(own)) else panel, line) if part))
            ticks.append(y)
            y += 1.0
        ax.axhline(y - 0.5 + gap / 2, color="#BDBDBD", linewidth=0.8)
        y += gap
    ax.set_yticks(ticks, labels, fontsize=9)
    ax.set_ylim(y - gap - 0.4, -0.9)
    ax.grid(axis="y", visible=False)
    axis.decorate(ax, text=x)
    foot(fig, note or f"▲ rise, ▼ fall (hollow: q > {level:g}); black: 95 % interval of the lift-off")
    return fig


def _move_bar(ax: Axes, axis: TokenAxis, move: Any, y: float, level: float) -> None:
    """One row of ``move_raster``: a rise, a fall, or the grey line of a curve without either."""
    if move.kind == "undecided":
        return
    if move.kind == "flat":
        ax.plot([axis.zero if axis.has_zero else axis.first, axis.last], [y, y], color="#9A9A9A", linewidth=0.9)
        return
    colour, marker = (COLOURS[0], "^") if move.kind == "rise" else (COLOURS[1], "v")
    sure = move.q <= level
    ends = [axis(move.onset), axis(move.end)]
    ax.plot(ends, [y, y], color=colour, linewidth=4, alpha=0.5 if sure else 0.2, solid_capstyle="butt")
    if np.isfinite(move.liftoff_low):
        ax.plot([axis(move.liftoff_low), axis(move.liftoff_high)], [y, y], color="black", linewidth=1.1)
    face = colour if sure else "white"
    ax.plot(axis(move.midpoint), y, marker, color=colour, markerfacecolor=face, markersize=6)
