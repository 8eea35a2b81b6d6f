"""RSA and CKA: invariances, the pairs that are near in time, and chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.spatial.distance import pdist, squareform
from scipy.stats import kendalltau, spearmanr
from threadpoolctl import threadpool_limits

from phaselab import results, stats
from phaselab.encoding.similarity import cka, dissimilarity, far_pairs, rsa, summarise

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


# ------------------------------------------------------------------------------------------- pairs


def test_dissimilarity_is_the_correlation_distance() -> None:
    X = slow(0, 9)
    np.testing.assert_allclose(dissimilarity(X), squareform(pdist(X, "correlation")), atol=1e-12)
    X[3] = 0.1
    assert (dissimilarity(X)[3] == 1).all()


def test_near_pairs_of_a_run_are_left_out_and_those_of_two_runs_are_not() -> None:
    far = far_pairs(RUNS, 5)
    assert not far[10, 4:17][1:-1].any()
    assert far[10, [4, 16]].all()
    assert far[39, 40]  # the end of one run and the beginning of the next
    assert not far[0, 39]  # a run is a circle, or rotation would bring other pairs near
    assert far.sum() == 70 * 70 - 70 * 11
    assert far_pairs(RUNS, 0).sum() == 70 * 69
    order = np.concatenate([np.roll(np.arange(40), 13), np.roll(np.arange(40, 70), 4)])
    np.testing.assert_array_equal(far[np.ix_(order, order)], far)


# --------------------------------------------------------------------------------------------- RSA


@pytest.mark.parametrize("method", ["spearman", "kendall", "cosine"])
def test_rsa_is_that_of_the_far_pairs(method) -> None:
    X, Y = related()
    upper = np.triu(far_pairs(RUNS, 6), 1)
    a, b = (squareform(pdist(v, "correlation"))[upper] for v in (X, Y))
    wanted = {
        "spearman": spearmanr(a, b).statistic,
        "kendall": kendalltau(a, b).statistic,
        "cosine": a @ b / np.linalg.norm(a) / np.linalg.norm(b),
    }[method]
    assert rsa(X, Y, RUNS, 6, method).value == pytest.approx(wanted, abs=1e-10)
    found = rsa(X, Y, RUNS, 6, method, permutations=39)
    assert found.p == 1 / 40
    assert found.chance < found.value


@pytest.mark.parametrize("measure", [rsa, cka])
def test_autocorrelation_is_a_similarity_only_between_near_pairs(measure) -> None:
    pairs = [(slow(2 * seed, 20, 240), slow(2 * seed + 1, 20, 240)) for seed in range(12)]
    with_gap, without = ([measure(*pair, gap=gap).value for pair in pairs] for gap in (20, 0))
    assert np.mean(without) > 0.1
    assert abs(np.mean(with_gap)) < 0.04


def test_a_signal_is_found_and_noise_is_not() -> None:
    X, Y = related(0.5)
    for found in (rsa(X, Y, RUNS, permutations=99), cka(X, Y, RUNS, permutations=99)):
        assert found.value > 0.4
        assert found.p == 0.01
        assert abs(found.chance) < 0.1


def test_p_is_calibrated_under_autocorrelation() -> None:
    p = []
    for seed in range(150):
        X, Y = slow(2 * seed, 8, phi=0.5), slow(2 * seed + 1, 8, phi=0.5)
        p.append([f(X, Y, RUNS, 5, permutations=19, seed=seed).p for f in (rsa, cka)])
    assert ((np.array(p) <= 0.05).mean(0) < 0.1).all()


# --------------------------------------------------------------------------------------------- CKA


@pytest.mark.parametrize("gap", [None, 0, 8])
def test_cka_does_not_change_with_rotation_scale_or_offset(gap) -> None:
    X, Y = related()
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((12, 12)))[0]
    value = cka(X, Y, RUNS, gap).value
    assert cka(X @ turn * 7 + 3, Y - 5, RUNS, gap).value == pytest.approx(value, abs=1e-10)
    assert cka(X, X @ turn, RUNS, gap).value == pytest.approx(1)


def test_cka_without_a_gap_is_the_one_of_states() -> None:
    X, Y = related()
    assert cka(X, Y, gap=None).value == stats.cka(X, Y)
    with_null = cka(X, Y, gap=None, permutations=3)
    assert with_null.value == pytest.approx(stats.cka(X, Y))
    assert with_null.chance < with_null.value


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
    assert cka(X, Y, gap=0).value == pytest.approx(wanted)


def test_debiased_cka_of_noise_is_0_with_more_features_than_trs() -> None:
    rng = np.random.default_rng(6)
    X, Y = rng.standard_normal((60, 500)), rng.standard_normal((60, 300))
    assert stats.cka(X, Y) > 0.8
    assert abs(cka(X, Y, gap=0).value) < 0.1
    assert cka(np.ones((60, 2)), Y, gap=0).value == 0


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
    assert value["rsa", 1, "one"] == pytest.approx(rsa(X, Y[:, :12], RUNS).value)
    assert value["cka", 1, "lone"] == pytest.approx(cka(X, Y[:, -1:], RUNS).value)
    assert value["rsa", 1, "all"] > value["rsa", 0, "all"] + 0.2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rsa(np.eye(9), np.eye(8)), "Y: found 8 TRs, expected 9"),
        (lambda: rsa(np.ones((9, 1)), np.eye(9)), r"X: found shape \(9, 1\)"),
        (lambda: rsa(np.eye(9), np.full((9, 2), np.nan)), "Y: found 18 NaN"),
        (lambda: rsa(np.eye(9), np.eye(9), np.zeros(8)), r"runs: found shape \(8,\)"),
        (lambda: rsa(np.eye(9), np.eye(9)), "gap: found 10 TRs, which leaves no pair of 9 TRs"),
        (lambda: cka(np.eye(9), np.eye(9), gap=-1), "gap: found -1"),
        (lambda: rsa(np.eye(9), np.eye(9), method="pearson"), "method: found 'pearson'"),
    ],
)
def test_what_does_not_fit_is_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
