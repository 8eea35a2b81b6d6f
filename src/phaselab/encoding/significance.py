"""Is a held-out correlation above chance? Permutation in time, and the false discovery rate."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, get_args

import numpy as np
import scipy.fft
import torch
from scipy.stats import false_discovery_control
from torch.nn.functional import embedding_bag

from phaselab.errors import PhaselabError, expect
from phaselab.stats import unit

#: Null distributions of ``permutation_p``.
Null = Literal["block", "circular", "pooled"]
#: Factor on the permuted means of folds that are trained and tested in turn (see ``permutation_p``).
WIDENING = np.sqrt(2)
#: Targets that are worked on at once.
TARGETS_AT_ONCE = 512
#: Numbers in a table of products of blocks: 2 MB, to lie in the cache while permutations read from it.
TABLE = 2**19


@dataclass(frozen=True)
class Counts:
    """Sums over folds of the correlations of some targets, as measured and in the first permutation; (n_targets,) each.

    `reached` is the number of permutations whose sum is at least the observed one, `flat` whether response or
    prediction is constant in every fold.
    """

    observed: np.ndarray
    shuffled: np.ndarray
    reached: np.ndarray
    flat: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[Counts]) -> Counts:
        """Those of several batches of targets, one after the other."""
        fields = ("observed", "shuffled", "reached", "flat")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


@dataclass(frozen=True)
class Permutations:
    """Permutations in time of the test responses of some folds, drawn once for all targets.

    `rows` are, a fold each, the TRs that take part; `moves` (1 + number, n_blocks) orders of blocks, or the stretches
    of the fold with (1 + number,) lags for each of them, of which the first is what is observed.
    """

    null: Null
    number: int
    rows: list[np.ndarray]
    moves: list[Any]

    @classmethod
    def draw(
        cls,
        runs: Sequence[np.ndarray],
        block: int = 10,
        permutations: int = 1000,
        seed: int = 0,
        null: Null = "block",
        min_shift: int = 1,
    ) -> Permutations:
        """As for ``permutation_p``."""
        expect(null in get_args(Null), "null", repr(null), f"one of {', '.join(get_args(Null))}")
        for name, value, least in (("block", block, 1), ("permutations", permutations, 0)):
            expect(value >= least, name, value, f"at least {least}")
        rng = np.random.default_rng(seed)
        if not permutations:
            return cls(null, 0, [], [])
        if null == "circular":
            parts = [stretches_of(np.asarray(run)) for run in runs]
            lags = draw_lags(parts, permutations, min_shift, rng)
            rows = [np.arange(len(run)) for run in runs]
            return cls(null, len(lags[0][0]) - 1, rows, list(zip(parts, lags, strict=True)))
        blocks = [_blocks(np.asarray(run), block) for run in runs]
        number = permutations if null == "block" else 1
        orders = [_orders(len(b), number, rng) for b in blocks]
        return cls(null, number, [b.ravel() for b in blocks], orders)

    def count(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Counts:
        """Of some targets: a fold each, (n_test, n_targets), all numpy arrays or all tensors on one device."""
        n_targets = targets[0].shape[1]
        if not self.number:
            zeros = np.zeros(n_targets)
            return Counts(zeros, zeros, np.zeros(n_targets, int), np.zeros(n_targets, bool))
        pairs = [
            (unit(predicted[rows]), unit(target[rows]))
            for predicted, target, rows in zip(predictions, targets, self.rows, strict=True)
        ]
        moved: Any = {"block": _permuted, "circular": _rotated, "pooled": _permuted_one_by_one}[self.null]
        # (1 + number, n_targets), the observed sum first
        sums = reduce(operator.add, (moved(a, b, moves) for (a, b), moves in zip(pairs, self.moves, strict=True)))
        if len(pairs) > 1:
            sums[1:] *= float(WIDENING)
        # Lags of a periodic series are equal up to rounding.
        reached = (sums[1:] >= sums[0] - 1e-9).sum(0)
        flat = reduce(operator.and_, (~(a != 0).any(0) | ~(b != 0).any(0) for a, b in pairs))
        return Counts(*map(_numpy, (sums[0], sums[1], reached, flat)))

    def p(self, counts: Counts, pool: np.ndarray) -> np.ndarray:
        """float64 (n_targets,), of all targets; `pool` (n_targets,) as for ``permutation_p``."""
        bad = np.flatnonzero(np.isnan(counts.observed))
        if len(bad):
            raise PhaselabError(
                f"targets: found NaN or infinite values in target {bad[0]} or in its predictions, expected none"
            )
        if not self.number:
            return np.ones(len(pool))
        if self.null != "pooled":
            return (1 + counts.reached) / (1 + self.number)
        p = np.ones(len(pool))
        for name in np.unique(pool):
            inside = (pool == name) & ~counts.flat
            below = np.searchsorted(np.sort(counts.shuffled[inside]), counts.observed[inside])
            p[inside] = (1 + inside.sum() - below) / (1 + inside.sum())
        return p


def permutation_p(
    predictions: Sequence[Any],
    targets: Sequence[Any],
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

    - ``block``: blocks of `block` TRs, which never cross the end of a run or of a fold, change places within a test
      fold. Observed and permuted values are both taken over whole blocks: the last TRs of a run that do not fill one
      would never move. A block should be longer than the autocorrelation.
    - ``circular``: the responses of each run of a fold are rotated by a lag of their own, at least `min_shift` TRs in
      either direction, which keeps all autocorrelation but at one seam. When a single run has fewer lags than
      `permutations`, each is used once. Lags near 0 belong to the null: without them it is too narrow, since the
      products of two centred series sum to 0 over all lags.
    - ``pooled``: the null of the paper's authors, for comparison: one shuffle of blocks, and the
      correlations of all targets of a pool are the null distribution of each of them.

    p = (1 + count) / (1 + permutations), where count is the number of permutations (of targets, for
    ``pooled``) whose mean correlation is at least the observed one (Phipson and Smyth 2010).
    With several folds that are tested in turn and trained on otherwise, the permuted means are
    multiplied by the square root of 2 (`WIDENING`), which makes p slightly too large at worst;
    notebooks/14_encoder_derived.md has the reason, and ``benchmarks/significance.py`` the measured levels of each null.

    Parameters
    ----------
    predictions, targets : a fold each, (n_test, n_targets); numpy arrays, or tensors, which are worked on where
        they are (p then agrees but for permutations that tie with what is observed).
    runs : a fold each, (n_test,) run of each sample.
    permutations, seed : their number (0: every p is 1) and seed; they are the same for all targets.
    pool : (n_targets,) which targets share a null distribution (``pooled``), such as the subject of each
        voxel; all of them by default.

    Returns
    -------
    float64 (n_targets,); 1 for a target or a prediction that is constant in every fold.
    """
    if not len(targets) or not len(targets) == len(predictions) == len(runs):
        raise PhaselabError(
            f"predictions: found {len(predictions)} folds, targets {len(targets)} and runs {len(runs)}, "
            "expected the same number, 1 or more"
        )
    n_targets = targets[0].shape[1]
    for fold, (predicted, target, run) in enumerate(zip(predictions, targets, runs, strict=True)):
        if predicted.shape != target.shape or tuple(target.shape) != (len(run), n_targets):
            raise PhaselabError(
                f"targets: fold {fold}: found shape {tuple(target.shape)}, predictions {tuple(predicted.shape)} and "
                f"runs ({len(run)},); expected ({len(run)}, {n_targets}) for both"
            )
    pool = np.zeros(n_targets, int) if pool is None else np.asarray(pool)
    expect(pool.shape == (n_targets,), "pool", f"shape {pool.shape}", f"({n_targets},), one name per target")
    drawn = Permutations.draw(runs, block, permutations, seed, null, min_shift)
    batches = [slice(start, start + TARGETS_AT_ONCE) for start in range(0, n_targets, TARGETS_AT_ONCE)]
    counts = [drawn.count([a[:, at] for a in predictions], [b[:, at] for b in targets]) for at in batches]
    return drawn.p(Counts.join(counts), pool)


