"""Factorisations of the features of one layer: of the whole training set (``Basis``) and of each fold (``Plan``).

X = U S V' on the training set, r its rank. In fold k the training rows of U S have the singular value decomposition
A_k L^(1/2) Q', and P = L^(-1/2) Q' S takes U to the whitened directions of the fold. z = P (U'Y)_train,
w = P (U'Y)_validation and M = P (U'U)_validation P' give the score of every alpha without a prediction, and
K_ij = M_ij L_j / (L_j - L_i) all alphas from one product: see *The encoder, derived*. Factorisations are float64;
what is rounded to `dtype` has been whitened and is of order one, so that huge or collinear features cost no precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from phaselab.encoding.ridge.splits import TRAIN, VALIDATE, Splits
from phaselab.encoding.ridge.targets import check_real
from phaselab.errors import PhaselabError, expect

Scoring = Literal["correlation", "r2"]
#: Rows of a tensor: a few ranges, or their numbers.
Rows = list[slice] | torch.Tensor

#: Relative distance below which two eigenvalues are near, by dtype: the error of the approximation,
#: NEAR^2 / 2, against that of a difference of near numbers, rounding / NEAR.
NEAR = {torch.float32: 3e-3, torch.float64: 1e-6}
#: Eigenvalues of a Gram matrix are known to about 1e-16 of the largest: below this share of it they
#: are computed again from what the larger ones leave of the features.
GRAM_TRUSTED = 1e-7
#: Norm of a row of P (1 if the training set has its full share of a direction) above which z is taken from
#: the responses: it is lost in rounding otherwise.
STEEP = 16.0
#: Rows of K's near pairs that are multiplied at once.
NEAR_ROWS = 64
#: Norms of features between which squares, of small singular values as well, are float64 numbers.
SQUARED = 1e-140, 1e150
#: The paper's candidates.
ALPHAS = tuple(float(f"1e{power}") for power in range(-12, 13))
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Basis:
    """Singular value decomposition of the features of a training set, X = U S V'.

    Parameters
    ----------
    X : (n, p) features, numpy or torch; centred first with `intercept`.
    order : (n,) the order in which the rows are kept; None: as they are.

    Attributes
    ----------
    U : (n, r) in `dtype`, rows in `order`; r, the `rank`, leaves out directions that are rounding error.
    s, V, mean : float64 (r,) singular values, ascending; (p, r) directions; (p,), zeros without intercept.
    """

    def __init__(
        self, X: Any, order: np.ndarray | None, intercept: bool, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.dtype, self.device = dtype, device
        X = _features(X, "X", device)
        self.n, self.p = X.shape
        self.mean = X.mean(0) if intercept else X.new_zeros(self.p)
        X = _centred(X, self.mean)
        if order is not None:
            X = X[torch.as_tensor(order, device=device)]
        # As numpy's matrix_rank. What centring leaves of a constant feature is rounding error as well, of
        # the mean that was taken off.
        size = float(torch.linalg.vector_norm(X)) + float(torch.linalg.vector_norm(self.mean)) * self.n**0.5
        if not SQUARED[0] < size < SQUARED[1] and (largest := float(X.abs().max())):
            raise PhaselabError(
                f"X: found values up to {largest:.0e} from their mean, whose squares are no float64 numbers; "
                "expected them scaled"
            )
        tolerance = max(self.n, self.p) ** 0.5 * torch.finfo(torch.float64).eps * size
        if self.p <= self.n:
            self.s, self.V = _right_singular(X.T @ X, lambda: X, tolerance)
            self.exact = X @ (self.V / self.s)
        else:
            self.s, self.exact = _right_singular(X @ X.T, lambda: X.T, tolerance)
            self.V = _orthonormal(X.T @ (self.exact / self.s))
        self.rank = len(self.s)
        self.U = self.exact.to(dtype)

    def project(self, X: Any, name: str = "X") -> torch.Tensor:
        """(n_rows, r) of other features in the whitened directions: (X - mean) V / s, in `dtype`."""
        X = _features(X, name, self.device)
        expect(X.shape[1] == self.p, name, f"{X.shape[1]} features", f"{self.p} as in X")
        return (_centred(X, self.mean) @ (self.V / self.s)).to(self.dtype)

    def shrinkage(self, alphas: torch.Tensor) -> torch.Tensor:
        """g, float64 (n_alphas, r): how much of each direction is left by each alpha."""
        return self.s**2 / (self.s**2 + alphas[:, None])


@dataclass(frozen=True)
class Side:
    """How a fold's z or w comes from responses; r_k is the fold's rank.

    Attributes
    ----------
    matrix : (r_k, r) from U'Y of the `pieces`, or (r_k, n_rows) from the responses of `rows` where these are given.
    shift : (r_k,) what the sum of the responses is multiplied with and taken off.
    steep : (index, matrix, rows) of the few entries that are taken from the responses nevertheless.
    of_mean : (r_k,) z or w of a response that is 1 throughout; None where it is not needed.
    """

    matrix: torch.Tensor
    pieces: list[int]
    rows: Rows | None
    shift: torch.Tensor | None
    steep: tuple[torch.Tensor, torch.Tensor, Rows] | None
    of_mean: torch.Tensor | None


@dataclass(frozen=True)
class FoldPlan:
    """What a fold needs of the features.

    Attributes
    ----------
    drift : (r_k,) n_validation P (mean of validation - mean of training), for R2; else None.
    K : (r_k, r_k), zero for near pairs; near : (rows, columns, block) of M near the diagonal and on it.
    numerator : (n_alphas, r_k) g divided by its largest value, which a correlation does not see.
    denominator : (n_alphas, 2 r_k) for z K z, then for z M z near the diagonal.
    largest : (n_alphas,) the largest g.
    """

    z: Side
    w: Side
    n_train: int
    n_validation: int
    drift: torch.Tensor | None
    K: torch.Tensor
    near: list[tuple[slice, slice, torch.Tensor]]
    numerator: torch.Tensor
    denominator: torch.Tensor
    largest: torch.Tensor

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The large ones."""
        steep = [side.steep[1] for side in (self.z, self.w) if side.steep is not None]
        own = [self.z.matrix, self.w.matrix, self.K, self.numerator, self.denominator]
        return own + steep + [block for _, _, block in self.near]


