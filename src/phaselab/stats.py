"""The one Pearson correlation, the one centred kernel alignment, and what a noise ceiling may be."""

from typing import Any

import numpy as np

from phaselab.errors import expect


def unit(values: Any) -> Any:
    """Columns (n, k) centred and divided by their norm, in float64, numpy or torch; a constant column becomes 0."""
    if hasattr(values, "amax"):
        values = values.double()
        centred = values - values.mean(0)
        constant = values.amax(0) == values.amin(0)
        return (centred / centred.norm(dim=0).masked_fill(constant, 1)).masked_fill(constant, 0)
    values = np.asarray(values, dtype=np.float64)
    centred = values - values.mean(0)
    # Exact: the mean of equal numbers may differ from them by rounding, and the norm then is not 0.
    constant = values.max(0) == values.min(0)
    centred[:, constant] = 0
    return centred / np.where(constant, 1, np.linalg.norm(centred, axis=0))


def pearson(a: Any, b: Any) -> Any:
    """Pearson correlation of columns of (n, k), float64 (k,); 0 where either is constant, NaN where either has NaN."""
    return (unit(a) * unit(b)).sum(0)


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """Linear centred kernel alignment of (n, p) and (n, q), 0 to 1; 0 where one of them does not vary.

    ||A'B||^2 / (||A'A|| ||B'B||) in Frobenius norms of the centred matrices (Kornblith et al. 2019), by
    the n by n products where there are more features than words.
    """
    a, b = (v.astype(np.float64) - v.mean(0, dtype=np.float64) for v in (a, b))
    if max(a.shape[1], b.shape[1]) > len(a):
        left, right = a @ a.T, b @ b.T
        both = float((left * right).sum())
    else:
        left, right = a.T @ a, b.T @ b
        both = float(np.square(a.T @ b).sum())
    scale = float(np.linalg.norm(left) * np.linalg.norm(right))
    return both / scale if scale > 0 else 0.0


def check_ceiling(ceiling: np.ndarray, where: str) -> None:
    """Refuse a noise ceiling (n_voxels,) that is no correlation from 0 to 1, naming the voxel; NaN: not known."""
    wrong = np.flatnonzero((ceiling < 0) | (ceiling > 1 + 1e-6))  # above 1 by rounding is 1
    if len(wrong):
        value, ask = ceiling[wrong[0]], " (in percent?)" * bool(1 < ceiling[wrong].max() <= 100)
        expected = f"a correlation from 0 to 1, or NaN where none is known{ask}"
        expect(False, where, f"{value:g} for voxel {wrong[0]}, and {len(wrong)} of {len(ceiling)} so", expected)
