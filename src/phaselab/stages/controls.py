"""Controls: what a reviewer asks for, from the last checkpoint of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phaselab.stages.brain import BESIDE, RIDGE
from phaselab.stages.context import Unit
from phaselab.stages.registry import stage
from phaselab.stimuli import Stimulus


@stage("controls", version=3, reads=(*RIDGE, "encoding.shuffles"), scope="last", **BESIDE)
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
    spec, seed, tables = study.encoding, study.brain.seed, []

    def add(condition: str, X: Any, scores: Any = None, checkpoint: str = unit.same["checkpoint"]) -> None:
        scores = scores or encode(X, bench.responses, spec, seed, device=bench.device)
        rows = summarise(scores, brain.rois, brain.ceiling)
        tables.append(rows.assign(model=f"control: {condition}", checkpoint=checkpoint, task=unit.model.name))

    nuisance = dict(brain.nuisance)
    rate = {run: values[:, :1] for run, values in nuisance.items() if values.shape[1] > 1}
    for condition, sources in {"word rate": rate, "nuisance space": nuisance, "true latents": brain.latents}.items():
        if sources:
            add(condition, {0: bench.trimmed(sources)})
    rng = np.random.default_rng(seed)
    orders = [(run, rng.permutation(len(run.texts))) for run in brain.stimulus.runs]
    mixed = Stimulus("shuffled words", tuple(replace(r, texts=tuple(r.texts[i] for i in order)) for r, order in orders))
    add(mixed.name, to_trs(extract(*unit.loaded, mixed, study.features), mixed, study.features))
    shuffles = shuffled_stimulus(unit.aligned, bench.responses, spec, spec.shuffles, seed, bench.device)
    for number, scores in enumerate(shuffles):
        add("shuffled stimulus", unit.aligned, scores, f"shuffle-{number}")
    return pd.concat(tables, ignore_index=True)
