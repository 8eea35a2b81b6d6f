"""Transitions of learning curves: where a curve rises and falls, with intervals; of one curve or a whole table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isnan, nan
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from phaselab.curves import amount
from phaselab.errors import PhaselabError, expect
from phaselab.phases import fit as pieces
from phaselab.phases.fit import Array, Paths, log_tokens, with_ends
from phaselab.phases.monotone import Direction, Monotone

#: What a move is told by, each with an interval; and how a table names an estimate and the ends of its interval.
QUANTITIES, ENDS = ("onset", "midpoint", "end", "steepness", "height"), ("", "_low", "_high")


class Interval(float):
    """An estimate, with the ends `low` and `high` of its 95 % interval, NaN where it has none."""

    low: float
    high: float

    def __new__(cls, value: float, low: float = nan, high: float = nan) -> Interval:  # noqa: D102
        made = super().__new__(cls, value)
        made.low, made.high = low, high
        return made

    def columns(self, name: str) -> dict[str, float]:
        """The three numbers, by the names of a table's columns."""
        return dict(zip((name + end for end in ENDS), (float(self), self.low, self.high), strict=True))


@dataclass(frozen=True)
class Segment:
    """A straight piece between two change points; slopes in units of the value per decade of tokens."""

    start: float
    stop: float
    slope: float
    slope_low: float
    slope_high: float
    direction: Direction
    change: float  # of the fitted value from start to stop


@dataclass(frozen=True)
class Move:
    """A rise or a fall: neighbouring segments of one direction. Positions in tokens, with 95 % intervals.

    `onset` is where the curve leaves its baseline, `midpoint` where half of `height` (signed, in units of the value) is
    done, `end` where it stops; `steepness` is the steepest slope per decade. An onset at the first checkpoint, and an
    end at the last, are no dates: their intervals are NaN. ``onset_low`` is ``onset.low``, and so for all.
    """

    direction: Direction
    onset: Interval
    midpoint: Interval
    end: Interval
    steepness: Interval
    height: Interval

    def __getattr__(self, name: str) -> float:
        quantity, _, end = name.rpartition("_")
        if quantity not in QUANTITIES or f"_{end}" not in ENDS:
            raise AttributeError(f"Move: found no attribute {name!r}")
        return float(getattr(getattr(self, quantity), end))

    @property
    def kind(self) -> str:
        """What tables call it: ``rise`` or ``fall``."""
        return "rise" if self.direction == "rising" else "fall"

    def row(self) -> dict[str, float]:
        """All quantities and the ends of their intervals, by the names of a table's columns."""
        return {name: value for q in QUANTITIES for name, value in getattr(self, q).columns(q).items()}


@dataclass(frozen=True)
class Transitions:
    """The transitions of one curve: change points (`knots`), the pieces between them, `rises` and `falls`."""

    decided: bool  # False where the input is too poor for any answer; `statement` then says why
    tokens: tuple[float, ...]  # sorted, duplicates averaged
    values: tuple[float, ...]
    fitted: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]  # 95 %, of the change points
    segments: tuple[Segment, ...]
    moves: tuple[Move, ...]  # rises and falls, in order
    bic: pd.DataFrame  # one row per number of change points: changes, rss, bic, chosen
    noise: float  # standard deviation of the residuals, corrected for the fitted parameters
    notes: tuple[str, ...]  # what was done to the input (duplicates averaged, missing values dropped)
    statement: str  # the outcome in one sentence

    @property
    def knots(self) -> tuple[float, ...]:
        """Change points, tokens."""
        return tuple(segment.start for segment in self.segments[1:])

    @property
    def rises(self) -> tuple[Move, ...]:
        """Runs of rising segments."""
        return tuple(move for move in self.moves if move.kind == "rise")

    @property
    def falls(self) -> tuple[Move, ...]:
        """Runs of falling segments."""
        return tuple(move for move in self.moves if move.kind == "fall")

    def at(self, tokens: npt.ArrayLike) -> Array:
        """The fitted curve at any token counts inside the range of the data."""
        x, own = log_tokens([*self.tokens]), np.asarray(tokens, dtype=float)
        wanted = np.where(own > 0, np.log10(np.where(own > 0, own, 1.0)), x[0])
        corners = [x[0], *np.log10(np.asarray(self.knots)), x[-1]]
        heights = np.concatenate([[self.fitted[0]], self.fitted[0] + np.cumsum([s.change for s in self.segments])])
        return np.asarray(np.interp(wanted, corners, heights))

    def around(self, move: Move) -> tuple[float, float]:
        """From the opposite move before one of its moves to the opposite move after: where that one is tested."""
        others = [other for other in self.moves if other.kind != move.kind]
        before = [other.onset for other in others if other.onset < move.onset]
        after = [other.end for other in others if other.end > move.end]
        return max(before, default=self.tokens[0]), min(after, default=self.tokens[-1])

    def liftoff(self, move: Move) -> Interval:
        """Where the steepest piece of a move begins; without an interval at the first checkpoint."""
        own = [i for i, s in enumerate(self.segments) if move.onset <= s.start < move.end]
        steepest = max(own, key=lambda i: abs(self.segments[i].slope))
        return Interval(self.segments[steepest].start, *(self.intervals[steepest - 1] if steepest > 0 else ()))


