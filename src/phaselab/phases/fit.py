"""Continuous piecewise-linear fits of B learning curves of n checkpoints at once, at positions from 0 to 1.

And what noise alone makes of a curve that never falls, whatever the noise's memory.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations
from math import comb
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from phaselab.errors import expect

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Where = tuple[float, ...]  # log10 tokens

#: Most positions at which the search puts a change point, and most sets of them for one number of change points.
CANDIDATES, SETS = 25, 13_000
#: Parameters that a change point costs in BIC. Its position is not regular, and counting slope and position (2)
#: finds change points in noise; 3 is the BIC3 of Kim and Kim (2016) for joinpoints.
COST = 3
#: Checkpoints needed for each change point: with fewer, BIC finds curves that run through the noise.
PER_CHANGE = 4
#: Degrees of freedom that a change point takes from the residuals: 2 parameters, and more for having been searched
#: for. Between 2 and 3 intervals cover as they say (tests/test_phases.py).
DEGREES = 2.5
#: Sets from which the fit of one curve starts, and (rounds, fits kept) of its refinement: most starts soon fall behind.
STARTS, STAGES = 30, ((6, 10), (15, 1))
#: Numbers held at once in the search, 24 MB: products of few curves at once take eight times as long.
CHUNK = 3_000_000
#: First-order autocorrelations of the noise at which the null is simulated, and null curves for each of them.
RHOS, NULLS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9), 1000
#: The autocorrelation of a single curve's noise is estimated too low, by an unknown amount when checkpoints are few:
#: an estimate is read as this quantile of its distribution under the true one, as far as replicates do not tell more.
CAUTION = 0.02
#: Most autocorrelation over neighbours that the noise of a single curve is taken to have: beyond it drift is trend.
MEMORY = 0.95
#: Replicates from which on they tell more, and the confidence with which they are said to share noise.
MANY, SURE = 3, 0.95


def log_tokens(tokens: npt.ArrayLike, among: npt.ArrayLike | None = None) -> Array:
    """log10 of token counts (n,), with 0 as far before the first positive as that before the second, or a decade.

    among : the counts (m,) whose first and second are meant, in place of `tokens`.
    """
    counts = np.asarray(tokens, dtype=float)
    expect(not (counts < 0).any(), "tokens", f"{counts.min(initial=0):g}", "counts of 0 or more")
    positive = np.unique(counts if among is None else np.asarray(among, dtype=float))
    positive = positive[positive > 0]
    step = positive[1] / positive[0] if positive.size > 1 else 10.0
    return np.log10(np.where(counts > 0, counts, positive[0] / step if positive.size else 1.0))


class Grid(NamedTuple):
    """What the search needs of the checkpoints' positions alone: shared by all curves on them.

    `levels` : for k = 0, 1, 2, ... all sets of k change points, (n_sets, k) positions; each set's parent (n_sets,),
    that without its last one; and the unit vector (n_sets, n) that it adds: what a set explains is what its parent
    does plus one squared dot product.
    """

    x: Array  # (n,) positions, 0 to 1
    base: Array  # (2, n) orthonormal basis of the straight lines
    levels: tuple[tuple[Array, Index, Array], ...]

    def gains(self, rest: Array) -> Iterator[Array]:
        """What each set of 0, 1, 2, ... change points explains (B, n_sets) of what straight lines leave (B, n)."""
        yield (gain := np.zeros((len(rest), 1)))
        for _, parent, added in self.levels[1:]:
            dots = rest @ added.T
            dots *= dots  # in place: these are the largest arrays of all
            dots += gain[:, parent]
            yield (gain := dots)


@lru_cache(maxsize=16)
def grid_of(where: Where, max_changes: int) -> Grid:
    """The grid of checkpoints at `where`, log10 tokens, for up to `max_changes` change points, or as many as fit."""
    x = (np.asarray(where) - where[0]) / (where[-1] - where[0])
    inner = x[2:-2]  # the outer pieces have three checkpoints at least: one alone is no piece
    most = next(m for m in range(CANDIDATES, 0, -1) if comb(m, max_changes) <= SETS)
    if inner.size > most:
        wanted = np.linspace(inner[0], inner[-1], most)
        inner = inner[np.unique(np.abs(inner[None, :] - wanted[:, None]).argmin(axis=1))]
    base = np.linalg.qr(np.stack([np.ones(x.size), x - x.mean()], axis=1))[0].T  # (2, n)
    knots = np.full((1, 1), -1)
    levels = [(inner[knots[:, 1:]], knots[0], base[:0])]
    for changes in range(1, min(max_changes, inner.size) + 1):
        parent = np.repeat(np.arange(len(knots)), inner.size - 1 - knots[:, -1])
        knots = np.array([*combinations(range(inner.size), changes)])
        hinges = design(x, inner[knots])[:, : 2 + changes]
        levels.append((inner[knots], parent, np.linalg.qr(hinges.transpose(0, 2, 1))[0][:, :, -1]))
    return Grid(x, base, tuple(levels))


def search(grid: Grid, curves: Array) -> list[tuple[Array, Index]]:
    """Residual sum of squares (B,) and best set (B,) for 0, 1, 2, ... change points; curves (B, n)."""
    rest, found = curves - (curves @ grid.base.T) @ grid.base, []
    for part in np.array_split(rest, 1 + len(rest) * len(grid.levels[-1][0]) // CHUNK):
        total = np.einsum("bn,bn->b", part, part)
        found.append([(np.maximum(total - gain.max(axis=1), 0.0), gain.argmax(axis=1)) for gain in grid.gains(part)])
    levels = (zip(*of, strict=True) for of in zip(*found, strict=True))
    return [(np.concatenate(rss), np.concatenate(sets)) for rss, sets in levels]


class Pieces(NamedTuple):
    """B piecewise-linear curves."""

    knots: Array  # (B, k) change points
    coefficients: Array  # (B, 2 + k): one, x, a hinge for each change point
    residuals: Array  # (B, n) of the curves that were fitted
    rss: Array  # (B,) their sum of squares

    def heights(self, positions: Array) -> Array:
        """The curves at positions (B, m) or (1, m): (B, m)."""
        hinges = np.maximum(positions[:, None, :] - self.knots[:, :, None], 0.0)
        line = self.coefficients[:, :1] + self.coefficients[:, 1:2] * positions
        return np.asarray(line + (self.coefficients[:, None, 2:] @ hinges)[:, 0])

    def traced(self, start: Array, stop: Array, sign: float) -> tuple[Array, Array, Array]:
        """Midpoint, steepest slope and height (B,) between positions `start` and `stop` (B,)."""
        length = np.maximum(stop - start, 1e-9)[:, None]
        path = self.heights(start[:, None] + length * np.linspace(0.0, 1.0, 101))  # (B, 101)
        height = path[:, -1] - path[:, 0]
        half = path[:, :1] + 0.5 * height[:, None]
        over = sign * (path[:, 1:] - half) >= 0
        after = np.where(over.any(axis=1), over.argmax(axis=1), 99)[:, None]
        a, b = (np.take_along_axis(path, after + d, axis=1) for d in (0, 1))
        part = np.clip((half - a) / np.where(b == a, 1.0, b - a), 0.0, 1.0)
        middle = start + (length * (after + part) / 100.0)[:, 0]
        return middle, sign * (sign * np.diff(path, axis=1)).max(axis=1) * 100.0 / length[:, 0], height


def design(x: Array, knots: Array) -> Array:
    """(B, 2 + 2k, n): one, x, a hinge for each change point, and a step: the hinge's derivative by its position."""
    k = knots.shape[1]
    matrix, away = np.empty((len(knots), 2 + 2 * k, x.size)), x[None, None, :] - knots[:, :, None]
    matrix[:, 0], matrix[:, 1], matrix[:, 2 + k :] = 1.0, x, away > 0
    np.maximum(away, 0.0, out=matrix[:, 2 : 2 + k])
    return matrix


