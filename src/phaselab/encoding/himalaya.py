"""The field's own solver (Dupré la Tour et al. 2022, NeuroImage 264, 119728): its ridge, and banded ridge."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from phaselab.encoding.arrays import Features, Group, Responses, batches, by_region, groups_of
from phaselab.encoding.folds import Fold, Given, fold_weights, inner_folds, outer_folds, parts_of
from phaselab.study import EncodingSpec

#: Targets and alphas that himalaya works on at once: its defaults take all of them.
BATCHES: dict[str, Any] = {"n_targets_batch": 1000, "n_targets_batch_refit": 1000, "n_alphas_batch": 5}
#: Weights that are tried of a layer's features, and of the nuisance regressors after the first, which has 1.
FEATURES, REST = (1e-4, 1e-2, 1.0, 1e2, 1e4), (1e-4, 1e-2, 1.0)
#: A space, (n_trs, p), and its weights.
Space = tuple[np.ndarray, tuple[float, ...]]


@contextmanager
def backend(device: str = "cpu") -> Iterator[None]:
    """Set himalaya's global backend: torch on `device` inside, and what it was before outside."""
    from himalaya.backend import get_backend, set_backend

    before = get_backend().name
    set_backend("torch_cuda" if device.startswith("cuda") else "torch")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "GPU backend")  # advises float32, and the answers are to be the CPU's
            yield
    finally:
        set_backend(before)


def ridge(
    X: np.ndarray, Y: np.ndarray, X_test: np.ndarray, folds: Sequence[Fold], alphas: np.ndarray, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Himalaya's ``RidgeCV``, scored by correlation: predictions (n_test, n_targets), alphas (n_targets,); float64."""
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


def unique_contribution(
    X: Features, nuisance: Any, Y: Responses, spec: EncodingSpec, *, rois: Any, device: str = "cpu", given: Given = None
) -> pd.DataFrame:
    """Variance of held-out responses that a layer explains and a nuisance space does not, by region.

    R^2 of the model of both, one penalty per space and voxel so that a large space does not crowd out a small one
    (Dupré la Tour et al. 2022), less R^2 of the model of the nuisance alone (de Heer et al. 2017, J Neurosci 37, 6539).
    Both are fitted, so it may lie somewhat below 0. In both the first nuisance regressor, the word rate, is a space of
    its own, or in little data the others would spoil it. They still may: where word rate alone explains more than
    ``r2_nuisance``, what is unique beyond that is too high a claim.

    X, Y, spec, given : as for ``encode``. nuisance : run -> (n_trs, k), as ``BrainData.nuisance``, on the TRs of `X`.
    rois : subject -> (n_voxels,). Gives rows of ``by_region``: ``r2_unique``, ``r2_joint``, ``r2_nuisance``.
    """
    layers, rows = tuple(sorted(X)), []
    for group in groups_of(X, Y):
        parts = parts_of(group.lengths, spec, given)
        rate, rest = np.split(group.features(nuisance, "nuisance"), [1], axis=1)
        aside: list[Space] = [(rate, (1.0,)), *[(rest, REST)] * bool(rest.size)]
        alone = _explained(aside, group, parts, spec, device)
        own = ((group.features(X[layer], f"layer {layer}"), FEATURES) for layer in layers)
        joint = np.array([_explained([space, *aside], group, parts, spec, device) for space in own])
        found = np.array([joint - alone, joint, np.tile(alone, (len(layers), 1))])
        for subject, r2 in group.split(found).items():
            named = zip(("r2_unique", "r2_joint", "r2_nuisance"), r2, strict=True)
            rows += by_region(dict(named), layers, subject, rois[subject])
    return pd.DataFrame(rows)


def _explained(spaces: list[Space], group: Group, parts: np.ndarray, spec: EncodingSpec, device: str) -> np.ndarray:
    """R^2 of the model of these spaces; weighted mean over folds, (n_voxels,); 0: nothing varies."""
    from himalaya.ridge import GroupRidgeCV

    (n_trs, n_voxels), folds = group.shape, outer_folds(parts, spec)
    shares = np.array(list(product(*(weights for _, weights in spaces))))
    params = BATCHES | {"n_iter": shares / shares.sum(axis=1, keepdims=True), "progress_bar": False}
    params |= {"warn": False, "alphas": np.logspace(*spec.log10_alphas)}
    # Numbers of 8 bytes: weights and their refits, responses with their predictions.
    size = max(1, int(spec.memory * 2**27 / (3 * sum(values.shape[1] for values, _ in spaces) + 8 * n_trs)))
    r2 = np.zeros((len(folds), n_voxels))
    with backend(device):
        for columns in batches(n_voxels, size):
            responses = group.finite(columns)
            for k, (train, test) in enumerate(folds):
                cv = inner_folds(train, parts, spec)
                model = GroupRidgeCV("input", solver_params=params, fit_intercept=True, cv=cv)
                model.fit([values[train] for values, _ in spaces], responses[train])
                predicted = model.predict([values[test] for values, _ in spaces]).cpu().numpy()
                f, y = (values - values.mean(0) for values in (predicted, responses[test]))
                power = np.square(y).sum(0)
                r2[k, columns] = (f * (2 * y - f)).sum(0) / np.where(power > 0, power, np.inf)
    return np.asarray(np.average(r2, axis=0, weights=fold_weights([len(test) for _, test in folds])))
