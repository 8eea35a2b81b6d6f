"""Ridge regression with one alpha a target, for thousands of ridges on the same responses.

Linear algebra on tensors: no files, no global state. A ridge is solved in three steps, and each
depends on as little as it can, so that as much as can be is shared:

- ``Splits``: which rows train and validate in each fold. Shared by everything.
- ``Targets``: responses, with the sums that a fold needs of them. Shared by all layers of all models.
- ``Plan``: factorisations of the features of one layer. Shared by all subjects with one stimulus.

Notation: X (n, p) features, Y (n, t) responses, both of the training set; X = U S V' the singular value
decomposition, r its rank. In fold k the training rows of U S have the singular value decomposition
A_k L^(1/2) Q', L the eigenvalues of the training Gram matrix. With P = L^(-1/2) Q' S,

    z = P (U'Y)_train          response in the directions of the fold, (r, t)
    w = P (U'Y)_validation     the same of the validation set
    M = P (U'U)_validation P'  how the directions covary in the validation set, (r, r)
    g(alpha) = L / (L + alpha) shrinkage of each direction

the prediction for the validation set is U P' (g z), so for **every** alpha

    prediction . response = sum_i g_i z_i w_i
    |prediction|^2        = sum_ij g_i g_j z_i z_j M_ij

and no prediction need be formed. The second sum is a quadratic form for each alpha; but g_i g_j
differs from one alpha to the next in a special way:

    g_i g_j = L_i L_j (d_i - d_j) / (L_j - L_i)    with d = 1 / (L + alpha)

so with K_ij = M_ij L_j / (L_j - L_i) and u = K z (one product, without alpha in it) it is

    |prediction|^2 = sum_i g_i^2 M_ii z_i^2 + 2 sum_i L_i (d_i - c) z_i u_i

for any constant c, since sum_i L_i z_i u_i = 0: two products of an (alphas, r) matrix with an (r, t)
matrix. c = d of the largest L keeps the terms from cancelling for large alphas. Eigenvalues closer
than ``NEAR`` are taken out of K and kept beside the diagonal, with (g_i^2 + g_j^2) / 2 for g_i g_j:
a relative error of at most NEAR^2 / 2 in terms that are few.

Factorisations are computed in float64, products with responses in `dtype`. All that is rounded to `dtype`
has entries of order one (P and U have been whitened), so small singular values keep their own
precision and not that of the largest one: features that are collinear, nearly so, or a thousand
times larger than others cost none. In float32 scores agree with those of float64 to better than 1e-5
(``tests/test_solver.py``); without an intercept that holds for responses whose mean is no more than about
ten times their standard deviation, and the error grows in proportion beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import torch

from phaselab.encoding.folds import Fold
from phaselab.errors import PhaselabError

Scoring = Literal["correlation", "r2"]

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
#: Targets of a batch at least, where memory is scarce, and at most, where it is not: larger ones leave
#: the cache of a CPU.
SMALLEST_BATCH, LARGEST_BATCH = 16, {"cpu": 512, "cuda": 8192}
#: Norms of features between which squares, of small singular values as well, are float64 numbers.
SQUARED = 1e-140, 1e150
#: Targets whose range is outside these powers of 2 are scaled by one of them, which is exact: fourth powers
#: of a response in tesla, or in arbitrary units of 1e10, are not float32 numbers.
UNSCALED = -12, 12
#: Bytes of responses that are looked through at once before anything is fitted.
SURVEYED_AT_ONCE = 1 << 25
#: The paper's candidates.
ALPHAS = tuple(float(f"1e{power}") for power in range(-12, 13))
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class SolverError(PhaselabError):
    """An argument that does not fit; the message names it, what was found and what was expected."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows of a training set that train and validate in each fold, and the pieces that they share.

    A piece is a set of rows with the same role in every fold, so that sums over the rows of a fold
    are sums over its pieces. Contiguous folds without a gap have one piece a fold.

    Parameters
    ----------
    n : number of rows.
    folds : (train, validation) row numbers; no row may be in both.

    Raises
    ------
    SolverError
        For no fold, an empty set, a row that is not there or is twice in a set, or one that trains and
        validates.
    """

    n: int
    folds: tuple[Fold, ...]

    def __post_init__(self) -> None:
        if not self.folds:
            raise SolverError("cv: found no fold, expected at least 1 (two sets of rows)")
        for number, fold in enumerate(self.folds):
            if not isinstance(fold, (tuple, list)) or len(fold) != 2:
                raise SolverError(f"cv: fold {number}: found {fold!r}, expected two sets of rows")
            for name, rows in zip(("training", "validation"), map(np.asarray, fold), strict=True):
                if not rows.size:
                    raise SolverError(f"cv: fold {number}: found an empty {name} set, expected rows")
                if rows.ndim != 1 or rows.dtype.kind not in "iu":
                    raise SolverError(
                        f"cv: fold {number}: found {name} rows of type {rows.dtype} and shape {rows.shape}, "
                        "expected row numbers"
                    )
                if len(np.unique(rows)) < len(rows):
                    raise SolverError(f"cv: fold {number}: found {name} rows more than once, expected each once")
                if np.min(rows) < 0 or np.max(rows) >= self.n:
                    raise SolverError(
                        f"cv: fold {number}: found {name} rows {np.min(rows)} to {np.max(rows)}, "
                        f"expected 0 to {self.n - 1}"
                    )
            both = np.intersect1d(*fold)
            if len(both):
                raise SolverError(
                    f"cv: fold {number}: found {len(both)} rows that train and validate (the first is "
                    f"{both[0]}), expected none"
                )

    @cached_property
    def roles(self) -> np.ndarray:
        """int8 (n_pieces, n_folds): 1 trains, 2 validates, 0 neither."""
        return self._pieces[0]

    @cached_property
    def order(self) -> np.ndarray:
        """(n,) row numbers, piece after piece, ascending in each."""
        return np.argsort(self._pieces[1], kind="stable")

    @cached_property
    def reordered(self) -> bool:
        """Whether `order` is another one than that of the rows."""
        return bool((self.order[1:] < self.order[:-1]).any())

    @cached_property
    def slices(self) -> list[slice]:
        """Where each piece is in `order`."""
        ends = np.cumsum(np.bincount(self._pieces[1], minlength=len(self.roles)))
        return [slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]

    @cached_property
    def _pieces(self) -> tuple[np.ndarray, np.ndarray]:
        role = np.zeros((self.n, len(self.folds)), dtype=np.int8)
        for number, (train, validation) in enumerate(self.folds):
            role[train, number] = 1
            role[validation, number] = 2
        kinds, first, inverse = np.unique(role, axis=0, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))
        return kinds[np.argsort(first)], rank[inverse.ravel()]

    def pieces(self, fold: int, role: int) -> list[int]:
        """Pieces that have a role in a fold."""
        return [int(i) for i in np.flatnonzero(self.roles[:, fold] == role)]


class Targets:
    """Responses of one subject, and what of them does not depend on features.

    Parameters
    ----------
    Y : (n_rows, n_targets) responses: a numpy array or memory map, a Zarr or HDF5 array, or a tensor on any
        device. Read in batches of columns and never copied as a whole.
    splits : roles of the training rows.
    train : (splits.n,) rows of `Y` that are the training set, ascending; None: all.
    Y_test, test : held-out responses and their rows, in the same way; `Y_test` None: `Y` when `test` is
        given, nothing otherwise.
    intercept : whether the model has an intercept, as in `Plan`.
    name : what messages call `Y`.

    Attributes
    ----------
    n_targets : int.
    left_out : target -> why; not finite, or constant in the training set. They are not fitted.
    kept : (n_kept,) numbers of the other targets.
    mean : float64 (n_targets,) of the training set.
    scale : float64 (n_targets,) powers of 2 by which targets are multiplied while they are solved, nearly
        always 1.

    Raises
    ------
    SolverError
        When shapes do not fit or the type is not a real number's.

    Notes
    -----
    Memory: about three times `SURVEYED_AT_ONCE` while `Y` is looked through; then about
    ``8 (n_pieces + n_folds + 4)`` bytes a target. A Zarr or HDF5 array adds the chunks it decompresses for
    a batch, which are read once where they hold no more targets than a batch.
    """

    def __init__(
        self,
        Y: Any,
        splits: Splits,
        train: np.ndarray | None = None,
        Y_test: Any = None,
        test: np.ndarray | None = None,
        intercept: bool = True,
        name: str = "Y",
    ) -> None:
        self.splits, self.intercept, self.name = splits, intercept, name
        self._train = _Source(Y, train, f"{name}")
        if Y_test is None and test is not None:
            Y_test = Y
        self._test = None if Y_test is None else _Source(Y_test, test, f"{name}_test")
        if self._train.n != splits.n:
            raise SolverError(f"{name}: found {self._train.n} samples, expected {splits.n} as in X")
        if self._test is not None and self._test.n_targets != self._train.n_targets:
            raise SolverError(
                f"{name}_test: found {self._test.n_targets} targets, expected {self._train.n_targets} as in {name}"
            )
        self.n_targets = self._train.n_targets
        self._survey()

    def _survey(self) -> None:
        """Means, sums of each piece and norms of each validation set, in float64, one pass over Y."""
        n_pieces, n_folds = self.splits.roles.shape
        self.mean = np.zeros(self.n_targets)
        self._sums = np.zeros((n_pieces, self.n_targets))
        # Sum of squares about the mean of the validation set, a fold each.
        self._squares = np.zeros((n_folds, self.n_targets))
        self.scale = np.ones(self.n_targets)
        self._taken_off = np.zeros(self.n_targets)
        # Constant in the training set of a fold, and in the test set.
        self._silent = np.zeros((n_folds, self.n_targets), bool)
        self._test_constant = np.zeros(self.n_targets, bool)
        self.left_out: dict[int, str] = {}
        at_once = max(1, SURVEYED_AT_ONCE // (8 * self.splits.n))
        for start in range(0, self.n_targets, at_once):
            columns = slice(start, min(start + at_once, self.n_targets))
            raw = self._train.read(columns).cpu().numpy()
            if self.splits.reordered:
                raw = raw[self.splits.order]
            # Of each piece. NaN and infinite values show in them as well.
            highest, lowest = (
                np.stack([extreme(raw[rows], axis=0) for rows in self.splits.slices]).astype(np.float64)
                for extreme in (np.max, np.min)
            )
            high, low = highest.max(axis=0), lowest.min(axis=0)
            finite = np.isfinite(high) & np.isfinite(low)
            if self._test is not None:
                held = self._test.read(columns).cpu().numpy()
                most, least = held.max(axis=0), held.min(axis=0)
                finite &= np.isfinite(most) & np.isfinite(least)
                self._test_constant[columns] = most == least
            with np.errstate(invalid="ignore"):
                spread = high - low
            constant = spread == 0
            values = raw.astype(np.float64)
            for column in np.flatnonzero(~finite):
                self.left_out[start + int(column)] = "NaN or infinite values"
            for column in np.flatnonzero(finite & constant):
                self.left_out[start + int(column)] = "constant in the training set"
            values[:, ~finite] = 0
            # In the precision of the responses, so that every batch takes off exactly this.
            taken_off = values.mean(axis=0).astype(raw.dtype).astype(np.float64)
            self._taken_off[columns] = taken_off
            values -= taken_off
            # A model without intercept must explain the mean as well.
            power = np.frexp(spread if self.intercept else np.maximum(spread, np.abs(taken_off)))[1]
            usual = (power >= UNSCALED[0]) & (power <= UNSCALED[1]) | ~finite | constant
            if not usual.all():
                self.scale[columns] = np.ldexp(1.0, np.where(usual, 0, -power.clip(-1000, 1000)))
                values *= self.scale[columns]
            parts = [values[rows] for rows in self.splits.slices]
            sums = np.stack([part.sum(axis=0) for part in parts])
            squares = np.stack([np.einsum("ij,ij->j", part, part) for part in parts])
            self._sums[:, columns] = sums
            self.mean[columns] = taken_off + sums.sum(axis=0) / self.splits.n / self.scale[columns]
            for fold in range(n_folds):
                mine = self.splits.pieces(fold, 2)
                whole = squares[mine].sum(axis=0)
                about = whole - sums[mine].sum(axis=0) ** 2 / len(self.splits.folds[fold][1])
                self._squares[fold, columns] = about.clip(0)
                # What rounding leaves of a constant is no variance, and nothing is learned from one.
                flat, self._silent[fold, columns] = (
                    highest[of_set].max(axis=0) == lowest[of_set].min(axis=0)
                    for of_set in (mine, self.splits.pieces(fold, 1))
                )
                self._squares[fold, columns][flat] = 0
        out = np.array(sorted(self.left_out), dtype=np.int64)
        self.kept = np.setdiff1d(np.arange(self.n_targets), out)

    def batches(self, size: int, device: torch.device, dtype: torch.dtype) -> Iterator[_Batch]:
        """Batches of the kept targets, training rows piece after piece."""
        for start in range(0, len(self.kept), size):
            columns = self.kept[start : start + size]
            mean, scale = (torch.as_tensor(of[columns]) for of in (self._taken_off, self.scale))
            scaled = bool((scale != 1).any())

            def ready(
                source: _Source,
                mean: torch.Tensor = mean,
                scale: torch.Tensor | None = scale if scaled else None,
                columns: np.ndarray = columns,
            ) -> torch.Tensor:
                # A mean that is large against the variance must go before rounding.
                values = source.read(columns)
                values = values.to(torch.promote_types(values.dtype, dtype))
                values = values - mean.to(values.device, values.dtype)
                if scale is not None:
                    values *= scale.to(values.device, values.dtype)
                return values.to(device, dtype)

            Y = ready(self._train)
            if self.splits.reordered:
                Y = Y[torch.as_tensor(self.splits.order, device=Y.device)]
            silent = self.intercept and self._silent[:, columns].any()
            yield _Batch(
                columns=columns,
                Y=Y,
                Y_test=None if self._test is None else ready(self._test),
                sums=torch.as_tensor(self._sums[:, columns]).to(device, dtype),
                squares=torch.as_tensor(self._squares[:, columns]).to(device, dtype),
                mean=None if self.intercept else (mean * scale).to(device, dtype),
                silent=torch.as_tensor(self._silent[:, columns], device=device) if silent else None,
                test_constant=torch.as_tensor(self._test_constant[columns], device=device),
            )

    @property
    def n_test(self) -> int:
        return 0 if self._test is None else self._test.n


@dataclass(frozen=True)
class _Batch:
    """Some targets: responses (n, b) in the order of the pieces, and sums (n_pieces, b), (n_folds, b).

    All of them times the scale of the target and less the mean of the training set, rounded, which a model
    without intercept must still explain: `mean` (b,) is then what was taken off, and None with an intercept.
    `silent` (n_folds, b) says where nothing is to be learned, constant in a training set with an intercept;
    None: nowhere. `test_constant` (b,) says which are constant in the test set.
    """

    columns: np.ndarray
    Y: torch.Tensor
    Y_test: torch.Tensor | None
    sums: torch.Tensor
    squares: torch.Tensor
    mean: torch.Tensor | None
    silent: torch.Tensor | None
    test_constant: torch.Tensor


class _Source:
    """Columns of an array that may be larger than memory, some of its rows alone."""

    def __init__(self, values: Any, rows: np.ndarray | None, name: str) -> None:
        shape = tuple(getattr(values, "shape", ()))
        if len(shape) != 2 or not all(shape):
            raise SolverError(f"{name}: found shape {shape}, expected (samples, targets), none of them 0")
        if isinstance(values, torch.Tensor):
            values = values.detach()
        elif hasattr(values, "iloc"):
            # Of pandas: its columns are not those of an array.
            values = np.asarray(values)
        _check_real(values, name)
        self.values, self.rows = values, rows
        self.n = shape[0] if rows is None else len(rows)
        self.n_targets = shape[1]

    def read(self, columns: slice | np.ndarray) -> torch.Tensor:
        """(n, n_columns): on the source's device, in its precision if that is float32, else float64."""
        if isinstance(columns, np.ndarray) and len(columns) == columns[-1] - columns[0] + 1:
            columns = slice(int(columns[0]), int(columns[-1]) + 1)
        if isinstance(self.values, torch.Tensor):
            index = columns if isinstance(columns, slice) else torch.as_tensor(columns, device=self.values.device)
            part = self.values[:, index]
            if part.dtype not in (torch.float32, torch.float64):
                part = part.to(torch.float64)
            return part if self.rows is None else part[torch.as_tensor(self.rows, device=part.device)]
        # Zarr and HDF5 read ranges well and scattered columns badly.
        whole = columns if isinstance(columns, slice) else slice(int(columns[0]), int(columns[-1]) + 1)
        read = np.asarray(self.values[:, whole])
        if not isinstance(columns, slice):
            read = read[:, columns - whole.start]
        if self.rows is not None:
            read = read[self.rows]
        if read.dtype not in (np.float32, np.float64):
            read = read.astype(np.float64)
        return torch.from_numpy(np.require(read, requirements=["C", "W"]))