def _clean(
    tokens: npt.ArrayLike, values: npt.ArrayLike | None, stderr: npt.ArrayLike | None, replicates: npt.ArrayLike | None
) -> tuple[Array, Array, Array | None, Array | None, tuple[str, ...]]:
    """A curve of ascending distinct tokens and finite values, with what was done to it."""
    t = np.asarray(tokens, dtype=float)
    expect(t.ndim == 1, "tokens", f"{t.ndim} dimensions", "1")
    reps = None if replicates is None else np.asarray(replicates, dtype=float)
    if reps is not None and (reps.ndim != 2 or reps.shape[1] != t.size):
        raise PhaselabError(f"replicates: found shape {reps.shape}, expected (n_replicates, {t.size})")
    if values is None and reps is None:
        raise PhaselabError("values: found None, expected an array, or replicates to average")
    v = reps.mean(axis=0) if values is None and reps is not None else np.asarray(values, dtype=float)
    e = np.full(t.shape, nan) if stderr is None else np.asarray(stderr, dtype=float)
    for name, array in (("values", v), ("stderr", e)):
        expect(array.shape == t.shape, name, f"shape {array.shape}", f"that of tokens, {t.shape}")
    notes = []
    if reps is not None and len(reps) < 2:
        reps = None
        notes.append("one replicate says nothing of their spread; residuals are used")
    keep = np.isfinite(t) & np.isfinite(v) & (True if reps is None else np.isfinite(reps).all(axis=0))
    if not keep.all():
        notes.append(f"{int((~keep).sum())} checkpoints with missing values dropped")
    unique, place = np.unique(t[keep], return_inverse=True)
    if shared := place.size - unique.size:
        notes.append(f"{shared} checkpoints share their tokens with another; averaged")
    count = np.bincount(place, minlength=unique.size)

    def average(array: Array) -> Array:
        return np.bincount(place, weights=array, minlength=unique.size) / count

    e, known = e[keep], np.isfinite(e[keep])
    error = np.sqrt(average(np.where(known, e, np.nanmedian(e)) ** 2) / count) if known.any() else None
    own = None if reps is None else np.stack([average(row) for row in reps[:, keep]])
    return unique, average(v[keep]), error, own, tuple(notes)


def _interval(sample: Array) -> tuple[float, float]:
    low, high = np.quantile(sample, [0.025, 0.975])
    return float(low), float(high)


