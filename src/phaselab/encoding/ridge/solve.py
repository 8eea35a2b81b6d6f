"""From a plan and targets to alphas, scores and predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from phaselab.encoding.ridge.plan import Basis, FoldPlan, Plan, Rows, Scoring, Side
from phaselab.encoding.ridge.targets import Batch, Targets
from phaselab.errors import PhaselabError, expect

#: Targets of a batch at least, where memory is scarce, and at most, where it is not: larger ones leave
#: the cache of a CPU.
SMALLEST_BATCH, LARGEST_BATCH = 16, {"cpu": 512, "cuda": 8192}


@dataclass(frozen=True)
class Fit:
    """What was learned of each target; NaN where it was left out.

    Attributes
    ----------
    alpha : float64 (n_targets,) the chosen alphas.
    cv_score : float32 (n_targets,) mean over folds of the score with that alpha.
    test_score : float32 (n_targets,), or None without a test set.
    predictions : (n_test, n_targets) when asked for; with an intercept less the mean of the training
        set, which would drown predictions that hardly vary.
    coef : (p, n_targets) and
    intercept : (n_targets,) when asked for.
    left_out : target -> why.
    """

    alpha: np.ndarray
    cv_score: np.ndarray
    test_score: np.ndarray | None
    predictions: np.ndarray | None
    coef: np.ndarray | None
    intercept: np.ndarray | None
    left_out: dict[int, str]


@torch.inference_mode()
def solve(
    plan: Plan,
    targets: Targets,
    memory: float | None = None,
    predictions: bool = False,
    coef: bool = False,
    columns: slice | None = None,
) -> Fit:
    """Choose alpha for each target, fit, and score on the test set.

    Parameters
    ----------
    plan : of the features; with `X_test` when `targets` have a test set.
    targets : with the same splits.
    memory : bytes that the plan and a batch of targets, with all that is computed from it, may take
        (``plan.bytes + batch * plan.batch_bytes(n_test)``); what is asked for as a result comes on top. None:
        batches of `LARGEST_BATCH`.
    predictions : keep the predictions of the test set.
    coef : keep the coefficients.
    columns : these targets alone, of which the result then is: its first target is ``columns.start``.
    """
    expect(targets.splits is plan.splits, "targets", "other splits than the plan's", "the same object")
    found = targets.intercept
    expect(found == plan.intercept, "targets", f"intercept {found}", f"{plan.intercept} as in the plan")
    n_test, n_known = targets.n_test, 0 if plan.F is None else len(plan.F)
    expect(n_test == n_known, "X_test", f"{n_known} samples", f"{n_test} as in {targets.name}_test")
    size = batch_size([plan], n_test, targets.n_targets, memory)
    columns = slice(0, targets.n_targets) if columns is None else columns
    fit = _unknown(plan, targets, predictions, coef, columns)
    basis, candidates = plan.basis, plan.alphas.cpu().numpy()
    g = basis.shrinkage(plan.alphas)
    top = g.max(1).values if basis.rank else torch.ones_like(plan.alphas)
    relative, g = (g / top[:, None]).to(plan.dtype), g.to(plan.dtype)
    lift = (basis.V / basis.s).to(plan.dtype) if coef else None
    for part in targets.batches(size, plan.device, plan.dtype, columns):
        index, score, Z = _search(plan, part)
        at, units = part.columns - columns.start, 1 / targets.scale[part.columns]
        fit.alpha[at] = candidates[index.cpu().numpy()]
        fit.cv_score[at] = score.cpu().numpy()
        if plan.F is not None and fit.test_score is not None:
            # The same prediction divided by its largest g, which keeps it off the smallest numbers.
            predicted, scale = plan.F @ (relative[index].T * Z), top[index].to(plan.dtype)
            score = _score(plan.scoring, predicted, _held_out(plan, targets, part), scale)
            fit.test_score[at] = score.masked_fill_(part.test_constant, 0).cpu().numpy()
            if fit.predictions is not None:
                fit.predictions[:, at] = (predicted * scale).cpu().numpy() * units
        if lift is not None and fit.coef is not None and fit.intercept is not None:
            b = lift @ (g[index].T * Z)
            off = targets.mean[part.columns] if plan.intercept else 0.0
            fit.coef[:, at] = b.cpu().numpy() * units
            fit.intercept[at] = off - (basis.mean @ b.to(torch.float64)).cpu().numpy() * units
    return fit


@torch.inference_mode()
def predict(basis: Basis, targets: Targets, alpha: np.ndarray, X: Any) -> np.ndarray:
    """Predictions for other features, from the responses of the training set: no coefficients are formed.

    Of features and responses of a training set, the chosen `alpha` (n_targets,), and features (n_rows, p):
    (n_rows, n_targets) in the basis' type; NaN for targets that were left out. With an intercept less the
    mean of the training set, ``targets.mean``.
    """
    F = basis.project(X)
    out = np.full((len(F), targets.n_targets), np.nan, dtype=_numpy_type(basis.dtype))
    for part in targets.batches(LARGEST_BATCH["cpu"], basis.device, basis.dtype):
        g = basis.shrinkage(torch.as_tensor(alpha[part.columns], device=basis.device)).to(basis.dtype)
        C = basis.U.T @ part.Y
        if part.mean is not None:
            C.addr_(basis.U.sum(0), part.mean)
        out[:, part.columns] = (F @ (g.T * C)).cpu().numpy() / targets.scale[part.columns]
    return out


def batch_size(plans: list[Plan], n_test: int, n_targets: int, memory: float | None, more: int = 0) -> int:
    """Targets of a batch that fit into `memory` (bytes; None: no bound) beside plans that are held together.

    One plan at a time solves a batch; `n_test` are the test rows of the one with the most, `more` the bytes per target
    that the caller needs beside those of ``Plan.batch_bytes``.
    """
    most = LARGEST_BATCH.get(plans[0].device.type, LARGEST_BATCH["cpu"])
    if memory is None:
        return most
    good = isinstance(memory, (int, float, np.number)) and memory >= 1
    expect(good, "memory", repr(memory), "a number of bytes, 1 or more")
    each, own = more + max(plan.batch_bytes(n_test) for plan in plans), sum(plan.bytes for plan in plans)
    least = min(SMALLEST_BATCH, n_targets)
    fitting = int((memory - own) // each)
    if fitting < least:
        raise PhaselabError(
            f"memory: found {memory:.0f} bytes, with which {least} targets at once take {own + least * each} bytes "
            f"({own} for the factorised features and {each} per target); expected as many bytes at least"
        )
    return min(most, fitting)


def _numpy_type(dtype: torch.dtype) -> np.dtype:
    return np.dtype(str(dtype).removeprefix("torch."))


def _unknown(plan: Plan, targets: Targets, predictions: bool, coef: bool, columns: slice) -> Fit:
    """A fit in which nothing is known yet."""
    t, n_test = columns.stop - columns.start, targets.n_test
    kept_type = _numpy_type(plan.dtype)
    return Fit(
        alpha=np.full(t, np.nan),
        cv_score=np.full(t, np.nan, dtype=np.float32),
        test_score=np.full(t, np.nan, dtype=np.float32) if n_test else None,
        predictions=np.full((n_test, t), np.nan, dtype=kept_type) if predictions else None,
        coef=np.full((plan.basis.p, t), np.nan, dtype=kept_type) if coef else None,
        intercept=np.zeros(t) if coef else None,
        left_out={i - columns.start: why for i, why in targets.left_out.items() if columns.start <= i < columns.stop},
    )


def _search(plan: Plan, part: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Number of the best alpha and its score (b,), and U'Y of all rows (r, b)."""
    Y = part.Y
    if plan.splits.by_pieces:
        C = [plan.basis.U[rows].T @ Y[rows] for rows in plan.splits.slices]
        total = C[0].clone() if len(C) > 1 else C[0]
        for more in C[1:]:
            total += more
    else:
        C, total = [], plan.basis.U.T @ Y
    scores = Y.new_zeros((len(plan.alphas), Y.shape[1]))
    for k, fold in enumerate(plan.folds):
        z, w = (_vector(side, part, C, total) for side in (fold.z, fold.w))
        if part.silent is not None:
            z[:, part.silent[k]] = 0
        if fold.drift is not None:
            w.addr_(fold.drift, part.sums[fold.z.pieces].sum(0), alpha=-1 / fold.n_train)
        scores += _scores(plan, fold, part, part.squares[k], z, w)
    scores /= len(plan.folds)
    best = scores.max(0).values
    # Of equals the first, on every device: argmax does not promise which.
    number = torch.arange(len(scores), device=scores.device)[:, None]
    index = torch.where(scores == best, number, len(scores)).min(0).values
    if part.mean is not None:
        total.addr_(plan.basis.U.sum(0), part.mean)
    return index.clamp_max_(len(scores) - 1), best, total


