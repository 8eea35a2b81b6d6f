"""The field's own solver: himalaya (Dupré la Tour et al. 2022, NeuroImage 264, 119728), in float64."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from phaselab.encoding.folds import Fold

#: Targets and alphas that himalaya works on at once: its defaults take all of them.
BATCHES: dict[str, Any] = {"n_targets_batch": 1000, "n_targets_batch_refit": 1000, "n_alphas_batch": 5}


@contextmanager
def backend(device: str = "cpu") -> Iterator[None]:
    """Set himalaya's global backend: torch on `device` inside, and what it was before outside."""
    from himalaya.backend import get_backend, set_backend

    before = get_backend().name
    set_backend("torch_cuda" if device.startswith("cuda") else "torch")
    try:
        yield
    finally:
        set_backend(before)


def ridge(
    X: np.ndarray, Y: np.ndarray, X_test: np.ndarray, alphas: np.ndarray, folds: Sequence[Fold], device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Fit himalaya's ``RidgeCV`` (``KernelRidgeCV`` where features outnumber samples), scored by correlation.

    Predictions (n_test, n_targets) and chosen alphas (n_targets,), float64; of equally good ones the first.
    """
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import correlation_score

    params = {"score_func": correlation_score, **BATCHES}
    solver = KernelRidgeCV if X.shape[1] > len(X) else RidgeCV
    with backend(device):
        # A copy: torch takes no array that is read backwards.
        model = solver(alphas.copy(), fit_intercept=True, cv=list(folds), solver_params=params)
        model.fit(X.astype(np.float64), Y.astype(np.float64))
        return model.predict(X_test.astype(np.float64)).cpu().numpy(), model.best_alphas_.cpu().numpy()
