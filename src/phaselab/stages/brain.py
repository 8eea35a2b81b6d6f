"""Brain alignment of every layer in held-out time: ridge encoding, its controls, similarity, unique contributions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phaselab.stages.context import Unit, Workbench, stage, when
from phaselab.stimuli import Stimulus
from phaselab.study import at_depth

#: Fields that change what is fitted and tested; memory and device change the last digits at most.
_FITTED = ("log10_alphas", "folds", "n_folds", "gap", "permutations", "block", "null", "fdr", "solver")
_RIDGE = tuple(f"encoding.{name}" for name in _FITTED)
_ALIKE: dict[str, Any] = {"data": ("checkpoint", "stimulus", "responses"), "perspective": "brain"}
_BESIDE = _ALIKE | {"data": (*_ALIKE["data"], "nuisance")}


def _how(bench: Workbench) -> dict[str, Any]:
    return {"seed": bench.study.brain.seed, "device": bench.device, "given": bench.brain.folds}


@stage("brain", version=2, reads=_RIDGE, **_ALIKE)
def brain(unit: Unit, folder: Path) -> pd.DataFrame:
    """Scores of each region; ``voxels.zarr`` keeps those of each voxel."""
    from phaselab.encoding import encode, summarise, write_voxels

    bench = unit.bench
    scores = encode(unit.aligned, bench.responses, bench.study.encoding, **_how(bench))
    write_voxels(scores, folder / "voxels.zarr")
    return summarise(scores, bench.brain.rois, bench.brain.ceiling)


@stage("controls", version=3, reads=(*_RIDGE, "encoding.shuffles"), scope="last", **_BESIDE)
def controls(unit: Unit, folder: Path) -> pd.DataFrame:
    """The column ``task`` is the name of the model, and ``model`` the condition.

    The nuisance space alone, and word rate, its first regressor, alone; the true latents where the brain is simulated;
    the checkpoint reading ``shuffled words``, those of each run in one random order at the same onsets, so that when
    words come is kept and what is said is not; and its features against responses that are shifted in time,
    ``encoding.shuffles`` times.
    """
    from phaselab.encoding import encode, shuffled_stimulus, summarise
    from phaselab.features import extract, to_trs

    bench, study, brain = unit.bench, unit.bench.study, unit.bench.brain
    spec, tables = study.encoding, []

    def add(condition: str, X: Any, scores: Any = None, checkpoint: str = unit.same["checkpoint"]) -> None:
        scores = scores or encode(X, bench.responses, spec, **_how(bench))
        rows = summarise(scores, brain.rois, brain.ceiling)
        tables.append(rows.assign(model=f"control: {condition}", checkpoint=checkpoint, task=unit.model.name))

    nuisance = dict(brain.nuisance)
    rate = {run: values[:, :1] for run, values in nuisance.items() if values.shape[1] > 1}
    for condition, sources in {"word rate": rate, "nuisance space": nuisance, "true latents": brain.latents}.items():
        if sources:
            add(condition, {0: bench.trimmed(sources)})
    how: Any = (unit.aligned, bench.responses, spec, spec.shuffles)
    for number, scores in enumerate(shuffled_stimulus(*how, **_how(bench)) if spec.shuffles else []):
        add("shuffled stimulus", unit.aligned, scores, f"shuffle-{number}")
    rng = np.random.default_rng(study.brain.seed)
    orders = [(run, rng.permutation(len(run.texts))) for run in brain.stimulus.runs]
    mixed = Stimulus("shuffled words", tuple(replace(r, texts=tuple(r.texts[i] for i in order)) for r, order in orders))
    add(mixed.name, to_trs(extract(*unit.loaded, mixed, study.features), mixed, study.features))
    return pd.concat(tables, ignore_index=True)


@stage("similarity", version=2, reads=("encoding.similarity",), asked=when("encoding.similarity"), **_ALIKE)
def similarity(unit: Unit, folder: Path) -> pd.DataFrame:
    """Representational similarity (RSA) and kernel alignment (CKA) of each layer with each region, as asked for."""
    from phaselab.encoding import similarity as measures

    bench = unit.bench
    return measures.summarise(unit.aligned, bench.responses, bench.brain.rois, bench.study.encoding.similarity)


@stage("unique", version=3, reads=(*_RIDGE, "phases.layer"), asked=when("encoding.unique"), **_BESIDE)
def unique(unit: Unit, folder: Path) -> pd.DataFrame:
    """Variance that the layer of the phases' rule (all for ``mean``, ``best``) explains beyond nuisance, by region."""
    from phaselab.encoding.himalaya import unique_contribution

    bench, study, device = unit.bench, unit.bench.study, unit.bench.device
    nuisance, rule, layers = bench.trimmed(bench.brain.nuisance), study.phases.layer, sorted(unit.aligned)
    if not isinstance(rule, str):
        layers = [at_depth(layers, rule) if isinstance(rule, float) else rule]
    X, rois, given = {layer: unit.aligned[layer] for layer in layers}, bench.brain.rois, bench.brain.folds
    return unique_contribution(X, nuisance, bench.responses, study.encoding, rois=rois, device=device, given=given)