def _solve(gram: Array, right: Array, damping: float | Array = 1e-12) -> Array:
    """Solutions (B, p) of normal equations, (B, p, p) and (B, p), damped relative to the diagonal."""
    gram = gram.copy()
    diagonal = np.einsum("bpp->bp", gram)  # a view
    # A slope of 0 makes its change point's column 0: a share of the mean keeps that solvable too.
    diagonal += np.reshape(damping, (-1, 1)) * diagonal + 1e-12 * diagonal.mean(axis=1, keepdims=True)
    return np.asarray(np.linalg.solve(gram, right[:, :, None])[:, :, 0], dtype=np.float64)


def _at(x: Array, curves: Array, knots: Array) -> tuple[Array, ...]:
    """The parts of the `Pieces` with these knots, the design's products (B, p, p), and those with residuals (B, p)."""
    matrix, p = design(x, knots), 2 + knots.shape[1]
    gram, hinges = matrix @ matrix.transpose(0, 2, 1), matrix[:, :p]
    coefficients = _solve(gram[:, :p, :p], (hinges @ curves[:, :, None])[:, :, 0])
    residuals = curves - (coefficients[:, None] @ hinges)[:, 0]
    pull = (matrix @ residuals[:, :, None])[:, :, 0]
    return knots, coefficients, residuals, np.einsum("bn,bn->b", residuals, residuals), gram, pull


