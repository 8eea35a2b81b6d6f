"""Is a held-out correlation above chance? Permutation in time, and the false discovery rate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal, get_args

import numpy as np
import torch
from scipy.fft import irfft, rfft
from scipy.stats import false_discovery_control
from torch.nn.functional import embedding_bag

#: Null distributions of ``permutation_p``.
Null = Literal["block", "circular", "pooled"]
#: Factor on the permuted means of folds that are trained and tested in turn (see ``permutation_p``).
WIDENING = np.sqrt(2)
#: Targets that are worked on at once.
TARGETS_AT_ONCE = 512
#: Numbers in a table of products of blocks: 2 MB, to lie in the cache while permutations read from it.
TABLE = 2**19


def correlation(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Pearson correlation of each column; 0, not NaN, where either column is constant.

    Parameters
    ----------
    predictions, targets : (n, n_targets).

    Returns
    -------
    float64 (n_targets,).
    """
    return (_unit(predictions) * _unit(targets)).sum(0)


def permutation_p(
    predictions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    runs: Sequence[np.ndarray],
    block: int = 10,
    permutations: int = 1000,
    seed: int = 0,
    *,
    null: Null = "block",
    min_shift: int = 1,
    pool: np.ndarray | None = None,
) -> np.ndarray:
    """One-sided p-value of the mean correlation over folds, by permuting the test response in time.

    Three null distributions:

    - ``block``: the responses of each test fold are cut into blocks of `block` TRs that never cross the
      end of a run or of a fold, and the blocks change places within the fold, so that what is shorter
      than a block keeps its autocorrelation. Observed and permuted values are both taken over whole
      blocks: the last TRs of a run that do not fill a block are left out of the test, or they would
      never move. A block should be longer than the autocorrelation: with AR(1) series of phi .8 (a
      lag-10 autocorrelation of .1), 7 % of null voxels have p <= .05 with blocks of 10 TRs, 6 % with 20.
    - ``circular``: the responses of each run of a fold are rotated by a lag of their own, at least
      `min_shift` TRs in either direction, which keeps all autocorrelation but at one seam. A single run
      has fewer lags than TRs: when there are fewer than `permutations`, each is used once. Lags near 0
      belong to the null: without them it is too narrow, since the products of two centred series sum
      to 0 over all lags (10 % of null voxels had p <= .05 with lags from 20 TRs in runs of 120, 5 % with
      all lags).
    - ``pooled``: the null of the paper's authors, for comparison: one shuffle of blocks, and the
      correlations of all targets of a pool are the null distribution of each of them. Targets are then
      judged by each other's noise, and the one shuffle is common to all: see the measured error in
      ``benchmarks/significance.py``.

    p = (1 + count) / (1 + permutations), where count is the number of permutations (of targets, for
    ``pooled``) whose mean correlation is at least the observed one (Phipson and Smyth 2010).

    With several folds that are tested in turn and trained on otherwise, the permuted means are
    multiplied by the square root of 2 (`WIDENING`; see Notes).

    Parameters
    ----------
    predictions, targets : a fold each, (n_test, n_targets).
    runs : a fold each, (n_test,) run of each sample.
    block : TRs in a block.
    permutations : number of permutations; with 0, every p is 1.
    seed : seed of the permutations, which are the same for all targets.
    null : ``block``, ``circular`` or ``pooled``.
    min_shift : TRs of the least rotation, in either direction (``circular``).
    pool : (n_targets,) which targets share a null distribution (``pooled``), such as the subject of each
        voxel; all of them by default.

    Returns
    -------
    float64 (n_targets,); 1 for a target or a prediction that is constant in every fold.

    Raises
    ------
    ValueError
        When a fold has fewer than two whole blocks, a run is too short to be rotated, shapes do not fit or
        values are not finite; naming the argument.

    Notes
    -----
    Block: the products of every block of predictions with every block of responses are formed once,
    n_test x n_blocks multiplications a target; a permutation is then a sum of n_blocks of them, taken
    from a table small enough for the cache. Circular: the sums of all lags come from one Fourier
    transform. Products and sums of blocks are float32, so that a permutation within about 1e-6 of the
    observed correlation may be counted or not; beyond its input this takes about 2 MB for the table, and
    `TARGETS_AT_ONCE` columns of a fold and of the permutations.

    Scores of folds that swap the roles of test and training are not independent, as permuting each
    test response against fixed predictions makes them. With y_k the response in fold k, the summed
    score is a sum over pairs of folds of y_k' A_kj y_j + y_j' A_jk y_k, and under the null the two
    terms of a pair are nearly the same number: A_kj = X_k (X'X + alpha I)^-1 X_j' differs from the
    transpose of A_jk only in the folds that X'X is summed over. Pairs are uncorrelated with each
    other, and the variance of a sum of two is at most twice the sum of their variances: hence the
    factor, which makes p slightly too large at worst. In simulations with 4 folds 11 to 15 % of null
    voxels had p <= .05 without it, and with it 4 to 5 % (blocks, phi to .5), 7 % (blocks, phi .8) or 5 %
    (rotations, phi to .8); see ``benchmarks/significance.py``.
    """
    if null not in get_args(Null):
        raise ValueError(f"null: found {null!r}, expected one of {', '.join(get_args(Null))}")
    if not len(targets) or not len(targets) == len(predictions) == len(runs):
        raise ValueError(
            f"predictions: found {len(predictions)} folds, targets {len(targets)} and runs {len(runs)}, "
            "expected the same number, 1 or more"
        )
    n_targets = targets[0].shape[1]
    for fold, (predicted, target, run) in enumerate(zip(predictions, targets, runs, strict=True)):
        if predicted.shape != target.shape or target.shape != (len(run), n_targets):
            raise ValueError(
                f"targets: fold {fold}: found shape {target.shape}, predictions {predicted.shape} and runs "
                f"({len(run)},); expected ({len(run)}, {n_targets}) for both"
            )
    for name, value, least in (("block", block, 1), ("permutations", permutations, 0)):
        if value < least:
            raise ValueError(f"{name}: found {value}, expected at least {least}")
    pool = np.zeros(n_targets, int) if pool is None else np.asarray(pool)
    if pool.shape != (n_targets,):
        raise ValueError(f"pool: found shape {pool.shape}, expected ({n_targets},), one name a target")
    if not permutations:
        return np.ones(n_targets)
    rng = np.random.default_rng(seed)
    if null == "circular":
        parts = [stretches_of(np.asarray(run)) for run in runs]
        lags = draw_lags(parts, permutations, min_shift, rng)
        kept = [np.arange(len(run)) for run in runs]
    else:
        blocks = [_blocks(np.asarray(run), block) for run in runs]
        orders = [_orders(len(b), permutations if null == "block" else 1, rng) for b in blocks]
        kept = [b.ravel() for b in blocks]

    observed, shuffled, count = np.zeros(n_targets), np.zeros(n_targets), np.zeros(n_targets, int)
    flat = np.zeros(n_targets, bool)
    for start in range(0, n_targets, TARGETS_AT_ONCE):
        at = slice(start, start + TARGETS_AT_ONCE)
        pairs = [
            (_unit(predicted[rows, at]), _unit(target[rows, at]))
            for predicted, target, rows in zip(predictions, targets, kept, strict=True)
        ]
        if null == "circular":
            of_folds = (_rotated(*pair, *fold) for pair, *fold in zip(pairs, parts, lags, strict=True))
        else:
            permuted = _permuted if null == "block" else _permuted_one_by_one
            of_folds = (permuted(*pair, order) for pair, order in zip(pairs, orders, strict=True))
        # (1 + permutations, targets of the batch), the observed sum first
        sums = reduce(np.add, of_folds)
        if len(bad := np.flatnonzero(np.isnan(sums[0]))):
            raise ValueError(
                f"targets: found NaN or infinite values in target {start + bad[0]} or in its predictions, expected none"
            )
        if len(targets) > 1:
            sums[1:] *= WIDENING
        observed[at], shuffled[at] = sums[:2]
        # Lags of a periodic series are equal up to rounding.
        count[at] = (sums[1:] >= sums[0] - 1e-9).sum(0)
        flat[at] = np.all([~a.any(0) | ~b.any(0) for a, b in pairs], axis=0)
    if null != "pooled":
        return (1 + count) / len(sums)
    p = np.ones(n_targets)
    for name in np.unique(pool):
        inside = (pool == name) & ~flat
        below = np.searchsorted(np.sort(shuffled[inside]), observed[inside])
        p[inside] = (1 + inside.sum() - below) / (1 + inside.sum())
    return p


