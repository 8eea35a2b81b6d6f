"""Scores of every voxel for every layer; what a study, ``phaselab encode`` and the controls call."""

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import zarr
from scipy.stats import false_discovery_control

from phaselab.encoding import himalaya, significance
from phaselab.encoding.arrays import Features, Group, Responses, batches, by_region, groups_of, mirrored
from phaselab.encoding.folds import Given, inner_folds, outer_folds, parts_of
from phaselab.encoding.ridge import NOT_FINITE, Plan, Splits, Targets, batch_size, find_device, solve
from phaselab.errors import expect, number_of
from phaselab.lazy import View
from phaselab.stats import check_ceiling, pearson
from phaselab.study import EncodingSpec

#: TRs by which a shuffled stimulus is moved at least, so that no response follows its own stimulus.
MIN_SHIFT = 20
#: Rows of a test fold below which a correlation is called noisy.
FEW = 20
#: What is kept of each voxel.
KEPT = ("r", "p", "alpha", "significant")


class Scores(NamedTuple):
    """Scores of one subject, (n_layers, n_voxels) each, float32."""

    layers: tuple[int, ...]
    r: np.ndarray  # Pearson correlation over the held-out TRs, mean over outer folds weighted by their length
    p: np.ndarray  # one-sided permutation p-value, of the study's ``encoding.null``
    alpha: np.ndarray  # geometric mean over outer folds of the chosen alphas
    significant: np.ndarray  # bool: Benjamini-Hochberg over the voxels of a layer


def encode(
    X: Features,
    Y: Responses,
    spec: EncodingSpec,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    device: str = "cpu",
    given: Given = None,
) -> dict[str, Scores]:
    """Predict responses from the features of each layer, and score the predictions on held-out TRs.

    Alpha is chosen for each voxel inside the training set of each fold. A voxel that is constant in a fold scores 0
    there, which a warning counts; one that is so in all of them has p = 1. Features of a layer, which have their
    haemodynamics, and a batch of voxels take ``spec.memory`` GiB at most, and each voxel 100 bytes per fold.
    """
    fits = [_GroupFit(group, spec, seed, device, given) for group in groups_of(X, Y)]
    layers = tuple(sorted(X))
    found: dict[str, list[tuple[np.ndarray, ...]]] = {subject: [] for subject in Y}
    for number, layer in enumerate(layers, 1):
        of_layer = X[layer]  # a layer may be made only when it is asked for
        for fit in fits:
            scored = fit.score(fit.group.features(of_layer, f"layer {layer}"))
            for subject, own in fit.group.split(np.array(scored)).items():
                significant = false_discovery_control(own[1]) <= spec.fdr  # Benjamini and Hochberg (1995)
                found[subject].append((*own.astype(np.float32), significant))
        if progress is not None:
            progress(number, len(layers))
    return {subject: Scores(layers, *map(np.array, zip(*rows, strict=True))) for subject, rows in found.items()}