class _Fitted(NamedTuple):
    """A fit and its bootstrap samples on positions from 0 to 1, and how to say them in tokens and in the value."""

    own: Paths  # one curve
    boot: Paths  # (draws,) curves
    tokens: Array
    where: Array  # log10 of them
    span: float  # of where
    scale: float  # of the value

    def place(self, position: float) -> float:
        """A position as tokens; the ends are the table's own."""
        if 0 < position < 1:
            return float(10 ** (self.where[0] + self.span * position))
        return float(self.tokens[0 if position <= 0 else -1])

    def date(self, position: float, sample: Array | None) -> Interval:
        """A position as tokens, with the interval of `sample`; None: it is no date."""
        return Interval(self.place(position), *(() if sample is None else map(self.place, _interval(sample))))

    def segments(self) -> tuple[Segment, ...]:
        corners = self.own.corners[0]  # (k + 2,)
        lengths = np.diff(corners)
        changed = np.diff(self.own.heights(corners[None]), axis=1)[0]  # (k + 1,)
        # A sample's slope of a piece is taken between its own matched corners; where those are out of order, between
        # the fit's corners.
        apart = np.diff(self.boot.corners, axis=1)
        matching = np.diff(self.boot.heights(self.boot.corners), axis=1)
        fixed = np.diff(self.boot.heights(corners[None]), axis=1) / lengths
        slopes = np.where(apart > 1e-9, matching / np.where(apart > 1e-9, apart, 1.0), fixed)  # (draws, k + 1)
        ends, unit, segments = [*map(self.place, corners)], self.scale / self.span, []
        for i, (own, (low, high)) in enumerate(zip(changed / lengths, map(_interval, slopes.T), strict=True)):
            direction: Direction = "rising" if low > 1e-6 else "falling" if high < -1e-6 else "flat"
            slope = float(own) * unit, low * unit, high * unit
            segments.append(Segment(ends[i], ends[i + 1], *slope, direction, float(changed[i]) * self.scale))
        return tuple(segments)

    def move(self, first: int, last: int, direction: Direction) -> Move:
        """The move that the pieces from `first` to `last` make."""
        sign = 1.0 if direction == "rising" else -1.0
        own, boot = self.own.traced(first, last, sign), self.boot.traced(first, last, sign)
        corners, at_end = self.own.corners[0], last + 2 == self.own.corners.shape[1]
        onset = self.date(corners[first], self.boot.corners[:, first] if first > 0 else None)
        end = self.date(corners[last + 1], None if at_end else self.boot.corners[:, last + 1])
        steepness, height = (
            Interval(*(v * unit for v in (float(value[0]), *_interval(sample))))
            for value, sample, unit in zip(own[1:], boot[1:], (self.scale / self.span, self.scale), strict=True)
        )
        return Move(direction, onset, self.date(float(own[0][0]), boot[0]), end, steepness, height)

    def moves(self, segments: Sequence[Segment]) -> tuple[Move, ...]:
        """Runs of segments of one direction, but flat ones."""
        runs = [(d, list(run)) for d, run in groupby(range(len(segments)), key=lambda i: segments[i].direction)]
        return tuple(self.move(run[0], run[-1], direction) for direction, run in runs if direction != "flat")


def _bics(fits: Sequence[pieces.Fit], n: int, floor: float, penalty: float, scale: float) -> pd.DataFrame:
    """One row per number of change points: changes, rss, bic, chosen."""
    # Without any noise the sum of squares is rounding error, which must not choose.
    rss = [float(fit[2][0]) if float(fit[2][0]) > 1e-20 * n else 0.0 for fit in fits]
    bics = [float(pieces.bic(np.array([r]), n, k, max(floor, 1e-20), penalty)[0]) for k, r in enumerate(rss)]
    changes = np.arange(len(fits))
    chosen = changes == int(np.argmin(bics))
    return pd.DataFrame({"changes": changes, "rss": np.array(rss) * scale**2, "bic": bics, "chosen": chosen})


