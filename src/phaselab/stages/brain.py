"""Brain alignment of every layer in held-out time: ridge encoding, its controls, similarity, unique contributions."""

from pathlib import Path
from typing import Any

import pandas as pd

from phaselab.stages.context import Unit, Workbench, stage

#: Fields that change what is fitted and tested; memory and device change the last digits at most.
_FITTED = ("log10_alphas", "folds", "n_folds", "gap", "permutations", "block", "null", "fdr", "solver")
_RIDGE = tuple(f"encoding.{name}" for name in _FITTED)
_ALIKE: dict[str, Any] = {"data": ("checkpoint", "stimulus", "responses"), "perspective": "brain"}


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


@stage("controls", version=2, reads=(*_RIDGE, "encoding.shuffles"), scope="last", **_ALIKE)
def controls(unit: Unit, folder: Path) -> pd.DataFrame:
    """The column ``task`` is the name of the model, and ``model`` the condition.

    Word rate and other nuisance alone; the true latents where the brain is simulated; and the features of the
    checkpoint against responses that are shifted in time, ``encoding.shuffles`` times.
    """
    from phaselab.encoding import encode, shuffled_stimulus, summarise

    bench, brain, last = unit.bench, unit.bench.brain, unit.same["checkpoint"]
    spec, tables = bench.study.encoding, []

    def add(condition: str, checkpoint: str, scores: Any) -> None:
        rows = summarise(scores, brain.rois, brain.ceiling)
        tables.append(rows.assign(model=f"control: {condition}", checkpoint=checkpoint, task=unit.model.name))

    for condition, sources in {"word rate": brain.nuisance, "true latents": brain.latents}.items():
        if sources:
            X = {0: bench.trimmed(sources)}
            add(condition, last, encode(X, bench.responses, spec, **_how(bench)))
    shuffles = shuffled_stimulus(unit.aligned, bench.responses, spec, spec.shuffles, **_how(bench))
    for number, scores in enumerate(shuffles):
        add("shuffled stimulus", f"shuffle-{number}", scores)
    return pd.concat(tables, ignore_index=True)


@stage(
    "similarity",
    version=2,
    reads=("encoding.similarity",),
    asked=lambda study, model: bool(study.encoding.similarity),
    **_ALIKE,
)
def similarity(unit: Unit, folder: Path) -> pd.DataFrame:
    """Representational similarity (RSA) and kernel alignment (CKA) of each layer with each region, as asked for."""
    from phaselab.encoding import similarity as measures

    bench = unit.bench
    return measures.summarise(unit.aligned, bench.responses, bench.brain.rois, bench.study.encoding.similarity)


@stage("unique", version=2, reads=_RIDGE, asked=lambda study, model: study.encoding.unique, **_ALIKE)
def unique(unit: Unit, folder: Path) -> pd.DataFrame:
    """Variance that each layer explains beyond word rate and other nuisance of the stimulus, by region."""
    from phaselab.encoding.himalaya import unique_contribution

    bench, rois = unit.bench, unit.bench.brain.rois
    nuisance, spec = bench.trimmed(bench.brain.nuisance), bench.study.encoding
    return unique_contribution(unit.aligned, nuisance, bench.responses, spec, rois=rois, **_how(bench))
