"""Which rows train and validate in each fold, and the pieces that folds share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from phaselab.encoding.folds import Fold, check_folds

#: Roles of a row in a fold.
TRAIN, VALIDATE = 1, 2


@dataclass(frozen=True, eq=False)
class Splits:
    """Rows of a training set that train and validate in each fold, and the pieces that they share.

    A piece is a set of rows with the same role in every fold, so that sums over the rows of a fold
    are sums over its pieces. Contiguous folds without a gap have one piece per fold.

    Parameters
    ----------
    n : number of rows.
    folds : (train, validation) row numbers; no row may be in both (``folds.check_folds``).
    """

    n: int
    folds: tuple[Fold, ...]

    def __post_init__(self) -> None:
        check_folds(self.folds, self.n)

    @cached_property
    def roles(self) -> np.ndarray:
        """int8 (n_pieces, n_folds): `TRAIN`, `VALIDATE`, or 0 for neither."""
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
            role[train, number] = TRAIN
            role[validation, number] = VALIDATE
        kinds, first, inverse = np.unique(role, axis=0, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))
        return kinds[np.argsort(first)], rank[inverse.ravel()]

    @property
    def by_pieces(self) -> bool:
        """Whether sums over the rows of a fold are taken over pieces: not where there are too many."""
        return len(self.roles) <= 4 * len(self.folds) + 1

    def pieces(self, fold: int, role: int) -> list[int]:
        """Pieces that have a role in a fold."""
        return [int(i) for i in np.flatnonzero(self.roles[:, fold] == role)]

    def rows(self, fold: int, role: int) -> list[slice] | np.ndarray:
        """Where the rows of a fold are in `order`: a few ranges, or their numbers."""
        ranges: list[slice] = []
        for i in self.pieces(fold, role):
            piece = self.slices[i]
            if ranges and ranges[-1].stop == piece.start:
                ranges[-1] = slice(ranges[-1].start, piece.stop)
            else:
                ranges.append(piece)
        return ranges if len(ranges) <= 16 else np.concatenate([np.arange(r.start, r.stop) for r in ranges])