class _Set:
    """The rows of U that have a role in a fold: their number, sum and Gram matrix."""

    def __init__(self, splits: Splits, k: int, role: int, U: torch.Tensor, known: list[Any]) -> None:
        rows = splits.rows(k, role)
        self.rows: Rows = rows if isinstance(rows, list) else torch.as_tensor(rows, device=U.device)
        self.n, self.pieces, self._U = len(splits.folds[k][role - 1]), splits.pieces(k, role), U
        self._known = [known[i] for i in self.pieces] if known else []
        self.total = torch.stack([total for _, total in self._known]).sum(0) if known else _take(U, self.rows).sum(0)

    def gram(self) -> torch.Tensor:
        """U'U of the rows."""
        if not self._known:
            part = _take(self._U, self.rows)
            return part.T @ part
        total: torch.Tensor = self._known[0][0].clone()
        for more, _ in self._known[1:]:
            total += more
        return total

    def centred(self, mean: torch.Tensor) -> torch.Tensor:
        return _centred(_take(self._U, self.rows), mean)


class Plan:
    """Factorisations of the features of one layer, for any number of responses.

    Parameters
    ----------
    X : (n, p) features of the training set; numpy or torch, float32 or float64.
    splits : folds over its rows, by which alpha is chosen.
    alphas : (n_alphas,) candidates, above 0, in any order; of equally good ones the first is taken.
    X_test : (n_test, p) features of held-out rows, or None.
    scoring : ``correlation`` or ``r2``: of the predictions of each validation set.
    intercept : whether features and responses are centred on the mean of the training set, in each fold on that of
        the fold. Without it they are taken as they are.
    dtype : ``float32`` or ``float64``, of the products with responses.
    device : torch device, or ``auto``.

    Notes
    -----
    Memory: about ``8 (2 n p + n r + p r + (n_pieces + 6) r^2)`` bytes while it is made (float64), and
    `bytes` in the end, mostly ``itemsize (n r + n_test r + n_folds r (2 r + n_fold))``.
    """

    def __init__(
        self,
        X: Any,
        splits: Splits,
        alphas: Any,
        X_test: Any = None,
        scoring: Scoring = "correlation",
        intercept: bool = True,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.splits, self.scoring, self.intercept = splits, scoring, intercept
        expect(scoring in ("correlation", "r2"), "scoring", repr(scoring), "'correlation' or 'r2'")
        expect(dtype in DTYPES, "dtype", repr(dtype), f"one of {', '.join(DTYPES)}")
        self.dtype, self.device = DTYPES[dtype], find_device(device)
        self.alphas = _alphas(alphas).to(self.device)
        expect(len(X) == splits.n, "X", f"{len(X)} samples", f"{splits.n} as in the folds")
        order = splits.order if splits.reordered else None
        self.basis = Basis(X, order, intercept, self.dtype, self.device)
        self.F = None if X_test is None else self.basis.project(X_test, "X_test")
        U = self.basis.exact
        parts = [U[rows] for rows in splits.slices] if splits.by_pieces else []
        known = [(part.T @ part, part.sum(0)) for part in parts]
        self.folds = [self._fold(k, U, known) for k in range(len(splits.folds))]
        # In float64 it is needed no more, and it is as large as the features; a slice would keep it.
        self.basis.exact = U.new_empty((0, self.basis.rank))

    def _narrow(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype).contiguous()

    def _fold(self, k: int, U: torch.Tensor, known: list[Any]) -> FoldPlan:
        correlation, by_pieces = self.scoring == "correlation", self.splits.by_pieces
        train, validation = (_Set(self.splits, k, role, U, known) for role in (TRAIN, VALIDATE))
        m_train = train.total / train.n if self.intercept else torch.zeros_like(train.total)
        m_validation = validation.total / validation.n
        m_w = m_validation if correlation else m_train
        P, lam, left = self._directions(train, m_train)
        z_direct, w_direct = left is not None or not by_pieces, validation.n < self.basis.rank or not by_pieces
        to_z = P
        if z_direct:
            to_z = left.T if left is not None else P @ train.centred(m_train).T
        if w_direct:
            to_w = self._narrow(P @ validation.centred(m_w).T)
            M = to_w @ to_w.T
        else:
            to_w = self._narrow(P)
            cross = torch.outer(m_w, validation.total)
            about = validation.gram() - cross - cross.T
            about += validation.n * torch.outer(m_w, m_w)
            M = self._narrow(P @ about @ P.T)
        # Directions that hardly occur, or hardly vary, in one of the sets are differences of large
        # sums, which rounding would spoil: these few are taken from the responses themselves.
        norms = torch.linalg.vector_norm(P, dim=1)
        rare = norms**2 * (validation.n / self.basis.n) > STEEP**2 * M.diagonal()
        drift = None
        if not correlation and self.intercept:
            drift = self._narrow(P @ (m_validation - m_train)) * validation.n
        K, near = self._kernels(M, lam)
        numerator, denominator, largest = self._weights(lam)
        return FoldPlan(
            z=self._side(P, train, m_train, to_z, z_direct, norms > STEEP, not self.intercept),
            w=self._side(P, validation, m_w, to_w, w_direct, rare, not self.intercept and not correlation),
            n_train=train.n,
            n_validation=validation.n,
            drift=drift,
            K=K,
            near=near,
            numerator=numerator,
            denominator=denominator,
            largest=largest,
        )

    def _side(
        self,
        P: torch.Tensor,
        of: _Set,
        mean: torch.Tensor,
        matrix: torch.Tensor,
        direct: bool,
        rare: torch.Tensor,
        of_mean: bool,
    ) -> Side:
        steep = None
        if not direct and bool(rare.any()):
            steep = rare.nonzero()[:, 0], self._narrow(P[rare] @ of.centred(mean).T), of.rows
        return Side(
            matrix=self._narrow(matrix),
            pieces=of.pieces,
            rows=of.rows if direct else None,
            # Directions from rows that were centred already have no mean to take off.
            shift=None if direct or not bool(mean.any()) else self._narrow(P @ mean),
            steep=steep,
            of_mean=self._narrow(P @ of.total) if of_mean else None,
        )

    def _directions(self, train: _Set, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """P (r_k, r), eigenvalues (r_k,), and A_k (n_train, r_k) where there are fewer rows than directions."""
        s = self.basis.s
        if train.n >= self.basis.rank:
            H = (train.gram() - train.n * torch.outer(mean, mean)).mul_(s).mul_(s[:, None])
            root, Q = _right_singular(H, lambda: train.centred(mean) * s, self._tolerance(H))
            return (Q / root).T * s, root**2, None
        A = train.centred(mean) * s
        kernel = A @ A.T
        root, left = _right_singular(kernel, lambda: A.T, self._tolerance(kernel))
        return (_orthonormal(A.T @ (left / root)) / root).T * s, root**2, left

    def _tolerance(self, gram: torch.Tensor) -> float:
        size = float(gram.diagonal().sum().clamp_min(0)) ** 0.5
        return float(max(self.basis.n, self.basis.p) ** 0.5 * torch.finfo(torch.float64).eps * size)

    def _weights(self, lam: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`numerator`, `denominator` and `largest` of a ``FoldPlan``."""
        ratio = lam / (lam + self.alphas[:, None]) if len(lam) else lam.new_zeros((len(self.alphas), 0))
        largest = ratio.max(1).values if len(lam) else lam.new_ones(len(self.alphas))
        relative = ratio / largest[:, None]
        towards = 1 - lam / lam.max() if len(lam) else lam
        denominator = torch.cat([2 * relative * towards, relative**2], 1)
        return self._narrow(relative), self._narrow(denominator), self._narrow(largest)

    def _kernels(
        self, M: torch.Tensor, lam: torch.Tensor
    ) -> tuple[torch.Tensor, list[tuple[slice, slice, torch.Tensor]]]:
        """K, and M near the diagonal as blocks, of M in `dtype`; `lam` ascending."""
        r = len(lam)
        if not r:
            return M, []
        # In ascending order near ones are neighbours: the first and the last of each.
        within = 1 - NEAR[self.dtype]
        first = torch.searchsorted(lam, lam * within, right=True)
        last = torch.searchsorted(lam, lam / within)
        K = (lam / (lam - lam[:, None])).to(self.dtype).mul_(M)
        blocks = []
        for start in range(0, r, NEAR_ROWS):
            rows = slice(start, min(start + NEAR_ROWS, r))
            columns = slice(int(first[rows].min()), int(last[rows].max()))
            number = torch.arange(columns.start, columns.stop, device=lam.device)
            near = (number >= first[rows, None]) & (number < last[rows, None])
            K[rows, columns] = torch.where(near, 0, K[rows, columns])
            blocks.append((rows, columns, torch.where(near, M[rows, columns], 0)))
        if sum(block.numel() for _, _, block in blocks) > r * r // 2:
            whole = torch.zeros_like(K)
            for rows, columns, block in blocks:
                whole[rows, columns] = block
            blocks = [(slice(0, r), slice(0, r), whole)]
        return K, blocks

    def batch_bytes(self, n_test: int) -> int:
        """Bytes that one target of a batch takes while it is solved."""
        widest = max(len(fold.K) for fold in self.folds)
        n_pieces = len(self.splits.roles) if self.splits.by_pieces else 1
        numbers = 2 * self.splits.n + (n_pieces + 2) * self.basis.rank + 7 * widest + 5 * len(self.alphas) + 4 * n_test
        return numbers * self.dtype.itemsize + 16 * n_pieces

    @property
    def bytes(self) -> int:
        """Bytes that the plan holds."""
        own = [self.basis.U, self.basis.V] + ([self.F] if self.F is not None else [])
        own += [tensor for fold in self.folds for tensor in fold.tensors]
        return sum(tensor.numel() * tensor.element_size() for tensor in own)


def find_device(device: str) -> torch.device:
    """The torch device of that name; ``auto`` is a CUDA device where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.ones(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise PhaselabError(
            f"device: found {device!r}, expected auto, cpu or a CUDA device that is there "
            f"({str(error).splitlines()[0]})"
        ) from error
    return found


def _take(values: torch.Tensor, rows: Rows) -> torch.Tensor:
    if isinstance(rows, torch.Tensor):
        return values[rows]
    return values[rows[0]] if len(rows) == 1 else torch.cat([values[where] for where in rows])


def _centred(values: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    return values - mean if bool(mean.any()) else values


def _right_singular(
    gram: torch.Tensor, matrix: Callable[[], torch.Tensor], tolerance: float
) -> tuple[torch.Tensor, torch.Tensor]:
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
    # The two sets of vectors are orthogonal, but A does not keep them so: eigenvectors are known to
    # rounding of the largest eigenvalue, and what `rest` has of a direction with a large singular
    # value would drown its own. One rotation takes that out.
    mixed = (V.T @ (A.T @ small)) / root[:, None] ** 2
    small = small - A @ (V @ mixed)
    more, W = _right_singular(small.T @ small, lambda: small, tolerance)
    V, rest = V + rest @ mixed.T, rest - V @ mixed
    return torch.cat([more, root]), torch.cat([rest @ W, V], 1)


def _orthonormal(V: torch.Tensor) -> Any:
    """Columns (q, r) that are nearly orthonormal, made so: the last first, which are known best.

    A direction that is small in the training set must have nothing of one that is large, or the
    large one comes in by that door in other rows.
    """
    Q, R = torch.linalg.qr(V.flip(1))
    return (Q * R.diagonal().sign()).flip(1)


def _alphas(alphas: Any) -> torch.Tensor:
    try:
        values = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    except (TypeError, ValueError):
        values = np.empty(0)
    good = values.ndim == 1 and len(values) and np.isfinite(values).all() and (values > 0).all()
    expect(good, "alphas", alphas, "one or more finite numbers above 0")
    return torch.tensor(values.tolist(), dtype=torch.float64)


def _features(X: Any, name: str, device: torch.device) -> Any:
    """(n, p) float64 on the device."""
    if not isinstance(X, torch.Tensor):
        X = np.asarray(X)
    check_real(X, name)
    if not isinstance(X, torch.Tensor):
        X = torch.from_numpy(np.require(X, np.float64, ["C", "W"]))
    shape = tuple(X.shape)
    expect(X.ndim == 2 and X.numel(), name, f"shape {shape}", "(samples, features), none of them 0")
    X = X.detach().to(device, torch.float64)
    bad = int((~torch.isfinite(X)).sum())
    expect(not bad, name, f"{bad} NaN or infinite values", "none")
    return X
