"""Ridge regression with one alpha per target, for thousands of ridges on the same responses.

As much as can be is shared: ``Splits`` by everything, ``Targets`` (responses, which may be larger than memory) by all
layers of all models, a ``Plan`` by all subjects of one stimulus. *The encoder, derived* has the mathematics:
X = U S V' on the training set, r its rank. In fold k the training rows of U S have the singular value decomposition
A_k L^(1/2) Q', and P = L^(-1/2) Q' S takes U to the whitened directions of the fold. z = P (U'Y)_train,
w = P (U'Y)_validation and M = P (U'U)_validation P' give the score of every alpha without a prediction, and
K_ij = M_ij L_j / (L_j - L_i) all alphas from one product. Factorisations are float64; what is rounded to `dtype` has
been whitened and is of order one, so that huge or collinear features cost no precision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from phaselab.encoding.arrays import batches, check_real
from phaselab.encoding.folds import Fold, numbered
from phaselab.errors import PhaselabError, expect, number_of
from phaselab.lazy import View

#: Roles of a row in a fold.
TRAIN, VALIDATE = 1, 2
#: Bytes of responses that are looked through at once before anything is fitted.
SURVEYED_AT_ONCE = 1 << 25
#: Why a target is left out.
NOT_FINITE, CONSTANT = "NaN or infinite values", "constant in the training set"
#: Relative distance below which two eigenvalues are near: an error of NEAR^2 / 2, against one of rounding / NEAR.
NEAR = {torch.float32: 3e-3, torch.float64: 1e-6}
#: Share of the largest eigenvalue below which others are computed again from what the larger ones leave.
GRAM_TRUSTED = 1e-7
#: Norm of a row of P (1: a direction's full share is in the training set) above which z is taken from the responses.
STEEP = 16.0
#: Rows of K's near pairs that are multiplied at once.
NEAR_ROWS = 64
#: The paper's candidates.
ALPHAS = tuple(float(f"1e{power}") for power in range(-12, 13))
#: Targets of a batch at least, where memory is scarce, and at most: larger ones leave the cache of a CPU.
SMALLEST_BATCH, LARGEST_BATCH = 16, {"cpu": 512, "cuda": 8192}


class Splits:
    """Rows of a training set that train and validate in each fold, and the pieces that they share.

    A piece is a set of rows with the same role in every fold: sums over a fold are sums over its pieces.
    n, folds : number of rows; (train, validation) row numbers, none in both.
    roles : int8 (n_pieces, n_folds), `TRAIN`, `VALIDATE`, or 0 for neither.
    order : (n,) row numbers, piece after piece, ascending in each; None where they are so already.
    slices : where each piece is in that order.
    """

    def __init__(self, n: int, folds: tuple[Fold, ...]) -> None:
        expect(len(folds), "cv", "no fold", "at least 1 (two sets of rows)")
        self.n, self.folds = n, folds
        role = np.zeros((n, len(folds)), dtype=np.int8)
        for number, (train, validation) in enumerate(folds):
            rows = np.concatenate([train, validation])
            good = len(train) and len(validation) and rows.dtype.kind in "iu" and len(np.unique(rows)) == len(rows)
            good = good and rows.min() >= 0 and rows.max() < n
            found = f"rows {train[:5]} ... that train and {validation[:5]} ... that validate"
            expect(good, f"cv: fold {number}", found, f"some of each, numbers from 0 to {n - 1}, each once")
            role[train, number] = TRAIN
            role[validation, number] = VALIDATE
        piece = numbered([row.tobytes() for row in role], "X")
        order, ends = np.argsort(piece, kind="stable"), np.cumsum([0, *np.bincount(piece)]).tolist()
        self.roles, self.slices = role[order[ends[:-1]]], [slice(*of) for of in pairwise(ends)]
        self.order = order if (np.diff(order) < 0).any() else None


@dataclass(frozen=True, eq=False)
class Targets:
    """Responses, and what of them does not depend on features; made by ``Targets.survey``."""

    sources: list[Any]  # arrays of the training set, then of the test set if there is one
    splits: Splits
    n_test: int
    left_out: dict[int, str]  # target -> why it is not fitted
    kept: np.ndarray  # (n_kept,) numbers of the other targets
    mean: np.ndarray  # float64 (n_targets,) of the training set
    scale: np.ndarray  # float64 (n_targets,) powers of 2 by which targets are multiplied while they are solved
    taken_off: np.ndarray  # the mean, rounded to the precision of the responses
    sums: np.ndarray  # (n_pieces, n_targets), scaled
    squares: np.ndarray  # (n_folds, n_targets) about the mean of each validation set, scaled; 0: a set is constant
    test_constant: np.ndarray  # (n_targets,) constant in the test set

    @classmethod
    def survey(cls, Y: Any, splits: Splits, Y_test: Any = None) -> Self:
        """Look once through all responses, (n, n_targets), of numpy, a memory map, Zarr, HDF5 or a ``View``."""
        sources = [Y] if Y_test is None else [Y, Y_test]
        for name, values in zip(("Y", "Y_test"), sources, strict=False):
            check_real(values, name)
            fits, n_targets = len(values.shape) == 2 and values.shape[1] == Y.shape[1], Y.shape[-1]
            expect(fits, name, f"shape {tuple(values.shape)}", f"(samples, targets), {n_targets} targets as in Y")
        n, *n_test = (values.shape[0] for values in sources)
        expect(n == splits.n, "Y", number_of(n, "sample"), f"{splits.n} as in X")
        every = [np.arange(n_targets)[part] for part in batches(n_targets, max(1, SURVEYED_AT_ONCE // (8 * n)))]
        parts = [_look(splits, *(_read(source, columns) for source in sources)) for columns in every]
        finite, constant, *found = (np.concatenate(of, axis=-1) for of in zip(*parts, strict=True))
        out = np.flatnonzero(~finite | constant)
        left_out = {int(column): CONSTANT if finite[column] else NOT_FINITE for column in out}
        return cls(sources, splits, sum(n_test), left_out, np.setdiff1d(np.arange(n_targets), out), *found)

    def batch(self, columns: np.ndarray, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """Of these kept targets, ascending: sums, squares, Y (n, b) in the order of the pieces, Y_test if there."""
        mean, scale = self.taken_off[columns], self.scale[columns]

        def ready(source: Any) -> torch.Tensor:
            # A mean that is large against the variance must go before rounding.
            values = torch.from_numpy(_read(source, columns))
            values = values.to(torch.promote_types(values.dtype, dtype))
            values = values - torch.from_numpy(mean).to(values.dtype)
            if (scale != 1).any():
                values *= torch.from_numpy(scale).to(values.dtype)
            return values.to(device, dtype)

        Y, *held = map(ready, self.sources)
        if self.splits.order is not None:
            Y = Y[torch.from_numpy(self.splits.order).to(device)]
        sums, squares = (torch.from_numpy(of[:, columns]).to(device, dtype) for of in (self.sums, self.squares))
        return sums, squares, Y, *held


def _read(values: Any, columns: np.ndarray) -> np.ndarray:
    """(n, n_columns) of an array that may be larger than memory, float32 or float64; `columns` ascend."""
    values = View(values, columns=columns)[:, :]
    return np.require(values, values.dtype if values.dtype in (np.float32, np.float64) else np.float64, ["C", "W"])


def _look(splits: Splits, raw: np.ndarray, held: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """Which of some targets, (n, b) and (n_test, b), are finite and constant; then the arrays of ``Targets``."""
    if splits.order is not None:
        raw = raw[splits.order]
    # Of each piece. NaN and infinite values show in them as well.
    pieces = [raw[rows] for rows in splits.slices]
    highest, lowest = (np.array([f(piece, axis=0) for piece in pieces], np.float64) for f in (np.max, np.min))
    high, low = highest.max(axis=0), lowest.min(axis=0)
    finite = np.isfinite(high) & np.isfinite(low)
    test_constant = np.zeros(len(high), bool)
    if held is not None:
        most, least = held.max(axis=0), held.min(axis=0)
        finite &= np.isfinite(most) & np.isfinite(least)
        test_constant = most == least
    with np.errstate(invalid="ignore"):
        spread = high - low
    values = raw.astype(np.float64)
    values[:, ~finite] = 0
    # In the precision of the responses, so that every batch takes off exactly this.
    taken_off = values.mean(axis=0).astype(raw.dtype).astype(np.float64)
    values -= taken_off
    # Powers of 2, which is exact: fourth powers of a response in tesla, or in units of 1e10, are not float32 numbers.
    power = np.frexp(np.where(finite, spread, 0))[1]
    scale = np.ldexp(1.0, np.where(abs(power) > 12, -power.clip(-1000, 1000), 0))
    if (scale != 1).any():
        values *= scale
    parts = [values[rows] for rows in splits.slices]
    sums = np.stack([part.sum(axis=0) for part in parts])
    piece_squares = np.stack([np.einsum("ij,ij->j", part, part) for part in parts])
    squares = np.empty((len(splits.folds), len(high)))
    for fold, (_, validation) in enumerate(splits.folds):
        mine, others = (splits.roles[:, fold] == role for role in (VALIDATE, TRAIN))
        squares[fold] = (piece_squares[mine].sum(axis=0) - sums[mine].sum(axis=0) ** 2 / len(validation)).clip(0)
        # What rounding leaves of a constant is no variance, and nothing is learned from one.
        for part in (mine, others):
            squares[fold][highest[part].max(axis=0) == lowest[part].min(axis=0)] = 0
    mean = taken_off + sums.sum(axis=0) / splits.n / scale
    return finite, spread == 0, mean, scale, taken_off, sums, squares, test_constant


#: (rows, columns, block) of M near the diagonal and on it.
Blocks = list[tuple[slice, slice, torch.Tensor]]


class Side(NamedTuple):
    """How a fold's z or w comes from responses; r_k is the fold's rank."""

    pieces: list[int]
    rows: list[slice]
    matrix: torch.Tensor  # (r_k, r) from U'Y of the pieces; without `shift`, (r_k, n_rows) from responses of the rows
    shift: torch.Tensor | None = None  # (r_k,) what the sum of the responses is multiplied with and taken off
    steep: tuple[torch.Tensor, torch.Tensor] | None = None  # index, matrix of entries from the responses nevertheless


class FoldPlan(NamedTuple):
    """What a fold needs of the features."""

    z: Side
    w: Side
    K: torch.Tensor  # (r_k, r_k), zero for near pairs
    near: Blocks
    numerator: torch.Tensor  # (n_alphas, r_k) g divided by its largest value, which a correlation does not see
    denominator: torch.Tensor  # (n_alphas, 2 r_k) for z K z, then for z M z near the diagonal


class _Set:
    """The `n` rows of U that have a role in a fold, their sum and mean; of each piece U'U and the sum are `known`."""

    def __init__(self, U: torch.Tensor, splits: Splits, k: int, role: int, known: list[Any]) -> None:
        self.n, self.pieces = len(splits.folds[k][role - 1]), np.flatnonzero(splits.roles[:, k] == role).tolist()
        # Neighbours are taken together.
        parts = np.split(self.pieces, np.flatnonzero(np.diff(self.pieces) > 1) + 1)
        self.rows = [slice(splits.slices[of[0]].start, splits.slices[of[-1]].stop) for of in parts]
        self.total = torch.stack([known[i][1] for i in self.pieces]).sum(0)
        self.mean, self._U, self._grams = self.total / self.n, U, [known[i][0] for i in self.pieces]

    def gram(self) -> Any:
        """U'U of the rows."""
        return reduce(torch.add, self._grams)

    def centred(self) -> torch.Tensor:
        return torch.cat([self._U[where] for where in self.rows]) - self.mean


