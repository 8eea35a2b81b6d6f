"""From a plan and targets to alphas, scores and predictions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from phaselab.encoding.ridge.plan import FoldPlan, Plan, Side
from phaselab.encoding.ridge.targets import Batch, Targets
from phaselab.errors import expect

#: Targets of a batch at least, where memory is scarce, and at most: larger ones leave the cache of a CPU.
SMALLEST_BATCH, LARGEST_BATCH = 16, {"cpu": 512, "cuda": 8192}


@dataclass(frozen=True)
class Fit:
    """What was learned of each target; NaN where it was left out, None where it was not asked for."""

    alpha: np.ndarray  # float64 (n_targets,), chosen
    cv_score: np.ndarray  # float32 (n_targets,) mean over folds of the correlation with that alpha
    test_score: np.ndarray | None  # float32 (n_targets,) correlation, with a test set
    predictions: np.ndarray | None  # (n_test, n_targets) less the mean of the training set, which would drown them
    weights: np.ndarray | None  # (r, n_targets) of the whitened directions of the plan


@torch.inference_mode()
def solve(
    plan: Plan, targets: Targets, predictions: bool = False, weights: bool = False, columns: slice | None = None
) -> Fit:
    """Choose alpha for each target (of `columns` alone, the first is then ``columns.start``), fit, and score.

    The plan has the targets' splits, and an `X_test` when they have a test set.
    """
    expect(targets.splits is plan.splits, "targets", "other splits than the plan's", "the same object")
    n_test, n_known = targets.n_test, 0 if plan.F is None else len(plan.F)
    expect(n_test == n_known, "X_test", f"{n_known} samples", f"{n_test} as in Y_test")
    columns = slice(0, len(targets.mean)) if columns is None else columns
    n_targets, numbers = columns.stop - columns.start, str(plan.dtype).removeprefix("torch.")
    fit = Fit(
        alpha=np.full(n_targets, np.nan),
        cv_score=np.full(n_targets, np.nan, np.float32),
        test_score=np.full(n_targets, np.nan, np.float32) if n_test else None,
        predictions=np.full((n_test, n_targets), np.nan, numbers) if predictions else None,
        weights=np.full((plan.rank, n_targets), np.nan, numbers) if weights else None,
    )
    candidates = plan.alphas.cpu().numpy()
    # How much of each direction is left by each alpha, and at most.
    g = plan.s**2 / (plan.s**2 + plan.alphas[:, None])
    top = g.max(1).values if plan.rank else torch.ones_like(plan.alphas)
    relative, top = (g / top[:, None]).to(plan.dtype), top.to(plan.dtype)
    kept = targets.kept[slice(*np.searchsorted(targets.kept, [columns.start, columns.stop]))]
    size = LARGEST_BATCH[plan.device.type]
    for start in range(0, len(kept), size):
        part = targets.batch(kept[start : start + size], plan.device, plan.dtype)
        index, score, Z = _search(plan, part)
        at, units = part.columns - columns.start, 1 / targets.scale[part.columns]
        fit.alpha[at], fit.cv_score[at] = candidates[index.cpu().numpy()], score.cpu().numpy()
        # Divided by the largest g, which keeps it off the smallest numbers.
        shrunk = relative[index].T * Z
        if plan.F is not None and part.Y_test is not None and fit.test_score is not None:
            predicted = plan.F @ shrunk
            test_score = _correlation(predicted, part.Y_test).cpu().numpy()
            fit.test_score[at] = np.where(targets.test_constant[part.columns], 0, test_score)
            if fit.predictions is not None:
                fit.predictions[:, at] = (predicted * top[index]).cpu().numpy() * units
        if fit.weights is not None:
            fit.weights[:, at] = (shrunk * top[index]).cpu().numpy() * units
    return fit


def batch_size(plans: list[Plan], n_test: int, n_targets: int, memory: float, more: int = 0) -> int:
    """Targets of a batch that fit into `memory` bytes beside plans; `more` bytes per target are the caller's own."""
    each, own = more + max(plan.batch_bytes(n_test) for plan in plans), sum(plan.bytes for plan in plans)
    least = min(SMALLEST_BATCH, n_targets)
    fitting = int((memory - own) // each)
    found = f"{memory:.0f} bytes, with which {least} targets at once take {own + least * each} bytes"
    parts = f"as many bytes at least ({own} for the factorised features and {each} per target)"
    expect(fitting >= least, "memory", found, parts)
    return min(LARGEST_BATCH[plans[0].device.type], fitting)


def _search(plan: Plan, part: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Number of the best alpha and its score (b,), and U'Y of all rows (r, b)."""
    Y = part.Y
    C = [plan.U[rows].T @ Y[rows] for rows in plan.splits.slices]
    total = reduce(torch.add, C)
    scores = Y.new_zeros((len(plan.alphas), Y.shape[1]))
    for k, fold in enumerate(plan.folds):
        z, w = (_vector(side, part, C, total) for side in (fold.z, fold.w))
        if part.silent is not None:
            z[:, part.silent[k]] = 0
        scores += _scores(fold, part.squares[k], z, w)
    scores /= len(plan.folds)
    best = scores.max(0).values
    # Of equals the first, on every device: argmax does not promise which.
    number = torch.arange(len(scores), device=scores.device)[:, None]
    return torch.where(scores == best, number, len(scores) - 1).min(0).values, best, total


def _vector(side: Side, part: Batch, C: list[torch.Tensor], total: torch.Tensor) -> torch.Tensor:
    """Either z or w of a fold, (r_k, b); `C` (r, b) is U'Y of each piece."""
    if side.shift is None:
        return _product(side.matrix, side.rows, part.Y)
    others = [i for i in range(len(C)) if i not in side.pieces]
    if len(others) < len(side.pieces):
        summed = reduce(torch.sub, [C[i] for i in others], total)
    else:
        summed = reduce(torch.add, [C[i] for i in side.pieces])
    out = side.matrix @ summed
    out.addr_(side.shift, part.sums[side.pieces].sum(0), alpha=-1)
    if side.steep is not None:
        index, matrix = side.steep
        out[index] = _product(matrix, side.rows, part.Y)
    return out


def _product(matrix: torch.Tensor, rows: list[slice], Y: torch.Tensor) -> torch.Tensor:
    """Product of a matrix (q, n_rows) with these rows of Y, without a copy of them."""
    ends = np.cumsum([where.stop - where.start for where in rows]).tolist()
    out = matrix[:, : ends[0]] @ Y[rows[0]]
    for start, end, where in zip(ends, ends[1:], rows[1:], strict=False):
        out.addmm_(matrix[:, start:end], Y[where])
    return out


def _scores(fold: FoldPlan, squares: torch.Tensor, z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Correlations of all alphas in a fold, (n_alphas, b)."""
    r = len(z)
    numerator = fold.numerator @ w.mul_(z)
    pairs = z.new_empty((2 * r, z.shape[1]))
    torch.mm(fold.K, z, out=pairs[:r])
    for rows, columns, block in fold.near:
        torch.mm(block, z[columns], out=pairs[r:][rows])
    pairs[:r].mul_(z)
    pairs[r:].mul_(z)
    # Of predictions divided by their largest g.
    norm = (fold.denominator @ pairs).clamp_min_(0).mul_(squares).sqrt_()
    return torch.where(norm > 0, numerator / norm, 0)


def _correlation(predicted: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """Pearson's r of each column of (n_test, b); 0 where either is constant."""
    predicted, Y = predicted - predicted.mean(0), Y - Y.mean(0)
    norm = ((predicted**2).sum(0) * (Y**2).sum(0)).sqrt()
    return torch.where(norm > 0, (predicted * Y).sum(0) / norm, 0)
