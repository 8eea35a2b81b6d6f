"""Transitions of learning curves: found, dated with intervals, and tested.

A curve is fitted by a continuous piecewise-linear function of log10 tokens whose number of change
points is chosen by BIC (`fit_transitions`). The three phases are tests on such fits
(`triple_phase_test`): a fall counts only if it is deeper than noise makes of any curve that never
falls, a rise only if it is higher than noise makes of any curve that never rises.

Step 0 has no logarithm: it is placed one log-step (the gap between the first two positive token
counts) before the first positive one, and no change point is ever placed before that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations
from math import comb, isnan, nan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from phaselab.curves import amount, select_layer
from phaselab.errors import PhaselabError
from phaselab.results import CURVE_COLUMNS

Array = npt.NDArray[np.float64]
Direction = Literal["rising", "flat", "falling"]

#: Most positions at which the search puts a change point; they are moved continuously afterwards.
CANDIDATES = 25
#: Most sets of positions tried for one number of change points: fewer positions for many of them.
SETS = 13_000
#: Parameters that a change point costs in BIC. Its position is not regular, and counting slope and
#: position (2) finds change points in noise; 3 is the BIC3 of Kim and Kim (2016) for joinpoints.
COST = 3
#: Checkpoints needed for each change point: with fewer, BIC finds curves that run through the noise.
PER_CHANGE = 4
#: Degrees of freedom that a change point takes from the residuals: 2 parameters, and more for having
#: been searched for. Between 2 and 3 intervals cover as they say (tests/test_phases.py).
DEGREES = 2.5
#: Numbers held at once in the inner loops, about 16 MB: what fits the caches beats what does not.
CHUNK = 2_000_000
#: First-order autocorrelations of the noise at which the null is simulated.
RHOS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
#: Simulated null curves for each of them.
NULLS = 1000
#: The autocorrelation of a single curve's noise is estimated too low, by an unknown amount when
#: checkpoints are few: an estimate is read as this quantile of its distribution under the true one.
#: Replicates answer for their own autocorrelated noise, and with them the estimate is taken as it is.
CAUTION = 0.02
#: From this many replicates on, a rise or fall must also hold for replicates that did not choose it.
MANY = 3


# --------------------------------------------------------------------------- piecewise-linear fits


def log_tokens(tokens: npt.ArrayLike) -> Array:
    """log10 of token counts (n,), ascending; a count of 0 goes one log-step before the first positive.

    The log-step is the gap between the first two different positive counts, or 1 (a decade) when
    there is but one. Raises ValueError for a negative count.
    """
    counts = np.asarray(tokens, dtype=float)
    if (counts < 0).any():
        raise ValueError(f"tokens: found {counts.min():g}, expected counts of 0 or more")
    positive = np.unique(counts[counts > 0])
    if positive.size == 0:
        return np.zeros_like(counts)
    step = float(np.log10(positive[1] / positive[0])) if positive.size > 1 else 1.0
    first = float(np.log10(positive[0])) - step
    return np.where(counts > 0, np.log10(np.where(counts > 0, counts, 1.0)), first)


@dataclass(frozen=True)
class _Level:
    """All sets of k candidate change points, each with the one direction that it adds to its parent.

    `added` (n_sets, n) are unit vectors: what the last change point's hinge adds to the space that
    the set without it spans. The sum of squares that a set explains is then its parent's plus one
    squared dot product: one matrix product a level scores every set on every curve.
    """

    knots: npt.NDArray[np.intp]  # (n_sets, k) indices into the candidates
    parent: npt.NDArray[np.intp]  # (n_sets,)
    added: Array  # (n_sets, n)


@dataclass(frozen=True)
class _Grid:
    """What the search needs of the checkpoints' positions alone: shared by all curves on them."""

    x: Array  # (n,) positions, 0 to 1
    candidates: Array  # (m,) positions for change points
    base: Array  # (2, n) orthonormal basis of the straight lines
    levels: tuple[_Level, ...]  # for 1, 2, ... change points


@lru_cache(maxsize=16)
def _grid(positions: tuple[float, ...], max_changes: int) -> _Grid:
    x = np.asarray(positions)
    n = x.size
    inner = x[2:-2]  # the outer pieces have three checkpoints at least: one alone is no piece
    most = next(m for m in range(CANDIDATES, 0, -1) if comb(m, max_changes) <= SETS)
    if inner.size > most:
        wanted = np.linspace(inner[0], inner[-1], most)
        inner = inner[np.unique(np.abs(inner[None, :] - wanted[:, None]).argmin(axis=1))]
    base = np.linalg.qr(np.stack([np.ones(n), x - x.mean()], axis=1))[0].T  # (2, n)
    hinges = np.maximum(x[None, :] - inner[:, None], 0.0)  # (m, n)
    knots = np.zeros((1, 0), dtype=np.intp)
    spans = base[None]  # (n_sets, 2 + k, n) orthonormal basis of each set
    levels: list[_Level] = []
    for _ in range(max_changes):
        last = knots[:, -1] if knots.shape[1] else np.full(1, -1, dtype=np.intp)
        parent = np.repeat(np.arange(len(knots)), inner.size - 1 - last)
        new = np.concatenate([np.arange(i + 1, inner.size) for i in last]).astype(np.intp)
        if new.size == 0:
            break
        vectors = hinges[new]
        for _ in range(2):  # Gram-Schmidt twice: once loses digits where hinges are close
            vectors = vectors - np.einsum("skn,sk->sn", spans[parent], np.einsum("skn,sn->sk", spans[parent], vectors))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        knots = np.concatenate([knots[parent], new[:, None]], axis=1)
        spans = np.concatenate([spans[parent], vectors[:, None, :]], axis=1)
        levels.append(_Level(knots, parent, vectors))
    return _Grid(x, inner, base, tuple(levels))


