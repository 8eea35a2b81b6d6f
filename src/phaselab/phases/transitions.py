"""Transitions of learning curves: where a curve rises and falls, with intervals; of one curve or a whole table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, groupby
from math import isnan, nan
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from phaselab.curves import amount
from phaselab.errors import expect
from phaselab.phases import fit as pieces
from phaselab.phases.fit import Array, Paths, log_tokens
from phaselab.phases.monotone import move_p, residual_noise
from phaselab.results import numbers

#: What a move is told by: each estimate has, as columns of its own, the ends of its 95 % interval.
QUANTITIES, ENDS = ("onset", "liftoff", "midpoint", "end", "height", "steepness"), ("", "_low", "_high")
#: What `fit_table` says of one rise or fall; dates in the unit of x, heights in that of y.
MOVE_COLUMNS = ("kind", *(q + end for q in QUANTITIES for end in ENDS), "p", "q", "statement", "notes")


@dataclass(frozen=True)
class Transitions:
    """The transitions of one curve: change points (`knots`), the pieces between them, rises and falls (`moves`).

    A move is a run of pieces of one `kind` (``rise`` or ``fall``), told by `QUANTITIES`, each with its 95 % interval
    (``onset``, ``onset_low``, ``onset_high``); positions are in tokens. `onset` is where the curve leaves its baseline,
    `liftoff` where the steepest piece begins (which a slow drift before it does not move), `midpoint` where half of
    `height` (signed, in units of the value) is done, `end` where it stops; `steepness` is the steepest slope per
    decade. A place at the first or last checkpoint is no date: its interval is NaN.
    """

    decided: bool  # False where the input is too poor for any answer; `statement` then says why
    tokens: Array  # (n,) sorted, duplicates averaged
    values: Array
    fitted: Array
    statement: str  # the outcome in one sentence
    notes: tuple[str, ...] = ()  # what was done to the input (duplicates averaged, missing values dropped)
    knots: tuple[float, ...] = ()  # change points, tokens
    intervals: tuple[tuple[float, float], ...] = ()  # 95 %, of the change points
    kinds: tuple[str, ...] = ()  # of the pieces: "rise", "fall" or "flat"
    changes: tuple[float, ...] = ()  # of the fitted value over each piece
    moves: tuple[Any, ...] = ()
    noise: float = nan  # standard deviation of the residuals, corrected for the fitted parameters
    replicates: Array | None = None  # (n_replicates, n)
    grid: tuple[tuple[float, ...], int] = field(default=((), 0), repr=False)  # arguments of `grid_of`
    floor: float = 0.0  # root mean square of the standard errors that came with the values

    @property
    def rises(self) -> list[Any]:
        """The moves that rise."""
        return [move for move in self.moves if move.kind == "rise"]

    @property
    def falls(self) -> list[Any]:
        """The moves that fall."""
        return [move for move in self.moves if move.kind == "fall"]

    def at(self, tokens: npt.ArrayLike) -> Array:
        """The fitted curve at any token counts inside the range of the data."""
        x, own = log_tokens(self.tokens), np.asarray(tokens, dtype=float)
        wanted = np.where(own > 0, np.log10(np.where(own > 0, own, 1.0)), x[0])
        corners = [x[0], *np.log10(np.asarray(self.knots)), x[-1]]
        heights = np.concatenate([[self.fitted[0]], self.fitted[0] + np.cumsum(self.changes)])
        return np.asarray(np.interp(wanted, corners, heights))

    @cached_property
    def _noise(self) -> tuple[float, float]:
        """Standard deviation, at least that which is known, and autocorrelation."""
        scale = float(np.ptp(self.values))
        (sigma,), (rho,) = residual_noise(pieces.grid_of(*self.grid), self.values[None] / scale)
        noise = max(float(sigma) * scale, self.floor)
        return noise if noise > 1e-9 * scale else 0.0, float(rho)

    def p(self, move: Any) -> float:
        """P of a curve that never moves so, from the opposite move before to the opposite one after (`move_p`)."""
        others = [other for other in self.moves if other.kind != move.kind]
        start = max((other.onset for other in others if other.onset < move.onset), default=self.tokens[0])
        stop = min((other.end for other in others if other.end > move.end), default=self.tokens[-1])
        inside = (self.tokens >= start) & (self.tokens <= stop)
        sign = -1.0 if move.kind == "rise" else 1.0
        replicates = None if self.replicates is None else sign * self.replicates[:, inside]
        return move_p(sign * self.values[inside], replicates, *self._noise, self.grid)


def _clean(
    tokens: npt.ArrayLike, values: npt.ArrayLike, stderr: Array
) -> tuple[Array, Array, Array | None, Array | None, tuple[str, ...]]:
    """Ascending distinct tokens, finite values, their standard errors and replicates, and what was done to them."""
    t, v = np.asarray(tokens, dtype=float), np.asarray(values, dtype=float)
    for name, array in (("values", v), ("stderr", stderr)):
        expect(array.shape[-1:] == t.shape, name, f"shape {array.shape}", f"that of tokens, {t.shape}, last")
    several, v = (v, v.mean(axis=0)) if v.ndim == 2 else (v[None], v)
    notes, keep = [], np.isfinite(t) & np.isfinite(several).all(axis=0)
    if not keep.all():
        notes.append(f"{int((~keep).sum())} checkpoints with missing values dropped")
    unique, place = np.unique(t[keep], return_inverse=True)
    if shared := place.size - unique.size:
        notes.append(f"{shared} checkpoints share their tokens with another; averaged")
    count = np.bincount(place, minlength=unique.size)

    def average(array: Array) -> Array:
        return np.bincount(place, weights=array, minlength=unique.size) / count

    e, known = stderr[keep], np.isfinite(stderr[keep])
    error = np.sqrt(average(np.where(known, e, np.nanmedian(e)) ** 2) / count) if known.any() else None
    own = np.stack([average(row) for row in several[:, keep]]) if len(several) > 1 else None
    return unique, average(v[keep]), error, own, tuple(notes)


Estimate = tuple[float, float, float]  # with the ends of its 95 % interval


def _estimate(value: float, sample: Array, unit: float = 1.0) -> Estimate:
    low, high = np.quantile(sample, [0.025, 0.975])
    return float(value) * unit, float(low) * unit, float(high) * unit


def _described(
    own: Paths, boot: Paths, place: Callable[[float], float], scale: float, per_decade: float
) -> dict[str, Any]:
    """Change points, pieces and moves of one fitted curve, by its bootstrap samples.

    `place` : says a position as tokens; `scale`, `per_decade` : units of the value, and of slopes.
    """

    def date(position: float, sample: Array) -> Estimate:
        value, low, high = map(place, _estimate(position, sample))
        return (value, low, high) if 0 < position < 1 else (value, nan, nan)

    corners = own.corners[0]  # (k + 2,)
    dates = [*map(date, corners, boot.corners.T)]
    changed = np.diff(own.heights(corners[None]), axis=1)[0]  # (k + 1,)
    # A sample's slope of a piece is taken between its own matched corners; where those are out of order, between the
    # fit's corners.
    apart = np.diff(boot.corners, axis=1)
    matching = np.diff(boot.heights(boot.corners), axis=1) / np.maximum(apart, 1e-9)
    fixed = np.diff(boot.heights(corners[None]), axis=1) / np.diff(corners)
    slopes = np.where(apart > 1e-9, matching, fixed)  # (draws, k + 1)
    low, high = np.quantile(slopes, [0.025, 0.975], axis=0)
    kinds = np.where(low > 1e-6, "rise", np.where(high < -1e-6, "fall", "flat")).tolist()
    rates, moves = np.abs(changed / np.diff(corners)), []
    for kind, group in groupby(range(len(kinds)), key=kinds.__getitem__):
        if kind != "flat":
            run = [*group]
            paths = (path.traced(run[0], run[-1], 1.0 if kind == "rise" else -1.0) for path in (own, boot))
            (middle, middles), (steepest, slopes), (height, heights) = zip(*paths, strict=True)
            told = (  # as in QUANTITIES
                dates[run[0]],
                dates[max(run, key=rates.__getitem__)],
                date(middle[0], middles),
                dates[run[-1] + 1],
                _estimate(height[0], heights, scale),
                _estimate(steepest[0], slopes, per_decade),
            )
            moves.append(SimpleNamespace(**dict(zip(MOVE_COLUMNS, (kind, *chain(*told)), strict=False))))
    knots, intervals = tuple(date[0] for date in dates[1:-1]), tuple(date[1:] for date in dates[1:-1])
    pieces = {"kinds": tuple(kinds), "changes": tuple((changed * scale).tolist())}
    return {"knots": knots, "intervals": intervals, "moves": tuple(moves), **pieces}


def fit_transitions(
    tokens: npt.ArrayLike,
    values: npt.ArrayLike,
    stderr: npt.ArrayLike | None = None,
    max_changes: int = 3,
    n_bootstrap: int = 200,
    penalty: float = pieces.COST,
    axis: str = "tokens",
) -> Transitions:
    """Where a learning curve changes: continuous piecewise-linear in log10 tokens.

    tokens : (n,) training tokens, 0 allowed, in any order; with fewer than 6 different ones nothing is decided.
    values : (n,) the measure; or (n_replicates, n) the measure in subjects, seeds or items, whose mean is fitted and
        over which intervals are bootstrapped.
    stderr : (n,) standard error of the measure, the least noise assumed.
    max_changes : most change points tried, and at most one for every 4 checkpoints.
    n_bootstrap : bootstrap samples for the intervals, refitted with the chosen number of change points.
    penalty : parameters that a change point counts as in BIC, whose minimum says how many there are.
    axis : what `tokens` counts, for the statement: ``"steps"`` where it is steps.
    """
    e = np.full(np.shape(tokens), nan) if stderr is None else np.asarray(stderr, dtype=float)
    at, v, error, own, notes = _clean(tokens, values, e)
    n = v.size
    if n < 6:
        why = f"Not decided: {n} checkpoints with values at distinct tokens; a change point needs at least 6."
        return Transitions(False, at, v, np.full(n, nan), why, notes, replicates=own)
    where = log_tokens(at)
    centre, scale = float(v.mean()), float(np.ptp(v))  # values on one scale make tolerances relative
    constant = scale <= 1e-12 * max(1.0, abs(centre))
    scale = 1.0 if constant else scale
    setting = tuple(where.tolist()), 0 if constant else min(max_changes, n // pieces.PER_CHANGE)
    grid, y = pieces.grid_of(*setting), (v - centre) / scale
    fits = pieces.fit_each(grid, y)
    # Without any noise the sum of squares is rounding error, which must not choose.
    rss = np.array([total[0] if total[0] > 1e-20 * n else 0.0 for _, _, total in fits])
    floor = 1e-20 if error is None else max(float((error**2).mean()) / scale**2, 1e-20)
    changes = int(pieces.bic(rss, n, np.arange(len(fits)), floor, penalty).argmin())
    knots, coefficients, _ = fits[changes]
    fitted = (pieces.design(grid.x, knots) @ coefficients[:, :, None])[0, :, 0]
    residuals, degrees = y - fitted, max(n - 2 - pieces.DEGREES * changes, 1.0)
    scaled = None if error is None else error / scale, None if own is None else (own - centre) / scale
    noise = pieces.bootstrap_noise(residuals, degrees, *scaled, n_bootstrap, [0, n, changes])
    boot_knots, boot, _ = pieces.fit_exactly(grid, fitted + noise, changes, near=knots[0])
    pairs = pieces.matched(knots[0], coefficients[0, 2:], boot_knots, boot[:, 2:])
    paths, span = (Paths(knots, coefficients, knots), Paths(boot_knots, boot, pairs)), float(where[-1] - where[0])

    def place(position: float) -> float:
        inside = 0 < position < 1  # the ends are the table's own
        return float(10 ** (where[0] + span * position) if inside else at[0 if position <= 0 else -1])

    told = _described(*paths, place, scale, scale / span)
    told |= {"noise": float(np.sqrt(residuals @ residuals / degrees)) * scale, "replicates": own, "grid": setting}
    told["floor"] = float(np.sqrt(np.nanmean(e**2))) if np.isfinite(e).any() else 0.0
    said = _sentence(told["kinds"], told["moves"], axis)
    return Transitions(True, at, v, fitted * scale + centre, said, notes, **told)


def _sentence(kinds: Sequence[str], moves: Sequence[Any], unit: str) -> str:
    if len(kinds) == 1:
        trend = "is flat" if kinds[0] == "flat" else f"{kinds[0]}s steadily"
        return f"No transition: the curve {trend} over all of training."
    if not moves:
        return "No transition: slopes differ, but no piece rises or falls beyond its interval."
    parts = []
    for move in moves:
        since = f"from {amount(move.onset)} {unit} ({amount(move.onset_low)} to {amount(move.onset_high)})"
        since = "from the first checkpoint" if isnan(move.onset_low) else since
        until = "to the last" if isnan(move.end_low) else f"to {amount(move.end)}"
        parts.append(f"{move.kind}s {since} {until}, by {abs(move.height):.3g}")
    return f"The curve {'; then it '.join(parts)}; 95 % intervals in brackets."


class FittedTable(NamedTuple):
    """The transitions of every curve of a table: values of the columns `by` -> fit, and a table of their moves.

    `moves` has a row a rise or fall, the columns of `by` and `MOVE_COLUMNS` (see `Transitions`). A curve without moves
    has one row of kind ``flat`` or ``undecided``. ``p`` is that of `Transitions.p`; ``q`` is p after Benjamini and
    Hochberg's correction over all curves and both directions.
    """

    by: tuple[str, ...]
    fits: dict[tuple[str, ...], Transitions]
    moves: pd.DataFrame


def _column(table: pd.DataFrame, role: str, column: str) -> Any:
    found = f"no column {column!r}" if column else "nothing"
    expect(column in table, role, found, f"one of {', '.join(map(str, table.columns))}")
    return table[column]


def _numbers(table: pd.DataFrame, role: str, column: str, least: float = -np.inf) -> Array:
    """A column (n,) as floats of at least `least`; empty cells are NaN."""
    where = f"{role}: column {column!r}"
    values = numbers(_column(table, role, column), where)
    low = values[values < least]
    expect(not low.size, where, f"{low.min(initial=least):g}", f"{least:g} or more")
    return values


def fit_table(
    table: pd.DataFrame, x: str = "tokens", y: str = "value", by: Sequence[str] = (), stderr: str = ""
) -> FittedTable:
    """`fit_transitions` of every learning curve of a table, a row per checkpoint, from wherever it comes.

    x, y : columns of training tokens (or steps), 0 or more, and of the measure; rows without are dropped and noted.
    by : columns whose values together name a curve. stderr : column of the standard error of `y`, if known.
    """
    expect(len(table), "table", "no rows", "one a checkpoint")
    read = {"x": _numbers(table, "x", x, least=0), "y": _numbers(table, "y", y)}
    read["e"] = _numbers(table, "stderr", stderr, least=0) if stderr else np.full(len(table), nan)
    for column in by:
        empty = int((_column(table, "by", column).isna() | (table[column] == "")).sum())
        expect(not empty, f"by: column {column!r}", f"{empty} empty cells", "a name in each")
    names = [table[column].astype(str).to_numpy() for column in by]
    rows, given = [], pd.DataFrame(read)
    fits: dict[Any, Transitions] = {}
    untested = 0  # directions in which a curve shows nothing: tests that were passed up, with p = 1
    for name, own in given.groupby(names, sort=False) if by else [((), given)]:
        fit = fits[name] = fit_transitions(own["x"], own["y"], own["e"], max_changes=4, axis=x)
        untested += (not fit.rises) + (not fit.falls)
        said = dict(zip(by, name, strict=True)) | {"statement": fit.statement, "notes": "; ".join(fit.notes)}
        rows += [said | vars(move) | {"p": fit.p(move)} for move in fit.moves]
        if not fit.moves:
            rows.append(said | {"kind": "flat" if fit.decided else "undecided"})
    moves = pd.DataFrame(rows).reindex(columns=[*by, *MOVE_COLUMNS])
    tested = moves["p"].notna().to_numpy()
    if tested.any():
        everything = np.concatenate([moves.loc[tested, "p"].to_numpy(dtype=float), np.ones(untested)])
        moves.loc[tested, "q"] = stats.false_discovery_control(everything)[: int(tested.sum())]
    return FittedTable(tuple(by), fits, moves)