class _GroupFit:
    """Folds, responses and permutations of subjects with the same runs: all that no layer changes."""

    def __init__(self, group: Group, spec: EncodingSpec, seed: int, device: str, given: Given) -> None:
        self.group, self.spec, self.device = group, spec, find_device(device)
        runs, parts = group.runs, parts_of(group.lengths, spec, given)
        self.folds = outer_folds(parts, spec, seed)
        least = min(len(test) for _, test in self.folds)
        expect(least > 1, "folds", "a test fold of 1 row", "2 at least: over one there is no correlation")
        if least < FEW:
            noisy = f"a test fold has {least} rows, fewer than {FEW}: a correlation over so few is noisy"
            warnings.warn(f"{noisy}; folds are weighted by their length", stacklevel=4)
        # Of equally good alphas the solver takes the first: here the largest.
        self.alphas = np.logspace(*spec.log10_alphas)[::-1]
        self.targets = []
        for train, test in self.folds:
            splits = Splits(len(train), tuple(inner_folds(train, parts, spec, seed)))
            self.targets.append(Targets.survey(View(group, train), splits, View(group, test)))
        for bad in sorted(i for part in self.targets for i, why in part.left_out.items() if why == NOT_FINITE):
            group.finite(slice(bad, bad + 1))  # says of which subject and run
        for subject, constant in group.split(np.any([part.test_constant for part in self.targets], axis=0)).items():
            if constant.any():
                many = f"subject {subject}: {constant.sum():,} of {number_of(constant.size, 'voxel')}"
                warnings.warn(f"{many} constant in a test fold, which is a score of r = 0", stacklevel=4)
        tested = [runs[test] for _, test in self.folds]
        self.permutations = significance.Permutations(tested, spec.block, spec.permutations, seed, spec.null)

    def score(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """r, p and alpha (n_voxels,) of the features (n_trs, p) of a layer; voxels are worked on batch by batch."""
        n_voxels = self.group.shape[1]
        r, alpha, counts = np.empty(n_voxels), np.empty(n_voxels), []
        for columns, fitted in self._fitted(X):
            # A voxel that is constant in the training set cannot be fitted: its best prediction is its mean.
            for part, (predicted, chosen) in zip(self.targets, fitted, strict=True):
                out = [i - columns.start for i in part.left_out if columns.start <= i < columns.stop]
                predicted[:, out], chosen[out] = 0, self.alphas[0]
            measured = self.group[:, columns]  # kept since it was fitted
            predictions = [self._here(prediction) for prediction, _ in fitted]
            held = [self._here(measured[test]) for _, test in self.folds]
            of_folds = [torch.as_tensor(pearson(*pair)).cpu().numpy() for pair in zip(predictions, held, strict=True)]
            r[columns] = np.average(of_folds, axis=0, weights=self.permutations.weights)
            alpha[columns] = np.exp(np.mean([np.log(chosen) for _, chosen in fitted], axis=0))
            counts.append(self.permutations.count(predictions, held))
        return r, self.permutations.p(counts, self.group.subject_of), alpha

    def _here(self, values: np.ndarray) -> Any:
        """On a CPU numpy as it is, so that sums keep their order; a tensor on any other device."""
        return values if self.device.type == "cpu" else torch.as_tensor(values, device=self.device)

    def _fitted(self, X: np.ndarray) -> Iterator[tuple[slice, list[tuple[np.ndarray, np.ndarray]]]]:
        """Batches of voxels, each with predictions (n_test, b), less a mean, and alphas (b,) of every fold."""
        n_trs, n_voxels = self.group.shape
        memory, each_fold = self.spec.memory * 2**30, range(len(self.folds))
        # Beside the solver's: responses, predictions, both of them standardised, and what permutations give.
        more = n_trs * (2 * self.group.dtype.itemsize + 44) + 40 * (1 + self.permutations.number)
        if self.spec.solver == "himalaya":
            for columns in batches(n_voxels, max(1, int(memory // (more + 64 * n_trs)))):
                yield columns, [self._by_himalaya(X, k, columns) for k in each_fold]
            return
        n_test = max(part.n_test for part in self.targets)
        plan = self._plan(X, 0)
        if len(self.folds) * plan.bytes <= memory / 2:
            plans = [plan, *(self._plan(X, k) for k in each_fold[1:])]
            for columns in batches(n_voxels, batch_size(plans, n_test, n_voxels, memory, more)):
                yield columns, [self._by_plan(plans[k], k, columns) for k in each_fold]
            return
        # Too large to be held together: one after another, and predictions wait in a file.
        ends = np.cumsum([part.n_test for part in self.targets])
        alpha = np.empty((len(self.folds), n_voxels))
        with tempfile.TemporaryFile() as file:
            rows = np.split(np.memmap(file, np.float32, "w+", shape=(int(ends[-1]), n_voxels)), ends[:-1])
            for k in each_fold:
                plan = plan if k == 0 else self._plan(X, k)
                size = batch_size([plan], n_test, n_voxels, memory, more)
                for columns in batches(n_voxels, size):
                    rows[k][:, columns], alpha[k, columns] = self._by_plan(plan, k, columns)
                del plan
            for columns in batches(n_voxels, size):
                yield columns, [(np.array(rows[k][:, columns]), alpha[k, columns]) for k in each_fold]

    def _plan(self, X: np.ndarray, k: int) -> Plan:
        train, test = self.folds[k]
        return Plan(X[train], self.targets[k].splits, self.alphas, X[test], device=str(self.device))

    def _by_himalaya(self, X: np.ndarray, k: int, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        (train, test), Y, inner = self.folds[k], self.group[:, columns], self.targets[k].splits.folds
        return himalaya.ridge(X[train], Y[train], X[test], inner, self.alphas, self.device.type)

    def _by_plan(self, plan: Plan, k: int, columns: slice) -> tuple[Any, np.ndarray]:
        fit = solve(plan, self.targets[k], predictions=True, columns=columns)
        return fit.predictions, fit.alpha


def shuffled_stimulus(
    X: Features, Y: Responses, spec: EncodingSpec, n: int, seed: int = 0, device: str = "cpu", given: Given = None
) -> list[dict[str, Scores]]:
    """Control: the same features against responses that are rotated in each run by at least `MIN_SHIFT` TRs."""
    used = {run for of_run in Y.values() for run in of_run}
    lengths = {run: len(values) for run, values in X[next(iter(X))].items() if run in used}
    for run, n_trs in lengths.items():
        expect(n_trs >= 2 * MIN_SHIFT, f"run {run}", f"{n_trs} TRs", f"at least {2 * MIN_SHIFT}, to be shifted")
    rng = np.random.default_rng(seed)
    shifted: dict[str, dict[str, Any]] = {}
    for number in range(n):
        shifts = {run: int(rng.integers(MIN_SHIFT, n_trs - MIN_SHIFT + 1)) for run, n_trs in lengths.items()}
        for subject, of_run in Y.items():
            shifted[f"{number}/{subject}"] = {run: View(values, shift=shifts[run]) for run, values in of_run.items()}
    scores = encode(X, shifted, spec, seed, device=device, given=given) if n else {}
    return [{subject: scores[f"{number}/{subject}"] for subject in Y} for number in range(n)]


def normalise(r: np.ndarray, ceiling: np.ndarray) -> np.ndarray:
    """Scores (..., n_voxels) as a share of the noise ceiling (n_voxels,), 0 to 1; NaN where it is NaN or below 0.1."""
    check_ceiling(ceiling, "ceiling")
    enough = ceiling >= 0.1
    return np.where(enough, r / np.where(enough, ceiling, 1), np.nan)


def summarise(scores: dict[str, Scores], rois: dict[str, Any], ceiling: dict[str, Any] | None = None) -> pd.DataFrame:
    """Rows of ``by_region``: r; significant, share; r_normalised by a ceiling; left_minus_right by `mirrored`."""
    rows = []
    for subject, score in scores.items():
        measures = {"r": score.r, "significant": score.significant.astype(float)}
        if ceiling is not None:
            measures["r_normalised"] = normalise(score.r, ceiling[subject])
        rows += by_region(measures, score.layers, subject, rois[subject])
        for roi, (left, right) in mirrored(rois[subject]).items():
            values = score.r[:, left].mean(axis=1) - score.r[:, right].mean(axis=1)
            key = {"measure": "left_minus_right", "subject": subject, "roi": roi, "stderr": np.nan}
            rows += [key | {"layer": layer, "value": value} for layer, value in zip(score.layers, values, strict=True)]
    return pd.DataFrame(rows)


def write_voxels(scores: Mapping[str, Scores], path: Path) -> None:
    """Write per-voxel scores as Zarr: subject / {r, p, significant, alpha} of (n_layers, n_voxels)."""
    group = zarr.open_group(path, mode="w")
    for subject, score in scores.items():
        of_subject = group.create_group(subject, attributes={"layers": [*map(int, score.layers)]})
        for name in KEPT:
            of_subject.create_array(name, data=getattr(score, name))


def read_voxels(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """What ``write_voxels`` wrote: subject -> name -> (n_layers, n_voxels), and ``layers`` (n_layers,)."""
    group = zarr.open_group(path, mode="r")
    return {
        subject: {name: np.asarray(own[name]) for name in KEPT} | {"layers": np.asarray(own.attrs["layers"])}
        for subject, own in sorted(group.groups())
    }