def _vector(side: Side, part: Batch, C: list[torch.Tensor], total: torch.Tensor) -> torch.Tensor:
    """Either z or w of a fold, (r_k, b); `C` (r, b) is U'Y of each piece."""
    if side.rows is not None:
        out = _product(side.matrix, side.rows, part.Y)
    else:
        others = [i for i in range(len(C)) if i not in side.pieces]
        if len(others) < len(side.pieces):
            summed = total
            for i in others:
                summed = summed - C[i]
        else:
            summed = C[side.pieces[0]]
            for i in side.pieces[1:]:
                summed = summed + C[i]
        out = side.matrix @ summed
        if side.shift is not None:
            out.addr_(side.shift, part.sums[side.pieces].sum(0), alpha=-1)
    if side.steep is not None:
        index, matrix, rows = side.steep
        out[index] = _product(matrix, rows, part.Y)
    if part.mean is not None and side.of_mean is not None:
        out.addr_(side.of_mean, part.mean)
    return out


def _product(matrix: torch.Tensor, rows: Rows, Y: torch.Tensor) -> torch.Tensor:
    """Product of a matrix (q, n_rows) with these rows of Y, without a copy of them where they are ranges."""
    if isinstance(rows, torch.Tensor):
        return matrix @ Y[rows]
    ends = np.cumsum([where.stop - where.start for where in rows]).tolist()
    out = matrix[:, : ends[0]] @ Y[rows[0]]
    for start, end, where in zip(ends, ends[1:], rows[1:], strict=False):
        out.addmm_(matrix[:, start:end], Y[where])
    return out


