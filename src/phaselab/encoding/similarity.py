"""Alignment without a fitted map: representational similarity and centred kernel alignment.

Both compare the n x n similarities between TRs that features have with those that responses have, so
neither features nor voxels need to correspond. TRs near in time resemble each other in any two slow
signals, whatever the stimulus: pairs of near TRs are left out, and the null distribution rotates the
responses in time, which keeps what is near near. A value is worth what it has beyond `Similarity.chance`.

Kriegeskorte, Mur, Bandettini (2008), Front Syst Neurosci 2, 4. Nili et al. (2014), PLoS Comput Biol 10, e1003553.
Song et al. (2012), JMLR 13, 1393. Székely, Rizzo (2014), Ann Stat 42, 2382. Kornblith et al. (2019), ICML. Murphy,
Zylberberg, Fyshe (2024), arXiv 2405.01012.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, rankdata

from phaselab import stats
from phaselab.encoding.encode import regions_of
from phaselab.encoding.responses import Features, Responses, groups_of
from phaselab.encoding.significance import draw_lags, stretches_of
from phaselab.errors import expect

#: How two matrices of dissimilarities are compared.
Method = Literal["spearman", "kendall", "cosine"]
#: TRs within which pairs of TRs are left out: the time that a haemodynamic response takes.
GAP = 10


@dataclass(frozen=True)
class Similarity:
    """How alike the geometry of two sets of patterns is.

    Attributes
    ----------
    value : 1 for the same geometry; for unrelated ones near `chance`.
    p : one-sided p-value against rotations in time, (1 + count) / (1 + rotations); 1 without any.
    chance : mean value over the rotations; NaN without any.
    """

    value: float
    p: float
    chance: float


def dissimilarity(patterns: np.ndarray) -> np.ndarray:
    """Correlation distance of each TR with each other, one minus Pearson's r over columns; (n, n).

    `patterns` is (n, n_columns), two columns or more; a TR whose pattern is constant has distance 1.
    """
    patterns = np.asarray(patterns, dtype=np.float64)
    centred = patterns - patterns.mean(1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    # What centring leaves of a constant pattern is rounding error.
    real = lengths > 1e-12 * np.linalg.norm(patterns, axis=1, keepdims=True)
    units = np.where(real, centred / np.where(real, lengths, 1), 0)
    return 1 - units @ units.T


def far_pairs(runs: np.ndarray, gap: int = GAP) -> np.ndarray:
    """Which pairs of TRs are compared: those of different runs, or more than `gap` TRs apart; bool (n, n).

    Within a run time is a circle, whose end is near its beginning: so the same pairs are compared when
    the responses are rotated. `runs` is (n,); with a gap of 0 all pairs of distinct TRs.
    """
    expect(gap >= 0, "gap", gap, "0 or more TRs")
    far = np.ones((len(runs), len(runs)), bool)
    for stretch in stretches_of(np.asarray(runs)):
        apart = np.abs(np.arange(len(stretch))[:, None] - np.arange(len(stretch)))
        far[np.ix_(stretch, stretch)] = np.minimum(apart, len(stretch) - apart) > gap
    expect(far.any(), "gap", f"{gap} TRs, which leaves no pair of {len(runs)} TRs to compare", "fewer")
    return far


def rsa(
    X: np.ndarray,
    Y: np.ndarray,
    runs: np.ndarray | None = None,
    gap: int = GAP,
    method: Method = "spearman",
    permutations: int = 0,
    seed: int = 0,
) -> Similarity:
    """Representational similarity: TRs that differ in their features should differ in their responses.

    Correlation distances between TRs, compared over the pairs of ``far_pairs``; a few n_trs x n_trs matrices.

    Parameters
    ----------
    X, Y : (n_trs, n_features) features, already with haemodynamics; (n_trs, n_voxels) responses; two columns at least.
    runs : (n_trs,) run of each TR; without it all are of one run.
    gap : TRs within which pairs are left out. Without it, autocorrelation alone makes a similarity.
    method : ``spearman``'s rho, ``kendall``'s tau-b (slow: each rotation is sorted again) or ``cosine``.
    permutations, seed : rotations for `p` and `chance`, each run by a lag of its own; of a single run each lag
        once, if there are no more.
    """
    expect(method in get_args(Method), "method", repr(method), f"one of {', '.join(get_args(Method))}")
    X, Y, runs = _checked(X, Y, runs, least=2)
    far = far_pairs(runs, gap)
    if method == "kendall":
        upper = np.triu(far, 1)
        a, D = dissimilarity(X)[upper], dissimilarity(Y)

        def value(order: np.ndarray) -> float:
            return float(kendalltau(a, D[np.ix_(order, order)][upper]).statistic)

        return _against_rotations(value, runs, permutations, seed)
    return _compared(_distances(X, far, method), _distances(Y, far, method), runs, permutations, seed)


def cka(
    X: np.ndarray,
    Y: np.ndarray,
    runs: np.ndarray | None = None,
    gap: int | None = GAP,
    permutations: int = 0,
    seed: int = 0,
) -> Similarity:
    """Linear centred kernel alignment between features and responses; does not change with rotation or scale.

    The cosine between the matrices XX' and YY' after centring (Kornblith et al. 2019). With as many features as TRs it
    is far above 0 for noise. Debiased (gap 0), the diagonal is left out and each matrix U-centred,

        a_ij - sum_k a_ik / (n - 2) - sum_k a_kj / (n - 2) + sum_kl a_kl / ((n - 1)(n - 2)),  i != j,

    whose inner product is the unbiased estimate of HSIC (Song et al. 2012; advised by Murphy et al. 2024): 0 in
    expectation for unrelated TRs that are independent of each other. TRs are not: with a gap, the pairs of
    ``far_pairs`` alone are compared, less their mean, as in ``rsa``.

    As for ``rsa``, but one column is enough, and with a gap of None no pair is left out, as in ``phaselab.stats.cka``.
    """
    X, Y, runs = _checked(X, Y, runs, least=1)
    if gap is None and not permutations:
        return Similarity(stats.cka(X, Y), 1.0, float("nan"))
    far = None if gap is None else far_pairs(runs, gap)
    return _compared(_products(X, far), _products(Y, far), runs, permutations, seed)


def summarise(
    X: Features, Y: Responses, rois: Mapping[str, np.ndarray], measures: Sequence[Literal["rsa", "cka"]]
) -> pd.DataFrame:
    """Both measures by layer, subject and region, as rows for ``results.curve_table(perspective="brain")``.

    ``rsa`` (Spearman) and ``cka`` are both over pairs more than `GAP` TRs apart; `X` and `Y` are as for ``encode``,
    `rois` (n_voxels,) of each subject. Columns ``measure``, ``layer``, ``subject``, ``roi``, ``value``, ``stderr``.
    Regions of a single voxel have no pattern, and no row of ``rsa``.
    """
    rows = []
    groups = groups_of(X, Y)
    for measure in measures:
        for group in groups:
            far = far_pairs(group.runs, GAP)

            def matrix(values: np.ndarray, measure: str = measure, far: np.ndarray = far) -> np.ndarray:
                return _distances(values, far, "spearman") if measure == "rsa" else _products(values, far)

            layers = {layer: matrix(group.features(of_run)) for layer, of_run in X.items()}
            for number, subject in enumerate(group.subjects):
                responses = group.Y[:, group.columns(number)]
                for roi, inside in regions_of(rois[subject]).items():
                    if measure == "rsa" and inside.sum() < 2:
                        continue
                    other = matrix(responses[:, inside])
                    key = {"measure": measure, "subject": subject, "roi": roi, "stderr": float("nan")}
                    rows += [key | {"layer": n, "value": float(np.vdot(own, other))} for n, own in layers.items()]
    return pd.DataFrame(rows, columns=["measure", "layer", "subject", "roi", "value", "stderr"])


def _distances(values: np.ndarray, far: np.ndarray, method: str) -> np.ndarray:
    """Distances of the pairs `far`, ranked and centred for Spearman, 0 elsewhere, of length 1; (n, n)."""
    D = dissimilarity(values)
    # Both halves of the symmetric matrix: every pair twice, which changes neither ranks nor cosine.
    kept = D[far]
    if method == "spearman":
        # Rounding makes the two halves differ by less than this; equal distances are ties.
        kept = rankdata(kept.round(12))
        kept -= kept.mean()
    made = np.zeros_like(D)
    made[far] = kept
    return _unit(made)


def _products(values: np.ndarray, far: np.ndarray | None) -> np.ndarray:
    """Centred products between TRs, 0 where not `far`, of length 1; (n, n)."""
    values = np.asarray(values, dtype=np.float64)
    centred = values - values.mean(0)
    K = centred @ centred.T
    if far is not None:
        n = len(K)
        np.fill_diagonal(K, 0)
        ends = K.sum(0) / (n - 2)
        K -= ends + ends[:, None] - ends.sum() / (n - 1)
        K = np.where(far, K - K[far].mean(), 0)
    return _unit(K)


def _unit(matrix: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(matrix)
    return matrix / length if length > 0 else matrix


def _compared(A: np.ndarray, B: np.ndarray, runs: np.ndarray, permutations: int, seed: int) -> Similarity:
    """Inner product of two matrices of length 1, beside those with the second rotated in time."""
    return _against_rotations(lambda order: float(np.vdot(A, B[np.ix_(order, order)])), runs, permutations, seed)


def _against_rotations(
    value: Callable[[np.ndarray], float], runs: np.ndarray, permutations: int, seed: int
) -> Similarity:
    observed = value(np.arange(len(runs)))
    if not permutations:
        return Similarity(observed, 1.0, float("nan"))
    stretches = stretches_of(runs)
    (lags,) = draw_lags([stretches], permutations, 1, np.random.default_rng(seed))
    null = []
    for shift in np.transpose(lags)[1:]:
        order = np.concatenate([np.roll(s, lag) for s, lag in zip(stretches, shift, strict=True)])
        null.append(value(order))
    # Sums in another order are equal up to rounding.
    count = int((np.array(null) >= observed - 1e-12).sum())
    return Similarity(observed, (1 + count) / (1 + len(null)), float(np.mean(null)))


def _checked(
    X: np.ndarray, Y: np.ndarray, runs: np.ndarray | None, least: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    for name, values in (("X", X), ("Y", Y)):
        good = values.ndim == 2 and values.shape[1] >= least
        expect(good, name, f"shape {values.shape}", f"(TRs, columns) with at least {least} columns")
        bad = np.count_nonzero(~np.isfinite(values))
        expect(not bad, name, f"{bad} NaN or infinite values", "none")
    expect(len(X) == len(Y) and len(X) >= 4, "Y", f"{len(Y)} TRs", f"{len(X)} as in X, and at least 4")
    runs = np.zeros(len(X), int) if runs is None else np.asarray(runs)
    expect(runs.shape == (len(X),), "runs", f"shape {runs.shape}", f"({len(X)},) as in X")
    return X, Y, runs