def discoveries(p: np.ndarray, fdr: float = 0.05) -> np.ndarray:
    """Which of the p-values are significant at a false discovery rate (Benjamini and Hochberg 1995).

    Parameters
    ----------
    p : (n,) p-values of one family.
    fdr : accepted share of false ones among the significant.

    Returns
    -------
    bool (n,).
    """
    return false_discovery_control(p, method="bh") <= fdr


def stretches_of(runs: np.ndarray) -> list[np.ndarray]:
    """Indices of each stretch of samples of the same run."""
    return np.split(np.arange(len(runs)), np.flatnonzero(runs[1:] != runs[:-1]) + 1)


def _blocks(runs: np.ndarray, block: int) -> np.ndarray:
    """(n_blocks, block) indices of whole blocks, each inside one stretch of the same run."""
    whole = [s[: len(s) // block * block].reshape(-1, block) for s in stretches_of(runs)]
    blocks = np.concatenate(whole)
    if len(blocks) < 2:
        raise ValueError(
            f"block: found {block} TRs, with which a test fold of {len(runs)} TRs has {len(blocks)} whole "
            "blocks; expected at least 2"
        )
    return blocks


def _orders(n_blocks: int, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """(1 + permutations, n_blocks) orders of blocks, the first as they are."""
    same = np.arange(n_blocks)
    return np.vstack([same, rng.permuted(np.tile(same, (permutations, 1)), axis=1)])


def draw_lags(
    folds: Sequence[Sequence[np.ndarray]], permutations: int, min_shift: int, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """For each stretch of each fold its lag in each permutation, after a first 0: what is observed."""
    shortest = min(len(stretch) for fold in folds for stretch in fold)
    if min_shift < 1 or shortest < 2 * min_shift:
        raise ValueError(
            f"min_shift: found {min_shift} TRs and a run of {shortest} TRs in a test fold, expected at least "
            "1 TR and at most half of the run"
        )
    if len(folds) == len(folds[0]) == 1:
        every = rng.permutation(np.arange(min_shift, shortest - min_shift + 1))[:permutations]
        return [[np.append(0, every)]]
    return [
        [np.append(0, rng.integers(min_shift, len(s) - min_shift + 1, permutations)) for s in fold] for fold in folds
    ]


def _permuted(A: np.ndarray, B: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Sums of products of columns with the blocks of `B` in each order; float64 (n_orders, n_targets).

    Parameters
    ----------
    A, B : (n_blocks * block, n_targets).
    orders : (n_orders, n_blocks).
    """
    n_orders, n_blocks = orders.shape
    n_targets = A.shape[1]
    # (n_targets, n_blocks, block)
    a, b = (torch.from_numpy(m.T.astype(np.float32, order="C").reshape(n_targets, n_blocks, -1)) for m in (A, B))
    columns = min(max(TABLE // n_blocks**2, 32), n_targets)
    rows = min(max(TABLE // (n_blocks * columns), 1), n_blocks)
    bags = []
    for first in range(0, n_blocks, rows):
        # Row i * n_blocks + j of a table: block first + i predicted, block j measured.
        chosen = orders[:, first : first + rows]
        index = torch.from_numpy((np.arange(chosen.shape[1]) * n_blocks + chosen).astype(np.int32))
        bags.append((first, index.flatten(), torch.arange(0, index.numel(), chosen.shape[1]).int()))
    sums = torch.empty(n_orders, n_targets)
    for start in range(0, n_targets, columns):
        at = slice(start, start + columns)
        measured = b[at].transpose(1, 2).contiguous()
        of_batch = torch.zeros(n_orders, len(measured))
        for first, index, ends in bags:
            table = torch.bmm(a[at, first : first + rows], measured).flatten(1).T.contiguous()
            # A bag of rows of the table for each order: the gather and the sum in one pass.
            of_batch += embedding_bag(index, table, ends, mode="sum")
        sums[:, at] = of_batch
    return sums.numpy().astype(np.float64)


def _permuted_one_by_one(A: np.ndarray, B: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """What ``_permuted`` gives, for orders too few to be worth a table."""
    blocks = B.reshape(orders.shape[1], -1, B.shape[1])
    return np.stack([np.einsum("tv,tv->v", A, blocks[order].reshape(B.shape)) for order in orders])


def _rotated(A: np.ndarray, B: np.ndarray, stretches: Sequence[np.ndarray], lags: Sequence[np.ndarray]) -> np.ndarray:
    """Sums of products of columns with each stretch of `B` rotated by its lags; (n_lags, n_targets)."""
    sums = np.zeros((len(lags[0]), A.shape[1]))
    for stretch, lag in zip(stretches, lags, strict=True):
        spectrum = rfft(A[stretch], axis=0) * rfft(B[stretch], axis=0).conj()
        sums += irfft(spectrum, len(stretch), axis=0)[lag]
    return sums


def _unit(values: np.ndarray) -> np.ndarray:
    """Columns centred and divided by their norm, in float64; a constant column becomes 0."""
    values = np.asarray(values, dtype=np.float64)
    centred = values - values.mean(0)
    # Exact: the mean of equal numbers may differ from them by rounding, and the norm then is not 0.
    constant = values.max(0) == values.min(0)
    centred[:, constant] = 0
    return centred / np.where(constant, 1, np.linalg.norm(centred, axis=0))
