"""Null distributions: each against a plain loop, and the share of null voxels that they let through."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from threadpoolctl import threadpool_limits

from phaselab.encoding import encode, significance
from phaselab.study import EncodingSpec


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def ar(rng: np.random.Generator, n: int, k: int, phi: float) -> np.ndarray:
    return lfilter([1], [1, -phi], rng.standard_normal((n + 50, k)), axis=0)[50:]


def r(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def permutation_p(predictions, targets, runs, block=10, permutations=1000, seed=0, null="block", pool=None, size=512):
    """p of (n_test, n_targets) a fold, counted in batches of `size` targets."""
    drawn, n = significance.Permutations(runs, block, permutations, seed, null), targets[0].shape[1]
    batches = [slice(start, start + size) for start in range(0, n, size)]
    counts = [drawn.count([a[:, at] for a in predictions], [b[:, at] for b in targets]) for at in batches]
    return drawn.p(counts, np.zeros(n, int) if pool is None else pool)


# ------------------------------------------------------------------------------------------ blocks


@pytest.mark.parametrize("table", [2**19, 900])
def test_block_counts_are_those_of_a_plain_loop_over_two_folds(monkeypatch, table) -> None:
    """With a table that holds all products, and with one so small that it is made in parts."""
    monkeypatch.setattr(significance, "TABLE", table)
    rng = np.random.default_rng(1)
    lengths, n_targets = (83, 65), 50
    predicted = [ar(rng, n, n_targets, 0.5) for n in lengths]
    measured = [ar(rng, n, n_targets, 0.5) for n in lengths]
    got = permutation_p(predicted, measured, [np.zeros(n) for n in lengths], 5, 50, seed=3, size=40)
    draws = np.random.default_rng(3)
    observed, null = np.zeros(n_targets), np.zeros((50, n_targets))
    for a, b in zip(predicted, measured, strict=True):
        weight = 2 * len(a) / sum(lengths)
        n_blocks = len(a) // 5
        order = draws.permuted(np.tile(np.arange(n_blocks), (50, 1)), axis=1)
        a, b = a[: 5 * n_blocks], b[: 5 * n_blocks].reshape(n_blocks, 5, -1)
        for v in range(n_targets):
            observed[v] += weight * r(a[:, v], b[..., v].ravel())
            null[:, v] += [weight * r(a[:, v], b[o][..., v].ravel()) for o in order]
    np.testing.assert_allclose(got, (1 + (2**0.5 * null >= observed).sum(0)) / 51)


def test_targets_in_batches_are_as_targets_at_once() -> None:
    rng = np.random.default_rng(2)
    a, b = ar(rng, 120, 70, 0.3), ar(rng, 120, 70, 0.3)
    for null in ("block", "circular", "pooled"):
        given = [a], [b], [np.repeat([0, 1], 60)], 10, 99
        whole = permutation_p(*given, null=null)
        np.testing.assert_allclose(permutation_p(*given, null=null, size=17), whole, atol=1.5 / 100)


def test_float32_and_float64_arrays_give_the_same() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 100, 30)).astype(np.float32)
    one = permutation_p([a], [b], [np.zeros(100)], 10, 100)
    two = permutation_p([a.astype(float)], [b.astype(float)], [np.zeros(100)], 10, 100)
    np.testing.assert_array_equal(one, two)


# ---------------------------------------------------------------------------------------- circular


def test_a_single_run_is_rotated_by_each_lag_once() -> None:
    rng = np.random.default_rng(4)
    a, b = ar(rng, 60, 8, 0.7), ar(rng, 60, 8, 0.7)
    got = permutation_p([a], [b], [np.zeros(60)], permutations=1000, null="circular")
    for v in range(8):
        null = [r(a[:, v], np.roll(b[:, v], lag)) for lag in range(1, 60)]
        count = (np.array(null) >= r(a[:, v], b[:, v]) - 1e-12).sum()
        assert got[v] == (1 + count) / (1 + len(null))


def test_runs_of_a_fold_are_rotated_apart() -> None:
    rng = np.random.default_rng(5)
    a, b = ar(rng, 90, 6, 0.5), ar(rng, 90, 6, 0.5)
    got = permutation_p([a], [b], [np.repeat([0, 1], [50, 40])], permutations=40, seed=6, null="circular")
    draws = np.random.default_rng(6)
    first, second = (draws.integers(1, n - 1 + 1, 40) for n in (50, 40))
    for v in range(6):
        null = [
            r(a[:, v], np.concatenate([np.roll(b[:50, v], i), np.roll(b[50:, v], j)]))
            for i, j in zip(first, second, strict=True)
        ]
        assert got[v] == (1 + (np.array(null) >= r(a[:, v], b[:, v]) - 1e-12).sum()) / 41


@pytest.mark.parametrize(("null", "phi"), [("circular", 0.0), ("circular", 0.8), ("block", 0.0)])
def test_p_holds_its_level_on_one_test_set(null, phi) -> None:
    rng = np.random.default_rng(7)
    a, b = ar(rng, 300, 3000, phi), ar(rng, 300, 3000, phi)
    p = permutation_p([a], [b], [np.zeros(300)], 10, 200, null=null)
    assert 0.035 < (p <= 0.05).mean() < 0.065
    assert (p <= 0.01).mean() < 0.018


def test_rotations_hold_their_level_for_folds_in_turn_under_high_autocorrelation() -> None:
    """With lags from 20 TRs only, 10 % of p are <= .05 here."""
    rng = np.random.default_rng(8)
    p = []
    for seed in range(6):
        X, Y = ar(rng, 480, 16, 0.8), ar(rng, 480, 250, 0.8)
        X, Y = ({f"run-{i}": m[120 * i :][:120] for i in range(4)} for m in (X, Y))
        spec = EncodingSpec(permutations=200, null="circular")
        p.append(encode({0: X}, {"s": Y}, spec, seed=seed)["s"].p)
    assert 0.02 < (np.array(p) <= 0.05).mean() < 0.07


# ------------------------------------------------------------------------------------------ pooled


def test_the_pooled_null_ranks_each_target_among_one_shuffle_of_all() -> None:
    rng = np.random.default_rng(9)
    a, b = ar(rng, 100, 40, 0.5), ar(rng, 100, 40, 0.5)
    order = np.random.default_rng(2).permuted(np.arange(10)[None], axis=1)[0]
    shuffled = b.reshape(10, 10, 40)[order].reshape(100, 40)
    null = np.array([r(x, y) for x, y in zip(a.T, shuffled.T, strict=True)])
    observed = np.array([r(x, y) for x, y in zip(a.T, b.T, strict=True)])
    got = permutation_p([a], [b], [np.zeros(100)], seed=2, null="pooled")
    np.testing.assert_allclose(got, [(1 + (null >= x).sum()) / 41 for x in observed])
    pool = np.arange(40) % 2
    got = permutation_p([a], [b], [np.zeros(100)], seed=2, null="pooled", pool=pool)
    for v in range(40):
        assert got[v] == (1 + (null[pool == pool[v]] >= observed[v]).sum()) / 21


def test_the_pooled_null_is_never_0_and_lets_slow_voxels_through() -> None:
    """Why it is not the default: what is slow is judged by the noise of what is not."""
    rng = np.random.default_rng(10)
    rates = []
    for seed in range(20):
        a = ar(rng, 400, 12, 0.8) @ rng.standard_normal((12, 400))
        b = np.hstack([ar(rng, 400, 200, 0.0), ar(rng, 400, 200, 0.8)])
        p = permutation_p([a], [b], [np.zeros(400)], seed=seed, null="pooled")
        assert p.min() >= 1 / 401
        rates.append([(p[:200] <= 0.05).mean(), (p[200:] <= 0.05).mean()])
    low, high = np.mean(rates, axis=0)
    assert low < 0.02
    assert 0.08 < high < 0.17


# ------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("null", ["block", "circular", "pooled"])
def test_a_constant_response_or_prediction_has_p_of_1(null) -> None:
    rng = np.random.default_rng(11)
    a, b = rng.standard_normal((2, 80, 4))
    b = a + 0.01 * b
    a[:, 1], b[:, 2] = 0.1, 0.7
    p = permutation_p([a], [b], [np.zeros(80)], 10, 200, null=null)
    assert p[1] == p[2] == 1
    assert p[0] < (0.4 if null == "pooled" else 0.03)


@pytest.mark.parametrize("null", ["block", "circular", "pooled"])
def test_encode_takes_the_null_of_the_study(null) -> None:
    rng = np.random.default_rng(12)
    X = {0: {f"run-{i}": rng.standard_normal((60, 3)) for i in range(2)}}
    weights = rng.standard_normal((3, 6))
    Y = {s: {run: x @ weights + rng.standard_normal((60, 6)) for run, x in X[0].items()} for s in "ab"}
    scores = encode(X, Y, EncodingSpec(permutations=60, null=null))
    least = 1 / 7 if null == "pooled" else 1 / 61
    for of_subject in scores.values():
        assert of_subject.p.min() == pytest.approx(least)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="block: found 40 rows"):
        significance.Permutations([np.zeros(60)], 40, 10, 0, "block")
    with pytest.raises(ValueError, match="null: circular: found a run of 1 row"):
        significance.Permutations([np.arange(60)], 10, 10, 0, "circular")


# ----------------------------------------------------------------------------------------- tensors


@pytest.mark.parametrize("null", ["block", "circular", "pooled"])
def test_tensors_are_counted_as_arrays_are(null) -> None:
    """The path that a GPU takes, on a CPU."""
    rng = np.random.default_rng(13)
    pairs = [(ar(rng, n, 40, 0.5).astype(np.float32), ar(rng, n, 40, 0.5)) for n in (83, 61)]
    pairs[0][0][:, 3] = pairs[1][0][:, 3] = 0.1
    runs = [np.repeat([0, 1], [40, 43]), np.zeros(61)]
    drawn = significance.Permutations(runs, 5, 50, 3, null)
    arrays = drawn.count(*zip(*pairs, strict=True))
    tensors = drawn.count(*zip(*(map(torch.from_numpy, pair) for pair in pairs), strict=True))
    np.testing.assert_allclose(tensors[:2], arrays[:2], atol=1e-6)
    np.testing.assert_array_equal(tensors[3], arrays[3])
    assert arrays[3, 3]
    pool = np.zeros(40, int)
    np.testing.assert_allclose(drawn.p([tensors], pool), drawn.p([arrays], pool), atol=1e-6)


def test_encode_scores_the_same_by_tensors(monkeypatch) -> None:
    rng = np.random.default_rng(14)
    X = {0: {f"run-{i}": rng.standard_normal((60, 3)) for i in range(2)}}
    weights = rng.standard_normal((3, 6))
    Y = {"s": {run: x @ weights + rng.standard_normal((60, 6)) for run, x in X[0].items()}}
    spec = EncodingSpec(permutations=60)
    arrays = encode(X, Y, spec)["s"]
    monkeypatch.setattr(
        sys.modules[encode.__module__]._GroupFit,
        "_here",
        lambda self, values: torch.as_tensor(values, device=self.device),
    )
    tensors = encode(X, Y, spec)["s"]
    for name in ("r", "p", "alpha"):
        np.testing.assert_allclose(getattr(tensors, name), getattr(arrays, name), atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_scores_the_same() -> None:
    rng = np.random.default_rng(15)
    X = {0: {f"run-{i}": rng.standard_normal((60, 8)) for i in range(4)}}
    Y = {"s": {run: x[:, :6] + rng.standard_normal((60, 6)) for run, x in X[0].items()}}
    one, two = (encode(X, Y, EncodingSpec(permutations=60), device=device)["s"] for device in ("cpu", "cuda"))
    np.testing.assert_allclose(one.r, two.r, atol=1e-4)
    np.testing.assert_allclose(one.p, two.p, atol=2 / 61)
