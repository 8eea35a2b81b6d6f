"""Responses that may be larger than memory, and what of them does not depend on features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from phaselab.encoding.ridge.splits import TRAIN, VALIDATE, Splits
from phaselab.errors import expect

#: Targets whose range is outside these powers of 2 are scaled by one of them, which is exact: fourth powers
#: of a response in tesla, or in arbitrary units of 1e10, are not float32 numbers.
UNSCALED = -12, 12
#: Bytes of responses that are looked through at once before anything is fitted.
SURVEYED_AT_ONCE = 1 << 25
#: Why a target is left out.
NOT_FINITE, CONSTANT = "NaN or infinite values", "constant in the training set"


class Source:
    """Some `rows` (None: all) of an array that may be larger than memory, read by columns."""

    def __init__(self, values: Any, rows: np.ndarray | None, name: str) -> None:
        shape = tuple(values.shape)
        expect(len(shape) == 2 and all(shape), name, f"shape {shape}", "(samples, targets), none of them 0")
        self.values, self.rows, self.n_targets = values, rows, int(shape[1])
        self.n = shape[0] if rows is None else len(rows)

    def read(self, columns: np.ndarray) -> np.ndarray:
        """(n, n_columns), float32 or float64; `columns` ascend."""
        # Zarr and HDF5 read ranges well and scattered columns badly.
        first, last = int(columns[0]), int(columns[-1]) + 1
        values = np.asarray(self.values[:, first:last])
        if len(columns) < last - first:
            values = values[:, columns - first]
        if self.rows is not None:
            values = values[self.rows]
        kind = values.dtype if values.dtype in (np.float32, np.float64) else np.float64
        return np.require(values, kind, ["C", "W"])


@dataclass(frozen=True)
class Batch:
    """Some targets: responses (n, b) in the order of the pieces, and sums (n_pieces, b), (n_folds, b).

    All of them times the scale of the target and less the mean of the training set, rounded.
    `silent` (n_folds, b) says where nothing is to be learned, constant in a training set;
    None: nowhere. `test_constant` (b,) says which are constant in the test set.
    """

    columns: np.ndarray
    Y: torch.Tensor
    Y_test: torch.Tensor | None
    sums: torch.Tensor
    squares: torch.Tensor
    silent: torch.Tensor | None
    test_constant: torch.Tensor


@dataclass(frozen=True, eq=False)
class Targets:
    """Responses, and what of them does not depend on features; made by ``Targets.survey``.

    source, held_out : the training rows, and the test rows or None; read in batches of columns.
    left_out : target -> why; not finite, or constant in the training set. They are not fitted.
    kept : (n_kept,) numbers of the other targets.
    mean : float64 (n_targets,) of the training set.
    scale : float64 (n_targets,) powers of 2 by which targets are multiplied while they are solved, nearly
        always 1.
    taken_off : float64 (n_targets,) the mean, rounded to the precision of the responses.
    sums : (n_pieces, n_targets), and squares : (n_folds, n_targets) about the mean of each validation set.
    silent : (n_folds, n_targets) constant in the training set of a fold.
    test_constant : (n_targets,) constant in the test set.
    """

    source: Source
    held_out: Source | None
    splits: Splits
    left_out: dict[int, str]
    kept: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    taken_off: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    silent: np.ndarray
    test_constant: np.ndarray

    @classmethod
    def survey(
        cls, Y: Any, splits: Splits, train: np.ndarray | None = None, Y_test: Any = None, test: np.ndarray | None = None
    ) -> Targets:
        """Look through all responses once: means, sums of each piece, norms of each validation set, in float64.

        Y : (n_rows, n_targets) responses: a numpy array or memory map, a Zarr or HDF5 array. Read in batches of
            columns and never copied as a whole.
        splits : roles of the training rows.
        train : (splits.n,) rows of `Y` that are the training set, ascending; None: all.
        Y_test, test : held-out responses and their rows, in the same way; `Y_test` None: `Y` when `test` is
            given, nothing otherwise.

        Memory: about three times `SURVEYED_AT_ONCE` meanwhile; then about ``8 (n_pieces + n_folds + 4)`` bytes per
        target.
        """
        source, held_out = Source(Y, train, "Y"), None
        if Y_test is not None or test is not None:
            held_out = Source(Y if Y_test is None else Y_test, test, "Y_test")
            found = held_out.n_targets
            expect(found == source.n_targets, "Y_test", f"{found} targets", f"{source.n_targets} as in Y")
        expect(source.n == splits.n, "Y", f"{source.n} samples", f"{splits.n} as in X")
        at_once = max(1, SURVEYED_AT_ONCE // (8 * splits.n))
        parts = []
        for start in range(0, source.n_targets, at_once):
            columns = np.arange(start, min(start + at_once, source.n_targets))
            held = None if held_out is None else held_out.read(columns)
            parts.append(_look(source.read(columns), held, splits))
        finite, constant, *known = (np.concatenate(of, axis=-1) for of in zip(*parts, strict=True))
        out = np.flatnonzero(~finite | constant)
        left_out = {int(column): CONSTANT if finite[column] else NOT_FINITE for column in out}
        kept = np.setdiff1d(np.arange(source.n_targets), out)
        return cls(source, held_out, splits, left_out, kept, *known)

    @property
    def n_targets(self) -> int:
        """Number of targets, those that are left out included."""
        return self.source.n_targets

    @property
    def n_test(self) -> int:
        """Number of test rows."""
        return 0 if self.held_out is None else self.held_out.n

    def batches(self, size: int, device: torch.device, dtype: torch.dtype, columns: slice) -> Iterator[Batch]:
        """Batches of the kept targets in `columns`; training rows piece after piece."""
        kept = self.kept[np.searchsorted(self.kept, columns.start) : np.searchsorted(self.kept, columns.stop)]
        for start in range(0, len(kept), size):
            yield self._batch(kept[start : start + size], device, dtype)

    def _batch(self, columns: np.ndarray, device: torch.device, dtype: torch.dtype) -> Batch:
        mean, scale = self.taken_off[columns], self.scale[columns]

        def ready(source: Source) -> torch.Tensor:
            # A mean that is large against the variance must go before rounding.
            values = torch.from_numpy(source.read(columns))
            values = values.to(torch.promote_types(values.dtype, dtype))
            values = values - torch.from_numpy(mean).to(values.dtype)
            if (scale != 1).any():
                values *= torch.from_numpy(scale).to(values.dtype)
            return values.to(device, dtype)

        Y = ready(self.source)
        if self.splits.order is not None:
            Y = Y[torch.from_numpy(self.splits.order).to(device)]
        silent = self.silent[:, columns]
        return Batch(
            columns=columns,
            Y=Y,
            Y_test=None if self.held_out is None else ready(self.held_out),
            sums=torch.from_numpy(self.sums[:, columns]).to(device, dtype),
            squares=torch.from_numpy(self.squares[:, columns]).to(device, dtype),
            silent=torch.from_numpy(silent).to(device) if silent.any() else None,
            test_constant=torch.from_numpy(self.test_constant[columns]).to(device),
        )


def _look(raw: np.ndarray, held: np.ndarray | None, splits: Splits) -> tuple[np.ndarray, ...]:
    """Which of some targets, (n, b) and (n_test, b), are finite and constant; then the arrays of ``Targets``."""
    if splits.order is not None:
        raw = raw[splits.order]
    # Of each piece. NaN and infinite values show in them as well.
    highest, lowest = (
        np.stack([extreme(raw[rows], axis=0) for rows in splits.slices]).astype(np.float64)
        for extreme in (np.max, np.min)
    )
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
    power = np.frexp(spread)[1]
    usual = (power >= UNSCALED[0]) & (power <= UNSCALED[1]) | ~finite | (spread == 0)
    scale = np.ldexp(1.0, np.where(usual, 0, -power.clip(-1000, 1000)))
    if not usual.all():
        values *= scale
    parts = [values[rows] for rows in splits.slices]
    sums = np.stack([part.sum(axis=0) for part in parts])
    piece_squares = np.stack([np.einsum("ij,ij->j", part, part) for part in parts])
    squares = np.empty((len(splits.folds), len(high)))
    silent = np.empty(squares.shape, bool)
    for fold, (_, validation) in enumerate(splits.folds):
        mine = splits.pieces(fold, VALIDATE)
        squares[fold] = (piece_squares[mine].sum(axis=0) - sums[mine].sum(axis=0) ** 2 / len(validation)).clip(0)
        # What rounding leaves of a constant is no variance, and nothing is learned from one.
        flat, silent[fold] = (
            highest[rows].max(axis=0) == lowest[rows].min(axis=0) for rows in (mine, splits.pieces(fold, TRAIN))
        )
        squares[fold][flat] = 0
    mean = taken_off + sums.sum(axis=0) / splits.n / scale
    return finite, spread == 0, mean, scale, taken_off, sums, squares, silent, test_constant
