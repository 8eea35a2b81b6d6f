"""Is a held-out correlation above chance? Permutation in time."""

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from phaselab.encoding.arrays import batches
from phaselab.encoding.folds import fold_weights
from phaselab.errors import expect, number_of
from phaselab.stats import unit

#: Factor on the permuted means of folds that are trained and tested in turn.
WIDENING = np.sqrt(2)
#: Numbers in a table of products of blocks: 2 MB, to lie in the cache while permutations read from it.
TABLE = 2**19


class Permutations:
    """Permutations in time of the test responses of some folds, drawn once for all targets.

    - ``block``: blocks of TRs, longer than the autocorrelation, change places within a test fold, never across the
      end of a run. Observed and permuted values are both taken over whole blocks: TRs that fill none would never move.
    - ``circular``: the responses of each run of a fold are rotated by a lag of their own. When a single run has fewer
      lags than `number`, each is used once. Lags near 0 belong to the null: products of centred series sum to 0.
    - ``pooled``, of the paper's authors: one shuffle of blocks, and the correlations of all targets of a pool are the
      null distribution of each of them.

    p = (1 + count) / (1 + permutations), where count is the number of permutations (of targets, for ``pooled``) whose
    mean correlation, folds weighted by length, is at least the observed one (Phipson and Smyth 2010). With several
    folds permuted means are multiplied by `WIDENING`, which makes p slightly too large at worst (notebook 14).
    """

    def __init__(self, runs: Sequence[np.ndarray], block: int, number: int, seed: int, null: str) -> None:
        """Of the (n_test,) run of each sample, a fold each; `block` TRs move together. With 0 every p is 1."""
        rng, moves, self.weights = np.random.default_rng(seed), list[Any](), fold_weights([*map(len, runs)])
        if number and null == "circular":
            self.rows, parts = [np.arange(len(run)) for run in runs], [stretches_of(run) for run in runs]
            moves = list(zip(parts, _lags(parts, number, rng), strict=True))
            number = len(moves[0][1][0]) - 1
        elif number:
            blocks, number = [_blocks(run, block) for run in runs], number if null == "block" else 1
            self.rows, orders = [b.ravel() for b in blocks], [np.arange(len(b)) for b in blocks]
            moves = [np.vstack([order, rng.permuted(np.tile(order, (number, 1)), axis=1)]) for order in orders]
        # Of each fold (1 + number, n_blocks) orders of blocks, or its stretches and their lags; the first is observed.
        self.null, self.number, self.moves = null, number, moves

    def count(self, predictions: Sequence[Any], targets: Sequence[Any]) -> np.ndarray:
        """(4, n_targets), of a batch of targets: a fold each, (n_test, n_targets), numpy or tensors on one device.

        The weighted sum over folds of the correlations, as measured and in the first permutation; the number of
        permutations whose sum is at least the observed one; whether response or prediction is constant in every fold.
        """
        if not self.number:
            return np.zeros((4, targets[0].shape[1]))
        pairs = [
            tuple(torch.as_tensor(unit(values[rows])) for values in pair)
            for *pair, rows in zip(predictions, targets, self.rows, strict=True)
        ]
        moved: Any = {"block": _permuted, "circular": _rotated, "pooled": _permuted_one_by_one}[self.null]
        # (1 + number, n_targets), the observed sum first
        parts = zip(pairs, self.moves, self.weights, strict=True)
        sums = reduce(operator.add, (float(weight) * moved(a, b, moves) for (a, b), moves, weight in parts))
        if len(pairs) > 1:
            sums[1:] *= float(WIDENING)
        # Lags of a periodic series are equal up to rounding.
        reached = (sums[1:] >= sums[0] - 1e-9).sum(0)
        flat = reduce(operator.and_, (~(a != 0).any(0) | ~(b != 0).any(0) for a, b in pairs))
        return torch.stack([sums[0], sums[1], reached.double(), flat.double()]).cpu().numpy()

    def p(self, counts: Sequence[np.ndarray], pool: np.ndarray) -> np.ndarray:
        """float64 (n_targets,), of all batches' counts; for ``pooled`` those of a `pool` (n_targets,) share a null."""
        observed, shuffled, reached, flat = np.concatenate(counts, axis=1)
        if self.null != "pooled":
            return np.asarray((1 + reached) / (1 + self.number))
        p = np.ones(len(pool))
        for name in np.unique(pool):
            inside = (pool == name) & (flat == 0)
            below = np.searchsorted(np.sort(shuffled[inside]), observed[inside])
            p[inside] = (1 + inside.sum() - below) / (1 + inside.sum())
        return p