class Plan:
    """Factorisations of the features of one layer, for any number of responses.

    X, X_test : (n, p) features of the training set; (n_test, p) of held-out rows, or None.
    alphas : (n_alphas,) candidates, above 0, in any order; of equally good ones the first is taken.
    dtype : ``float32`` or ``float64``, of the products with responses. device : of torch, or ``auto``.
    s, V, mean : float64 (r,) singular values of the centred features, ascending; (p, r) directions; (p,).
    U : (n, r), rows in the order of the splits; r, the `rank`, leaves out directions of rounding error.
    F : (n_test, r), the held-out features in the whitened directions, (X_test - mean) V / s.
    bytes : held in the end; while it is made about ``8 (2 n p + n r + p r + (n_pieces + 6) r^2)``.
    """

    def __init__(
        self, X: Any, splits: Splits, alphas: Any, X_test: Any = None, dtype: str = "float32", device: str = "cpu"
    ) -> None:
        self.splits, self.dtype, self.device = splits, getattr(torch, dtype), find_device(device)
        self.alphas = torch.tensor(np.array(alphas, dtype=np.float64), device=self.device)
        good = self.alphas.ndim == 1 and len(self.alphas) and ((self.alphas > 0) & self.alphas.isfinite()).all()
        expect(good, "alphas", alphas, "one or more finite numbers above 0")
        expect(len(X) == splits.n, "X", number_of(len(X), "sample"), f"{splits.n} as in the folds")
        X = _features(X, "X", self.device)
        self.n, self.p = X.shape
        self.tolerance, self.mean = max(X.shape) ** 0.5 * torch.finfo(torch.float64).eps, X.mean(0)
        X = X - self.mean
        if splits.order is not None:
            X = X[torch.from_numpy(splits.order).to(self.device)]
        # As numpy's matrix_rank. What centring leaves of a constant feature is rounding error of its mean.
        size = float(torch.linalg.vector_norm(X)) + float(torch.linalg.vector_norm(self.mean)) * self.n**0.5
        expect(1e-140 < size < 1e150 or not X.any(), "X", f"a norm of {size:.0e}", "1e-140 to 1e150, to be squared")
        if self.p <= self.n:
            self.s, self.V = _right_singular(X.T @ X, lambda: X, self.tolerance * size)
            U = X @ (self.V / self.s)
        else:
            self.s, U = _right_singular(X @ X.T, lambda: X.T, self.tolerance * size)
            self.V = _orthonormal(X.T @ (U / self.s))
        held = X[:0] if X_test is None else _features(X_test, "X_test", self.device)
        expect(held.shape[1] == self.p, "X_test", f"{held.shape[1]} features", f"{self.p} as in X")
        self.F = ((held - self.mean) @ (self.V / self.s)).to(self.dtype)
        self.rank, self.U = len(self.s), U.to(self.dtype)
        known = [(part.T @ part, part.sum(0)) for part in (U[rows] for rows in splits.slices)]
        sets = ([_Set(U, splits, k, role, known) for role in (TRAIN, VALIDATE)] for k in range(len(splits.folds)))
        self.folds = [self._fold(train, validation) for train, validation in sets]

    def _narrow(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype).contiguous()

    def _fold(self, train: _Set, validation: _Set) -> FoldPlan:
        P, lam, left = self._directions(train)
        direct = validation.n < self.rank
        if direct:
            to_w = self._narrow(P @ validation.centred().T)
            M = to_w @ to_w.T
        else:
            to_w = self._narrow(P)
            cross = torch.outer(validation.mean, validation.total)
            about = validation.gram() - cross - cross.T
            about += validation.n * torch.outer(validation.mean, validation.mean)
            M = self._narrow(P @ about @ P.T)
        # Directions that hardly occur in one of the sets are differences of large sums, which rounding would spoil.
        norms = torch.linalg.vector_norm(P, dim=1)
        rare = norms**2 * (validation.n / self.n) > STEEP**2 * M.diagonal()
        to_z = self._narrow(P if left is None else left.T)
        z = self._side(P, train, to_z, left is not None, norms > STEEP)
        w = self._side(P, validation, to_w, direct, rare)
        ratio = lam / (lam + self.alphas[:, None])
        relative = ratio / ratio[:, -1:]  # of the largest
        denominator = torch.cat([2 * relative * (1 - lam / lam[-1:]), relative**2], 1)
        return FoldPlan(z, w, *self._kernels(M, lam), self._narrow(relative), self._narrow(denominator))

    def _side(self, P: torch.Tensor, of: _Set, matrix: torch.Tensor, direct: bool, rare: torch.Tensor) -> Side:
        if direct:
            # Directions from rows that were centred already have no mean to take off.
            return Side(of.pieces, of.rows, matrix)
        steep = (rare.nonzero()[:, 0], self._narrow(P[rare] @ of.centred().T)) if bool(rare.any()) else None
        return Side(of.pieces, of.rows, matrix, self._narrow(P @ of.mean), steep)

    def _directions(self, train: _Set) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """P (r_k, r), eigenvalues (r_k,), and A_k (n_train, r_k) where there are fewer rows than directions."""
        s = self.s
        if train.n >= self.rank:
            H = (train.gram() - train.n * torch.outer(train.mean, train.mean)).mul_(s).mul_(s[:, None])
            root, Q = _right_singular(H, lambda: train.centred() * s, self.tolerance * _size(H))
            return (Q / root).T * s, root**2, None
        A = train.centred() * s
        kernel = A @ A.T
        root, left = _right_singular(kernel, lambda: A.T, self.tolerance * _size(kernel))
        return (_orthonormal(A.T @ (left / root)) / root).T * s, root**2, left

    def _kernels(self, M: torch.Tensor, lam: torch.Tensor) -> tuple[torch.Tensor, Blocks]:
        """K, and M near the diagonal as blocks, of M in `dtype`; `lam` ascending."""
        r = len(lam)
        # In ascending order near ones are neighbours: the first and the last of each.
        within = 1 - NEAR[self.dtype]
        first = torch.searchsorted(lam, lam * within, right=True)
        last = torch.searchsorted(lam, lam / within)
        K = (lam / (lam - lam[:, None])).to(self.dtype).mul_(M)
        blocks = []
        for rows in batches(r, NEAR_ROWS):
            columns = slice(int(first[rows].min()), int(last[rows].max()))
            number = torch.arange(columns.start, columns.stop, device=lam.device)
            near = (number >= first[rows, None]) & (number < last[rows, None])
            K[rows, columns] = torch.where(near, 0, K[rows, columns])
            blocks.append((rows, columns, torch.where(near, M[rows, columns], 0)))
        return K, blocks

    def batch_bytes(self, n_test: int) -> int:
        """Bytes that one target of a batch takes while it is solved."""
        widest, n_pieces = max(len(fold.K) for fold in self.folds), len(self.splits.roles)
        numbers = 2 * self.splits.n + (n_pieces + 2) * self.rank + 7 * widest + 5 * len(self.alphas) + 4 * n_test
        return int(numbers * self.dtype.itemsize + 16 * n_pieces)

    @property
    def bytes(self) -> int:
        """Bytes that the plan holds."""
        own = [self.U, self.V, self.F]
        for fold in self.folds:
            own += [fold.K, fold.numerator, fold.denominator, *(block for _, _, block in fold.near)]
            own += [fold.z.matrix, fold.w.matrix, *(side.steep[1] for side in (fold.z, fold.w) if side.steep)]
        return int(sum(tensor.nbytes for tensor in own))


