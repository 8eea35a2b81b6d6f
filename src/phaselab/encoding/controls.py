"""Controls that a reviewer asks for: what scores are reached without the stimulus, or without the model.

Beside these, ``encoding.shuffled_stimulus`` scores the same features against another moment of the
stimulus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from himalaya.backend import get_backend, set_backend
from himalaya.ridge import GroupRidgeCV

from phaselab.encoding import Features, Responses, Scores, summarise
from phaselab.encoding import folds as cv
from phaselab.encoding.significance import correlation
from phaselab.study import EncodingSpec


def autocorrelation_only(
    Y: np.ndarray, folds: Sequence[cv.Fold], runs: np.ndarray | None = None, width: float = 1.5
) -> np.ndarray:
    """Scores of a model that knows no stimulus: the training responses near in time.

    The prediction at time t is ``m + sum_s w_ts (y_s - m) / (1 + sum_s w_ts)`` over the training samples
    s of the same run, m their mean and w_ts = exp(-(t - s)^2 / (2 width^2)) up to four widths, 0 beyond:
    the training mean where nothing near is trained on. With shuffled folds it may beat a language
    model; with whole runs, or contiguous folds and a gap of four widths, it scores 0 (Feghhi et al. 2024,
    whose model is a ridge regression on such kernels). A score far from 0 says that the folds give the
    responses away.

    Parameters
    ----------
    Y : (n, n_voxels) responses in order of time.
    folds : (train, test) indices.
    runs : (n,) run of each sample; without it all are of one run.
    width : standard deviation of the kernel, TRs.

    Returns
    -------
    float64 (n_voxels,): Pearson correlation with the test responses, mean over folds.

    Raises
    ------
    ValueError
        Naming the argument that does not fit.
    """
    Y = _finite("Y", Y)
    runs = np.zeros(len(Y), int) if runs is None else np.asarray(runs)
    if runs.shape != (len(Y),):
        raise ValueError(f"runs: found shape {runs.shape}, expected ({len(Y)},) as in Y")
    if not folds:
        raise ValueError("folds: found none, expected at least one")
    highest = max(int(np.max(rows)) for fold in folds for rows in fold)
    if highest >= len(Y):
        raise ValueError(f"folds: found row {highest}, expected 0 to {len(Y) - 1} as in Y")
    scores = []
    for train, test in folds:
        apart = np.abs(test[:, None] - train)
        near = (runs[test][:, None] == runs[train]) & (apart <= 4 * width)
        weights = np.where(near, np.exp(-np.square(apart / width) / 2), 0)  # (n_test, n_train)
        mean = Y[train].mean(0)
        around = weights @ (Y[train] - mean) / (1 + weights.sum(1, keepdims=True))
        scores.append(correlation(around, Y[test]))
    return np.mean(scores, axis=0)


@dataclass(frozen=True)
class Partition:
    """Variance explained by several feature spaces together and by each, per voxel.

    All are shares of the variance of held-out responses (R^2, mean over folds), float64 (n_voxels,).

    Attributes
    ----------
    joint : R^2 of the model of all spaces.
    product : space -> its part of the joint prediction; the parts add up to `joint`.
    alone : space -> R^2 of the model of this space alone.
    unique : space -> `joint` less R^2 of the model of all other spaces.
    shared : `joint` less all of `unique`: what at least two spaces explain; with two spaces, A and B,
        R^2(A) + R^2(B) - R^2(A, B).
    """

    joint: np.ndarray
    product: dict[str, np.ndarray]
    alone: dict[str, np.ndarray]
    unique: dict[str, np.ndarray]
    shared: np.ndarray


def variance_partitioning(
    spaces: Mapping[str, np.ndarray],
    Y: np.ndarray,
    folds: Sequence[cv.Fold],
    alphas: np.ndarray | None = None,
    inner_folds: int = 3,
    gap: int = 0,
    iterations: int = 20,
    seed: int = 0,
) -> Partition:
    """How much of the responses does each feature space explain that the others do not?

    For the features of a model beside a nuisance space (``BrainData.nuisance``: word rate, letters), or
    several layers or models beside each other. Each model is a banded ridge regression: one penalty a
    space and voxel, searched at random inside the training set (himalaya's ``GroupRidgeCV``), so that
    a large space does not crowd out a small one.

    With y the held-out response and f = sum_i f_i the joint prediction, f_i the part of space i, all
    centred on the test set: R^2 = 1 - |y - f|^2 / |y|^2, and the product measure of space i is
    f_i' (2 y - f) / |y|^2, whose sum is R^2 (Dupré la Tour et al. 2022, NeuroImage 264, 119728). Unique and
    shared variance are differences of R^2 (de Heer et al. 2017, J Neurosci 37, 6539). Because models are
    fitted, any of them may lie somewhat below 0.

    Parameters
    ----------
    spaces : name -> (n, n_features) features, already with haemodynamics; two or more.
    Y : (n, n_voxels) responses.
    folds : (train, test) indices, such as ``cv.leave_one_run_out(runs)``.
    alphas : candidates of the common penalty; 17 from 0.1 to 1e7 by default.
    inner_folds, gap : contiguous folds within the training set that choose the penalties, and TRs left
        out beside each.
    iterations : random ratios of the penalties that are tried.
    seed : of the search.

    Raises
    ------
    ValueError
        Naming the argument or the space that does not fit.
    """
    Y = _finite("Y", Y)
    features = {name: _finite(f"spaces: {name}", X) for name, X in spaces.items()}
    if len(features) < 2:
        raise ValueError(f"spaces: found {len(features)}, expected at least 2 to part the variance between")
    for name, X in features.items():
        if len(X) != len(Y):
            raise ValueError(f"spaces: {name}: found {len(X)} samples, expected {len(Y)} as in Y")
    if not folds:
        raise ValueError("folds: found none, expected at least one")
    alphas = np.logspace(-1, 7, 17) if alphas is None else np.asarray(alphas, dtype=np.float64)

    def parts(names: tuple[str, ...]) -> np.ndarray:
        """Product measure (n_names, n_voxels) of the model of these spaces, mean over folds."""
        of_fold = []
        for train, test in folds:
            model = GroupRidgeCV(
                groups="input",
                solver_params={
                    "n_iter": iterations if len(names) > 1 else 1,
                    "alphas": alphas,
                    "progress_bar": False,
                    "warn": False,
                },
                fit_intercept=True,
                cv=cv.contiguous(len(train), inner_folds, gap, train),
                random_state=seed,
            )
            model.fit([features[name][train] for name in names], Y[train])
            # (n_names, n_test, n_voxels); centring takes the intercept out
            ends = np.cumsum([features[name].shape[1] for name in names])
            weights = np.split(model.coef_, ends[:-1])
            of_space = np.stack([features[name][test] @ w for name, w in zip(names, weights, strict=True)])
            of_space -= of_space.mean(1, keepdims=True)
            y = Y[test] - Y[test].mean(0)
            power = np.square(y).sum(0)
            explained = (of_space * (2 * y - of_space.sum(0))).sum(1)
            of_fold.append(explained / np.where(power > 0, power, np.inf))
        return np.mean(of_fold, axis=0)

    every = tuple(features)
    with himalaya_on_numpy():
        product = parts(every)
        alone = {name: parts((name,))[0] for name in every}
        if len(every) == 2:
            others = {every[0]: alone[every[1]], every[1]: alone[every[0]]}
        else:
            others = {name: parts(tuple(n for n in every if n != name)).sum(0) for name in every}
    joint = product.sum(0)
    unique = {name: joint - others[name] for name in every}
    return Partition(
        joint=joint,
        product=dict(zip(every, product, strict=True)),
        alone=alone,
        unique=unique,
        shared=joint - np.sum(list(unique.values()), axis=0),
    )


def beyond_nuisance(
    X: Features,
    nuisance: Mapping[str, np.ndarray],
    Y: Responses,
    rois: Mapping[str, np.ndarray],
    spec: EncodingSpec,
    seed: int = 0,
) -> pd.DataFrame:
    """``variance_partitioning`` between the features of each layer and a nuisance space, by region.

    Parameters
    ----------
    X, Y, spec : as for ``encoding.encode``, whose folds and alphas are used.
    nuisance : run -> (n_trs, k) regressors, such as ``BrainData.nuisance`` (word rate, letters), with the
        same TRs as `X` and `Y`.
    rois : subject -> (n_voxels,) region of each voxel.
    seed : of the search for penalties.

    Returns
    -------
    Columns ``measure``, ``layer``, ``subject``, ``roi``, ``value``, ``stderr``, as of ``encoding.summarise``.
    Measures, mean R^2 over voxels: ``r2_joint``, ``r2_features`` and ``r2_nuisance`` (unique), ``r2_shared``.

    Raises
    ------
    ValueError
        Naming the argument that does not fit.
    """
    names = list(next(iter(X.values())))
    if set(nuisance) != set(names):
        raise ValueError(f"nuisance: runs: found {sorted(nuisance)}, expected {sorted(names)} as in X")
    runs = np.repeat(np.arange(len(names)), [len(nuisance[run]) for run in names])
    folds = cv.outer_folds(runs, spec.folds, spec.n_folds, spec.gap)
    # All subjects share the features, and so one fit.
    together = np.hstack([np.concatenate([of_run[run] for run in names]) for of_run in Y.values()])
    regions = np.concatenate([np.asarray(rois[subject]).astype(str) for subject in Y])
    subjects = np.repeat(list(Y), [next(iter(of_run.values())).shape[1] for of_run in Y.values()])
    if regions.shape != subjects.shape:
        raise ValueError(f"rois: found {len(regions)} voxels, expected {len(subjects)} as in Y")
    tables = []
    for layer in sorted(X):
        found = variance_partitioning(
            {
                "features": np.concatenate([X[layer][run] for run in names]),
                "nuisance": np.concatenate([nuisance[run] for run in names]),
            },
            together,
            folds,
            np.logspace(*spec.log10_alphas),
            max(2, spec.n_folds - 1),
            spec.gap,
            seed=seed,
        )
        measures = {
            "r2_joint": found.joint,
            "r2_features": found.unique["features"],
            "r2_nuisance": found.unique["nuisance"],
            "r2_shared": found.shared,
        }
        voxels = pd.DataFrame({"subject": subjects, "roi": regions} | measures)
        every = pd.concat([voxels.assign(roi="all"), voxels])
        long = every.melt(["subject", "roi"], var_name="measure")
        grouped = long.groupby(["measure", "subject", "roi"], sort=False)["value"]
        tables.append(grouped.agg(value="mean", stderr="sem").reset_index().assign(layer=layer))
    columns = ["measure", "layer", "subject", "roi", "value", "stderr"]
    return pd.concat(tables, ignore_index=True)[columns]


def above_control(
    scores: Mapping[str, Scores], control: Mapping[str, Scores], rois: dict[str, np.ndarray]
) -> pd.DataFrame:
    """What scores have beyond those of a control, such as the untrained model (the checkpoint at step 0).

    Parameters
    ----------
    scores, control : subject -> scores of the same layers and voxels.
    rois : subject -> (n_voxels,) region of each voxel.

    Returns
    -------
    Rows as of ``encoding.summarise``, with the one measure ``r_above_control``: the mean over voxels of
    r less the control's r in the same layer.

    Raises
    ------
    ValueError
        Naming the subject whose layers or voxels are not the same.
    """
    if set(scores) != set(control):
        raise ValueError(f"control: found subjects {sorted(control)}, expected {sorted(scores)}")
    beyond = {}
    for subject, own in scores.items():
        other = control[subject]
        if own.layers != other.layers or own.r.shape != other.r.shape:
            raise ValueError(
                f"control: subject {subject}: found layers {other.layers} and {other.r.shape[1]} voxels, "
                f"expected {own.layers} and {own.r.shape[1]}"
            )
        beyond[subject] = replace(own, r=own.r - other.r)
    rows = summarise(beyond, rois)
    return rows[rows["measure"] == "r"].assign(measure="r_above_control").reset_index(drop=True)


@contextmanager
def himalaya_on_numpy() -> Iterator[None]:
    """himalaya's backend is global: numpy inside, and what it was before outside."""
    before = get_backend().name
    set_backend("numpy")
    try:
        yield
    finally:
        set_backend(before)


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"{name}: found shape {values.shape}, expected (samples, columns), none of them 0")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: found {int((~np.isfinite(values)).sum())} NaN or infinite values")
    return values