def _scores(
    plan: Plan, fold: FoldPlan, part: Batch, squares: torch.Tensor, z: torch.Tensor, w: torch.Tensor
) -> torch.Tensor:
    """Scores of all alphas in a fold, (n_alphas, b)."""
    r = len(z)
    numerator = fold.numerator @ w.mul_(z)
    pairs = z.new_empty((2 * r, z.shape[1]))
    torch.mm(fold.K, z, out=pairs[:r])
    for rows, columns, block in fold.near:
        torch.mm(block, z[columns], out=pairs[r:][rows])
    pairs[:r].mul_(z)
    pairs[r:].mul_(z)
    # Of predictions divided by their largest g.
    norm = (fold.denominator @ pairs).clamp_min_(0)
    if plan.scoring == "correlation":
        norm = norm.mul_(squares).sqrt_()
        return torch.where(norm > 0, numerator / norm, 0)
    # About the training set's mean, or about 0 without an intercept.
    mean = part.sums[fold.w.pieces].sum(0) / fold.n_validation
    if part.mean is None:
        about = fold.n_validation * (mean - part.sums[fold.z.pieces].sum(0) / fold.n_train) ** 2
    else:
        about = (mean + part.mean) ** 2 * fold.n_validation
    largest = fold.largest[:, None]
    error = squares + about - 2 * largest * numerator + largest**2 * norm
    return torch.where(squares > 0, 1 - error / squares, 0)


def _held_out(plan: Plan, targets: Targets, part: Batch) -> torch.Tensor:
    """Test responses (n_test, b) about what the predictions are about."""
    assert part.Y_test is not None
    if part.mean is not None:
        return part.Y_test + part.mean
    # For R2: what was taken off is the mean but for rounding.
    return part.Y_test - part.sums.sum(0) / targets.splits.n if plan.scoring == "r2" else part.Y_test


def _score(scoring: Scoring, predicted: torch.Tensor, Y: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Score of `predicted` times `scale` (b,) against Y (n_test, b); 0 where either is constant."""
    centred = Y - Y.mean(0)
    squares = (centred**2).sum(0)
    if scoring == "r2":
        error = ((Y - predicted * scale) ** 2).sum(0)
        return torch.where(squares > 0, 1 - error / squares, 0)
    centred_p = predicted - predicted.mean(0)
    norm = ((centred_p**2).sum(0) * squares).sqrt()
    return torch.where(norm > 0, (centred_p * centred).sum(0) / norm, 0)