def find_device(device: str) -> torch.device:
    """The torch device of that name; ``auto`` is a CUDA device where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    expect(device.split(":")[0] in ("cpu", "cuda"), "device", repr(device), "auto, cpu, cuda or cuda:N")
    try:
        return torch.ones(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        expected = f"auto, cpu or a CUDA device that is there ({str(error).splitlines()[0]})"
        raise PhaselabError(f"device: found {device!r}, expected {expected}") from error


def _size(gram: torch.Tensor) -> float:
    """Norm of A, of A'A."""
    return float(gram.diagonal().sum().clamp_min(0).sqrt())


def _right_singular(gram: torch.Tensor, matrix: Callable[[], Any], tolerance: float) -> tuple[torch.Tensor, ...]:
    """Singular values above `tolerance`, ascending (r,), and right singular vectors (q, r) of A (m, q).

    `gram` is A'A in float64; `matrix` gives A, called only when some singular values are too small to be had from it.
    """
    lam, vectors = torch.linalg.eigh(gram)
    if not len(lam) or lam[-1] <= tolerance**2:
        return lam[:0], vectors[:, :0]
    known = lam > GRAM_TRUSTED * lam[-1]
    root, V = lam[known].sqrt(), vectors[:, known]
    if bool(known.all()):
        return root, V
    A, rest = matrix(), vectors[:, ~known]
    small = A @ rest
    # What `rest` has, by rounding, of a direction with a large singular value would drown its own: it is rotated out.
    mixed = (V.T @ (A.T @ small)) / root[:, None] ** 2
    small = small - A @ (V @ mixed)
    more, W = _right_singular(small.T @ small, lambda: small, tolerance)
    V, rest = V + rest @ mixed.T, rest - V @ mixed
    return torch.cat([more, root]), torch.cat([rest @ W, V], 1)


