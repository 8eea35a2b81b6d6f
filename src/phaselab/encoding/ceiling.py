"""How well a response could be predicted at all, given its noise: from repeats, or from other people.

All ceilings are correlations, so that ``encoding.normalise`` divides scores by them; it also says where
a ceiling is too low to divide by.

References
----------
Sahani, Linden (2003). How linear are auditory cortical responses? NeurIPS 15.
Hsu, Borst, Theunissen (2004). Quantifying variability in neural responses and its application for the
validation of model predictions. Network 15, 91-109.
Nili et al. (2014). A toolbox for representational similarity analysis. PLoS Comput Biol 10, e1003553.
Schoppe et al. (2016). Measuring the performance of neural models. Front Comput Neurosci 10, 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from phaselab.brains.signal import group_ceiling, inter_subject_correlation
from phaselab.encoding.significance import correlation


@dataclass(frozen=True)
class Ceiling:
    """A noise ceiling a voxel, as a correlation, between two bounds.

    Attributes
    ----------
    value, lower, upper : float64 (n_voxels,), 0 to 1; 0 where nothing repeats. What the bounds are is
        said by the function that made them.
    """

    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def split_half(repeats: np.ndarray, averaged: int | None = None, splits: int = 100, seed: int = 0) -> Ceiling:
    """Noise ceiling of responses to a repeated stimulus, from the correlation of halves of the repeats.

    With r the correlation of the means of two halves of h repeats each, averaged over splits, the
    reliability of the mean of k repeats is ``R_k = m r / (1 + (m - 1) r)``, m = k / h (Spearman 1910,
    Brown 1910), and the best correlation that a prediction can have with it is ``sqrt(R_k)`` (Hsu et al.
    2004, whose formula this is for k = 2 h).

    Parameters
    ----------
    repeats : (n_repeats, n_trs, n_voxels), at least two repeats.
    averaged : k, the number of repeats in the mean that is predicted: 1 for single responses; all of
        them by default.
    splits : number of random halves; all distinct halves where they are no more. Of an odd number of
        repeats one is left out of each split.
    seed : of the halves.

    Returns
    -------
    Bounds: 2.5th and 97.5th percentile over splits. They show how much the ceiling depends on which
    repeats are put together, and not how it would change with another stimulus.

    Raises
    ------
    ValueError
        Naming ``repeats`` where its shape or values do not fit.
    """
    repeats = _checked(repeats, averaged)
    n = len(repeats)
    half = n // 2
    r = np.stack(
        [
            correlation(repeats[list(a)].mean(0), repeats[list(b)].mean(0))
            for a, b in _halves(n, splits, np.random.default_rng(seed))
        ]
    )
    times = (n if averaged is None else averaged) / half

    def root_reliability(r: np.ndarray) -> np.ndarray:
        r = r.clip(0)
        return np.sqrt(times * r / (1 + (times - 1) * r))

    return Ceiling(root_reliability(r.mean(0)), *root_reliability(np.percentile(r, (2.5, 97.5), axis=0)))


def explainable_variance(repeats: np.ndarray, averaged: int | None = None) -> np.ndarray:
    """Share of the variance over time that a repeated stimulus explains; float64 (n_voxels,).

    With V the mean variance of single repeats and M the variance of their mean over n repeats, the
    signal power is ``S = (n M - V) / (n - 1)`` and the noise power ``N = V - S`` (Sahani and Linden 2003).
    The share in the mean of k repeats is ``S / (S + N / k)``; its square root is the best correlation
    of a prediction with that mean (Schoppe et al. 2016). The estimate of S is unbiased, and so may lie
    below 0 where there is no signal; it is not cut there.

    Parameters
    ----------
    repeats, averaged : as for ``split_half``.

    Returns
    -------
    NaN where a voxel is constant.
    """
    repeats = _checked(repeats, averaged)
    n = len(repeats)
    single, of_mean = repeats.var(axis=1).mean(0), repeats.mean(0).var(axis=0)
    signal = (n * of_mean - single) / (n - 1)
    total = signal + (single - signal) / (n if averaged is None else averaged)
    # The mean may be constant by chance where all repeats vary: 0 / 0, and below 0 it is not a share.
    return np.divide(signal, total, out=np.full_like(total, np.nan), where=total > 0)


def leave_one_subject_out(responses: dict[str, np.ndarray]) -> Ceiling:
    """Noise ceiling of responses of several people to the same stimulus.

    Parameters
    ----------
    responses : subject -> (n_trs, n_voxels) of the same stimulus and of voxels that correspond (regions,
        or a common surface); at least two subjects.

    Returns
    -------
    Means over subjects. Bounds (Nili et al. 2014): each subject with the mean of the others (lower), and
    with the mean of all, itself included (upper). The value is the lower bound corrected for the noise in
    the mean of the others (``phaselab.brains.signal.group_ceiling``): what a perfect prediction of the
    shared response would reach. With two subjects, or a weak response, it has a large error.

    Raises
    ------
    ValueError
        Naming the subject whose response does not fit, or is constant.
    """
    if len(responses) < 2:
        raise ValueError(f"responses: found {len(responses)} subjects, expected at least 2")
    first = next(iter(responses.values()))
    for subject, values in responses.items():
        if values.ndim != 2 or values.shape != first.shape:
            raise ValueError(f"subject {subject}: found shape {values.shape}, expected {first.shape} as for the first")
        if not np.isfinite(values).all() or not np.ptp(values, axis=0).all():
            raise ValueError(f"subject {subject}: found voxels that are constant or not finite, expected none")
    units = np.stack([(v - v.mean(0)) / v.std(0) for v in responses.values()]).astype(np.float64)
    mean = units.mean(0)
    upper = np.mean([correlation(mean, own) for own in units], axis=0)
    return Ceiling(
        group_ceiling(responses).astype(np.float64).clip(max=1),
        inter_subject_correlation(responses).mean(0).clip(0),
        upper.clip(0),
    )


def _halves(n: int, splits: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of halves of n repeats: all distinct ones, or `splits` at random."""
    half = n // 2
    left_out = range(n) if n % 2 else [None]
    if len(left_out) * comb(2 * half, half) // 2 <= splits:
        found = []
        for out in left_out:
            rest = [i for i in range(n) if i != out]
            # The first repeat in the first half: each pair of halves once.
            for others in combinations(rest[1:], half - 1):
                a = np.array([rest[0], *others])
                found.append((a, np.setdiff1d(rest, a)))
        return found
    orders = [rng.permutation(n) for _ in range(splits)]
    return [(order[:half], order[half : 2 * half]) for order in orders]


def _checked(repeats: np.ndarray, averaged: int | None) -> np.ndarray:
    if averaged is not None and averaged < 1:
        raise ValueError(f"averaged: found {averaged}, expected at least 1 repeat")
    repeats = np.asarray(repeats, dtype=np.float64)
    if repeats.ndim != 3 or len(repeats) < 2:
        raise ValueError(
            f"repeats: found shape {repeats.shape}, expected (repeats, TRs, voxels) with at least 2 repeats"
        )
    if not np.isfinite(repeats).all():
        raise ValueError(f"repeats: found {int((~np.isfinite(repeats)).sum())} NaN or infinite values")
    return repeats