@dataclass(frozen=True)
class _Steep:
    """Rows `index` of z or w as `matrix` (n_index, n_rows) times the responses of `rows`."""

    index: torch.Tensor
    matrix: torch.Tensor
    rows: list[slice] | torch.Tensor


@dataclass(frozen=True)
class _FoldPlan:
    """What a fold needs of the features; r_k is its rank.

    Attributes
    ----------
    to_z : (r_k, r) from U'Y, or where `z_rows` is given (r_k, n_train) from the responses themselves.
    to_w : (r_k, r), or with `w_rows` (r_k, n_validation).
    z_shift, w_shift : (r_k,) what the sum of the responses of the set is multiplied with and taken off.
    z_steep, w_steep : few rows of z and w that are taken from the responses, or None.
    z_of_mean, w_of_mean : (r_k,) z and w of a response that is 1 throughout; None where they are not needed.
    drift : (r_k,) n_validation P (mean of validation - mean of training), for R2; else None.
    K : (r_k, r_k), zero for near pairs.
    near : (rows, columns, block) of M near the diagonal and on it.
    numerator : (n_alphas, r_k) g divided by its largest value, which a correlation does not see.
    denominator : (n_alphas, 2 r_k) for z K z, then for z M z near the diagonal.
    largest : (n_alphas,) the largest g.
    """

    to_z: torch.Tensor
    z_rows: list[slice] | torch.Tensor | None
    z_shift: torch.Tensor | None
    z_steep: _Steep | None
    to_w: torch.Tensor
    w_rows: list[slice] | torch.Tensor | None
    w_shift: torch.Tensor | None
    w_steep: _Steep | None
    z_of_mean: torch.Tensor | None
    w_of_mean: torch.Tensor | None
    drift: torch.Tensor | None
    n_train: int
    K: torch.Tensor
    near: list[tuple[slice, slice, torch.Tensor]]
    numerator: torch.Tensor
    denominator: torch.Tensor
    largest: torch.Tensor