def _orthonormal(V: torch.Tensor) -> Any:
    """Columns (q, r) that are nearly orthonormal, made so: the last and largest first, of which others keep nothing."""
    Q, R = torch.linalg.qr(V.flip(1))
    return (Q * R.diagonal().sign()).flip(1)


def _features(X: Any, name: str, device: torch.device) -> torch.Tensor:
    check_real(X := np.asanyarray(X), name)
    values = torch.from_numpy(np.require(X, np.float64, ["C", "W"])).to(device)
    shape = tuple(values.shape)
    expect(values.ndim == 2 and values.numel(), name, f"shape {shape}", "(samples, features), none of them 0")
    bad = int((~torch.isfinite(values)).sum())
    expect(not bad, name, number_of(bad, "NaN or infinite value"), "none")
    return values


class Fit(NamedTuple):
    """What was learned of each target; NaN where it was left out, None where it was not asked for."""

    alpha: np.ndarray  # float64 (n_targets,), chosen
    cv_score: np.ndarray  # float32 (n_targets,) mean over folds of the correlation with that alpha
    test_score: np.ndarray | None  # float32 (n_targets,) correlation, with a test set
    predictions: np.ndarray | None  # (n_test, n_targets) less the mean of the training set, which would drown them
    weights: np.ndarray | None  # (r, n_targets) of the whitened directions of the plan