def _search(grid: _Grid, curves: Array, changes: int) -> list[tuple[Array, npt.NDArray[np.intp]]]:
    """Residual sum of squares (B,) and best set (B,) for 0 to `changes` change points; curves (B, n)."""
    rest = curves - (curves @ grid.base.T) @ grid.base
    total = np.einsum("bn,bn->b", rest, rest)
    found = [(total, np.zeros(len(curves), dtype=np.intp))]
    if changes == 0:
        return found
    widest = len(grid.levels[changes - 1].parent)
    chunk = max(1, CHUNK // widest)
    best = [(np.empty(len(curves)), np.empty(len(curves), dtype=np.intp)) for _ in range(changes)]
    for start in range(0, len(curves), chunk):
        rows = slice(start, start + chunk)
        gain = np.zeros((len(rest[rows]), 1))
        for level, (rss, sets) in zip(grid.levels[:changes], best, strict=True):
            dots = rest[rows] @ level.added.T
            dots *= dots
            dots += gain[:, level.parent]
            gain = dots  # (chunk, n_sets)
            sets[rows] = gain.argmax(axis=1)
            rss[rows] = total[rows] - np.take_along_axis(gain, sets[rows, None], axis=1)[:, 0]
    return found + [(np.maximum(rss, 0.0), sets) for rss, sets in best]


def _design(x: Array, knots: Array) -> Array:
    """(B, n, 2 + k): one, x, and a hinge for each change point; knots (B, k)."""
    hinges = np.maximum(x[None, :, None] - knots[:, None, :], 0.0)
    line = np.broadcast_to(np.stack([np.ones_like(x), x], axis=1), (len(knots), x.size, 2))
    return np.concatenate([line, hinges], axis=2)


def _solve(design: Array, curves: Array, damping: float | Array = 1e-12) -> Array:
    """Least-squares coefficients (B, p) of curves (B, n), damped relative to the diagonal."""
    gram = design.transpose(0, 2, 1) @ design
    right = (design.transpose(0, 2, 1) @ curves[:, :, None])[:, :, 0]
    diagonal = np.einsum("bpp->bp", gram)
    index = np.arange(gram.shape[1])
    # A slope of 0 makes its change point's column 0: a share of the mean keeps that solvable too.
    gram[:, index, index] += np.reshape(damping, (-1, 1)) * diagonal + 1e-12 * diagonal.mean(axis=1, keepdims=True)
    return np.asarray(np.linalg.solve(gram, right[:, :, None])[:, :, 0], dtype=np.float64)


def _linear(x: Array, curves: Array, knots: Array) -> tuple[Array, Array, Array]:
    """Coefficients (B, 2 + k), residuals (B, n) and their sum of squares (B,) at given knots."""
    design = _design(x, knots)
    coefficients = _solve(design, curves)
    residuals = curves - (design @ coefficients[:, :, None])[:, :, 0]
    return coefficients, residuals, np.einsum("bn,bn->b", residuals, residuals)


def _refine(x: Array, curves: Array, knots: Array, rounds: int = 6) -> tuple[Array, Array, Array]:
    """Move change points (B, k) off the grid by damped Gauss-Newton steps that never do worse.

    The derivative of a hinge by its change point is minus its slope to the right of it (Muggeo
    2003). Change points keep their order, stay half the smallest gap apart, and between the third
    and the last but two checkpoints. Returns knots, coefficients (B, 2 + k) and sums of squares.
    """
    coefficients, residuals, rss = _linear(x, curves, knots)
    k = knots.shape[1]
    if k == 0:
        return knots, coefficients, rss
    apart = 0.5 * float(np.diff(x).min())
    damping = np.full(len(curves), 1e-3)
    for _ in range(rounds):
        right = (x[None, :, None] > knots[:, None, :]).astype(float)
        jacobian = np.concatenate([_design(x, knots), -coefficients[:, None, 2:] * right], axis=2)
        step = _solve(jacobian, residuals, damping)[:, 2 + k :]
        moved = np.clip(knots + step, x[2], x[-3])
        ordered = np.all(np.diff(moved, axis=1) >= apart, axis=1, keepdims=True)
        moved = np.where(ordered, moved, knots)
        trial, trial_residuals, trial_rss = _linear(x, curves, moved)
        better = trial_rss < rss
        knots = np.where(better[:, None], moved, knots)
        coefficients = np.where(better[:, None], trial, coefficients)
        residuals = np.where(better[:, None], trial_residuals, residuals)
        rss = np.where(better, trial_rss, rss)
        damping = np.clip(np.where(better, damping * 0.1, damping * 10.0), 1e-9, 1e9)
    return knots, coefficients, rss


def _fit(grid: _Grid, curves: Array, changes: int, near: Array | None = None) -> tuple[Array, Array, Array]:
    """Least-squares fit of exactly `changes` change points: knots, coefficients, sums of squares.

    Refined from the best set of the search and, where given, from the change points `near` (k,).
    """
    n = grid.x.size
    best = _search(grid, curves, changes)[changes][1]
    if changes == 0:
        starts = [np.empty((len(curves), 0))]
    else:
        starts = [grid.candidates[grid.levels[changes - 1].knots[best]]]
        if near is not None:
            starts.append(np.repeat(near[None], len(curves), axis=0))
    chunk = max(1, CHUNK // (n * (2 + 2 * changes)))
    parts = []
    for row in range(0, len(curves), chunk):
        rows = slice(row, row + chunk)
        tries = [_refine(grid.x, curves[rows], start[rows]) for start in starts]
        parts.append(_better(tries))
    knots, coefficients, rss = (np.concatenate(part) for part in zip(*parts, strict=True))
    return knots, coefficients, rss


def _better(tries: Sequence[tuple[Array, Array, Array]]) -> tuple[Array, Array, Array]:
    """Of several fits of the same curves, the one with the least sum of squares for each curve."""
    knots, coefficients, rss = tries[0]
    for other in tries[1:]:
        less = other[2] < rss
        knots = np.where(less[:, None], other[0], knots)
        coefficients = np.where(less[:, None], other[1], coefficients)
        rss = np.where(less, other[2], rss)
    return knots, coefficients, rss


def _fits(grid: _Grid, curve: Array, largest: int, starts: int = 30) -> list[tuple[Array, Array, Array]]:
    """The best fits of one curve (n,) with 0 to `largest` change points, as `_fit` gives them.

    Refined from many of the best sets: the best on the grid need not be the best off it.
    """
    fits = [_refine(grid.x, curve[None], np.empty((1, 0)))]
    rest = curve - (curve @ grid.base.T) @ grid.base
    gain = np.zeros(1)
    for level in grid.levels[:largest]:
        gain = gain[level.parent] + (level.added @ rest) ** 2
        first = np.argsort(-gain, kind="stable")[:starts]
        knots, coefficients, rss = _refine(
            grid.x, np.repeat(curve[None], first.size, axis=0), grid.candidates[level.knots[first]], rounds=15
        )
        one = int(rss.argmin())
        fits.append((knots[one : one + 1], coefficients[one : one + 1], rss[one : one + 1]))
    return fits


def _heights(knots: Array, coefficients: Array, positions: Array) -> Array:
    """Fitted curves at positions (B, m) or (1, m): (B, m)."""
    heights = coefficients[:, :1] + coefficients[:, 1:2] * positions
    for j in range(knots.shape[1]):
        heights = heights + coefficients[:, 2 + j : 3 + j] * np.maximum(positions - knots[:, j : j + 1], 0.0)
    return heights


def _matched(own: Array, own_bends: Array, knots: Array, bends: Array) -> Array:
    """Each sample's change point (B, k) for each change point of the fit, `own` (k,).

    The nearest that bends the same way; the nearest at all where none does. By their order alone,
    one change point that a sample puts elsewhere would shift the names of all after it.
    """
    if own.size == 0:
        return knots
    far = np.abs(knots[:, None, :] - own[None, :, None])  # (B, k of the fit, k of the sample)
    other = np.sign(bends)[:, None, :] != np.sign(own_bends)[None, :, None]
    nearest = (far + 10.0 * other).argmin(axis=2)
    return np.take_along_axis(knots, nearest, axis=1)


def _bic(rss: Array, n: int, changes: int, floor: float, penalty: float = COST) -> Array:
    """-2 log likelihood at the best variance of at least `floor`, plus the parameters' cost."""
    variance = np.maximum(rss / n, max(floor, np.finfo(float).tiny))
    return n * np.log(variance) + rss / variance + (2 + penalty * changes) * np.log(n)


# ------------------------------------------------------------------------------ what a fit returns


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

    `onset` is where the curve leaves its baseline, `midpoint` where half of `height` (signed, in
    units of the value) is done, `end` where it stops; `steepness` is the steepest slope per decade.
    An onset at the first checkpoint, and an end at the last, are the table's ends, not dates: their
    intervals are NaN.
    """

    direction: Direction
    onset: float
    onset_low: float
    onset_high: float
    midpoint: float
    midpoint_low: float
    midpoint_high: float
    end: float
    end_low: float
    end_high: float
    steepness: float
    steepness_low: float
    steepness_high: float
    height: float
    height_low: float
    height_high: float


@dataclass(frozen=True)
class Transitions:
    """The transitions of one curve.

    Attributes
    ----------
    decided : False where the input is too poor for any answer; `statement` then says why.
    tokens, values, fitted : (n,) the curve that was fitted (sorted, duplicates averaged) and its fit.
    knots : change points, tokens; `intervals` their 95 % intervals.
    segments : pieces between them.
    rises, falls : runs of rising and of falling segments.
    bic : one row per number of change points: changes, rss, bic, chosen.
    noise : standard deviation of the residuals, corrected for the fitted parameters.
    notes : what was done to the input (duplicates averaged, missing values dropped).
    statement : the outcome in one sentence.
    """

    decided: bool
    tokens: tuple[float, ...]
    values: tuple[float, ...]
    fitted: tuple[float, ...]
    knots: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    segments: tuple[Segment, ...]
    rises: tuple[Move, ...]
    falls: tuple[Move, ...]
    bic: pd.DataFrame
    noise: float
    notes: tuple[str, ...]
    statement: str

    def table(self) -> pd.DataFrame:
        """One row a segment, the columns of `Segment`."""
        return pd.DataFrame([vars(s) for s in self.segments], columns=list(Segment.__dataclass_fields__))

    def at(self, tokens: npt.ArrayLike) -> Array:
        """The fitted curve at any token counts inside the range of the data."""
        x, own = log_tokens([*self.tokens]), np.asarray(tokens, dtype=float)
        wanted = np.where(own > 0, np.log10(np.where(own > 0, own, 1.0)), x[0])
        corners = [x[0], *np.log10(np.asarray(self.knots)), x[-1]]
        heights = np.concatenate([[self.fitted[0]], self.fitted[0] + np.cumsum([s.change for s in self.segments])])
        return np.interp(wanted, corners, heights)


def _undecided(tokens: Array, values: Array, notes: Sequence[str], why: str) -> Transitions:
    blank = pd.DataFrame(columns=["changes", "rss", "bic", "chosen"])
    return Transitions(
        decided=False,
        tokens=tuple(tokens.tolist()),
        values=tuple(values.tolist()),
        fitted=(nan,) * tokens.size,
        knots=(),
        intervals=(),
        segments=(),
        rises=(),
        falls=(),
        bic=blank,
        noise=nan,
        notes=tuple(notes),
        statement=f"Not decided: {why}",
    )


@dataclass(frozen=True)
class _Curve:
    """A cleaned curve: ascending distinct tokens, finite values."""

    tokens: Array
    values: Array
    stderr: Array | None
    replicates: Array | None
    notes: tuple[str, ...]


def _clean(
    tokens: npt.ArrayLike,
    values: npt.ArrayLike | None,
    stderr: npt.ArrayLike | None,
    replicates: npt.ArrayLike | None,
) -> _Curve:
    t = np.asarray(tokens, dtype=float)
    reps = None if replicates is None else np.asarray(replicates, dtype=float)
    if t.ndim != 1:
        raise ValueError(f"tokens: found {t.ndim} dimensions, expected 1")
    if reps is not None and (reps.ndim != 2 or reps.shape[1] != t.size):
        raise ValueError(f"replicates: found shape {reps.shape}, expected (n_replicates, {t.size})")
    if values is None:
        if reps is None:
            raise ValueError("values: found None, expected an array, or replicates to average")
        v = reps.mean(axis=0)
    else:
        v = np.asarray(values, dtype=float)
    e = None if stderr is None else np.asarray(stderr, dtype=float)
    for name, array in (("values", v), ("stderr", e)):
        if array is not None and array.shape != t.shape:
            raise ValueError(f"{name}: found shape {array.shape}, expected that of tokens, {t.shape}")
    notes = []
    if reps is not None and len(reps) < 2:
        reps = None
        notes.append("one replicate says nothing of their spread; residuals are used")
    keep = np.isfinite(t) & np.isfinite(v)
    if reps is not None:
        keep &= np.isfinite(reps).all(axis=0)
    if not keep.all():
        notes.append(f"{int((~keep).sum())} checkpoints with missing values dropped")
    t, v = t[keep], v[keep]
    e = None if e is None else e[keep]
    reps = None if reps is None else reps[:, keep]
    unique, place = np.unique(t, return_inverse=True)
    if unique.size < t.size:
        notes.append(f"{t.size - unique.size} checkpoints share their tokens with another; averaged")
    count = np.bincount(place, minlength=unique.size)

    def average(array: Array) -> Array:
        return np.bincount(place, weights=array, minlength=unique.size) / count

    if e is not None and not np.isfinite(e).any():
        e = None
    if e is not None:
        e = np.where(np.isfinite(e), e, np.nanmedian(e))
        e = np.sqrt(average(e**2) / count)
    if reps is not None:
        reps = np.stack([average(row) for row in reps]) if unique.size else reps
    return _Curve(unique, average(v) if unique.size else v, e, reps, tuple(notes))


def _student(rng: np.random.Generator, draws: int, degrees: float) -> Array:
    """(draws, 1) factors that turn normal noise into Student's t: the spread itself is an estimate."""
    return np.sqrt(degrees / rng.chisquare(degrees, size=(draws, 1)))


def _noise(curve: _Curve, residuals: Array, degrees: float, draws: int, rng: np.random.Generator) -> Array:
    """Bootstrap noise of the curve, (draws, n).

    With replicates, their deviations from their mean are summed with random normal weights (a
    multiplier bootstrap, smooth with few replicates), and what scatters about the fit beyond them
    (noise that all replicates share at a checkpoint) is added. Without, the residuals' variance, or
    the square of `stderr` where that is larger.
    """
    n = curve.values.size
    variance = float(residuals @ residuals) / degrees
    white = rng.standard_normal((draws, n)) * _student(rng, draws, degrees)
    if curve.replicates is None:
        floor = np.zeros(n) if curve.stderr is None else curve.stderr**2
        return white * np.sqrt(np.maximum(variance, floor))
    count = len(curve.replicates)
    apart = curve.replicates - curve.replicates.mean(axis=0)
    weights = rng.standard_normal((draws, count)) * _student(rng, draws, count - 1)
    own = weights @ apart / np.sqrt(count * (count - 1.0))
    # Second differences of the deviations: what in them is not smooth along the checkpoints.
    rough = np.diff(apart, 2, axis=1) if n > 2 else apart
    expected = float((rough**2).sum()) / (6.0 * rough.shape[1] * count * (count - 1.0))
    return own + white * np.sqrt(max(variance - expected, 0.0))


def _interval(sample: Array) -> tuple[float, float]:
    low, high = np.quantile(sample, [0.025, 0.975])
    return float(low), float(high)


def _direction(low: float, high: float, negligible: float) -> Direction:
    if low > negligible:
        return "rising"
    return "falling" if high < -negligible else "flat"


def fit_transitions(
    tokens: npt.ArrayLike,
    values: npt.ArrayLike | None,
    stderr: npt.ArrayLike | None = None,
    replicates: npt.ArrayLike | None = None,
    max_changes: int = 3,
    n_bootstrap: int = 200,
    seed: int = 0,
    penalty: float = COST,
    axis: str = "tokens",
) -> Transitions:
    """Where a learning curve changes: continuous piecewise-linear in log10 tokens.

    Parameters
    ----------
    tokens : (n,) training tokens, 0 allowed, any order and spacing.
    values : (n,) the measure; None for the mean of `replicates`.
    stderr : (n,) its standard error, if known: the least noise that is assumed.
    replicates : (n_replicates, n) the same curve in subjects, regions, seeds or items; intervals are
        then bootstrapped over them.
    max_changes : most change points tried, and at most one for every 4 checkpoints.
    n_bootstrap : bootstrap samples for the intervals, refitted with the chosen number of change points.
    seed : of the bootstrap.
    penalty : parameters that a change point counts as in BIC.
    axis : what `tokens` counts, for the statement: ``"steps"`` where it is steps.

    Returns
    -------
    Transitions, with `decided` False for fewer than 6 distinct checkpoints.

    Raises
    ------
    ValueError : shapes that do not match, negative tokens, or numbers out of range.

    Notes
    -----
    The number of change points minimises BIC with 3 parameters a change point (Kim and Kim 2016).
    Positions are searched over all sets of checkpoints (at most 25 of them), then moved
    continuously (Muggeo 2003).
    """
    if max_changes < 0:
        raise ValueError(f"max_changes: found {max_changes}, expected 0 or more")
    if n_bootstrap < 20:
        raise ValueError(f"n_bootstrap: found {n_bootstrap}, expected 20 or more")
    curve = _clean(tokens, values, stderr, replicates)
    n = curve.values.size
    if n < 6:
        why = f"{n} checkpoints with values at distinct tokens; a change point needs at least 6."
        return _undecided(curve.tokens, curve.values, curve.notes, why)
    y = curve.values
    where = log_tokens(curve.tokens)
    x, span = (where - where[0]) / (where[-1] - where[0]), float(where[-1] - where[0])
    largest = min(max_changes, n // PER_CHANGE)
    grid = _grid(tuple(x.tolist()), largest)
    largest = len(grid.levels)
    # Values are centred and scaled so that tolerances are relative.
    centre, scale = float(y.mean()), float(np.ptp(y))
    if scale <= 1e-12 * max(1.0, abs(centre)):
        scale, largest = 1.0, 0
    unit = ((y - centre) / scale)[None]
    floor = 0.0 if curve.stderr is None else float((curve.stderr**2).mean()) / scale**2
    fits = _fits(grid, unit[0], largest)
    # Without any noise the sum of squares is rounding error, which must not choose.
    rss = [float(f[2][0]) if float(f[2][0]) > 1e-20 * n else 0.0 for f in fits]
    bics = [float(_bic(np.array([r]), n, k, max(floor, 1e-20), penalty)[0]) for k, r in enumerate(rss)]
    changes = int(np.argmin(bics))
    table = pd.DataFrame(
        {
            "changes": np.arange(largest + 1),
            "rss": np.array(rss) * scale**2,
            "bic": bics,
            "chosen": np.arange(largest + 1) == changes,
        }
    )
    knots, coefficients, _ = fits[changes]
    fitted = (_design(x, knots) @ coefficients[:, :, None])[0, :, 0]
    degrees = max(n - 2 - DEGREES * changes, 1.0)
    residuals = unit[0] - fitted
    rng = np.random.default_rng([seed, n, changes])
    scaled = _Curve(
        curve.tokens,
        unit[0],
        None if curve.stderr is None else curve.stderr / scale,
        None if curve.replicates is None else (curve.replicates - centre) / scale,
        curve.notes,
    )
    samples = fitted + _noise(scaled, residuals, degrees, n_bootstrap, rng)
    boot_knots, boot_coefficients, _ = _fit(grid, samples, changes, near=knots[0])
    matched = _matched(knots[0], coefficients[0, 2:], boot_knots, boot_coefficients[:, 2:])

    def with_ends(positions: Array) -> Array:
        """Change points (B, k) with the first and the last checkpoint: corners (B, k + 2)."""
        zero = np.zeros((len(positions), 1))
        return np.concatenate([zero, positions, zero + 1.0], axis=1)

    corners = with_ends(knots)[0]  # (k + 2,)
    boot_corners = with_ends(matched)

    def to_tokens(position: float) -> float:
        """A position on the unit axis as tokens; the ends are the table's own."""
        if position <= 0:
            return float(curve.tokens[0])
        return float(curve.tokens[-1]) if position >= 1 else float(10 ** (where[0] + span * position))

    def dated(sample: Array) -> tuple[float, float]:
        low, high = _interval(sample)
        return to_tokens(low), to_tokens(high)

    lengths = np.diff(corners)
    changed = np.diff(_heights(knots, coefficients, corners[None]), axis=1)[0]  # (k + 1,)
    # A sample's slope of a piece is taken between its own matched corners; where those are out of
    # order, between the fit's corners.
    apart = np.diff(boot_corners, axis=1)
    matching = np.diff(_heights(boot_knots, boot_coefficients, boot_corners), axis=1)
    fixed = np.diff(_heights(boot_knots, boot_coefficients, corners[None]), axis=1) / lengths
    boot_slopes = np.where(apart > 1e-9, matching / np.where(apart > 1e-9, apart, 1.0), fixed)  # (B, k + 1)
    per_decade = scale / span
    segments = []
    for i in range(changes + 1):
        low, high = _interval(boot_slopes[:, i])
        segments.append(
            Segment(
                start=to_tokens(corners[i]),
                stop=to_tokens(corners[i + 1]),
                slope=float(changed[i] / lengths[i]) * per_decade,
                slope_low=low * per_decade,
                slope_high=high * per_decade,
                direction=_direction(low, high, 1e-6),
                change=float(changed[i]) * scale,
            )
        )

    def traced(k: Array, c: Array, start: Array, stop: Array, sign: float) -> tuple[Array, Array, Array]:
        """Midpoint, steepest slope and height (B,) of curves between start and stop, (B,) each."""
        share = np.linspace(0.0, 1.0, 101)
        length = np.maximum(stop - start, 1e-9)[:, None]
        path = _heights(k, c, start[:, None] + length * share)  # (B, 101)
        height = path[:, -1] - path[:, 0]
        half = path[:, :1] + 0.5 * height[:, None]
        over = sign * (path[:, 1:] - half) >= 0
        after = np.where(over.any(axis=1), over.argmax(axis=1), 99)[:, None]
        a, b = (np.take_along_axis(path, after + d, axis=1) for d in (0, 1))
        part = np.clip((half - a) / np.where(b == a, 1.0, b - a), 0.0, 1.0)
        middle = start + (length * (after + part) / 100.0)[:, 0]
        steepest = sign * (sign * np.diff(path, axis=1)).max(axis=1) * 100.0 / length[:, 0]
        return middle, steepest, height

    def move(first: int, last: int, direction: Direction) -> Move:
        sign = 1.0 if direction == "rising" else -1.0
        own = traced(knots, coefficients, corners[None, first], corners[None, last + 1], sign)
        boot = traced(boot_knots, boot_coefficients, boot_corners[:, first], boot_corners[:, last + 1], sign)
        onset = dated(boot_corners[:, first]) if first > 0 else (nan, nan)
        end = dated(boot_corners[:, last + 1]) if last < changes else (nan, nan)
        middle, steep, height = dated(boot[0]), _interval(boot[1]), _interval(boot[2])
        return Move(
            direction=direction,
            onset=to_tokens(corners[first]),
            onset_low=onset[0],
            onset_high=onset[1],
            midpoint=to_tokens(float(own[0][0])),
            midpoint_low=middle[0],
            midpoint_high=middle[1],
            end=to_tokens(corners[last + 1]),
            end_low=end[0],
            end_high=end[1],
            steepness=float(own[1][0]) * per_decade,
            steepness_low=steep[0] * per_decade,
            steepness_high=steep[1] * per_decade,
            height=float(own[2][0]) * scale,
            height_low=height[0] * scale,
            height_high=height[1] * scale,
        )

    moves: list[Move] = []
    first = 0
    for i, segment in enumerate(segments):
        if i + 1 < len(segments) and segments[i + 1].direction == segment.direction:
            continue
        if segment.direction != "flat":
            moves.append(move(first, i, segment.direction))
        first = i + 1
    return Transitions(
        decided=True,
        tokens=tuple(curve.tokens.tolist()),
        values=tuple(y.tolist()),
        fitted=tuple((fitted * scale + centre).tolist()),
        knots=tuple(to_tokens(float(k)) for k in knots[0]),
        intervals=tuple(dated(matched[:, i]) for i in range(changes)),
        segments=tuple(segments),
        rises=tuple(m for m in moves if m.direction == "rising"),
        falls=tuple(m for m in moves if m.direction == "falling"),
        bic=table,
        noise=float(np.sqrt(residuals @ residuals / degrees)) * scale,
        notes=curve.notes,
        statement=_sentence(changes, segments, moves, axis),
    )


def _sentence(changes: int, segments: Sequence[Segment], moves: Sequence[Move], unit: str) -> str:
    if changes == 0:
        trend = {"rising": "rises steadily", "falling": "falls steadily", "flat": "is flat"}[segments[0].direction]
        return f"No transition: the curve {trend} over all of training."
    if not moves:
        return "No transition: slopes differ, but no piece rises or falls beyond its interval."
    parts = []
    for move in moves:
        verb = "rises" if move.direction == "rising" else "falls"
        if isnan(move.onset_low):
            since = "from the first checkpoint"
        else:
            since = f"from {amount(move.onset)} {unit} ({amount(move.onset_low)} to {amount(move.onset_high)})"
        until = "to the last" if isnan(move.end_low) else f"to {amount(move.end)}"
        parts.append(f"{verb} {since} {until}, by {abs(move.height):.3g}")
    return f"The curve {'; then it '.join(parts)}; 95 % intervals in brackets."


# ------------------------------------------------------------------------- tests of rises and falls


def _residual_noise(grid: _Grid, curves: Array) -> tuple[Array, Array]:
    """Standard deviation and lag-1 autocorrelation (B,) of the residuals of curves (B, n)."""
    n = grid.x.size
    found = _search(grid, curves, len(grid.levels))
    bics = np.stack([_bic(rss, n, k, 0.0) for k, (rss, _) in enumerate(found)])
    chosen = bics.argmin(axis=0)
    sigma, rho = np.empty(len(curves)), np.empty(len(curves))
    for k, (_, sets) in enumerate(found):
        rows = np.flatnonzero(chosen == k)
        if rows.size == 0:
            continue
        if k == 0:
            knots = np.empty((rows.size, 0))
        else:
            knots = grid.candidates[grid.levels[k - 1].knots[sets[rows]]]
        knots, _, _ = _refine(grid.x, curves[rows], knots)
        _, residuals, refined = _linear(grid.x, curves[rows], knots)
        sigma[rows] = np.sqrt(refined / max(n - 2 - 2 * k, 1))
        total = np.einsum("bn,bn->b", residuals, residuals)
        lagged = np.einsum("bn,bn->b", residuals[:, 1:], residuals[:, :-1])
        rho[rows] = np.where(total > 0, lagged / np.where(total > 0, total, 1.0), 0.0)
    return sigma, rho


def _deepest_fall(curves: Array) -> Array:
    """Deepest fall (B,) of curves (B, n) in units of white noise of variance 1.

    Largest difference between the means of an earlier and a later window of the same length (2, 3,
    4, 6, 8, 12, ... up to a quarter of the curve), over the standard deviation that white noise
    would give it. One checkpoint alone is no fall, however low.
    """
    n = curves.shape[1]
    sums = np.concatenate([np.zeros((len(curves), 1)), np.cumsum(curves, axis=1)], axis=1)
    deepest = np.full(len(curves), -np.inf)
    for length in _windows(n):
        means = (sums[:, length:] - sums[:, :-length]) / length
        peak = np.maximum.accumulate(means[:, :-length], axis=1)
        fall = (peak - means[:, length:]).max(axis=1) * np.sqrt(length / 2.0)
        deepest = np.maximum(deepest, fall)
    return deepest


def _windows(n: int) -> list[int]:
    lengths = sorted({base * 2**power for base in (2, 3) for power in range(20)})
    return [length for length in lengths if 2 * length <= n and length <= max(2, n // 4)]


def _autocorrelated(rng: np.random.Generator, shape: tuple[int, int], rho: float) -> Array:
    """Normal noise (B, n) of variance 1 with autocorrelation `rho` ** lag along each row."""
    noise = rng.standard_normal(shape)
    for t in range(1, shape[1]):
        noise[:, t] = rho * noise[:, t - 1] + np.sqrt(1 - rho**2) * noise[:, t]
    return noise


@lru_cache(maxsize=16)
def _null(positions: tuple[float, ...], max_changes: int, seed: int) -> tuple[Array, Array]:
    """Deepest falls and estimated autocorrelations, (n_rhos, NULLS), of flat curves with AR(1) noise.

    Of all curves that never fall the flat one lets noise make the deepest falls: any difference of
    means between an earlier and a later window is the noise's own plus something not positive. So
    a p-value against the flat curve bounds that against every monotone one, the best (isotonic)
    included.
    """
    grid = _grid(positions, max_changes)
    rng = np.random.default_rng([seed, len(positions), max_changes])
    falls, rhos = np.empty((len(RHOS), NULLS)), np.empty((len(RHOS), NULLS))
    for i, rho in enumerate(RHOS):
        noise = _autocorrelated(rng, (NULLS, len(positions)), rho)
        sigma, rhos[i] = _residual_noise(grid, noise)
        falls[i] = _deepest_fall(noise) / sigma
    return falls, rhos


@dataclass(frozen=True)
class _Monotone:
    """One mean curve, ready to be tested against all curves that never fall (or never rise)."""

    positions: tuple[float, ...]  # 0 to 1
    max_changes: int
    tokens: Array  # (n,)
    values: Array  # (n,)
    replicates: Array | None  # (n_replicates, n)
    sigma: float
    rho: float
    seed: int

    def p(self, direction: Direction, start: float, stop: float) -> float:
        """p of the hypothesis that the curve never moves in `direction` between two token counts."""
        inside = (self.tokens >= start) & (self.tokens <= stop)
        if inside.sum() < 4:
            return 1.0
        sign = -1.0 if direction == "rising" else 1.0
        fall = float(_deepest_fall(sign * self.values[None, inside])[0])
        if self.sigma == 0:
            return 1.0 / (NULLS + 1.0) if fall > 0 else 1.0
        fall /= self.sigma
        falls, rhos = _null(self.positions, self.max_changes, self.seed)
        at = (1.0 + (falls >= fall).sum(axis=1)) / (NULLS + 1.0)  # (n_rhos,)
        many = self.replicates is not None and len(self.replicates) >= MANY
        looks = np.asarray(RHOS) if many else np.maximum.accumulate(np.quantile(rhos, CAUTION, axis=1))
        p = float(np.interp(np.interp(self.rho, looks, RHOS), RHOS, at))
        if many and self.replicates is not None:
            p = max(p, _left_out(sign * self.replicates[:, inside]))
        return p


def _left_out(curves: Array) -> float:
    """p that the fall chosen by all other replicates is none in the one left out; curves (S, n).

    One-sided t-test over replicates. Any noise that is a replicate's own is allowed for, however
    correlated along the checkpoints.
    """
    count, n = curves.shape
    falls = np.empty(count)
    total = curves.sum(axis=0)
    for s in range(count):
        rest, best = (total - curves[s]) / (count - 1), -np.inf
        for length in _windows(n):
            kernel = np.ones(length) / length
            means, own = np.convolve(rest, kernel, "valid"), np.convolve(curves[s], kernel, "valid")
            gaps = means[:, None] - means[None, :]
            gaps[np.tril_indices(len(means), length - 1)] = -np.inf
            i, j = np.unravel_index(int(gaps.argmax()), gaps.shape)
            if gaps[i, j] * np.sqrt(length) > best:
                best, falls[s] = float(gaps[i, j]) * np.sqrt(length), own[i] - own[j]
    spread = float(falls.std(ddof=1))
    if spread == 0:
        return float(falls.mean() <= 0)
    return float(stats.t.sf(falls.mean() / (spread / np.sqrt(count)), count - 1))


def _monotone(fit: Transitions, replicates: Array | None, floor: float, max_changes: int, seed: int) -> _Monotone:
    tokens, values = np.asarray(fit.tokens), np.asarray(fit.values)
    where = log_tokens(tokens)
    positions = tuple(((where - where[0]) / (where[-1] - where[0])).tolist())
    max_changes = min(max_changes, tokens.size // PER_CHANGE)
    scale = float(np.ptp(values))
    if scale <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return _Monotone(positions, max_changes, tokens, values * 0.0, None, 1.0, 0.0, seed)
    sigma, rho = _residual_noise(_grid(positions, max_changes), values[None] / scale)
    noise = max(float(sigma[0]) * scale, floor)
    if noise <= 1e-9 * scale:
        noise = 0.0
    return _Monotone(positions, max_changes, tokens, values, replicates, noise, float(rho[0]), seed)


# ------------------------------------------------------------------------ any table of learning curves


class TableError(PhaselabError):
    """A table of learning curves that cannot be used; names the column, what was found and expected."""


#: What `fit_table` says of one rise or fall; dates in the unit of x, heights in that of y.
MOVE_COLUMNS = (
    "kind",
    "onset",
    "onset_low",
    "onset_high",
    "liftoff",
    "liftoff_low",
    "liftoff_high",
    "midpoint",
    "midpoint_low",
    "midpoint_high",
    "end",
    "end_low",
    "end_high",
    "height",
    "height_low",
    "height_high",
    "steepness",
    "steepness_low",
    "steepness_high",
    "p",
    "q",
    "statement",
    "notes",
)


@dataclass(frozen=True)
class FittedTable:
    """The transitions of every curve of a table.

    Attributes
    ----------
    by : columns whose values name a curve.
    fits : those values (one string a column of `by`) -> the fit, in order of first appearance.
    moves : one row a rise or fall, the columns of `by` and `MOVE_COLUMNS`. A curve without any has one
        row of kind ``flat`` or ``undecided``. Dates and heights as in `Move`.
        liftoff : where the steepest piece of the move begins, with its interval: a slow drift before
        it, which moves the onset forward, does not move this.
        p : of the hypothesis that the curve never moves in that direction, whatever the noise's
        first-order autocorrelation (see `triple_phase_test`); NaN without a move.
        q : p after Benjamini and Hochberg's correction over all curves and both directions.
        statement, notes : those of the fit.
    """

    by: tuple[str, ...]
    fits: dict[tuple[str, ...], Transitions]
    moves: pd.DataFrame


def _numbers(table: pd.DataFrame, role: str, column: str) -> Array:
    """A column (n,) as floats; empty cells are NaN."""
    if column not in table:
        raise TableError(f"{role}: found no column {column!r}, expected one of {', '.join(table.columns)}")
    values = pd.to_numeric(table[column], errors="coerce")
    wrong = values.isna() & table[column].notna()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        found = f"{table[column].iloc[row]!r} in row {row + 1}"
        raise TableError(f"{role}: column {column!r}: found {found}, expected a number")
    return values.to_numpy(dtype=float)


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
    """`fit_transitions` of every learning curve of a table, from wherever it comes.

    Parameters
    ----------
    table : one row a checkpoint of a curve.
    x : column of training tokens (or steps), 0 or more; rows without it are dropped and noted.
    y : column of the measure.
    by : columns whose values together name a curve; none: the table is one curve.
    stderr : column of the standard error of `y`; empty: none is known.
    max_changes, n_bootstrap, seed : see `fit_transitions`.

    Raises
    ------
    TableError : a column that is not there or holds no numbers, a negative x or stderr, a row without
        a name in `by`, no rows.
    """
    if table.empty:
        raise TableError("table: found no rows, expected one a checkpoint")
    tokens, values = _numbers(table, "x", x), _numbers(table, "y", y)
    errors = _numbers(table, "stderr", stderr) if stderr else None
    for role, column, numbers in (("x", x, tokens), ("stderr", stderr, errors)):
        if numbers is not None and (numbers < 0).any():
            raise TableError(f"{role}: column {column!r}: found {np.nanmin(numbers):g}, expected 0 or more")
    for column in by:
        if column not in table:
            raise TableError(f"by: found no column {column!r}, expected one of {', '.join(table.columns)}")
        empty = int(table[column].isna().sum())
        if empty:
            raise TableError(f"by: column {column!r}: found {empty} empty cells, expected a name in each")
    places: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(table[[*by]].astype(str).itertuples(index=False, name=None)):
        places.setdefault(row, []).append(place)
    fits: dict[tuple[str, ...], Transitions] = {}
    rows: list[dict[str, Any]] = []
    untested = 0  # directions in which a curve shows nothing: tests that were passed up, with p = 1
    for name, own in places.items():
        error = None if errors is None else errors[own]
        fit = fit_transitions(
            tokens[own],
            values[own],
            error,
            max_changes=max_changes,
            n_bootstrap=n_bootstrap,
            seed=seed,
            axis=x,
        )
        fits[name] = fit
        said = dict(zip(by, name, strict=True)) | {"statement": fit.statement, "notes": "; ".join(fit.notes)}
        untested += (not fit.rises) + (not fit.falls)
        if not (fit.rises or fit.falls):
            rows.append(said | {"kind": "flat" if fit.decided else "undecided"})
            continue
        curve = _monotone(fit, None, _floor(error), max_changes, seed)
        for move in sorted((*fit.rises, *fit.falls), key=lambda m: m.onset):
            rising = move.direction == "rising"
            around = _around(move, fit.falls if rising else fit.rises, fit)
            p = curve.p(move.direction, *around)
            start, (low, high) = _liftoff(fit, move)
            lifted = {"liftoff": start, "liftoff_low": low, "liftoff_high": high}
            rows.append(said | vars(move) | lifted | {"kind": "rise" if rising else "fall", "p": p})
    moves = pd.DataFrame(rows).reindex(columns=[*by, *MOVE_COLUMNS])
    tested = moves["p"].notna().to_numpy()
    if tested.any():
        everything = np.concatenate([moves.loc[tested, "p"].to_numpy(dtype=float), np.ones(untested)])
        moves.loc[tested, "q"] = stats.false_discovery_control(everything)[: int(tested.sum())]
    return FittedTable(tuple(by), fits, moves)


def _liftoff(fit: Transitions, move: Move) -> tuple[float, tuple[float, float]]:
    """Where the steepest piece of a move begins, and its interval; NaN at the first checkpoint."""
    own = [i for i, s in enumerate(fit.segments) if move.onset <= s.start < move.end]
    steepest = max(own, key=lambda i: abs(fit.segments[i].slope))
    return fit.segments[steepest].start, fit.intervals[steepest - 1] if steepest > 0 else (nan, nan)


def _floor(stderr: Array | None) -> float:
    """The least noise of a curve: the root mean square of its standard errors, 0 where none is known."""
    if stderr is None or not np.isfinite(stderr).any():
        return 0.0
    return float(np.sqrt(np.nanmean(stderr**2)))


# ------------------------------------------------------------------------------------ three phases


#: Change of accuracy from which on it is not flat.
MARGIN = 0.05
PHASES = ("alignment", "detachment", "realignment")
PHASE_COLUMNS = (
    "model",
    "phase",
    "name",
    "found",
    "tokens",
    "low",
    "high",
    "start",
    "stop",
    "effect",
    "effect_low",
    "effect_high",
    "effect_spread",
    "lag",
    "lag_low",
    "lag_high",
    "lag_p",
    "p",
    "p_holm",
    "why",
)


@dataclass(frozen=True)
class TriplePhase:
    """The verdict on the three phases of one model.

    Attributes
    ----------
    model : its name. layer : of the brain curve (-1: mean over layers, or none).
    table : one row a phase, `PHASE_COLUMNS`:
        found : p_holm at most alpha, and the fits have the moves that the phase is made of.
        tokens, low, high : midpoint of the brain's move and its 95 % interval, tokens.
        start, stop : from where to where the brain moves, tokens.
        effect, effect_low, effect_high : signed height of the move in units of the brain measure
        (for ``r_normalised`` a share of the ceiling); effect_spread : the same over its standard
        deviation over subjects.
        lag, lag_low, lag_high : log10 of tokens by which the brain's midpoint comes after the
        behaviour's (phases 1 and 3); lag_p : how often a behaviour that rises at a random time comes
        at least as close.
        p : that of the weakest link, every part of a phase must hold; 1 where the fits show no such
        move; p_holm : after Holm's correction over phases (and models, in `triple_phase_tests`).
        why : the reason in plain words.
    brain, form, accuracy : the three fits. replicates : (n_subjects, n) brain curves, or None.
    statement : one sentence.
    """

    model: str
    layer: int
    table: pd.DataFrame
    brain: Transitions
    form: Transitions
    accuracy: Transitions
    replicates: Array | None
    statement: str


def holm(p: npt.ArrayLike) -> Array:
    """Holm's step-down adjusted p-values, (m,)."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _pick(curves: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    keep = np.ones(len(curves), dtype=bool)
    for column, value in wanted.items():
        keep &= (curves[column] == value).to_numpy()
    return curves[keep]


def _brain_curve(
    curves: pd.DataFrame, model: str, measure: str, roi: str, layer: int | float | str
) -> tuple[int, Array, Array]:
    """Layer, tokens (n,) and values (n_subjects, n)."""
    rows = _pick(curves, model=model, perspective="brain", measure=measure, roi=roi)
    layers = sorted(int(i) for i in rows["layer"].unique() if i >= 0)
    if not layers:
        return -1, np.empty(0), np.empty((0, 0))
    if layer == "mean":
        chosen = -1
    elif layer == "best":
        chosen = select_layer(rows)
    elif isinstance(layer, float) and 0 <= layer <= 1:
        chosen = layers[round(layer * (len(layers) - 1))]
    elif isinstance(layer, int) and layer in layers:
        chosen = layer
    else:
        raise ValueError(f"layer: found {layer!r}, expected 'best', 'mean', a depth 0.0 to 1.0 or one of {layers}")
    if chosen >= 0:
        rows = rows[rows["layer"] == chosen]
    table = rows.pivot_table(index="subject", columns="tokens", values="value", aggfunc="mean").dropna(axis=1)
    return chosen, table.columns.to_numpy(dtype=float), table.to_numpy(dtype=float)


def _behaviour_curve(
    curves: pd.DataFrame, model: str, measure: str, tasks: Sequence[str] | None
) -> tuple[Array, Array, Array]:
    """Tokens, mean over tasks and its standard error, (n,) each; checkpoints that have every task."""
    rows = _pick(curves, model=model, perspective="behaviour", measure=measure)
    if tasks is not None:
        absent = sorted(set(tasks) - set(rows["task"]))
        if absent and len(rows):
            raise ValueError(f"tasks: no {measure} of {', '.join(absent)}; there is {sorted(rows['task'].unique())}")
        rows = rows[rows["task"].isin(list(tasks))]
    value = rows.pivot_table(index="tokens", columns="task", values="value", aggfunc="mean").dropna()
    if value.empty:
        return np.empty(0), np.empty(0), np.empty(0)
    error = rows.pivot_table(index="tokens", columns="task", values="stderr", aggfunc="mean", dropna=False)
    error = error.reindex(index=value.index, columns=value.columns)
    stderr = np.sqrt((error.to_numpy(dtype=float) ** 2).sum(axis=1)) / value.shape[1]
    return value.index.to_numpy(dtype=float), value.to_numpy(dtype=float).mean(axis=1), stderr


@dataclass(frozen=True)
class _Link:
    """One phase before the correction for many tests."""

    p: float
    why: str
    move: Move | None = None
    partner: Move | None = None


def _around(move: Move, others: Sequence[Move], fit: Transitions) -> tuple[float, float]:
    """From the opposite move before to the opposite move after: where a move is tested."""
    before = [m.onset for m in others if m.onset < move.onset]
    after = [m.end for m in others if m.end > move.end]
    return max(before, default=fit.tokens[0]), min(after, default=fit.tokens[-1])


def _together(rises: Sequence[Move], partners: Sequence[Move]) -> tuple[Move, Move] | None:
    """The first of `rises` that overlaps in time with one of `partners`, and that one."""
    for rise in rises:
        for partner in partners:
            if max(rise.onset, partner.onset) < min(rise.end, partner.end):
                return rise, partner
    return None


def _falls_after_rise(fit: Transitions) -> list[Move]:
    first = min((r.onset for r in fit.rises), default=np.inf)
    return [f for f in fit.falls if f.onset > first]


def _fall_p(curve: _Monotone, fit: Transitions, fall: Move) -> float:
    """p of a fall, and of the rise before it, without which there is nothing to fall from."""
    rise = [r for r in fit.rises if r.onset < fall.onset][-1]
    return max(
        curve.p("falling", *_around(fall, fit.rises, fit)),
        curve.p("rising", *_around(rise, fit.falls, fit)),
    )


def _ranges(moves: Sequence[Move]) -> str:
    return ", ".join(f"{amount(m.onset)} to {amount(m.end)}" for m in moves)


def _flatness(fit: Transitions, start: float, stop: float, margin: float) -> tuple[float, float]:
    """Change of a curve between two token counts, and p that it is as large as `margin` or larger.

    The change is that of a straight line through the checkpoints inside, its error from the scatter
    of the whole curve about its fit; p is that of two one-sided t-tests.
    """
    where, values = log_tokens([*fit.tokens]), np.asarray(fit.values)
    tokens = np.asarray(fit.tokens)
    inside = (tokens >= start) & (tokens <= stop)
    if inside.sum() < 2:
        return float(fit.at([stop])[0] - fit.at([start])[0]), 1.0
    x = where[inside] - where[inside].mean()
    length = float(np.ptp(x))
    spread = float(x @ x)
    change = float(x @ values[inside]) / spread * length
    error = max(fit.noise, 1e-12) * length / np.sqrt(spread)
    degrees = max(tokens.size - 2 - DEGREES * len(fit.knots), 1.0)
    return change, float(stats.t.sf((margin - abs(change)) / error, degrees))


def triple_phase_test(
    curves: pd.DataFrame,
    model: str,
    *,
    measure: str = "r_normalised",
    roi: str = "all",
    layer: int | float | str = "best",
    form: str = "instruction_following",
    accuracy: str = "accuracy",
    tasks: Sequence[str] | None = None,
    margin: float = MARGIN,
    alpha: float = 0.05,
    max_changes: int = 6,
    n_bootstrap: int = 400,
    seed: int = 0,
    penalty: float = COST,
) -> TriplePhase:
    """Whether the three phases are in the curves of one model, each tested.

    1. alignment: the brain rises, and instruction following rises in an overlapping stretch.
    2. detachment: after a rise the brain falls, while accuracy changes by less than `margin`.
    3. realignment: after such a fall the brain rises again, and accuracy rises in an overlapping stretch.

    Parameters
    ----------
    curves : the curves table, `phaselab.results.CURVE_COLUMNS`; rows of other models are ignored.
    model : which model.
    measure, roi : the brain curve; its subjects are the replicates.
    layer : ``"best"`` (see `select_layer`), ``"mean"`` over layers, a layer's number, or a relative
        depth as a float from 0.0 (first) to 1.0 (last).
    form, accuracy : behaviour measures that stand for instruction following and for accuracy.
    tasks : tasks averaged for both; None for all.
    margin : change of accuracy, in its own units, from which on it is not flat.
    alpha : level of the tests, after Holm's correction over the three phases.
    max_changes, n_bootstrap, seed, penalty : see `fit_transitions`.

    Raises
    ------
    ValueError : missing columns, a model, layer or task that is not in the table.

    Notes
    -----
    Every part of a phase must hold, so its p-value is the largest of its parts'. A fall is tested
    against all curves that never fall, by the deepest difference between an earlier and a later
    window of checkpoints, studentised, with its null simulated for noise as autocorrelated as the
    residuals; a rise likewise. With 3 subjects or more the move must also hold in subjects left out
    when it was chosen, which allows for any noise of their own. Slow drifts that all subjects share are
    movements of this model; whether they are more than that is for several seeds to say.
    Missing or poor curves make a phase not found, with the reason in ``why``.
    """
    absent = [c for c in CURVE_COLUMNS if c not in curves]
    if absent:
        raise ValueError(f"curves: missing columns {', '.join(absent)}")
    if model not in set(curves["model"]):
        raise ValueError(f"model: found {model!r}, expected one of {sorted(curves['model'].unique())}")
    chosen, brain_tokens, subjects = _brain_curve(curves, model, measure, roi, layer)
    replicates = subjects if len(subjects) > 1 else None
    mean = subjects.mean(axis=0) if len(subjects) else np.empty(0)
    options: dict[str, Any] = {
        "max_changes": max_changes,
        "n_bootstrap": n_bootstrap,
        "seed": seed,
        "penalty": penalty,
    }
    brain_fit = fit_transitions(brain_tokens, mean, replicates=replicates, **options)
    form_curve = _behaviour_curve(curves, model, form, tasks)
    form_fit = fit_transitions(*form_curve, **options)
    accuracy_curve = _behaviour_curve(curves, model, accuracy, tasks)
    accuracy_fit = fit_transitions(*accuracy_curve, **options)
    named = (
        ("brain", brain_fit),
        (form.replace("_", " "), form_fit),
        (accuracy.replace("_", " "), accuracy_fit),
    )

    def tested(fit: Transitions, stderr: Array | None, own: Array | None) -> _Monotone | None:
        if not fit.decided:
            return None
        return _monotone(fit, own, _floor(stderr), max_changes, seed)

    brain = tested(brain_fit, None, replicates)
    shape = tested(form_fit, form_curve[2], None)
    right = tested(accuracy_fit, accuracy_curve[2], None)

    def missing(*needed: int) -> str:
        """Which of the needed curves cannot be decided on, with the reason."""
        parts = [f"{named[i][0]}: {named[i][1].statement}" for i in needed if not named[i][1].decided]
        return " ".join(parts)

    def first_phase() -> _Link:
        if brain is None or shape is None:
            return _Link(1.0, missing(0, 1))
        if not brain_fit.rises:
            return _Link(1.0, "The brain curve has no rise.")
        if not form_fit.rises:
            return _Link(1.0, f"{named[1][0].capitalize()} has no rise.")
        pair = _together(brain_fit.rises, form_fit.rises)
        if pair is None:
            stretches = f"the brain rises {_ranges(brain_fit.rises)}, {named[1][0]} {_ranges(form_fit.rises)}"
            return _Link(1.0, f"Not together: {stretches}.")
        p = max(
            brain.p("rising", *_around(pair[0], brain_fit.falls, brain_fit)),
            shape.p("rising", *_around(pair[1], form_fit.falls, form_fit)),
        )
        return _Link(p, f"The brain and {named[1][0]} rise together.", *pair)

    def second_phase() -> _Link:
        if brain is None or right is None:
            return _Link(1.0, missing(0, 2))
        if not brain_fit.falls:
            return _Link(1.0, "The brain curve has no fall.")
        if not _falls_after_rise(brain_fit):
            return _Link(1.0, "The brain curve falls before it ever rises, never after.")
        tried = []
        for fall in _falls_after_rise(brain_fit):
            change, p = _flatness(accuracy_fit, fall.onset, fall.end, margin)
            tried.append((max(p, _fall_p(brain, brain_fit, fall)), p, change, fall))
        p, flat, change, fall = min(tried, key=lambda t: t[0])
        moved = f"{named[2][0]} changes by {change:+.3f}"
        if flat > alpha:
            return _Link(p, f"The brain falls {_ranges([fall])}, but {moved} there: not shown to be flat.", fall)
        return _Link(p, f"The brain falls while {moved}.", fall)

    def third_phase() -> _Link:
        if brain is None or right is None:
            return _Link(1.0, missing(0, 2))
        falls = _falls_after_rise(brain_fit)
        if not falls:
            return _Link(1.0, "The brain curve never falls after a rise, so it cannot return.")
        again = [r for r in brain_fit.rises if r.onset > falls[0].onset]
        if not again:
            return _Link(1.0, "The brain curve does not rise again after its fall.")
        if not accuracy_fit.rises:
            return _Link(1.0, f"{named[2][0].capitalize()} has no rise.")
        pair = _together(again, accuracy_fit.rises)
        if pair is None:
            stretches = f"the brain rises again {_ranges(again)}, {named[2][0]} {_ranges(accuracy_fit.rises)}"
            return _Link(1.0, f"Not together: {stretches}.")
        before = [f for f in falls if f.onset < pair[0].onset][-1]
        p = max(
            _fall_p(brain, brain_fit, before),
            brain.p("rising", *_around(pair[0], brain_fit.falls, brain_fit)),
            right.p("rising", *_around(pair[1], accuracy_fit.falls, accuracy_fit)),
        )
        return _Link(p, f"The brain rises again together with {named[2][0]}.", *pair)

    links = (first_phase(), second_phase(), third_phase())
    rows = []
    for number, (name, link) in enumerate(zip(PHASES, links, strict=True), start=1):
        row: dict[str, Any] = dict.fromkeys(PHASE_COLUMNS, nan)
        row |= {"model": model, "phase": number, "name": name, "p": link.p, "why": link.why}
        if link.move is not None:
            row |= _measured(link.move, brain_fit, subjects)
        if link.move is not None and link.partner is not None:
            row |= _lag(link.move, link.partner, brain_fit)
        rows.append(row)
    table = _judged(pd.DataFrame(rows, columns=list(PHASE_COLUMNS)), alpha)
    return TriplePhase(
        model=model,
        layer=chosen,
        table=table,
        brain=brain_fit,
        form=form_fit,
        accuracy=accuracy_fit,
        replicates=replicates,
        statement=_verdict(model, table),
    )


def _measured(move: Move, fit: Transitions, subjects: Array) -> dict[str, float]:
    """Dates and size of a move of the brain, and its size over the spread of subjects' own sizes."""
    tokens = np.asarray(fit.tokens)
    spread = nan
    if len(subjects) > 1:
        ends = np.array([np.interp(log_tokens([move.onset, move.end]), log_tokens(tokens), s) for s in subjects])
        own = float((ends[:, 1] - ends[:, 0]).std(ddof=1))
        spread = move.height / own if own > 0 else nan
    return {
        "tokens": move.midpoint,
        "low": move.midpoint_low,
        "high": move.midpoint_high,
        "start": move.onset,
        "stop": move.end,
        "effect": move.height,
        "effect_low": move.height_low,
        "effect_high": move.height_high,
        "effect_spread": spread,
    }


def _lag(move: Move, partner: Move, fit: Transitions) -> dict[str, float]:
    """How long after `partner` the brain moves, in decades; interval by Zou and Donner's (2008) rule."""

    def place(tokens: float) -> float:
        """log10 of tokens, 0 put as `log_tokens` puts it for the brain's checkpoints."""
        return float(np.log10(tokens)) if tokens > 0 else ends[0]

    grid = log_tokens([*fit.tokens])
    ends = float(grid[0]), float(grid[-1])
    own, low, high = (place(t) for t in (move.midpoint, move.midpoint_low, move.midpoint_high))
    other, other_low, other_high = (place(t) for t in (partner.midpoint, partner.midpoint_low, partner.midpoint_high))
    lag = own - other
    near = min(own + abs(lag), ends[1]) - max(own - abs(lag), ends[0])
    return {
        "lag": lag,
        "lag_low": lag - float(np.hypot(own - low, other_high - other)),
        "lag_high": lag + float(np.hypot(high - own, other - other_low)),
        "lag_p": min(near / (ends[1] - ends[0]), 1.0),
    }


def _judged(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """The table with Holm's p over all of its rows, and found and why accordingly."""
    table = table.copy()
    table["p_holm"] = holm(table["p"])
    table["found"] = (table["p_holm"] <= alpha) & table["tokens"].notna()
    table["why"] = table["why"].str.split(" Not beyond chance").str[0]
    unsure = ~table["found"] & table["tokens"].notna()
    table.loc[unsure, "why"] = [
        f"{why} Not beyond chance: p = {p:.2g} after correction."
        for why, p in zip(table.loc[unsure, "why"], table.loc[unsure, "p_holm"], strict=True)
    ]
    return table


def _verdict(model: str, table: pd.DataFrame) -> str:
    parts = [
        f"{row['name']} at {amount(row['tokens'])} tokens" if row["found"] else f"no {row['name']}"
        for row in table.to_dict("records")
    ]
    return f"{model}: {', '.join(parts)}."


def triple_phase_tests(
    curves: pd.DataFrame, models: Sequence[str] | None = None, *, alpha: float = 0.05, **options: Any
) -> dict[str, TriplePhase]:
    """`triple_phase_test` of several models (None: all), with Holm's correction over all their phases."""
    names = list(models) if models is not None else sorted(curves["model"].unique())
    tests = {name: triple_phase_test(curves, name, alpha=alpha, **options) for name in names}
    if not tests:
        return {}
    joint = _judged(pd.concat([t.table for t in tests.values()], ignore_index=True), alpha)
    for name, test in tests.items():
        own = joint[joint["model"] == name].reset_index(drop=True)
        tests[name] = replace(test, table=own, statement=_verdict(name, own))
    return tests


def co_occurrence(tests: Mapping[str, TriplePhase], *, n_permutations: int = 9999, seed: int = 0) -> pd.DataFrame:
    """Whether each model's brain moves with its *own* behaviour: lags against those between models.

    `lag_p` of one model asks if a behaviour that rises at a random time comes as close. Here the null
    is stronger: brain and behaviour of all models move at the times at which they do (the schedule of
    training alone may see to that), but it does not matter whose behaviour goes with whose brain.
    Midpoints are paired anew, by all permutations up to 7 models, else by `n_permutations` random ones.

    Phase 1 pairs the first rise of the brain with that of instruction following; phase 3 the first rise
    of the brain after its first fall with the first of accuracy. Models without both are left out;
    whether the rises overlap or a phase was found plays no part, as it would favour short lags.

    Returns
    -------
    One row for phases 1 and 3: phase, name, models (how many), lag (mean absolute lag, log10 tokens),
    lag_null (its mean over permutations), p (share of permutations at most as far; NaN below 3 models).
    """
    rows = []
    for phase, behaviour in ((1, "form"), (3, "accuracy")):
        pairs = []
        for test in tests.values():
            falls = _falls_after_rise(test.brain)
            since = -np.inf if phase == 1 else (falls[0].onset if falls else np.inf)
            own = [rise for rise in test.brain.rises if rise.onset > since]
            other = getattr(test, behaviour).rises
            if own and other:
                pairs.append((own[0].midpoint, other[0].midpoint))
        row: dict[str, Any] = {"phase": phase, "name": PHASES[phase - 1], "models": len(pairs)}
        rows.append(row | {"lag": nan, "lag_null": nan, "p": nan})
        if not pairs:
            continue
        brain, partner = np.log10(np.maximum(np.array(pairs), 1.0)).T
        lags = np.abs(brain[:, None] - partner[None, :])  # (models, models)
        count = len(pairs)
        rows[-1]["lag"] = float(np.trace(lags)) / count
        if count < 3:
            continue
        if count <= 7:
            orders = np.array(list(permutations(range(count))))
        else:
            rng = np.random.default_rng([seed, phase])
            drawn = [rng.permutation(count) for _ in range(n_permutations)]
            orders = np.array([np.arange(count), *drawn])
        null = lags[np.arange(count), orders].mean(axis=1)
        rows[-1]["lag_null"] = float(null.mean())
        rows[-1]["p"] = float((null <= rows[-1]["lag"] + 1e-12).mean())
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------- sensitivity and power


def sensitivity(curves: pd.DataFrame, model: str, **options: Any) -> pd.DataFrame:
    """The same verdict under other choices, one changed at a time.

    Returns one row per variant and phase: varied (which choice; "" for the given `options`), choice,
    phase, found, tokens, p_holm, agrees (same verdict as the first) and note. Varied are the layer
    rule, the brain measure, the region, the penalty, the most change points, the margin of flatness
    (halved, doubled), and accuracy against log-probability, whose margin is `margin` times the ratio
    of the two curves' ranges; a phase found with accuracy alone is noted as such.
    """
    brain = _pick(curves, model=model, perspective="brain")
    base = triple_phase_test(curves, model, **options)
    margin = float(options.get("margin", MARGIN))
    variants: list[tuple[str, Any]] = [("layer", c) for c in ("best", "mean", 0.5, 1.0)]
    variants += [("measure", c) for c in ("r", "r_normalised", "significant") if c in set(brain["measure"])]
    variants += [("roi", c) for c in sorted(brain["roi"].unique())]
    variants += [("penalty", c) for c in (2.0, 3.0, 4.0)]
    variants += [("max_changes", c) for c in (4, 6)]
    variants += [("margin", c) for c in (margin / 2, margin * 2)]
    rows = []

    def add(varied: str, choice: str, test: TriplePhase, note: str = "") -> None:
        for row, first in zip(test.table.to_dict("records"), base.table["found"], strict=True):
            lost = bool(first) and not row["found"]
            rows.append(
                {k: row[k] for k in ("phase", "found", "tokens", "p_holm")}
                | {"varied": varied, "choice": choice, "agrees": bool(row["found"]) == bool(first)}
                | {"note": note if lost else ""}
            )

    add("", "", base)
    for name, choice in variants:
        add(name, str(choice), triple_phase_test(curves, model, **(options | {name: choice})))
    continuous = _behaviour_curve(curves, model, "log_probability", options.get("tasks"))[1]
    if continuous.size and base.accuracy.decided:
        scaled = margin * float(np.ptp(continuous)) / max(float(np.ptp(base.accuracy.values)), 1e-12)
        changed = options | {"accuracy": "log_probability", "margin": scaled}
        test = triple_phase_test(curves, model, **changed)
        add("accuracy", "log_probability", test, "found in the discontinuous measure alone")
    columns = ["varied", "choice", "phase", "found", "tokens", "p_holm", "agrees", "note"]
    return pd.DataFrame(rows, columns=columns)


def detachment_power(
    depths: Sequence[float] = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0),
    checkpoints: Sequence[int] = (12, 20, 40),
    subjects: Sequence[int] = (1, 3, 6),
    *,
    autocorrelation: float = 0.0,
    n_simulations: int = 100,
    alpha: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """How often a fall of the brain curve is found, by simulation.

    Simulated curves rise by 10 standard deviations of one subject's noise at one checkpoint, then fall
    by `depths` (in the same unit) for a third of the log-token axis, and return. Noise is each subject's
    own, AR(1) along the checkpoints. The first checkpoint is step 0, the rest are evenly spaced
    in log tokens over four decades. All depths see the same noise.

    Returns one row per combination: checkpoints, subjects, depth, power, low, high (95 % interval of
    the simulation's own error, Wilson's). At depth 0 the power is the false-positive rate.
    """
    rows = []
    for n in checkpoints:
        tokens = np.concatenate([[0.0], np.round(np.logspace(6, 10, n - 1))])
        where = log_tokens(tokens)
        unit = (where - where[0]) / (where[-1] - where[0])
        rise = np.interp(unit, [0.15, 0.4], [0.0, 10.0])
        dip = np.interp(unit, [0.5, 0.6, 0.73, 0.83], [0.0, -1.0, -1.0, 0.0])
        for count in subjects:
            found = np.zeros(len(depths), dtype=int)
            rng = np.random.default_rng([seed, n, count])
            for _ in range(n_simulations):
                noise = _autocorrelated(rng, (count, n), autocorrelation)
                for i, depth in enumerate(depths):
                    found[i] += _fall_found(tokens, rise + depth * dip + noise, alpha)
            for depth, hits in zip(depths, found, strict=True):
                interval = stats.binomtest(int(hits), n_simulations).proportion_ci(method="wilson")
                rows.append((n, count, float(depth), hits / n_simulations, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["checkpoints", "subjects", "depth", "power", "low", "high"])


def detectable_depth(power: pd.DataFrame, target: float = 0.8) -> pd.DataFrame:
    """The shallowest fall that is found with a probability of `target`, for each design.

    `power` is what `detachment_power` returns. Returns one row a design: checkpoints, subjects, depth,
    linearly interpolated where the power first passes `target`; NaN where no depth of the table reaches it.
    """
    rows = []
    for (checkpoints, subjects), own in power.groupby(["checkpoints", "subjects"], sort=True):
        own = own.sort_values("depth")
        depths = own["depth"].to_numpy(dtype=float)
        shares = np.maximum.accumulate(own["power"].to_numpy(dtype=float))
        if shares[-1] < target:
            depth = nan
        elif shares[0] >= target:
            depth = float(depths[0])
        else:
            after = int(np.argmax(shares >= target))
            part = (target - shares[after - 1]) / (shares[after] - shares[after - 1])
            depth = float(depths[after - 1] + part * (depths[after] - depths[after - 1]))
        rows.append((checkpoints, subjects, depth))
    return pd.DataFrame(rows, columns=["checkpoints", "subjects", "depth"])


def _fall_found(tokens: Array, subjects: Array, alpha: float) -> bool:
    """Whether the brain's part of phase 2 is found in curves (n_subjects, n)."""
    replicates = subjects if len(subjects) > 1 else None
    fit = fit_transitions(tokens, subjects.mean(axis=0), replicates=replicates, max_changes=6, n_bootstrap=60)
    falls = _falls_after_rise(fit)
    curve = _monotone(fit, replicates, 0.0, 6, 0) if falls else None
    return curve is not None and min(_fall_p(curve, fit, fall) for fall in falls) <= alpha
