"""Folds, and responses that may be larger than memory: what does not depend on features."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch

from phaselab.encoding.arrays import check_real
from phaselab.encoding.folds import Fold
from phaselab.errors import expect
from phaselab.lazy import View

#: Roles of a row in a fold.
TRAIN, VALIDATE = 1, 2


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
        kinds, first, kind = np.unique(role, axis=0, return_index=True, return_inverse=True)
        # In the order in which they appear.
        rank = np.argsort(np.argsort(first))[kind.ravel()]
        self.roles = kinds[np.argsort(first)]
        order = np.argsort(rank, kind="stable")
        self.order = order if (np.diff(order) < 0).any() else None
        ends = np.cumsum([0, *np.bincount(rank)]).tolist()
        self.slices = [slice(*of) for of in pairwise(ends)]

    def pieces(self, fold: int, role: int) -> list[int]:
        """Pieces that have a role in a fold."""
        return [int(i) for i in np.flatnonzero(self.roles[:, fold] == role)]

    def rows(self, fold: int, role: int) -> list[slice]:
        """Where the rows of a fold are in `order`."""
        ranges: list[slice] = []
        for i in self.pieces(fold, role):
            piece = self.slices[i]
            if ranges and ranges[-1].stop == piece.start:
                piece = slice(ranges.pop().start, piece.stop)
            ranges.append(piece)
        return ranges


#: Bytes of responses that are looked through at once before anything is fitted.
SURVEYED_AT_ONCE = 1 << 25
#: Why a target is left out.
NOT_FINITE, CONSTANT = "NaN or infinite values", "constant in the training set"


@dataclass(frozen=True)
class Batch:
    """Some `columns` of ``Targets``."""

    columns: np.ndarray
    Y: torch.Tensor  # (n, b) in the order of the pieces, less the mean, scaled
    Y_test: torch.Tensor | None
    sums: torch.Tensor
    squares: torch.Tensor


@dataclass(frozen=True, eq=False)
class Targets:
    """Responses, and what of them does not depend on features; made by ``Targets.survey``."""

    sources: list[tuple[Any, Any]]  # arrays and their rows: the training set, then the test set if there is one
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
    def survey(
        cls, Y: Any, splits: Splits, train: np.ndarray | None = None, Y_test: Any = None, test: np.ndarray | None = None
    ) -> Self:
        """Look through all responses once: means, sums of each piece, norms of each validation set, in float64.

        Y : (n_rows, n_targets) numpy array, memory map, Zarr or HDF5 array, read in batches of columns.
        train : (splits.n,) ascending rows of `Y` that are the training set; None: all.
        Y_test, test : held-out responses and their rows; `Y_test` None: `Y` when `test` is given, else nothing.
        """
        known = {"Y": (Y, train), "Y_test": (Y if Y_test is None and test is not None else Y_test, test)}
        sources, lengths = list[tuple[Any, Any]](), list[int]()
        for name, (values, rows) in known.items():
            if values is None:
                continue
            check_real(values, name)
            expect(len(values.shape) == 2, name, f"shape {tuple(values.shape)}", "(samples, targets)")
            width, n_targets = values.shape[1], Y.shape[1]
            expect(width == n_targets, name, f"{width} targets", f"{n_targets} as in Y")
            sources.append((values, slice(None) if rows is None else rows))
            lengths.append(values.shape[0] if rows is None else len(rows))
        expect(lengths[0] == splits.n, "Y", f"{lengths[0]} samples", f"{splits.n} as in X")
        at_once = max(1, SURVEYED_AT_ONCE // (8 * splits.n))
        parts = []
        for start in range(0, n_targets, at_once):
            columns = np.arange(start, min(start + at_once, n_targets))
            parts.append(_look(splits, *(_read(*source, columns) for source in sources)))
        finite, constant, *found = (np.concatenate(of, axis=-1) for of in zip(*parts, strict=True))
        out = np.flatnonzero(~finite | constant)
        left_out = {int(column): CONSTANT if finite[column] else NOT_FINITE for column in out}
        kept = np.setdiff1d(np.arange(n_targets), out)
        return cls(sources, splits, sum(lengths[1:]), left_out, kept, *found)

    def batch(self, columns: np.ndarray, device: torch.device, dtype: torch.dtype) -> Batch:
        """These of the kept targets, in ascending order."""
        mean, scale = self.taken_off[columns], self.scale[columns]

        def ready(source: tuple[Any, Any]) -> torch.Tensor:
            # A mean that is large against the variance must go before rounding.
            values = torch.from_numpy(_read(*source, columns))
            values = values.to(torch.promote_types(values.dtype, dtype))
            values = values - torch.from_numpy(mean).to(values.dtype)
            if (scale != 1).any():
                values *= torch.from_numpy(scale).to(values.dtype)
            return values.to(device, dtype)

        Y, *held = map(ready, self.sources)
        if self.splits.order is not None:
            Y = Y[torch.from_numpy(self.splits.order).to(device)]
        sums, squares = (torch.from_numpy(of[:, columns]).to(device, dtype) for of in (self.sums, self.squares))
        return Batch(columns, Y, held[0] if held else None, sums, squares)


def _read(values: Any, rows: Any, columns: np.ndarray) -> np.ndarray:
    """(n_rows, n_columns) of an array that may be larger than memory, float32 or float64; `columns` ascend."""
    values = View(values, columns=columns)[:, :][rows]
    kind = values.dtype if values.dtype in (np.float32, np.float64) else np.float64
    return np.require(values, kind, ["C", "W"])


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
        mine, others = splits.pieces(fold, VALIDATE), splits.pieces(fold, TRAIN)
        squares[fold] = (piece_squares[mine].sum(axis=0) - sums[mine].sum(axis=0) ** 2 / len(validation)).clip(0)
        # What rounding leaves of a constant is no variance, and nothing is learned from one.
        for part in (mine, others):
            squares[fold][highest[part].max(axis=0) == lowest[part].min(axis=0)] = 0
    mean = taken_off + sums.sum(axis=0) / splits.n / scale
    return finite, spread == 0, mean, scale, taken_off, sums, squares, test_constant