@torch.inference_mode()
def solve(plan: Plan, targets: Targets, predictions: bool = False, weights: bool = False, columns: Any = None) -> Fit:
    """Choose alpha for each target (of a slice `columns`, or of all), fit, and score on `X_test`."""
    expect(targets.splits is plan.splits, "targets", "other splits than the plan's", "the same object")
    n_test = targets.n_test
    expect(n_test == len(plan.F), "X_test", number_of(len(plan.F), "sample"), f"{n_test} as in Y_test")
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
    for chosen in (kept[part] for part in batches(len(kept), LARGEST_BATCH[plan.device.type])):
        sums, squares, Y, *held = targets.batch(chosen, plan.device, plan.dtype)
        index, score, Z = _search(plan, Y, sums, squares)
        at, units = chosen - columns.start, 1 / targets.scale[chosen]
        fit.alpha[at], fit.cv_score[at] = candidates[index.cpu().numpy()], score.cpu().numpy()
        # Divided by the largest g, which keeps it off the smallest numbers.
        shrunk = relative[index].T * Z
        if fit.test_score is not None:
            predicted = plan.F @ shrunk
            f, y = (values - values.mean(0) for values in (predicted, *held))
            norm = ((f**2).sum(0) * (y**2).sum(0)).sqrt()
            r = torch.where(norm > 0, (f * y).sum(0) / norm, 0).cpu().numpy()
            fit.test_score[at] = np.where(targets.test_constant[chosen], 0, r)
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


