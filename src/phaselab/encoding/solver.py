"""Ridge regression with one alpha a target, chosen by correlation: linear algebra, nothing else.

himalaya is called in one place, ``_best_alpha``. What it is given has been reduced in float64
without loss:

- ridge predictions do not change when the features are rotated, so the features are replaced by
  their principal components, never more than min(n, p) of them;
- they depend on the training rows through X'X and X'Y alone, so with X = U S V' the n_train rows of
  a fold are replaced by the rows of S and U'Y, and its validation rows by X V.

What then remains, a product with a diagonal matrix for each alpha, is safe in float32: small
singular values are known to their own precision and not to that of the largest one, so that the
alphas chosen are those of float64 up to ties (a loss of correlation below 1e-6, also with
collinear features, dimensions a thousand times larger than others, and alphas down to 1e-12).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from himalaya.backend import get_backend, set_backend
from himalaya.ridge import solve_group_ridge_random_search
from himalaya.scoring import correlation_score

from phaselab.encoding.cv import Fold

#: Alphas and targets whose predictions are held at once. Small temporaries stay in cache and in the
#: heap: with all alphas and targets at once, as much time goes into page faults as into products.
ALPHAS_AT_ONCE = 4
TARGETS_AT_ONCE = 480


def ridge_predict(
    X_train: np.ndarray,
    Y_train: np.ndarray,
    X_test: np.ndarray,
    alphas: np.ndarray,
    inner_folds: Sequence[Fold],
) -> tuple[np.ndarray, np.ndarray]:
    """Predict held-out responses with the alpha that is best for each target.

    For each target, alpha is the one with the highest Pearson correlation between prediction and
    response, averaged over `inner_folds`; of equals the largest. The weights are then those of the
    whole training set,

        b = (X'X + alpha I)^-1 X'y,

    with X and y centred on the training means, which stands for an unpenalised intercept. Features
    are not scaled.

    Parameters
    ----------
    X_train : (n_train, n_features) features.
    Y_train : (n_train, n_targets) responses.
    X_test : (n_test, n_features) features of the held-out samples.
    alphas : (n_alphas,) candidates, above 0.
    inner_folds : (train, validation) positions in the training set.

    Returns
    -------
    predictions : float64 (n_test, n_targets).
    best_alpha : float64 (n_targets,), each one of `alphas`.

    Raises
    ------
    ValueError
        Naming the argument whose shape or values do not fit.

    Notes
    -----
    Choice of alpha: the rule of ``himalaya.ridge.RidgeCV`` (Dupré la Tour et al. 2022, NeuroImage).
    A target that is constant, or that no feature predicts, gets the largest alpha.
    """
    X_train, Y_train, X_test = (np.asarray(a, dtype=np.float64) for a in (X_train, Y_train, X_test))
    alphas = np.sort(np.asarray(alphas, dtype=np.float64))
    _check(X_train, Y_train, X_test, alphas, inner_folds)

    X_mean, Y_mean = X_train.mean(0), Y_train.mean(0)
    U, s, Vt = np.linalg.svd(X_train - X_mean, full_matrices=False)
    # What centring leaves of a constant feature is rounding error, and no direction to fit along.
    real = s > 1e-12 * np.linalg.norm(X_train)
    U, s, Vt = U[:, real], s[real], Vt[real]
    if not len(s):
        return np.tile(Y_mean, (len(X_test), 1)), np.full(Y_train.shape[1], alphas[-1])
    Y = Y_train - Y_mean
    best = _best_alpha(U * s, Y, alphas, inner_folds)
    # (n_components, n_targets): the weights in the basis of the components, one alpha a column
    weights = s[:, None] / (s[:, None] ** 2 + best) * (U.T @ Y)
    predictions = ((X_test - X_mean) @ Vt.T) @ weights + Y_mean
    return predictions, best


def _best_alpha(Z: np.ndarray, Y: np.ndarray, alphas: np.ndarray, folds: Sequence[Fold]) -> np.ndarray:
    """The best of `alphas` for each column of Y, by himalaya, from the reduced rows of each fold."""
    rows, targets, reduced = [], [], []
    start = 0
    for train, validation in folds:
        Z_mean, Y_mean = Z[train].mean(0), Y[train].mean(0)
        Q, R = np.linalg.qr(Z[train] - Z_mean)
        U, s, Vt = np.linalg.svd(R)
        S = np.zeros_like(R)
        np.fill_diagonal(S, s)
        rows += [S, (Z[validation] - Z_mean) @ Vt.T]
        targets += [U.T @ (Q.T @ (Y[train] - Y_mean)), Y[validation] - Y_mean]
        middle, end = start + len(S), start + len(S) + len(validation)
        reduced.append((np.arange(start, middle), np.arange(middle, end)))
        start = end
    before = get_backend().name
    set_backend("numpy")
    try:
        # One feature space with weight 1 makes himalaya's random search a ridge without refit.
        deltas, _, _ = solve_group_ridge_random_search(
            [np.concatenate(rows).astype(np.float32)],
            np.concatenate(targets).astype(np.float32),
            n_iter=np.ones((1, 1), np.float32),
            alphas=alphas.astype(np.float32),
            score_func=correlation_score,
            cv=reduced,
            fit_intercept=False,
            return_weights=False,
            n_alphas_batch=ALPHAS_AT_ONCE,
            n_targets_batch=TARGETS_AT_ONCE,
            progress_bar=False,
            warn=False,
        )
    finally:
        set_backend(before)
    # himalaya gives -log(alpha): find the candidate that it is.
    return alphas[np.abs(np.log(alphas)[:, None] + deltas).argmin(0)]


def _check(
    X: np.ndarray, Y: np.ndarray, X_test: np.ndarray, alphas: np.ndarray, folds: Sequence[Fold]
) -> None:
    for name, array in (("X_train", X), ("Y_train", Y), ("X_test", X_test)):
        if array.ndim != 2 or not array.size:
            raise ValueError(
                f"{name}: found shape {array.shape}, expected (samples, columns), none of them 0"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: found {int((~np.isfinite(array)).sum())} NaN or infinite values")
    if len(Y) != len(X):
        raise ValueError(f"Y_train: found {len(Y)} samples, expected {len(X)} as in X_train")
    if X_test.shape[1] != X.shape[1]:
        raise ValueError(f"X_test: found {X_test.shape[1]} features, expected {X.shape[1]} as in X_train")
    if alphas.ndim != 1 or not len(alphas) or not np.isfinite(alphas).all() or alphas[0] <= 0:
        raise ValueError(f"alphas: found {alphas}, expected one or more finite numbers above 0")
    if not folds:
        raise ValueError("inner_folds: found none, expected at least one")
