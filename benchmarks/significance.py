"""Significance: speed of permutation against a plain loop, agreement with it, and false alarms of each null.

    python benchmarks/significance.py [--quick] [--json benchmarks/results/significance.json] [--check]

Speed is a ratio of process CPU time on one thread, the loop and ours in turn in one process. Two
loops: the plain one calls a correlation of float32 arrays for each permutation; the careful one
standardises once, and then gathers and sums products. False alarms: responses are AR(1) noise and
features AR(1) series that have nothing to do with them; a null is well calibrated when 5 % of p are
at most .05. The goal stands where a null's own assumption does: blocks must be longer than the
autocorrelation, which at phi .8 has not ended after 10 TRs, and the pooled null is the authors', not ours.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from _table import Row, arguments, finish
from scipy.signal import lfilter
from threadpoolctl import threadpool_limits

from phaselab.encoding import encode, significance
from phaselab.study import EncodingSpec

PERMUTATIONS = 1000
BLOCK = 10
#: TRs of the test set and voxels: a quarter of the replica of ridge.md, and the paper's own test set.
SHAPES = {"replica": (1024, 12_000), "paper": (7737, 2_000)}
#: Autocorrelation of features and responses at a lag of one TR.
PHIS = (0.0, 0.5, 0.8)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def ar(rng: np.random.Generator, n: int, k: int, phi: float) -> np.ndarray:
    """(n, k) stationary AR(1) series of unit variance."""
    noise = rng.standard_normal((n, k)) * np.sqrt(1 - phi**2)
    noise[0] /= np.sqrt(1 - phi**2)
    return lfilter([1], [1, -phi], noise, axis=0)


# ------------------------------------------------------------------------------------- speed


def blocks_of(n: int) -> np.ndarray:
    return np.arange(n // BLOCK * BLOCK).reshape(-1, BLOCK)


def draw(n_blocks: int, permutations: int, seed: int = 0) -> np.ndarray:
    """The orders of blocks that ``Permutations`` draws."""
    return np.random.default_rng(seed).permuted(np.tile(np.arange(n_blocks), (permutations, 1)), axis=1)


def z(a: np.ndarray) -> np.ndarray:
    return (a - a.mean(0)) / a.std(0)


def plain(a: np.ndarray, b: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Count of permutations that reach the observed correlation, one correlation after the other."""
    blocks = blocks_of(len(a))
    a, b = a[: blocks.size], b[: blocks.size]
    observed = (z(a) * z(b)).mean(0)
    return sum((z(a) * z(b[blocks[order].ravel()])).mean(0) >= observed for order in orders)