def _search(plan: Plan, Y: torch.Tensor, sums: torch.Tensor, squares: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Number of the best alpha and its score (b,), and U'Y of all rows (r, b)."""
    C = [plan.U[rows].T @ Y[rows] for rows in plan.splits.slices]
    total = reduce(torch.add, C)
    scores = Y.new_zeros((len(plan.alphas), Y.shape[1]))
    for k, fold in enumerate(plan.folds):
        z, w = (_vector(side, Y, sums, C, total) for side in (fold.z, fold.w))
        scores += _scores(fold, squares[k], z, w)
    scores /= len(plan.folds)
    best = scores.max(0).values
    # Of equals the first, on every device: argmax does not promise which.
    number = torch.arange(len(scores), device=scores.device)[:, None]
    return torch.where(scores == best, number, len(scores) - 1).min(0).values, best, total


def _vector(side: Side, Y: torch.Tensor, sums: torch.Tensor, C: list[torch.Tensor], total: torch.Tensor) -> Any:
    """Either z or w of a fold, (r_k, b); `C` (r, b) is U'Y of each piece."""
    if side.shift is None:
        return _product(side.matrix, side.rows, Y)
    others = [i for i in range(len(C)) if i not in side.pieces]
    if len(others) < len(side.pieces):
        summed = reduce(torch.sub, [C[i] for i in others], total)
    else:
        summed = reduce(torch.add, [C[i] for i in side.pieces])
    out = side.matrix @ summed
    out.addr_(side.shift, sums[side.pieces].sum(0), alpha=-1)
    if side.steep is not None:
        index, matrix = side.steep
        out[index] = _product(matrix, side.rows, Y)
    return out


def _product(matrix: torch.Tensor, rows: list[slice], Y: torch.Tensor) -> Any:
    """Product of a matrix (q, n_rows) with these rows of Y, without a copy of them."""
    parts = torch.split(matrix, [where.stop - where.start for where in rows], 1)
    out = parts[0] @ Y[rows[0]]
    for part, where in zip(parts[1:], rows[1:], strict=True):
        out.addmm_(part, Y[where])
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