def fit_transitions(
    tokens: npt.ArrayLike,
    values: npt.ArrayLike | None,
    stderr: npt.ArrayLike | None = None,
    replicates: npt.ArrayLike | None = None,
    max_changes: int = 3,
    n_bootstrap: int = 200,
    seed: int = 0,
    penalty: float = pieces.COST,
    axis: str = "tokens",
) -> Transitions:
    """Where a learning curve changes: continuous piecewise-linear in log10 tokens.

    Parameters
    ----------
    tokens : (n,) training tokens, 0 allowed, in any order; with fewer than 6 different ones nothing is decided.
    values, stderr : (n,) the measure (None: the mean of `replicates`); its standard error, the least noise assumed.
    replicates : (n_replicates, n) the curve in subjects, seeds or items: intervals are bootstrapped over them.
    max_changes : most change points tried, and at most one for every 4 checkpoints.
    n_bootstrap, seed : bootstrap samples for the intervals, refitted with the chosen number of change points.
    penalty : parameters that a change point counts as in BIC.
    axis : what `tokens` counts, for the statement: ``"steps"`` where it is steps.

    Notes
    -----
    The number of change points minimises BIC with 3 parameters a change point (Kim and Kim 2016). Positions are
    searched over all sets of checkpoints (at most 25 of them), then moved continuously (Muggeo 2003).
    """
    expect(max_changes >= 0, "max_changes", max_changes, "0 or more")
    expect(n_bootstrap >= 20, "n_bootstrap", n_bootstrap, "20 or more")
    at, v, error, own, notes = _clean(tokens, values, stderr, replicates)
    n, curve = v.size, (tuple(at.tolist()), tuple(v.tolist()))
    if n < 6:
        why = f"Not decided: {n} checkpoints with values at distinct tokens; a change point needs at least 6."
        blank = pd.DataFrame(columns=["changes", "rss", "bic", "chosen"])
        return Transitions(False, *curve, (nan,) * n, (), (), (), blank, nan, notes, why)
    where = log_tokens(at)
    centre, scale = float(v.mean()), float(np.ptp(v))  # values on one scale make tolerances relative
    constant = scale <= 1e-12 * max(1.0, abs(centre))
    scale = 1.0 if constant else scale
    floor = 0.0 if error is None else float((error**2).mean()) / scale**2
    error = None if error is None else error / scale
    own = None if own is None else (own - centre) / scale
    y = (v - centre) / scale
    grid = pieces.grid_of(tuple(where.tolist()), 0 if constant else min(max_changes, n // pieces.PER_CHANGE))
    fits = pieces.fit_each(grid, y)
    table = _bics(fits, n, floor, penalty, scale)
    changes = int(table["chosen"].argmax())
    knots, coefficients, _ = fits[changes]
    fitted = (pieces.design(grid.x, knots) @ coefficients[:, :, None])[0, :, 0]
    residuals, degrees = y - fitted, max(n - 2 - pieces.DEGREES * changes, 1.0)
    noise = pieces.bootstrap_noise(residuals, degrees, error, own, n_bootstrap, [seed, n, changes])
    boot_knots, boot, _ = pieces.fit_exactly(grid, fitted + noise, changes, near=knots[0])
    pairs = pieces.matched(knots[0], coefficients[0, 2:], boot_knots, boot[:, 2:])
    paths = Paths(knots, coefficients, with_ends(knots)), Paths(boot_knots, boot, with_ends(pairs))
    found = _Fitted(*paths, at, where, float(where[-1] - where[0]), scale)
    segments = found.segments()
    moves = found.moves(segments)
    return Transitions(
        True,
        *curve,
        fitted=tuple((fitted * scale + centre).tolist()),
        intervals=tuple((date.low, date.high) for date in map(found.date, knots[0], pairs.T)),
        segments=segments,
        moves=moves,
        bic=table,
        noise=float(np.sqrt(residuals @ residuals / degrees)) * scale,
        notes=notes,
        statement=_sentence(segments, moves, axis),
    )


def _sentence(segments: Sequence[Segment], moves: Sequence[Move], unit: str) -> str:
    if len(segments) == 1:
        trend = {"rising": "rises steadily", "falling": "falls steadily", "flat": "is flat"}[segments[0].direction]
        return f"No transition: the curve {trend} over all of training."
    if not moves:
        return "No transition: slopes differ, but no piece rises or falls beyond its interval."
    parts = []
    for move in moves:
        since = f"from {amount(move.onset)} {unit} ({amount(move.onset.low)} to {amount(move.onset.high)})"
        since = "from the first checkpoint" if isnan(move.onset.low) else since
        until = "to the last" if isnan(move.end.low) else f"to {amount(move.end)}"
        parts.append(f"{move.kind}s {since} {until}, by {abs(move.height):.3g}")
    return f"The curve {'; then it '.join(parts)}; 95 % intervals in brackets."


class TableError(PhaselabError):
    """A table of learning curves that cannot be used; names the column, what was found and expected."""


#: What `fit_table` says of one rise or fall; dates in the unit of x, heights in that of y.
MOVE_COLUMNS = (
    "kind",
    *(q + end for q in ("onset", "liftoff", "midpoint", "end", "height", "steepness") for end in ENDS),
    *("p", "q", "statement", "notes"),
)


@dataclass(frozen=True)
class FittedTable:
    """The transitions of every curve of a table: values of the columns `by` -> fit, and a table of their moves.

    `moves` has a row a rise or fall, the columns of `by` and `MOVE_COLUMNS`: dates and heights as in `Move`, and
    statement and notes of the fit. A curve without moves has one row of kind ``flat`` or ``undecided``. ``liftoff`` is
    where the steepest piece of the move begins: a slow drift before it, which moves the onset forward, does not move
    this. ``p`` is of the hypothesis that the curve never moves in that direction, whatever the noise's first-order
    autocorrelation (see `triple_phase_test`); ``q`` is p after Benjamini and Hochberg's correction over all curves and
    both directions.
    """

    by: tuple[str, ...]
    fits: dict[tuple[str, ...], Transitions]
    moves: pd.DataFrame


def _numbers(table: pd.DataFrame, role: str, column: str, least: float = -np.inf) -> Array:
    """A column (n,) as floats of at least `least`; empty cells are NaN."""
    expect(column in table, role, f"no column {column!r}", f"one of {', '.join(table.columns)}", TableError)
    values = pd.to_numeric(table[column], errors="coerce")
    wrong = values.isna() & table[column].notna()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = f"{table[column].iloc[row]!r} in row {row + 1}"
        raise TableError(f"{role}: column {column!r}: found {found}, expected a number")
    if (values < least).any():
        raise TableError(f"{role}: column {column!r}: found {values.min():g}, expected {least:g} or more")
    return values.to_numpy(dtype=float)


def _places(table: pd.DataFrame, by: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """Values of the columns `by` -> the rows of that curve, in order of first appearance."""
    for column in by:
        expect(column in table, "by", f"no column {column!r}", f"one of {', '.join(table.columns)}", TableError)
        empty = int(table[column].isna().sum())
        expect(not empty, f"by: column {column!r}", f"{empty} empty cells", "a name in each", TableError)
    places: dict[tuple[str, ...], list[int]] = {}
    for place, name in enumerate(table[[*by]].astype(str).itertuples(index=False, name=None)):
        places.setdefault(name, []).append(place)
    return places


def fit_table(
    table: pd.DataFrame,
    x: str = "tokens",
    y: str = "value",
    by: Sequence[str] = (),
    stderr: str = "",
    *,
    max_changes: int = 4,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> FittedTable:
    """`fit_transitions` of every learning curve of a table, a row a checkpoint, from wherever it comes.

    Parameters
    ----------
    x, y : columns of training tokens (or steps), 0 or more, and of the measure; rows without are dropped and noted.
    by : columns whose values together name a curve; none: the table is one curve.
    stderr : column of the standard error of `y`; empty: none is known.
    max_changes, n_bootstrap, seed : see `fit_transitions`.
    """
    expect(len(table), "table", "no rows", "one a checkpoint", TableError)
    tokens, values = _numbers(table, "x", x, least=0), _numbers(table, "y", y)
    errors = _numbers(table, "stderr", stderr, least=0) if stderr else None
    fits: dict[tuple[str, ...], Transitions] = {}
    rows: list[dict[str, Any]] = []
    untested = 0  # directions in which a curve shows nothing: tests that were passed up, with p = 1
    options: dict[str, Any] = {"max_changes": max_changes, "seed": seed}
    for name, own in _places(table, by).items():
        error = None if errors is None else errors[own]
        fit = fit_transitions(tokens[own], values[own], error, n_bootstrap=n_bootstrap, axis=x, **options)
        fits[name] = fit
        untested += (not fit.rises) + (not fit.falls)
        said = dict(zip(by, name, strict=True)) | {"statement": fit.statement, "notes": "; ".join(fit.notes)}
        rows += [said | told for told in _told(fit, error, **options)]
    moves = pd.DataFrame(rows).reindex(columns=[*by, *MOVE_COLUMNS])
    tested = moves["p"].notna().to_numpy()
    if tested.any():
        everything = np.concatenate([moves.loc[tested, "p"].to_numpy(dtype=float), np.ones(untested)])
        moves.loc[tested, "q"] = stats.false_discovery_control(everything)[: int(tested.sum())]
    return FittedTable(tuple(by), fits, moves)


def _told(fit: Transitions, stderr: Array | None, max_changes: int, seed: int) -> list[dict[str, Any]]:
    """The rows of one curve in a table of moves: one a move, or one that says that there is none."""
    if not fit.moves:
        return [{"kind": "flat" if fit.decided else "undecided"}]
    curve = Monotone.of(fit, None, stderr, max_changes, seed)
    return [
        {"kind": move.kind, "p": curve.p(move.direction, *fit.around(move))}
        | (move.row() | fit.liftoff(move).columns("liftoff"))
        for move in fit.moves
    ]
