"""One curve against all curves that never fall, or never rise: p of a fall or a rise, whatever the noise's memory."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

from phaselab.phases.fit import Array, Grid, Where, autocorrelated, bic, design, grid_of, refine, search

#: First-order autocorrelations of the noise at which the null is simulated, and null curves for each of them.
RHOS, NULLS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9), 1000
#: The autocorrelation of a single curve's noise is estimated too low, by an unknown amount when checkpoints are few:
#: an estimate is read as this quantile of its distribution under the true one, as far as replicates do not tell more.
CAUTION = 0.02
#: Replicates from which on they tell more, and the confidence with which they are said to share noise.
MANY, SURE = 3, 0.95


def residual_noise(grid: Grid, curves: Array) -> tuple[Array, Array]:
    """Standard deviation and lag-1 autocorrelation (B,) of the residuals of curves (B, n)."""
    n = grid.x.size
    found = search(grid, curves)
    chosen = np.stack([bic(rss, n, k, 0.0) for k, (rss, _) in enumerate(found)]).argmin(axis=0)
    sigma, rho = np.empty(len(curves)), np.empty(len(curves))
    for k in np.unique(chosen):
        rows = np.flatnonzero(chosen == k)
        _, _, residuals, total = refine(grid.x, curves[rows], grid.starts(k, found[k][1][rows]))
        sigma[rows] = np.sqrt(total / max(n - 2 - 2 * k, 1))
        lagged = np.einsum("bn,bn->b", residuals[:, 1:], residuals[:, :-1])
        rho[rows] = np.where(total > 0, lagged / np.where(total > 0, total, 1.0), 0.0)
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
    for length in _windows(curves.shape[1]):
        means = (sums[:, length:] - sums[:, :-length]) / length
        peak = np.maximum.accumulate(means[:, :-length], axis=1)
        deepest = np.maximum(deepest, (peak - means[:, length:]).max(axis=1) * np.sqrt(length / 2.0))
    return deepest


def _windows(n: int) -> list[int]:
    lengths = sorted({base * 2**power for base in (2, 3) for power in range(20)})
    return [length for length in lengths if 2 * length <= n and length <= max(2, n // 4)]


@lru_cache(maxsize=16)
def _null(where: Where, max_changes: int) -> tuple[Array, Array]:
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


def move_p(values: Array, replicates: Array | None, noise: Sequence[float], setting: tuple[Where, int]) -> float:
    """P of a stretch of a curve (m,), in replicates (n_replicates, m), that never falls: by its deepest fall.

    `noise` of the whole curve, whose grid has the arguments `setting`: standard deviation, autocorrelation, and how
    much replicates share: as far as they do, they are as one curve, whose autocorrelation is read with caution. With
    `MANY` the fall must also hold in those left out when it was chosen. NaN below four checkpoints.
    """
    if values.size < 4:
        return np.nan
    (sigma, rho, shared), fall = noise, float(deepest_fall(values[None])[0])
    if sigma == 0:
        return 1.0 / (NULLS + 1.0) if fall > 0 else 1.0
    falls, rhos = _null(*setting)
    at = (1.0 + (falls >= fall / sigma).sum(axis=1)) / (NULLS + 1.0)  # (n_rhos,)
    plain, careful = max(rho, 0.0), np.interp(rho, np.maximum.accumulate(np.quantile(rhos, CAUTION, axis=1)), RHOS)
    p = float(np.interp(plain + shared * (careful - plain), RHOS, at))
    return p if replicates is None or len(replicates) < MANY else max(p, _left_out(replicates))


def _left_out(curves: Array) -> float:
    """Test (one-sided t) that the fall chosen by all other replicates is in the one left out as well; curves (S, n)."""
    count, n = curves.shape
    falls, total = np.empty(count), curves.sum(axis=0)
    for s in range(count):
        rest, best = (total - curves[s]) / (count - 1), -np.inf
        for length in _windows(n):
            means, own = (np.convolve(curve, np.ones(length) / length, "valid") for curve in (rest, curves[s]))
            gaps = means[:, None] - means[None, :]
            gaps[np.tril_indices(len(means), length - 1)] = -np.inf
            i, j = np.unravel_index(int(gaps.argmax()), gaps.shape)
            if gaps[i, j] * np.sqrt(length) > best:
                best, falls[s] = float(gaps[i, j]) * np.sqrt(length), own[i] - own[j]
    error = max(float(stats.sem(falls)), 1e-300)
    return float(stats.t.sf(falls.mean() / error, count - 1))


def detectable_move(noise: Sequence[float], setting: tuple[Where, int], power: float = 0.8) -> float:
    """The smallest fall, a quarter of the checkpoints long, whose p is .05 or less with a probability of `power`."""
    critical = float(np.interp(noise[1], RHOS, np.quantile(_null(*setting)[0], 0.95, axis=1)))
    return (critical + float(stats.norm.ppf(power))) * noise[0] * float(np.sqrt(2 / _windows(len(setting[0]))[-1]))
