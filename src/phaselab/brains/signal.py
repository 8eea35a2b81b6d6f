"""Cleaning of responses, what several people's have in common, and how well that can be predicted."""

from itertools import product

import numpy as np

from phaselab.brains.base import Array, BrainData
from phaselab.errors import expect
from phaselab.stats import pearson, unit
from phaselab.stimuli import resample

#: Share of the voxels whose lag is looked at, for of all the median would lie in the middle where nothing follows;
#: the greatest lag, seconds; columns of responses that are read together.
FOLLOWING, LONGEST, COLUMNS = 0.05, 12.0, 4096


def drift_basis(n_trs: int, tr: float, cutoff: float) -> np.ndarray:
    """Constant and slow cosines (discrete cosine transform II) of `cutoff` s and longer, orthonormal; (n_trs, k)."""
    times, orders = (np.arange(n_trs) + 0.5) / n_trs, np.arange(int(2 * n_trs * tr / cutoff) + 1)
    basis = np.cos(np.pi * times[:, None] * orders)
    return np.asarray(basis / np.linalg.norm(basis, axis=0))


def without_drift(series: np.ndarray, tr: float, cutoff: float) -> np.ndarray:
    """Series of runs, (..., n_trs, k), less their means and slow cosines of `cutoff` s and longer; float64."""
    basis = drift_basis(series.shape[-2], tr, cutoff)
    return np.asarray(series - basis @ (basis.T @ series.astype(float)))


def regress_out(series: np.ndarray, regressors: np.ndarray) -> np.ndarray:
    """Residuals of (n_trs, n_voxels) after least squares on (n_trs, k) `regressors`; float64."""
    return np.asarray(series - regressors @ np.linalg.lstsq(regressors, series, rcond=None)[0])


def standardise(series: np.ndarray) -> np.ndarray:
    """Each column of (n_trs, n_voxels) with mean 0 and standard deviation 1; float32. None is constant."""
    centred = series - series.mean(axis=0)
    return np.asarray(centred / centred.std(axis=0), dtype=np.float32)


def group_ceiling(responses: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean correlation of a subject (n_trs, n_voxels) with the others' mean, and that which what all share would have.

    The second, float32 (n_voxels,), is the first, corrected for the noise in the mean of the k = n - 1 others: over the
    root of its reliability k r / (1 + (k - 1) r), r the mean correlation of two subjects (Spearman, Brown 1910). One
    value for all, since that of a single one may be small by chance; 0 where there is no shared response.
    """
    stack = np.stack([standardise(values.astype(float)) for values in responses.values()]).astype(float)
    total, n = stack.sum(axis=0), len(stack)
    others = (total - stack) / (n - 1)
    others = others - others.mean(axis=1, keepdims=True)
    leave_one_out = ((stack * others).sum(axis=1) / (stack.shape[1] * others.std(axis=1))).mean(axis=0)
    # The variance of the sum of z-scored series is n + n (n - 1) r.
    between = (total.var(axis=0) - n) / (n * (n - 1))
    shared = (between > 0) & (leave_one_out > 0)
    reliability = (n - 1) * between / (1 + (n - 2) * between)
    ceiling = np.where(shared, leave_one_out / np.sqrt(np.where(shared, reliability, 1)), 0)
    return leave_one_out, ceiling.astype(np.float32)


def repeats_ceiling(repeats: Array) -> np.ndarray:
    """Correlation of the mean of (n, n_trs, n_voxels) repeats with what they share; float32 (n_voxels,).

    The root of its reliability n r / (1 + (n - 1) r), r the mean correlation of two, or 0 (Spearman, Brown 1910).
    """
    (n, _, n_voxels), r = repeats.shape, list[np.ndarray]()
    for start in range(0, n_voxels, COLUMNS):
        total = sum(unit(one) for one in repeats[:, :, start : start + COLUMNS])  # of squared norm n + n (n - 1) r
        r.append((np.square(total).sum(axis=0) - n) / (n * (n - 1)))
    shared = np.maximum(np.concatenate(r), 0)
    return np.asarray(np.sqrt(n * shared / (1 + (n - 1) * shared)), dtype=np.float32)


def speech_lag(brain: BrainData, subject: str) -> tuple[float, float]:
    """The lag, seconds, and correlation at which it is best followed in how many moments of a TR texts begin."""
    names = next(group.runs for group in brain.groups if subject in group.subjects)
    runs = [run for run in brain.stimulus.runs if run.name in names]
    expect(not runs[0].items, f"brain {brain.name}: lag", "items without a time axis", "texts that have times")
    r = np.zeros((1 + int(LONGEST / runs[0].tr), len(brain.rois[subject])))
    for run, start in product(runs, range(0, r.shape[1], COLUMNS)):
        at, moments = slice(start, start + COLUMNS), np.ones((len(run.texts), 1))
        said = resample(moments, run, "sum")[run.margin : run.margin + run.n_trs]
        values = np.asarray(brain.responses(subject, run.name)[:, at])
        r[:, at] += [run.n_trs * pearson(said[: run.n_trs - lag], values[lag:]) for lag in range(len(r))]
    best, most = r.argmax(axis=0), r.max(axis=0) / sum(run.n_trs for run in runs)
    first = np.argsort(-most)[: int(np.ceil(FOLLOWING * len(most)))]
    return float(np.median(best[first])) * runs[0].tr, float(np.median(most[first]))