class Basis:
    """Singular value decomposition of the features of a training set, X = U S V'.

    Parameters
    ----------
    X : (n, p) features; numpy or torch.
    order : (n,) the order in which the rows are kept; None: as they are.
    intercept : whether the columns are centred first.
    dtype : torch type of `U`.
    device : torch device.

    Attributes
    ----------
    U : (n, r) in `dtype`, rows in `order`; r, the `rank`, leaves out directions that are rounding error.
    s : float64 (r,) singular values, ascending.
    V : float64 (p, r) directions.
    mean : float64 (p,), zeros without intercept.
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
            raise SolverError(
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
        if X.shape[1] != self.p:
            raise SolverError(f"{name}: found {X.shape[1]} features, expected {self.p} as in X")
        return cast(torch.Tensor, (_centred(X, self.mean) @ (self.V / self.s)).to(self.dtype))

    def shrinkage(self, alphas: torch.Tensor) -> torch.Tensor:
        """g, float64 (n_alphas, r): how much of each direction is left by each alpha."""
        return cast(torch.Tensor, self.s**2 / (self.s**2 + alphas[:, None]))


class Plan:
    """Factorisations of the features of one layer, for any number of responses.

    Parameters
    ----------
    X : (n, p) features of the training set; numpy or torch, float32 or float64.
    splits : folds over its rows, by which alpha is chosen.
    alphas : (n_alphas,) candidates, above 0, in any order; of equally good ones the first is taken.
    X_test : (n_test, p) features of held-out rows, or None.
    scoring : ``correlation`` or ``r2``: of the predictions of each validation set.
    intercept : whether the model has an unpenalised intercept: features and responses are centred on the mean
        of the training set, in each fold on that of the fold. Without it they are taken as they are.
    dtype : ``float32`` or ``float64``, of the products with responses.
    device : torch device, or ``auto``.

    Attributes
    ----------
    basis : of the whole training set.
    alphas : float64 (n_alphas,).

    Raises
    ------
    SolverError
        Naming the argument whose shape or values do not fit, or a device that is not there.

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
        if scoring not in ("correlation", "r2"):
            raise SolverError(f"scoring: found {scoring!r}, expected 'correlation' or 'r2'")
        if dtype not in DTYPES:
            raise SolverError(f"dtype: found {dtype!r}, expected one of {', '.join(DTYPES)}")
        self.dtype, self.device = DTYPES[dtype], find_device(device)
        self.alphas = _alphas(alphas).to(self.device)
        if len(X) != splits.n:
            raise SolverError(f"X: found {len(X)} samples, expected {splits.n} as in the folds")
        order = splits.order if splits.reordered else None
        self.basis = Basis(X, order, intercept, self.dtype, self.device)
        self.F = None if X_test is None else self.basis.project(X_test, "X_test")
        U = self.basis.exact
        grams, sums = self._sums(U)
        self.folds = [self._fold(k, U, grams, sums) for k in range(len(splits.folds))]
        # In float64 it is needed no more, and it is as large as the features; a slice would keep it.
        self.basis.exact = U.new_empty((0, self.basis.rank))

    @property
    def by_pieces(self) -> bool:
        """Whether sums over the rows of a fold are taken over pieces: not where there are too many."""
        return len(self.splits.roles) <= 4 * len(self.splits.folds) + 1

    def _sums(self, U: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Gram matrix and sum of the rows of each piece."""
        if not self.by_pieces:
            return [], []
        parts = [U[rows] for rows in self.splits.slices]
        return [part.T @ part for part in parts], [part.sum(0) for part in parts]

    def _fold(self, k: int, U: torch.Tensor, grams: list[torch.Tensor], sums: list[torch.Tensor]) -> _FoldPlan:
        train, validation = (self._rows(k, role) for role in (1, 2))
        n_train, n_validation = (len(rows) for rows in self.splits.folds[k])
        s = self.basis.s

        def narrow(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(self.dtype).contiguous()

        B = self._gram_of(k, 1, U, train, grams)
        total = self._sum_of(k, 1, U, train, sums)
        m_train = total / n_train if self.intercept else torch.zeros_like(total)
        if n_train >= self.basis.rank:
            H = (B - n_train * torch.outer(m_train, m_train)).mul_(s).mul_(s[:, None])
            root, Q = _right_singular(H, lambda: _centred(_take(U, train), m_train) * s, self._fold_tolerance(H))
            P = (Q / root).T * s
            left = None
        else:
            A = _centred(_take(U, train), m_train) * s
            kernel = A @ A.T
            root, left = _right_singular(kernel, lambda: A.T, self._fold_tolerance(kernel))
            P = (_orthonormal(A.T @ (left / root)) / root).T * s
        lam = root**2
        total_v = self._sum_of(k, 2, U, validation, sums)
        m_validation = total_v / n_validation
        m_w = m_validation if self.scoring == "correlation" else m_train
        z_direct = left is not None or not self.by_pieces
        w_direct = n_validation < self.basis.rank or not self.by_pieces
        if w_direct:
            to_w = narrow(P @ _centred(_take(U, validation), m_w).T)
            M = to_w @ to_w.T
        else:
            to_w = narrow(P)
            cross = torch.outer(m_w, total_v)
            about = self._gram_of(k, 2, U, validation, grams) - cross - cross.T
            about += n_validation * torch.outer(m_w, m_w)
            M = narrow(P @ about @ P.T)
        K, near = self._kernels(M, lam)
        ratio = lam / (lam + self.alphas[:, None]) if len(lam) else lam.new_zeros((len(self.alphas), 0))
        largest = ratio.max(1).values if len(lam) else lam.new_ones(len(self.alphas))
        relative = ratio / largest[:, None]
        towards = 1 - lam / lam.max() if len(lam) else lam

        def shift(mean: torch.Tensor, direct: bool) -> torch.Tensor | None:
            # Directions from rows that were centred already have no mean to take off.
            return None if direct or not bool(mean.any()) else narrow(P @ mean)

        def steep(which: torch.Tensor, role: int) -> _Steep | None:
            if not bool(which.any()):
                return None
            rows, mean = (train, m_train) if role == 1 else (validation, m_w)
            return _Steep(which.nonzero()[:, 0], narrow(P[which] @ _centred(_take(U, rows), mean).T), rows)

        # Directions that hardly occur, or hardly vary, in one of the sets are differences of large
        # sums, which rounding would spoil: these few are taken from the responses themselves.
        norms = torch.linalg.vector_norm(P, dim=1)
        z_steep = None if z_direct else steep(norms > STEEP, 1)
        expected = norms**2 * (n_validation / self.basis.n)
        w_steep = None if w_direct else steep(expected > STEEP**2 * M.diagonal(), 2)
        if z_direct:
            to_z = left.T if left is not None else P @ _centred(_take(U, train), m_train).T
        else:
            to_z = P
        drift = None
        if self.scoring == "r2" and self.intercept:
            drift = narrow(P @ (m_validation - m_train)) * n_validation
        return _FoldPlan(
            to_z=narrow(to_z),
            z_rows=train if z_direct else None,
            z_shift=shift(m_train, z_direct),
            z_steep=z_steep,
            to_w=to_w,
            w_rows=validation if w_direct else None,
            w_shift=shift(m_w, w_direct),
            w_steep=w_steep,
            z_of_mean=None if self.intercept else narrow(P @ total),
            w_of_mean=None if self.intercept or self.scoring == "correlation" else narrow(P @ total_v),
            drift=drift,
            n_train=n_train,
            K=K,
            near=near,
            numerator=narrow(relative),
            denominator=narrow(torch.cat([2 * relative * towards, relative**2], 1)),
            largest=narrow(largest),
        )

    def _gram_of(
        self, k: int, role: int, U: torch.Tensor, rows: list[slice] | torch.Tensor, grams: list[torch.Tensor]
    ) -> torch.Tensor:
        """U'U of the rows with a role in a fold."""
        if not self.by_pieces:
            part = _take(U, rows)
            return part.T @ part
        first, *more = self.splits.pieces(k, role)
        total = grams[first].clone()
        for i in more:
            total += grams[i]
        return total

    def _sum_of(
        self, k: int, role: int, U: torch.Tensor, rows: list[slice] | torch.Tensor, sums: list[torch.Tensor]
    ) -> torch.Tensor:
        if not self.by_pieces:
            return _take(U, rows).sum(0)
        return torch.stack([sums[i] for i in self.splits.pieces(k, role)]).sum(0)

    def _fold_tolerance(self, gram: torch.Tensor) -> float:
        size = float(gram.diagonal().sum().clamp_min(0)) ** 0.5
        return max(self.basis.n, self.basis.p) ** 0.5 * torch.finfo(torch.float64).eps * size

    def _rows(self, k: int, role: int) -> list[slice] | torch.Tensor:
        """Where the rows of a fold are in the order of the pieces: a few ranges, or their numbers."""
        ranges: list[slice] = []
        for i in self.splits.pieces(k, role):
            piece = self.splits.slices[i]
            if ranges and ranges[-1].stop == piece.start:
                ranges[-1] = slice(ranges[-1].start, piece.stop)
            else:
                ranges.append(piece)
        if len(ranges) <= 16:
            return ranges
        return torch.cat([torch.arange(r.start, r.stop, device=self.device) for r in ranges])

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
        n_pieces = len(self.splits.roles) if self.by_pieces else 1
        numbers = 2 * self.splits.n + (n_pieces + 2) * self.basis.rank + 7 * widest + 5 * len(self.alphas) + 4 * n_test
        return numbers * self.dtype.itemsize + 16 * n_pieces

    @property
    def bytes(self) -> int:
        """Bytes that the plan holds."""
        own = [self.basis.U, self.basis.V] + ([self.F] if self.F is not None else [])
        for fold in self.folds:
            own += [fold.to_z, fold.to_w, fold.K, fold.numerator, fold.denominator]
            own += [part.matrix for part in (fold.z_steep, fold.w_steep) if part is not None]
            own += [block for _, _, block in fold.near]
        return sum(tensor.numel() * tensor.element_size() for tensor in own)


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
    batch: int | None = None,
    memory: int | None = None,
    predictions: bool = False,
    coef: bool = False,
) -> Fit:
    """Choose alpha for each target, fit, and score on the test set.

    Parameters
    ----------
    plan : of the features; with `X_test` when `targets` have a test set.
    targets : with the same splits.
    batch : targets at once; None: from `memory`.
    memory : bytes that the plan and a batch of targets, with all that is computed from it, may take
        (``plan.bytes + batch * plan.batch_bytes(n_test)``); what is asked for as a result comes on top. None:
        batches of `LARGEST_BATCH`.
    predictions : keep the predictions of the test set.
    coef : keep the coefficients.

    Raises
    ------
    SolverError
        When splits or test sets do not belong together, or naming `memory` when not even
        `SMALLEST_BATCH` targets fit into it.
    """
    if targets.splits is not plan.splits:
        raise SolverError("targets: found other splits than the plan's, expected the same object")
    if targets.intercept != plan.intercept:
        raise SolverError(f"targets: found intercept {targets.intercept}, expected {plan.intercept} as in the plan")
    n_test = targets.n_test
    if n_test != (0 if plan.F is None else len(plan.F)):
        found = 0 if plan.F is None else len(plan.F)
        raise SolverError(f"X_test: found {found} samples, expected {n_test} as in {targets.name}_test")
    size = _batch_size(plan, targets, batch, memory)
    t = targets.n_targets
    alpha, cv_score = np.full(t, np.nan), np.full(t, np.nan, dtype=np.float32)
    test_score = np.full(t, np.nan, dtype=np.float32) if n_test else None
    kept_type = np.dtype(str(plan.dtype).removeprefix("torch."))
    kept = np.full((n_test, t), np.nan, dtype=kept_type) if predictions else None
    weights = np.full((plan.basis.p, t), np.nan, dtype=kept_type) if coef else None
    intercept = np.zeros(t) if coef else None
    basis = plan.basis
    lift = (basis.V / basis.s).to(plan.dtype) if coef else None
    candidates = plan.alphas.cpu().numpy()
    g = basis.shrinkage(plan.alphas)
    top = g.max(1).values if basis.rank else torch.ones_like(plan.alphas)
    relative, g = (g / top[:, None]).to(plan.dtype), g.to(plan.dtype)
    for part in targets.batches(size, plan.device, plan.dtype):
        index, score, Z = _search(plan, part)
        columns = part.columns
        off = targets.mean[columns] if plan.intercept else 0.0
        units = 1 / targets.scale[columns]
        alpha[columns] = candidates[index.cpu().numpy()]
        cv_score[columns] = score.cpu().numpy()
        if n_test:
            assert test_score is not None
            assert plan.F is not None
            assert part.Y_test is not None
            # The same prediction divided by its largest g, which keeps it off the smallest numbers.
            predicted = plan.F @ (relative[index].T * Z)
            scale = top[index].to(plan.dtype)
            held_out = part.Y_test
            if part.mean is not None:
                held_out = held_out + part.mean
            elif plan.scoring == "r2":
                # What was taken off is the mean but for rounding.
                held_out = held_out - part.sums.sum(0) / targets.splits.n
            score = _score(plan.scoring, predicted, held_out, scale)
            test_score[columns] = score.masked_fill_(part.test_constant, 0).cpu().numpy()
            if kept is not None:
                kept[:, columns] = (predicted * scale).cpu().numpy() * units
        if weights is not None:
            assert lift is not None
            assert intercept is not None
            b = lift @ (g[index].T * Z)
            weights[:, columns] = b.cpu().numpy() * units
            intercept[columns] = off - (basis.mean @ b.to(torch.float64)).cpu().numpy() * units
    return Fit(alpha, cv_score, test_score, kept, weights, intercept, targets.left_out)


