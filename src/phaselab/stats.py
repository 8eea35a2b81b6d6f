"""The one Pearson correlation, the one centred kernel alignment, what numbers may be; tests of many models."""

from typing import Any

import numpy as np
import numpy.typing as npt

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


def refuse_gaps(
    values: np.ndarray, where: str, known: Any = True, rows: Any = range(2**40), columns: Any = range(2**40)
) -> None:
    """Refuse what is no number in (n, k) values, whose `rows` and `columns` have those numbers in the file `where`.

    Of columns that are not `known`, bool (k,), for row 0 has no number of them, what is one: they are none throughout.
    """
    for row, column in np.argwhere(np.isfinite(values) != known)[:1]:
        right = "no number, for row 0 has none" if np.isfinite(values[row, column]) else "a number"
        expect(False, f"{where}: row {rows[row]}, column {columns[column]}", values[row, column], right)


def holm(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Holm's step-down adjusted p-values, (m,); NaN stands outside."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")  # NaN last
    many = np.isfinite(values).sum() - np.arange(values.size)
    stepped = np.maximum.accumulate(values[order] * many)
    return np.minimum(stepped, 1.0)[np.argsort(order)]


def dates_together(first: npt.ArrayLike, second: npt.ArrayLike, lag: float = 0.5) -> dict[str, float]:
    """Whether models in which the one comes later also have the other later; both (n_models,) tokens, NaN allowed.

    tau, p : Kendall's rank correlation of the dates; mean_lag, low, high : decades by which the first comes after the
    second, and the 90 % interval of the mean; p_lag : of a mean lag of `lag` decades or more (two one-sided t-tests,
    Schuirmann 1987). NaN below four models: ranks of three decide nothing.
    """
    from scipy import stats

    dates = np.log10([np.asarray(first, dtype=float), np.asarray(second, dtype=float)])
    one, other = dates[:, np.isfinite(dates).all(axis=0)]
    told = dict.fromkeys(("tau", "p", "mean_lag", "low", "high", "p_lag"), np.nan) | {"n": float(one.size)}
    if one.size < 4:
        return told
    rank, apart, free = stats.kendalltau(one, other), one - other, one.size - 1
    mean, error = float(apart.mean()), max(float(stats.sem(apart)), 1e-12)
    low, high = stats.t.interval(0.9, free, mean, error)
    told |= {"tau": rank.statistic, "p": rank.pvalue, "mean_lag": mean, "low": low, "high": high}
    return told | {"p_lag": stats.t.sf((lag - abs(mean)) / error, free)}
