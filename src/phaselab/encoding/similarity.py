"""Alignment without a fitted map: n x n similarities between TRs of features with those of responses (RSA, CKA).

TRs near in time resemble each other in any two slow signals, whatever the stimulus: pairs of near TRs are left out.
Kriegeskorte, Mur, Bandettini (2008), Front Syst Neurosci 2, 4. Nili et al. (2014), PLoS Comput Biol 10, e1003553.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from phaselab.encoding.arrays import Features, Responses, groups_of, regions_of
from phaselab.encoding.significance import stretches_of
from phaselab.errors import expect
from phaselab.stats import unit

#: TRs within which pairs of TRs are left out: the time that a haemodynamic response takes.
GAP = 10


def summarise(X: Features, Y: Responses, rois: Mapping[str, np.ndarray], measures: Sequence[str]) -> pd.DataFrame:
    """Cosines of `distances` or `products` of layers and regions, as rows; no ``rsa`` of a single voxel."""
    rows = []
    for measure, group in product(measures, groups_of(X, Y)):
        matrix, far = {"rsa": distances, "cka": products}[measure], far_pairs(group.runs)
        layers = {layer: matrix(group.features(of_run, f"layer {layer}"), far) for layer, of_run in X.items()}
        for subject, at in zip(group.subjects, pairwise([0, *group.ends]), strict=True):
            responses = group.finite(slice(*at))
            for roi, inside in regions_of(rois[subject]).items():
                if measure == "rsa" and inside.sum() < 2:
                    continue
                other = matrix(responses[:, inside], far)
                key = {"measure": measure, "subject": subject, "roi": roi, "stderr": float("nan")}
                rows += [key | {"layer": n, "value": float(np.vdot(own, other))} for n, own in layers.items()]
    return pd.DataFrame(rows, columns=["measure", "layer", "subject", "roi", "value", "stderr"])


def far_pairs(runs: np.ndarray, gap: int = GAP) -> np.ndarray:
    """Pairs of TRs of different (n,) runs, or more than `gap` apart on the circle that a run is; bool (n, n)."""
    far = np.ones((len(runs), len(runs)), bool)
    for stretch in stretches_of(runs):
        apart = np.abs(np.arange(len(stretch))[:, None] - np.arange(len(stretch)))
        far[np.ix_(stretch, stretch)] = np.minimum(apart, len(stretch) - apart) > gap
    expect(far.any(), "gap", f"{gap} TRs, which leaves no pair of {len(runs)} TRs to compare", "longer runs")
    return far


def distances(patterns: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Ranks of the correlation distances of TRs in pairs `far`, of length 1; (n, n). Their cosine is Spearman's rho."""
    units = unit(patterns.T)  # (n_columns, n); a TR whose pattern is constant has distance 1
    # Every pair twice, which changes neither ranks nor cosine; rounding makes the two halves differ by less than this.
    ranks = rankdata((1 - units.T @ units)[far].round(12))
    made = np.zeros(far.shape)
    made[far] = ranks - ranks.mean()
    return made / (np.linalg.norm(made) or 1)


def products(values: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Centred products between TRs of pairs `far`, of length 1; (n, n). The cosine of two is debiased linear CKA.

    Linear CKA is the cosine between the centred XX' and YY' (Kornblith et al. 2019, ICML). With as many features as TRs
    it is far above 0 for noise; debiased, the diagonal is left out and each matrix U-centred (Székely, Rizzo 2014),

        a_ij - sum_k a_ik / (n - 2) - sum_k a_kj / (n - 2) + sum_kl a_kl / ((n - 1)(n - 2)),  i != j,

    whose inner product estimates HSIC without bias (Song et al. 2012, JMLR 13, 1393; Murphy et al. 2024, arXiv
    2405.01012), for independent TRs. They are not: so pairs `far` alone are compared, less their mean.
    """
    centred = values - values.mean(0)
    K = centred @ centred.T
    np.fill_diagonal(K, 0)
    ends = K.sum(0) / (len(K) - 2)
    K -= ends + ends[:, None] - ends.sum() / (len(K) - 1)
    K = np.where(far, K - K[far].mean(), 0)
    return K / (np.linalg.norm(K) or 1)
