"""RSA and CKA: invariances, the pairs that are near in time, and chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.spatial.distance import pdist, squareform
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from phaselab import results, stats
from phaselab.encoding.similarity import distances, far_pairs, products, summarise

RUNS = np.repeat(["a", "b"], [40, 30])


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def slow(seed: int, k: int, n: int = 70, phi: float = 0.8) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((n + 50, k))
    return lfilter([1], [1, -phi], noise, axis=0)[50:]


def related(noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    X = slow(1, 12)
    return X, X @ np.random.default_rng(2).standard_normal((12, 20)) / 4 + noise * slow(3, 20)


def compared(matrix, X: np.ndarray, Y: np.ndarray, runs: np.ndarray = RUNS, gap: int = 10) -> float:
    far = far_pairs(runs, gap)
    return float(np.vdot(matrix(X, far), matrix(Y, far)))


def test_near_pairs_of_a_run_are_left_out_and_those_of_two_runs_are_not() -> None:
    far = far_pairs(RUNS, 5)
    assert not far[10, 4:17][1:-1].any()
    assert far[10, [4, 16]].all()
    assert far[39, 40]  # the end of one run and the beginning of the next
    assert not far[0, 39]  # a run is a circle
    assert far.sum() == 70 * 70 - 70 * 11
    assert far_pairs(RUNS, 0).sum() == 70 * 69


def test_rsa_is_spearmans_rho_of_the_far_pairs() -> None:
    X, Y = related()
    X[3] = 0.1
    upper = np.triu(far_pairs(RUNS, 6), 1)
    D, E = (squareform(pdist(v, "correlation")) for v in (X, Y))
    D[3] = D[:, 3] = 1  # a constant pattern
    a, b = D[upper], E[upper]
    assert compared(distances, X, Y, gap=6) == pytest.approx(spearmanr(a, b).statistic, abs=1e-10)


@pytest.mark.parametrize("matrix", [distances, products])
def test_autocorrelation_is_a_similarity_only_between_near_pairs(matrix) -> None:
    pairs, runs = [(slow(2 * seed, 20, 240), slow(2 * seed + 1, 20, 240)) for seed in range(12)], np.zeros(240)
    with_gap, without = ([compared(matrix, *pair, runs, gap) for pair in pairs] for gap in (20, 0))
    assert np.mean(without) > 0.1
    assert abs(np.mean(with_gap)) < 0.04


# --------------------------------------------------------------------------------------------- CKA


@pytest.mark.parametrize("gap", [0, 8])
def test_cka_does_not_change_with_rotation_scale_or_offset(gap) -> None:
    X, Y = related()
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((12, 12)))[0]
    value = compared(products, X, Y, gap=gap)
    assert compared(products, X @ turn * 7 + 3, Y - 5, gap=gap) == pytest.approx(value, abs=1e-10)
    assert compared(products, X, X @ turn, gap=gap) == pytest.approx(1)


def test_debiased_cka_is_the_unbiased_estimate_of_hsic() -> None:
    X, Y = related()

    def hsic(X: np.ndarray, Y: np.ndarray) -> float:
        """Song et al. 2012, equation 5, by its three terms."""
        n = len(X)
        K, L = (v @ v.T for v in (X, Y))
        np.fill_diagonal(K, 0)
        np.fill_diagonal(L, 0)
        return (np.trace(K @ L) + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (K.sum(0) @ L.sum(0))) / (
            n * (n - 3)
        )

    wanted = hsic(X, Y) / np.sqrt(hsic(X, X) * hsic(Y, Y))
    assert compared(products, X, Y, gap=0) == pytest.approx(wanted)


def test_debiased_cka_of_noise_is_0_with_more_features_than_trs() -> None:
    rng = np.random.default_rng(6)
    X, Y = rng.standard_normal((60, 500)), rng.standard_normal((60, 300))
    assert stats.cka(X, Y) > 0.8
    assert abs(compared(products, X, Y, np.zeros(60), 0)) < 0.1
    assert compared(products, np.ones((60, 2)), Y, np.zeros(60), 0) == 0


# ------------------------------------------------------------------------------------------- table


def test_the_table_has_a_row_a_layer_subject_and_region() -> None:
    X, Y = related(0.5)

    def split(values: np.ndarray) -> dict[str, np.ndarray]:
        return {run: values[run == RUNS] for run in ("a", "b")}

    rois = {"s": np.array(["one"] * 12 + ["two"] * 7 + ["lone"])}
    rows = summarise({0: split(slow(9, 5)), 1: split(X)}, {"s": split(Y)}, rois, ("rsa", "cka"))
    table = results.curve_table(
        rows.to_dict("records"), study="s", model="m", checkpoint="c", step=1, tokens=2, perspective="brain"
    )
    assert len(table) == 2 * 4 + 2 * 3
    value = rows.set_index(["measure", "layer", "roi"])["value"]
    assert value["rsa", 1, "one"] == pytest.approx(compared(distances, X, Y[:, :12]))
    assert value["cka", 1, "lone"] == pytest.approx(compared(products, X, Y[:, -1:]))
    assert value["rsa", 1, "all"] > value["rsa", 0, "all"] + 0.2


def test_runs_that_are_too_short_are_named() -> None:
    with pytest.raises(ValueError, match="gap: found 10 TRs, which leaves no pair of 9 TRs"):
        far_pairs(np.zeros(9))