def stretches_of(runs: np.ndarray) -> list[np.ndarray]:
    """Indices of each stretch of samples of the same run."""
    return np.split(np.arange(len(runs)), np.flatnonzero(runs[1:] != runs[:-1]) + 1)


def _lags(folds: Sequence[Sequence[np.ndarray]], number: int, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """For each stretch of each fold its lag in each permutation, after a first 0: what is observed."""
    shortest = min(len(stretch) for fold in folds for stretch in fold)
    expect(shortest > 1, "null: circular", "a run of 1 row in a test fold", "at least 2 rows")
    if len(folds) == len(folds[0]) == 1:
        return [[np.append(0, rng.permutation(np.arange(1, shortest))[:number])]]
    return [[np.append(0, rng.integers(1, len(stretch), number)) for stretch in fold] for fold in folds]


def _blocks(runs: np.ndarray, block: int) -> np.ndarray:
    """(n_blocks, block) indices of whole blocks, each inside one stretch of the same run."""
    blocks = np.concatenate([s[: len(s) // block * block].reshape(-1, block) for s in stretches_of(runs)])
    found = f"{block} rows, with which a test fold of {len(runs)} has {number_of(len(blocks), 'whole block')}"
    expect(len(blocks) > 1, "block", found, "at least 2")
    return blocks


def _permuted(A: torch.Tensor, B: torch.Tensor, orders: np.ndarray) -> torch.Tensor:
    """Sums (n_orders, n_targets) of products of `A` with `B`'s blocks in each order; blocks' are formed once."""
    n_orders, n_blocks = orders.shape
    n_targets = A.shape[1]
    # (n_targets, n_blocks, block)
    a, b = (m.T.float().contiguous().reshape(n_targets, n_blocks, -1) for m in (A, B))
    columns = min(max(TABLE // n_blocks**2, 32), n_targets)
    rows = min(max(TABLE // (n_blocks * columns), 1), n_blocks)
    bags = []
    for first in range(0, n_blocks, rows):
        # Row i * n_blocks + j of a table: block first + i predicted, block j measured.
        chosen = orders[:, first : first + rows]
        index = (np.arange(chosen.shape[1]) * n_blocks + chosen).astype(np.int32)
        bags.append((first, torch.from_numpy(index).to(a.device)))
    sums = a.new_empty(n_orders, n_targets)
    for at in batches(n_targets, columns):
        measured = b[at].transpose(1, 2).contiguous()
        of_batch = a.new_zeros(n_orders, len(measured))
        for first, index in bags:
            table = torch.bmm(a[at, first : first + rows], measured).flatten(1).T.contiguous()
            # A bag of rows of the table for each order: the gather and the sum in one pass.
            of_batch += embedding_bag(index, table, mode="sum")
        sums[:, at] = of_batch
    return sums.double()


def _permuted_one_by_one(A: torch.Tensor, B: torch.Tensor, orders: np.ndarray) -> torch.Tensor:
    """What ``_permuted`` gives, for orders too few to be worth a table."""
    blocks = B.reshape(orders.shape[1], -1, B.shape[1])
    return torch.stack([torch.einsum("tv,tv->v", A, blocks[order].reshape(B.shape)) for order in orders])


def _rotated(A: torch.Tensor, B: torch.Tensor, moves: tuple[list[np.ndarray], list[np.ndarray]]) -> Any:
    """Sums of products of columns with each stretch of `B` rotated by its lags; (n_lags, n_targets)."""
    fft, sums = torch.fft, 0
    for stretch, lag in zip(*moves, strict=True):
        spectrum = fft.rfft(A[stretch], None, 0) * fft.rfft(B[stretch], None, 0).conj()
        sums = sums + fft.irfft(spectrum, len(stretch), 0)[lag]
    return sums