def careful(a: np.ndarray, b: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """The same; what no permutation changes is done once."""
    blocks = blocks_of(len(a))
    a, b = z(a[: blocks.size]), z(b[: blocks.size])
    observed = np.einsum("tv,tv->v", a, b)
    return sum(np.einsum("tv,tv->v", a, b[blocks[order].ravel()]) >= observed for order in orders)


def permutation_p(a: np.ndarray, b: np.ndarray, block: int, permutations: int, seed=0, null="block") -> np.ndarray:
    """p of one test set, counted in batches as large as those of ``encode``."""
    drawn = significance.Permutations([np.zeros(len(a))], block, permutations, seed, null)
    batches = [slice(start, start + 512) for start in range(0, a.shape[1], 512)]
    return drawn.p([drawn.count([a[:, at]], [b[:, at]]) for at in batches], np.zeros(a.shape[1], int))


def ours(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.rint(permutation_p(a, b, BLOCK, PERMUTATIONS) * (1 + PERMUTATIONS) - 1)


def seconds(task: Callable[[], object]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def speed(name: str, quick: bool) -> list[Row]:
    n, voxels = SHAPES[name]
    voxels //= 4 if quick else 1
    rounds, permutations = (3, 4) if quick else (7, 8)
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((n, voxels)).astype(np.float32) for _ in range(2))
    orders = draw(n // BLOCK, permutations)
    ours(a[:, :64], b[:, :64])
    ratios = []
    for _ in range(rounds):
        loops = [seconds(lambda loop=loop: loop(a, b, orders)) for loop in (plain, careful)]
        fast = seconds(lambda: ours(a, b))
        ratios.append([loop * PERMUTATIONS / permutations / fast for loop in loops])
        say(f"{name}: {np.round(ratios[-1], 1)} times, {fast:.2f} s for {voxels} voxels")
    found = np.median(ratios, axis=0)
    low, high = np.min(ratios, axis=0), np.max(ratios, axis=0)
    where = f"{n} TRs x {voxels} voxels"
    goals = ((">= 50", bool(found[0] >= 50)) if name == "replica" else ("", None), ("", None))
    return [
        Row(f"speed, {kind} loop, {where} ({lo:.0f} to {hi:.0f})", float(value), "times", *goal)
        for kind, value, lo, hi, goal in zip(("plain", "careful"), found, low, high, goals, strict=True)
    ]


def agreement(quick: bool) -> list[Row]:
    """Counts against the careful loop in float64 with the same permutations."""
    rng = np.random.default_rng(2)
    n, voxels = 400, 200 if quick else 2000
    a, b = ar(rng, n, voxels, 0.5), ar(rng, n, voxels, 0.5)
    different = np.abs(ours(a, b) - careful(a, b, draw(n // BLOCK, PERMUTATIONS)))
    return [
        Row("counts that differ from a float64 loop", 100 * float((different > 0).mean()), "% of voxels"),
        Row(
            "largest difference of a count",
            float(different.max()),
            "of 1000",
            "<= 1",
            bool(different.max() <= 1),
        ),
    ]


# ------------------------------------------------------------------------------- false alarms


def held_out(rng: np.random.Generator, phi: float, null: str, repeats: int, block: int = BLOCK) -> np.ndarray:
    """p of null voxels on one test set of 400 TRs, whose predictions come from elsewhere."""
    p = []
    for seed in range(repeats):
        X, W, Y = ar(rng, 400, 24, phi), rng.standard_normal((24, 200)), ar(rng, 400, 200, phi)
        p.append(permutation_p(X @ W, Y, block, 200, seed, null))
    return np.array(p)


def in_turn(
    rng: np.random.Generator,
    phi: float,
    null: str,
    repeats: int,
    block: int = BLOCK,
    signal: float = 0.0,
) -> np.ndarray:
    """p of voxels for four runs of 120 TRs, each tested by a model trained on the others.

    `signal` is the standard deviation of what the features cause, that of the noise being 1.
    """
    p = []
    for seed in range(repeats):
        X, Y = ar(rng, 480, 24, phi), ar(rng, 480, 200, phi)
        if signal:
            Y += signal * X @ rng.standard_normal((24, 200)) / np.sqrt(24)
        X, Y = ({f"run-{i}": m[120 * i :][:120] for i in range(4)} for m in (X, Y))
        spec = EncodingSpec(permutations=200, null=null, block=block)
        p.append(encode({0: X}, {"s": Y}, spec, seed=seed)["s"].p[0])
    return np.array(p)


def mixed(rng: np.random.Generator, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """p of the pooled null where half of the voxels have low autocorrelation, and half have high."""
    p = []
    for seed in range(repeats):
        predicted = ar(rng, 400, 24, 0.8) @ rng.standard_normal((24, 400))
        Y = np.hstack([ar(rng, 400, 200, 0.0), ar(rng, 400, 200, 0.8)])
        p.append(permutation_p(predicted, Y, BLOCK, 200, seed, "pooled"))
    return np.array(p)[:, :200], np.array(p)[:, 200:]


def alarms(name: str, p: np.ndarray, judged: bool) -> Row:
    """Share of p <= .05 with its standard error over repeats (voxels of a repeat share their features)."""
    rates = 100 * (p <= 0.05).mean(1)
    error = rates.std(ddof=1) / np.sqrt(len(rates))
    met = bool(rates.mean() - 2 * error <= 6) if judged else None
    goal = "<= 6" if judged else ""
    return Row(f"false alarms at .05, {name} (s.e. {error:.1f})", float(rates.mean()), "%", goal, met)


def false_alarms(quick: bool) -> list[Row]:
    repeats = 20 if quick else 300
    found = []

    def add(row: Row) -> None:
        found.append(row)
        say(f"{row.name}: {row.value:.1f}")

    for kind, simulate in (("one test set", held_out), ("four folds in turn", in_turn)):
        for null in ("block", "circular", "pooled"):
            for phi in PHIS:
                p = simulate(np.random.default_rng([3, int(10 * phi)]), phi, null, repeats)
                judged = null == "circular" or (null == "block" and phi < 0.8)
                add(alarms(f"{null}, {kind}, phi {phi}", p, judged))
        p = simulate(np.random.default_rng([3, 8]), 0.8, "block", repeats, 2 * BLOCK)
        add(alarms(f"block of {2 * BLOCK}, {kind}, phi 0.8", p, True))
    widening = significance.WIDENING
    significance.WIDENING = 1.0
    try:
        for phi in PHIS:
            p = in_turn(np.random.default_rng([3, int(10 * phi)]), phi, "block", repeats)
            add(alarms(f"block, four folds in turn, not widened, phi {phi}", p, False))
    finally:
        significance.WIDENING = widening
    low, high = mixed(np.random.default_rng(4), repeats)
    add(alarms("pooled, mixed voxels, those with phi 0", low, False))
    add(alarms("pooled, mixed voxels, those with phi .8", high, False))
    return found


def power(quick: bool) -> list[Row]:
    """Share of voxels with a weak signal (an eighth of the noise's variance) that each null finds."""
    found = []
    for null in ("block", "circular"):
        for phi in PHIS:
            rng = np.random.default_rng([5, int(10 * phi)])
            p = in_turn(rng, phi, null, 5 if quick else 60, signal=0.35)
            share = 100 * float((p <= 0.05).mean())
            found.append(Row(f"power at .05, {null}, four folds in turn, phi {phi}", share, "%"))
    return found


def rows(quick: bool) -> list[Row]:
    """All rows; on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            speeds = [row for name in SHAPES for row in speed(name, quick)]
            return [*speeds, *agreement(quick), *false_alarms(quick), *power(quick)]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    options = arguments(__doc__)
    finish("significance", rows(options.quick), options)