def discoveries(p: np.ndarray, fdr: float = 0.05) -> np.ndarray:
    """Which (n,) p-values of one family are significant at a false discovery rate (Benjamini and Hochberg 1995)."""
    return np.asarray(false_discovery_control(p, method="bh") <= fdr)


def stretches_of(runs: np.ndarray) -> list[np.ndarray]:
    """Indices of each stretch of samples of the same run."""
    return np.split(np.arange(len(runs)), np.flatnonzero(runs[1:] != runs[:-1]) + 1)


def draw_lags(
    folds: Sequence[Sequence[np.ndarray]], permutations: int, min_shift: int, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """For each stretch of each fold its lag in each permutation, after a first 0: what is observed."""
    shortest = min(len(stretch) for fold in folds for stretch in fold)
    if min_shift < 1 or shortest < 2 * min_shift:
        raise PhaselabError(
            f"min_shift: found {min_shift} TRs and a run of {shortest} TRs in a test fold, expected at least "
            "1 TR and at most half of the run"
        )
    if len(folds) == len(folds[0]) == 1:
        every = rng.permutation(np.arange(min_shift, shortest - min_shift + 1))[:permutations]
        return [[np.append(0, every)]]
    return [
        [np.append(0, rng.integers(min_shift, len(s) - min_shift + 1, permutations)) for s in fold] for fold in folds
    ]


def _blocks(runs: np.ndarray, block: int) -> np.ndarray:
    """(n_blocks, block) indices of whole blocks, each inside one stretch of the same run."""
    whole = [s[: len(s) // block * block].reshape(-1, block) for s in stretches_of(runs)]
    blocks = np.concatenate(whole)
    if len(blocks) < 2:
        raise PhaselabError(
            f"block: found {block} TRs, with which a test fold of {len(runs)} TRs has {len(blocks)} whole "
            "blocks; expected at least 2"
        )
    return blocks


def _orders(n_blocks: int, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """(1 + permutations, n_blocks) orders of blocks, the first as they are."""
    same = np.arange(n_blocks)
    return np.vstack([same, rng.permuted(np.tile(same, (permutations, 1)), axis=1)])


def _permuted(A: Any, B: Any, orders: np.ndarray) -> Any:
    """Sums of products of columns with the blocks of `B` in each of (n_orders, n_blocks) orders; a float64 tensor.

    The products of every block of `A` (n_blocks * block, n_targets) with every block of `B` are formed once, in
    float32; a permutation is then a sum of n_blocks of them. (n_orders, n_targets).
    """
    n_orders, n_blocks = orders.shape
    n_targets = A.shape[1]
    # (n_targets, n_blocks, block)
    a, b = (torch.as_tensor(m).T.float().contiguous().reshape(n_targets, n_blocks, -1) for m in (A, B))
    columns = min(max(TABLE // n_blocks**2, 32), n_targets)
    rows = min(max(TABLE // (n_blocks * columns), 1), n_blocks)
    bags = []
    for first in range(0, n_blocks, rows):
        # Row i * n_blocks + j of a table: block first + i predicted, block j measured.
        chosen = orders[:, first : first + rows]
        index = torch.from_numpy((np.arange(chosen.shape[1]) * n_blocks + chosen).astype(np.int32)).to(a.device)
        ends = torch.arange(0, index.numel(), chosen.shape[1], device=a.device).int()
        bags.append((first, index.flatten(), ends))
    sums = a.new_empty(n_orders, n_targets)
    for start in range(0, n_targets, columns):
        at = slice(start, start + columns)
        measured = b[at].transpose(1, 2).contiguous()
        of_batch = a.new_zeros(n_orders, len(measured))
        for first, index, ends in bags:
            table = torch.bmm(a[at, first : first + rows], measured).flatten(1).T.contiguous()
            # A bag of rows of the table for each order: the gather and the sum in one pass.
            of_batch += embedding_bag(index, table, ends, mode="sum")
        sums[:, at] = of_batch
    return sums.double()


def _permuted_one_by_one(A: Any, B: Any, orders: np.ndarray) -> Any:
    """What ``_permuted`` gives, for orders too few to be worth a table."""
    xp = torch if isinstance(A, torch.Tensor) else np
    blocks = B.reshape(orders.shape[1], -1, B.shape[1])
    return xp.stack([xp.einsum("tv,tv->v", A, blocks[order].reshape(B.shape)) for order in orders])


def _rotated(A: Any, B: Any, moves: tuple[Sequence[np.ndarray], Sequence[np.ndarray]]) -> Any:
    """Sums of products of columns with each stretch of `B` rotated by its lags; (n_lags, n_targets)."""
    fft = torch.fft if isinstance(A, torch.Tensor) else scipy.fft
    sums = 0
    for stretch, lag in zip(*moves, strict=True):
        spectrum = fft.rfft(A[stretch], None, 0) * fft.rfft(B[stretch], None, 0).conj()
        sums = sums + fft.irfft(spectrum, len(stretch), 0)[lag]
    return sums


def _numpy(values: Any) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else values