def fit_score(
    X_train: Any,
    Y_train: Any,
    X_test: Any,
    Y_test: Any,
    alphas: Any,
    folds: Sequence[Fold],
    scoring: Scoring = "correlation",
    intercept: bool = True,
    dtype: str = "float32",
    device: str = "auto",
    batch: int | None = None,
    memory: int | None = None,
) -> Any:
    """Score ridges on held-out rows, keeping neither coefficients nor predictions.

    Parameters
    ----------
    X_train, X_test : (n, p) and (n_test, p) features.
    Y_train, Y_test : (n, n_targets) and (n_test, n_targets) responses; or a list of them, one a subject,
        with any numbers of targets: they share one factorisation.
    alphas, scoring, intercept, dtype, device : as for `Plan`.
    folds : (training, validation) rows of the training set.
    batch, memory : as for `solve`.

    Returns
    -------
    `Fit`, or a list of them where a list of responses was given.

    Raises
    ------
    SolverError
        Naming the argument that does not fit.
    """
    shape = tuple(np.shape(X_train))
    if len(shape) != 2:
        raise SolverError(f"X: found shape {shape}, expected (samples, features)")
    splits = Splits(shape[0], tuple(folds))
    several = isinstance(Y_train, (list, tuple))
    if several != isinstance(Y_test, (list, tuple)):
        raise SolverError(
            f"Y_test: found {type(Y_test).__name__}, expected "
            f"{'a list of arrays, one a subject,' if several else 'an array'} as for Y_train"
        )
    if several and len(Y_train) != len(Y_test):
        raise SolverError(f"Y_test: found {len(Y_test)} subjects, expected {len(Y_train)} as in Y_train")
    pairs = zip(Y_train, Y_test, strict=True) if several else [(Y_train, Y_test)]
    subjects = [
        Targets(Y, splits, Y_test=held, intercept=intercept, name=f"Y[{i}]" if several else "Y")
        for i, (Y, held) in enumerate(pairs)
    ]
    plan = Plan(X_train, splits, alphas, X_test, scoring, intercept, dtype, device)
    fits = [solve(plan, targets, batch, memory) for targets in subjects]
    return fits if several else fits[0]


