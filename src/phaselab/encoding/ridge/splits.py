"""Which rows train and validate in each fold, and the pieces that folds share."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from phaselab.encoding.folds import Fold
from phaselab.errors import expect

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