def refine(x: Array, curves: Array, knots: Array, rounds: int = 6) -> Pieces:
    """Move change points (B, k) off the grid by damped Gauss-Newton steps that never do worse (Muggeo 2003).

    They keep their order, stay half the smallest gap apart, and between the third and the last but two checkpoints.
    """
    state, k, apart = _at(x, curves, knots), knots.shape[1], 0.5 * float(np.diff(x).min())
    damping, still = np.full(len(curves), 1e-3), 0  # rounds in which no fit gained more than a ten-thousandth
    for _ in range(rounds if k else 0):
        knots, coefficients, _, rss, gram, pull = state
        scale = np.concatenate([np.ones((len(curves), 2 + k)), -coefficients[:, 2:]], axis=1)
        step = _solve(scale[:, :, None] * gram * scale[:, None, :], scale * pull, damping)[:, 2 + k :]
        moved = np.clip(knots + step, x[2], x[-3])
        moved = np.where(np.all(np.diff(moved, axis=1) >= apart, axis=1, keepdims=True), moved, knots)
        trial = _at(x, curves, moved)
        less = trial[3] < rss
        still = 0 if (trial[3] < 0.9999 * rss).any() else still + 1
        state = tuple(np.where(less.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(trial, state, strict=True))
        if still == 2:
            break
        damping = np.clip(np.where(less, damping * 0.1, damping * 10.0), 1e-9, 1e9)
    return Pieces(*state[:4])


def fit_exactly(grid: Grid, curves: Array, near: Array) -> Pieces:
    """Fit of all change points that a grid is for to curves (B, n), from its best set or a better `near` (1, k)."""
    rss, sets = search(grid, curves)[-1]
    closer = _at(grid.x, curves, near := np.repeat(near, len(curves), axis=0))[3] < rss
    return refine(grid.x, curves, np.where(closer[:, None], near, grid.levels[-1][0][sets]))


def best_step(grid: Grid, curve: Array) -> Pieces:
    """The best jump between two neighbouring checkpoints from one level to another, as a fit with two change points."""
    tried = []
    for i in range(2, curve.size - 3):
        low, high = curve[: i + 1].mean(), curve[i + 1 :].mean()
        slope = (high - low) / (grid.x[i + 1] - grid.x[i])
        left = curve - np.where(np.arange(curve.size) <= i, low, high)
        tried.append((grid.x[i : i + 2], np.array([low, 0.0, slope, -slope]), left, left @ left))
    return Pieces(*(np.array(part)[None] for part in min(tried, key=lambda one: one[3])))


def fit_each(grid: Grid, curve: Array) -> list[Pieces]:
    """The best fits of one curve (n,) with 0, 1, 2, ... change points, each from many of the best sets on the grid.

    With too few checkpoints for two change points the last fit is `best_step`, which has no more parameters than one.
    """
    fits, rest = [], curve - (curve @ grid.base.T) @ grid.base
    for changes, gain in enumerate(grid.gains(rest[None])):
        knots = grid.levels[changes][0][np.argsort(-gain[0], kind="stable")[:STARTS]]
        for rounds, kept in STAGES:
            several = refine(grid.x, np.broadcast_to(curve, (len(knots), curve.size)), knots, rounds)
            best = np.argsort(several.rss, kind="stable")[:kept]
            knots = several.knots[best]
        fits.append(Pieces(*(part[best] for part in several)))
    return [*fits, best_step(grid, curve)] if len(fits) == 2 and curve.size < 2 * PER_CHANGE else fits


def bic(rss: Array, n: int, changes: int | Index, floor: float, penalty: float = COST) -> Array:
    """-2 log likelihood at the best variance of at least `floor`, plus the parameters' cost."""
    variance = np.maximum(rss / n, max(floor, np.finfo(float).tiny))
    return np.asarray(n * np.log(variance) + rss / variance + (2 + penalty * changes) * np.log(n))


def autocorrelated(rng: np.random.Generator, shape: tuple[int, int], rho: float) -> Array:
    """Normal noise (B, n) of variance 1 with autocorrelation `rho` ** lag along each row."""
    noise = rng.standard_normal(shape)
    for t in range(1, shape[1]):
        noise[:, t] = rho * noise[:, t - 1] + np.sqrt(1 - rho**2) * noise[:, t]
    return noise


def remembered(x: Array, fit: Pieces, degrees: float) -> tuple[float, float]:
    """Variance and autocorrelation over neighbours of one fitted curve's noise, from the moments of its residuals.

    A fit takes the more out of both the longer the noise remembers. With M what it leaves of a curve and R the
    correlations of first-order noise, E[r'r] is the variance times tr(M R), and the residuals' products with their
    neighbours follow likewise. `degrees` : what the residuals have left, below tr(M): change points were searched for.
    """
    n, kept = x.size, np.linalg.qr(design(x, fit.knots)[0].T)[0]
    left, apart = np.eye(n) - kept @ kept.T, np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    rhos = np.linspace(0.0, MEMORY, 20)
    seen = left @ (rhos[:, None, None] ** apart) @ left
    total = np.maximum(np.trace(seen, axis1=1, axis2=2), 1.0)  # 0 where a fit runs through all values
    ratio = np.maximum.accumulate(np.trace(seen, offset=1, axis1=1, axis2=2) / total)
    found = fit.residuals[0, 1:] @ fit.residuals[0, :-1] / max(fit.rss[0], 1e-300)
    # One standard error more, since too little of it makes intervals too narrow.
    rho = min(float(np.interp(found, ratio, rhos)) + n**-0.5, MEMORY)
    return float(fit.rss[0] * max(n - kept.shape[1], 1.0) / degrees / np.interp(rho, rhos, total)), rho


def bootstrap_noise(
    x: Array, fit: Pieces, degrees: float, stderr: Array | None, replicates: Array | None, draws: int, seed: list[int]
) -> Array:
    """Bootstrap noise of a curve, (draws, n), Student's t rather than normal: the spread itself is an estimate.

    With replicates, their deviations from their mean are summed with random weights (a multiplier bootstrap), and what
    scatters about the fit beyond them (noise that all share) is added. Without, the residuals' variance,
    or the square of `stderr` where that is larger, with the residuals' autocorrelation over neighbours.
    """
    rng, n = np.random.default_rng(seed), x.size

    def student(normal: Array, degrees: float) -> Array:
        return np.asarray(normal * np.sqrt(degrees / rng.chisquare(degrees, size=(draws, 1))))

    if replicates is None:
        variance, rho = remembered(x, fit, degrees)
        least = 0.0 if stderr is None else stderr**2
        return student(autocorrelated(rng, (draws, n), rho), degrees) * np.sqrt(np.maximum(variance, least))
    white = student(rng.standard_normal((draws, n)), degrees)
    count, apart = len(replicates), replicates - replicates.mean(axis=0)
    own = student(rng.standard_normal((draws, count)), count - 1) @ apart / np.sqrt(count * (count - 1.0))
    # Second differences of the deviations: what in them is not smooth along the checkpoints.
    rough = np.diff(apart, 2, axis=1)
    expected = float((rough**2).sum()) / (6.0 * rough.shape[1] * count * (count - 1.0))
    return np.asarray(own + white * np.sqrt(max(float(fit.rss[0]) / degrees - expected, 0.0)))


def residual_noise(grid: Grid, curves: Array) -> tuple[Array, Array]:
    """Standard deviation and lag-1 autocorrelation (B,) of the residuals of curves (B, n)."""
    n = grid.x.size
    found = search(grid, curves)
    chosen = np.stack([bic(rss, n, k, 0.0) for k, (rss, _) in enumerate(found)]).argmin(axis=0)
    sigma, rho = np.empty(len(curves)), np.empty(len(curves))
    for k in np.unique(chosen):
        rows = np.flatnonzero(chosen == k)
        _, _, residuals, total = refine(grid.x, curves[rows], grid.levels[k][0][found[k][1][rows]])
        sigma[rows] = np.sqrt(total / max(n - 2 - 2 * k, 1))
        rho[rows] = np.einsum("bn,bn->b", residuals[:, 1:], residuals[:, :-1]) / np.maximum(total, 1e-300)
    return sigma, rho


def shared_noise(grid: Grid, knots: Array, residuals: Array, replicates: Array | None, most: int) -> float:
    """Share of the noise of a mean curve that all replicates (S, n) have in common, from 0 to 1, as a lower bound.

    By an F test: residuals of the mean (n,) at its change points (k,) against what they leave of the replicates' own
    deviations, which have the same autocorrelation if nothing is shared. 1 where too few replicates tell nothing; 0
    where the fit has less than two of its `most` change points left: bends that it has missed are shared as well.
    """
    if replicates is None or len(replicates) < MANY:
        return 1.0
    (count, n), k = replicates.shape, knots.size
    if k > most - 2:
        return 0.0
    basis = np.linalg.qr(design(grid.x, knots[None])[0, : 2 + k].T)[0]
    apart = replicates - replicates.mean(axis=0)
    apart = apart - (apart @ basis) @ basis.T
    free, theirs = max(n - 2 - 2 * k, 1), (count - 1) * (n - 2 - k)
    own, whole = float((apart**2).sum()) / (count * theirs), float(residuals @ residuals) / free
    return max(0.0, 1 - float(stats.f.ppf(SURE, free, theirs)) * own / whole) if whole > 0 else 0.0


def deepest_fall(curves: Array) -> Array:
    """Deepest fall (B,) of curves (B, n) in units of white noise of variance 1.

    Largest difference between the means of an earlier and a later window of one length (2, 3, 4, 6, 8, 12, ... up to a
    quarter of the curve), over the standard deviation that white noise gives it. One checkpoint alone is no fall.
    """
    sums = np.concatenate([np.zeros((len(curves), 1)), np.cumsum(curves, axis=1)], axis=1)
    deepest = np.full(len(curves), -np.inf)
    for length in windows_of(curves.shape[1]):
        means = (sums[:, length:] - sums[:, :-length]) / length
        peak = np.maximum.accumulate(means[:, :-length], axis=1)
        deepest = np.maximum(deepest, (peak - means[:, length:]).max(axis=1) * np.sqrt(length / 2.0))
    return deepest


def windows_of(n: int) -> list[int]:
    """Lengths at which `deepest_fall` looks for a fall among `n` checkpoints."""
    lengths = sorted({base * 2**power for base in (2, 3) for power in range(20)})
    return [length for length in lengths if 2 * length <= n and length <= max(2, n // 4)]


@lru_cache(maxsize=16)
def null_of(where: Where, max_changes: int) -> tuple[Array, Array]:
    """Deepest falls and estimated autocorrelations, (n_rhos, NULLS), of flat curves with AR(1) noise.

    Of all curves that never fall the flat one lets noise make the deepest falls: any difference of means between an
    earlier and a later window is the noise's own plus something not positive. So a p-value against the flat curve
    bounds that against every monotone one, the best (isotonic) included.
    """
    grid, rng = grid_of(where, max_changes), np.random.default_rng([0, len(where), max_changes])
    falls, rhos = np.empty((len(RHOS), NULLS)), np.empty((len(RHOS), NULLS))
    for i, rho in enumerate(RHOS):
        noise = autocorrelated(rng, (NULLS, len(where)), rho)
        sigma, rhos[i] = residual_noise(grid, noise)
        falls[i] = deepest_fall(noise) / sigma
    return falls, rhos


def left_out(curves: Array) -> float:
    """Test (one-sided t) that the fall chosen by all other replicates is in the one left out as well; curves (S, n)."""
    count, n = curves.shape
    falls, total = [], curves.sum(axis=0)
    for one in curves:
        rest, tried = (total - one) / (count - 1), []
        for length in windows_of(n):
            means, own = (np.convolve(curve, np.ones(length) / length, "valid") for curve in (rest, one))
            gaps = means[:, None] - means[None, :]
            gaps[np.tril_indices(len(means), length - 1)] = -np.inf
            i, j = np.unravel_index(int(gaps.argmax()), gaps.shape)
            tried.append((gaps[i, j] * np.sqrt(length), own[i] - own[j]))
        falls.append(max(tried, key=itemgetter(0))[1])
    return float(stats.t.sf(np.mean(falls) / max(stats.sem(falls), 1e-300), count - 1))