def _search(plan: Plan, part: _Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Number of the best alpha and its score (b,), and U'Y of all rows (r, b)."""
    Y = part.Y
    if plan.by_pieces:
        C = [plan.basis.U[rows].T @ Y[rows] for rows in plan.splits.slices]
        total = C[0].clone() if len(C) > 1 else C[0]
        for more in C[1:]:
            total += more
    else:
        C, total = [], plan.basis.U.T @ Y
    scores = Y.new_zeros((len(plan.alphas), Y.shape[1]))
    for k, fold in enumerate(plan.folds):
        z = _project(plan, k, 1, fold.to_z, fold.z_rows, fold.z_shift, part, C, total)
        if fold.z_steep is not None:
            z[fold.z_steep.index] = _product(fold.z_steep.matrix, fold.z_steep.rows, part.Y)
        w = _project(plan, k, 2, fold.to_w, fold.w_rows, fold.w_shift, part, C, total)
        if fold.w_steep is not None:
            w[fold.w_steep.index] = _product(fold.w_steep.matrix, fold.w_steep.rows, part.Y)
        if part.mean is not None and fold.z_of_mean is not None:
            z.addr_(fold.z_of_mean, part.mean)
        if part.silent is not None:
            z[:, part.silent[k]] = 0
        if part.mean is not None and fold.w_of_mean is not None:
            w.addr_(fold.w_of_mean, part.mean)
        r = len(z)
        if fold.drift is not None:
            w.addr_(fold.drift, part.sums[plan.splits.pieces(k, 1)].sum(0), alpha=-1 / fold.n_train)
        numerator = fold.numerator @ w.mul_(z)
        pairs = z.new_empty((2 * r, z.shape[1]))
        torch.mm(fold.K, z, out=pairs[:r])
        for rows, columns, block in fold.near:
            torch.mm(block, z[columns], out=pairs[r:][rows])
        pairs[:r].mul_(z)
        pairs[r:].mul_(z)
        # Of predictions divided by their largest g.
        norm = (fold.denominator @ pairs).clamp_min_(0)
        squares = part.squares[k]
        if plan.scoring == "correlation":
            norm = norm.mul_(squares).sqrt_()
            scores += torch.where(norm > 0, numerator / norm, 0)
        else:
            about = squares
            largest = fold.largest[:, None]
            if plan.intercept:
                about = squares + _drift_squares(plan, k, part)
            else:
                about = squares + _mean_squares(plan, k, part)
            error = about - 2 * largest * numerator + largest**2 * norm
            scores += torch.where(squares > 0, 1 - error / squares, 0)
    scores /= len(plan.folds)
    best = scores.max(0).values
    # Of equals the first, on every device: argmax does not promise which.
    number = torch.arange(len(scores), device=scores.device)[:, None]
    index = torch.where(scores == best, number, len(scores)).min(0).values
    if part.mean is not None:
        total.addr_(plan.basis.U.sum(0), part.mean)
    return index.clamp_max_(len(scores) - 1), best, total


def _project(
    plan: Plan,
    k: int,
    role: int,
    matrix: torch.Tensor,
    rows: list[slice] | torch.Tensor | None,
    shift: torch.Tensor | None,
    part: _Batch,
    C: list[torch.Tensor],
    total: torch.Tensor,
) -> torch.Tensor:
    """z or w of a fold: (r_k, b)."""
    if rows is not None:
        return _product(matrix, rows, part.Y)
    mine = plan.splits.pieces(k, role)
    others = [i for i in range(len(C)) if i not in mine]
    if len(others) < len(mine):
        summed = total
        for i in others:
            summed = summed - C[i]
    else:
        summed = C[mine[0]]
        for i in mine[1:]:
            summed = summed + C[i]
    out = matrix @ summed
    if shift is not None:
        out.addr_(shift, part.sums[mine].sum(0), alpha=-1)
    return out


def _product(matrix: torch.Tensor, rows: list[slice] | torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """matrix (q, n_rows) times these rows of Y, without a copy of them where they are ranges."""
    if isinstance(rows, torch.Tensor):
        return matrix @ Y[rows]
    out, done = None, 0
    for where in rows:
        term = matrix[:, done : done + where.stop - where.start]
        out = term @ Y[where] if out is None else out.addmm_(term, Y[where])
        done += where.stop - where.start
    assert out is not None
    return out


def _drift_squares(plan: Plan, k: int, part: _Batch) -> torch.Tensor:
    """n_validation times the squared distance of a validation set's mean from the training set's; (b,)."""
    n_train, n_validation = (len(rows) for rows in plan.splits.folds[k])
    means = [part.sums[plan.splits.pieces(k, role)].sum(0) / n for role, n in ((1, n_train), (2, n_validation))]
    return n_validation * (means[1] - means[0]) ** 2


def _mean_squares(plan: Plan, k: int, part: _Batch) -> torch.Tensor:
    """n_validation times the squared mean of a validation set; (b,)."""
    n_validation = len(plan.splits.folds[k][1])
    assert part.mean is not None
    return (part.sums[plan.splits.pieces(k, 2)].sum(0) / n_validation + part.mean) ** 2 * n_validation


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


def _batch_size(plan: Plan, targets: Targets, batch: int | None, memory: int | None) -> int:
    each = plan.batch_bytes(targets.n_test)
    for name, value in (("targets_batch", batch), ("memory", memory)):
        if value is not None and not (isinstance(value, (int, float, np.number)) and value >= 1):
            raise SolverError(f"{name}: found {value!r}, expected a number of 1 or more")
    batch = None if batch is None else int(batch)
    size = batch or LARGEST_BATCH.get(plan.device.type, LARGEST_BATCH["cpu"])
    if memory is None:
        return size
    fitting = (memory - plan.bytes) // each
    wanted = batch or min(SMALLEST_BATCH, targets.n_targets)
    if fitting < wanted:
        raise SolverError(
            f"{'targets_batch' if batch else 'memory'}: found {batch or memory}, with which {wanted} "
            f"targets at once take {plan.bytes + wanted * each} bytes ({plan.bytes} for the factorised "
            f"features and {each} a target); expected memory of as many bytes at least, found {memory}"
        )
    return int(min(size, fitting))


@torch.inference_mode()
def predict(basis: Basis, targets: Targets, alpha: np.ndarray, X: Any) -> np.ndarray:
    """Predictions for other features, from the responses of the training set: no coefficients are formed.

    Parameters
    ----------
    basis : of the features of the training set.
    targets : its responses.
    alpha : (n_targets,) as in `Fit`.
    X : (n_rows, p) features.

    Returns
    -------
    (n_rows, n_targets) in the basis' type; NaN for targets that were left out. With an intercept less the
    mean of the training set, ``targets.mean``.
    """
    F = basis.project(X)
    out = np.full((len(F), targets.n_targets), np.nan, dtype=str(basis.dtype).removeprefix("torch."))
    for part in targets.batches(LARGEST_BATCH["cpu"], basis.device, basis.dtype):
        g = basis.shrinkage(torch.as_tensor(alpha[part.columns], device=basis.device)).to(basis.dtype)
        C = basis.U.T @ part.Y
        if part.mean is not None:
            C.addr_(basis.U.sum(0), part.mean)
        out[:, part.columns] = (F @ (g.T * C)).cpu().numpy() / targets.scale[part.columns]
    return out


def find_device(device: str) -> torch.device:
    """The torch device of that name; ``auto`` is a CUDA device where there is one. Raises SolverError."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.ones(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise SolverError(
            f"device: found {device!r}, expected auto, cpu or a CUDA device that is there "
            f"({str(error).splitlines()[0]})"
        ) from error
    return found


def _take(values: torch.Tensor, rows: list[slice] | torch.Tensor) -> torch.Tensor:
    if isinstance(rows, torch.Tensor):
        return values[rows]
    return values[rows[0]] if len(rows) == 1 else torch.cat([values[where] for where in rows])


def _centred(values: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    return values - mean if bool(mean.any()) else values


def _right_singular(
    gram: torch.Tensor, matrix: Callable[[], torch.Tensor], tolerance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Singular values above `tolerance`, ascending (r,), and right singular vectors (q, r) of a matrix.

    Parameters
    ----------
    gram : (q, q) A'A in float64.
    matrix : gives A (m, q); called only when some singular values are too small to be had from A'A.
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


def _orthonormal(V: torch.Tensor) -> torch.Tensor:
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
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or (values <= 0).any():
        raise SolverError(f"alphas: found {alphas}, expected one or more finite numbers above 0")
    return torch.tensor(values.tolist(), dtype=torch.float64)


def _check_real(values: Any, name: str) -> None:
    """Raises SolverError for what are not real numbers, of numpy, torch, Zarr or HDF5."""
    dtype = getattr(values, "dtype", type(values).__name__)
    real = not dtype.is_complex if isinstance(dtype, torch.dtype) else getattr(dtype, "kind", "O") in "fiub"
    if not real:
        raise SolverError(f"{name}: found type {dtype}, expected real numbers")


def _features(X: Any, name: str, device: torch.device) -> torch.Tensor:
    """(n, p) float64 on the device."""
    if not isinstance(X, torch.Tensor):
        X = np.asarray(X)
    _check_real(X, name)
    if not isinstance(X, torch.Tensor):
        X = torch.from_numpy(np.require(X, np.float64, ["C", "W"]))
    if X.ndim != 2 or not X.numel():
        raise SolverError(f"{name}: found shape {tuple(X.shape)}, expected (samples, features), none of them 0")
    X = X.detach().to(device, torch.float64)
    if not bool(torch.isfinite(X).all()):
        raise SolverError(f"{name}: found {int((~torch.isfinite(X)).sum())} NaN or infinite values, expected none")
    return X
