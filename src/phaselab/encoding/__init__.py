"""Encoding models: how well the features of each layer predict each voxel in held-out time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from phaselab.encoding import folds as cv
from phaselab.encoding import significance
from phaselab.encoding.solver import Plan, Splits, Targets, solve
from phaselab.study import EncodingSpec

#: TRs by which a shuffled stimulus is moved at least, so that no response follows its own stimulus.
MIN_SHIFT = 20

#: Layer -> run -> (n_trs, n_features); and subject -> run -> (n_trs, n_voxels).
Features = Mapping[int, Mapping[str, np.ndarray]]
Responses = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Scores:
    """Scores of one subject.

    Attributes
    ----------
    r : float32 (n_layers, n_voxels) Pearson correlation over the held-out TRs, mean over outer folds.
    p : float32 (n_layers, n_voxels) one-sided permutation p-value, of the study's ``encoding.null``.
    significant : bool (n_layers, n_voxels) Benjamini-Hochberg over the voxels of a layer.
    alpha : float32 (n_layers, n_voxels) geometric mean over outer folds of the chosen alphas.
    layers : (n_layers,) number of each layer.
    """

    r: np.ndarray
    p: np.ndarray
    significant: np.ndarray
    alpha: np.ndarray
    layers: tuple[int, ...]


def encode(
    X: Features,
    Y: Responses,
    spec: EncodingSpec,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    device: str = "cpu",
) -> dict[str, Scores]:
    """Predict responses from the features of each layer, and score the predictions on held-out TRs.

    Folds are those of `spec`: whole runs, or contiguous stretches with a gap. Alpha is chosen for
    each voxel inside the training set of each fold. All subjects share one fit: their voxels are
    the columns of one matrix of responses.

    Parameters
    ----------
    X : layer -> run -> (n_trs, n_features) features, already with haemodynamics.
    Y : subject -> run -> (n_trs, n_voxels) responses; the same runs and TRs for all.
    spec : the study's section ``encoding``.
    seed : seed of the permutations.
    progress : called with (layers scored, layers) after each layer.
    device : torch device of the solver.

    Returns
    -------
    Scores of each subject. A voxel that is constant in a fold scores 0 there, and a voxel that is
    constant in all of them has r = 0 and p = 1; such voxels are counted in a warning.

    Raises
    ------
    ValueError
        When features and responses do not have the same runs and TRs, naming the run, what was
        found and what was expected; or when a value is not finite.
    """
    lengths = _check(X, Y)
    runs = np.repeat(np.arange(len(lengths)), list(lengths.values()))
    targets = np.concatenate([np.concatenate([of_run[run] for run in lengths]) for of_run in Y.values()], axis=1)
    folds = cv.outer_folds(runs, spec.folds, spec.n_folds, spec.gap)
    inner = [cv.inner_folds(train, runs, spec.folds, spec.n_folds, spec.gap) for train, _ in folds]
    # Of equally good alphas the solver takes the first: here the largest.
    alphas = np.logspace(*spec.log10_alphas)[::-1]
    # Column -> subject, to take the shared matrix apart again.
    columns = np.cumsum([next(iter(of_run.values())).shape[1] for of_run in Y.values()])
    _report_constant(targets, folds, list(Y), columns)
    # What of the responses does not depend on features is computed once for all layers.
    parts = [
        Targets(targets, Splits(len(train), tuple(inside)), train, test=test)
        for (train, test), inside in zip(folds, inner, strict=True)
    ]

    layers = tuple(sorted(X))
    tables: dict[str, list[np.ndarray]] = {"r": [], "p": [], "alpha": []}
    for layer in layers:
        of_layer = X[layer]  # a layer may be made only when it is asked for
        features = np.concatenate([of_layer[run] for run in lengths]).astype(np.float64)
        predicted, log_alpha = [], []
        for (train, test), part in zip(folds, parts, strict=True):
            plan = Plan(features[train], part.splits, alphas, features[test], device=device)
            fit = solve(plan, part, predictions=True)
            assert fit.predictions is not None
            # A voxel that is constant in the training set was not fitted: its best prediction is its mean.
            for voxel in fit.left_out:
                fit.predictions[:, voxel], fit.alpha[voxel] = 0, alphas[0]
            predicted.append(fit.predictions)
            log_alpha.append(np.log(fit.alpha))
        measured = [targets[test] for _, test in folds]
        tables["r"].append(np.mean([*map(significance.correlation, predicted, measured)], axis=0))
        tables["alpha"].append(np.exp(np.mean(log_alpha, axis=0)))
        tables["p"].append(
            significance.permutation_p(
                predicted,
                measured,
                [runs[test] for _, test in folds],
                spec.block,
                spec.permutations,
                seed,
                null=spec.null,
                pool=np.searchsorted(columns, np.arange(columns[-1]), side="right"),
            )
        )
        if progress is not None:
            progress(len(tables["p"]), len(layers))
    scores = {}
    for subject, *parts in zip(Y, *(np.split(np.array(t), columns[:-1], 1) for t in tables.values()), strict=True):
        r, p, alpha = parts
        scores[subject] = Scores(
            r=r.astype(np.float32),
            p=p.astype(np.float32),
            significant=np.array([significance.discoveries(of_layer, spec.fdr) for of_layer in p]),
            alpha=alpha.astype(np.float32),
            layers=layers,
        )
    return scores


def shuffled_stimulus(
    X: Features, Y: Responses, spec: EncodingSpec, n: int, seed: int = 0, device: str = "cpu"
) -> list[dict[str, Scores]]:
    """Control: the same features against responses to another moment of the stimulus.

    In each run the responses of all subjects are rotated in time by a random number of TRs, at
    least 20 in either direction around the circle, which leaves the autocorrelation of features
    and responses as it is. (Rotating the responses and not the features is the same shift, and lets
    all `n` shuffles share one factorisation.)

    Parameters
    ----------
    X, Y, spec : as for ``encode``.
    n : number of shuffles.
    seed : seed of the shifts and of the permutations.
    device : torch device of the solver.

    Returns
    -------
    Scores of each subject, for each of the `n` shuffles.

    Raises
    ------
    ValueError
        As ``encode``; and naming a run that is too short to be shifted by 20 TRs.
    """
    lengths = _check(X, Y)
    for run, n_trs in lengths.items():
        if n_trs < 2 * MIN_SHIFT:
            raise ValueError(
                f"run {run}: found {n_trs} TRs, expected at least {2 * MIN_SHIFT} to shift it by {MIN_SHIFT}"
            )
    rng = np.random.default_rng(seed)
    shifted: Responses = {}
    for number in range(n):
        shifts = {run: rng.integers(MIN_SHIFT, n_trs - MIN_SHIFT + 1) for run, n_trs in lengths.items()}
        for subject, of_run in Y.items():
            shifted[f"{number}/{subject}"] = {
                run: np.roll(values, shifts[run], axis=0) for run, values in of_run.items()
            }
    scores = encode(X, shifted, spec, seed, device=device) if n else {}
    return [{subject: scores[f"{number}/{subject}"] for subject in Y} for number in range(n)]


def normalise(r: np.ndarray, ceiling: np.ndarray, floor: float = 0.1) -> np.ndarray:
    """Scores as a share of the noise ceiling; NaN where the ceiling is too low to divide by.

    Parameters
    ----------
    r : (..., n_voxels) correlations.
    ceiling : (n_voxels,) noise ceiling, as a correlation.
    floor : lowest ceiling that is divided by.
    """
    r, ceiling = np.asarray(r), np.asarray(ceiling)
    if r.shape[-1:] != ceiling.shape:
        raise ValueError(f"ceiling: found shape {ceiling.shape}, expected ({r.shape[-1]},) as in r")
    enough = ceiling >= floor
    return np.where(enough, r / np.where(enough, ceiling, 1), np.nan)


def summarise(
    scores: dict[str, Scores],
    rois: dict[str, np.ndarray],
    ceiling: dict[str, np.ndarray] | None = None,
    floor: float = 0.1,
) -> pd.DataFrame:
    """Means over the voxels of each region, as rows for ``results.curve_table(perspective="brain")``.

    Parameters
    ----------
    scores : subject -> scores.
    rois : subject -> (n_voxels,) region of each voxel.
    ceiling : subject -> (n_voxels,) noise ceiling, or None when it is not known.
    floor : lowest ceiling that is divided by.

    Returns
    -------
    Columns ``measure``, ``layer``, ``subject``, ``roi``, ``value``, ``stderr``. Measures: ``r``;
    ``r_normalised`` where a ceiling is known, over the voxels whose ceiling reaches `floor` (NaN when
    none of a region does); ``significant``, the share of voxels. Regions: ``all``, then each by name.
    ``stderr`` is the standard error over voxels, NaN for fewer than two of them.

    Raises
    ------
    ValueError
        When regions or ceilings are not one a voxel, naming the subject.
    """
    rows = []
    for subject, score in scores.items():
        names = np.asarray(rois[subject]).astype(str)
        if names.shape != score.r.shape[1:]:
            raise ValueError(f"subject {subject}: rois: found shape {names.shape}, expected {score.r.shape[1:]}")
        measures = {"r": score.r, "significant": score.significant.astype(float)}
        if ceiling is not None:
            measures["r_normalised"] = normalise(score.r, ceiling[subject], floor)
        regions = {"all": np.ones(len(names), bool)} | {name: names == name for name in sorted({*names})}
        for measure, values in measures.items():
            for layer, of_layer in zip(score.layers, values.astype(np.float64), strict=True):
                for roi, inside in regions.items():
                    known = of_layer[inside & ~np.isnan(of_layer)]
                    rows.append(
                        {
                            "measure": measure,
                            "layer": layer,
                            "subject": subject,
                            "roi": roi,
                            "value": known.mean() if len(known) else np.nan,
                            "stderr": known.std(ddof=1) / len(known) ** 0.5 if len(known) > 1 else np.nan,
                        }
                    )
    return pd.DataFrame(rows)


def _check(X: Features, Y: Responses) -> dict[str, int]:
    """Run -> number of TRs, when all layers and all subjects have the same runs and TRs."""
    if not X or not Y:
        raise ValueError(f"{'X' if not X else 'Y'}: found no {'layer' if not X else 'subject'}, expected at least one")
    first = next(iter(X))
    lengths = {run: len(values) for run, values in X[first].items()}
    # Not a dictionary: one layer at a time is in memory.
    layers = ((f"layer {layer}", of_run) for layer, of_run in X.items())
    subjects = ((f"subject {subject}", of_run) for subject, of_run in Y.items())
    for part, of_run in chain(layers, subjects):
        if set(of_run) != set(lengths):
            raise ValueError(f"{part}: runs: found {sorted(of_run)}, expected {sorted(lengths)} as in layer {first}")
        width = next(iter(of_run.values())).shape[-1:]
        for run, values in of_run.items():
            if values.ndim != 2 or len(values) != lengths[run]:
                raise ValueError(
                    f"run {run}: {part}: found shape {values.shape}, expected {lengths[run]} TRs as in layer {first}"
                )
            if values.shape[1:] != width or not width[0]:
                raise ValueError(
                    f"run {run}: {part}: found {values.shape[1]} columns, expected {width[0] or 'at least 1'}"
                )
            if not np.isfinite(values).all():
                bad = int((~np.isfinite(values)).sum())
                raise ValueError(f"run {run}: {part}: found {bad} NaN or infinite values, expected none")
    return lengths


def _report_constant(targets: np.ndarray, folds: list[cv.Fold], subjects: list[str], columns: np.ndarray) -> None:
    """Warn of voxels that are constant in the test set of a fold, and so score 0 in it."""
    constant = np.any([np.ptp(targets[test], axis=0) == 0 for _, test in folds], axis=0)
    for subject, of_subject in zip(subjects, np.split(constant, columns[:-1]), strict=True):
        if of_subject.any():
            warnings.warn(
                f"subject {subject}: {of_subject.sum()} of {of_subject.size} voxels are constant in a test "
                "fold, where they score r = 0",
                stacklevel=3,
            )


def write_voxels(scores: dict[str, Scores], path: Path) -> None:
    """Write per-voxel scores as Zarr: subject / {r, p, significant, alpha} of (n_layers, n_voxels)."""
    import zarr

    group = zarr.open_group(path, mode="w")
    for subject, score in scores.items():
        of_subject = group.create_group(subject)
        for name in ("r", "p", "significant", "alpha"):
            of_subject.create_array(name, data=np.ascontiguousarray(getattr(score, name)))
        of_subject.attrs["layers"] = [int(layer) for layer in score.layers]


def read_voxels(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """What ``write_voxels`` wrote: subject -> name -> (n_layers, n_voxels), and ``layers`` (n_layers,)."""
    import zarr

    group = zarr.open_group(path, mode="r")
    return {
        subject: {
            **{name: np.asarray(of_subject[name]) for name in ("r", "p", "significant", "alpha")},
            "layers": np.asarray(of_subject.attrs["layers"]),
        }
        for subject, of_subject in sorted(group.groups())
    }
