"""Controls: what a reviewer asks for, from the last checkpoint of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from phaselab.stages.brain import ALIKE, RIDGE
from phaselab.stages.context import Unit
from phaselab.stages.registry import stage


@stage("controls", version=2, reads=(*RIDGE, "encoding.shuffles"), scope="last", **ALIKE)
def controls(unit: Unit, folder: Path) -> pd.DataFrame:
    """The column ``task`` is the name of the model, and ``model`` the condition.

    Word rate and other nuisance alone; the true latents where the brain is simulated; and the features of the
    checkpoint against responses that are shifted in time, ``encoding.shuffles`` times.
    """
    from phaselab.encoding import encode, shuffled_stimulus, summarise

    bench, brain, last = unit.bench, unit.bench.brain, unit.same["checkpoint"]
    spec, seed, tables = bench.study.encoding, bench.study.brain.seed, []
    how: dict[str, Any] = {"device": bench.device, "given": brain.folds}

    def add(condition: str, checkpoint: str, scores: Any) -> None:
        rows = summarise(scores, brain.rois, brain.ceiling)
        tables.append(rows.assign(model=f"control: {condition}", checkpoint=checkpoint, task=unit.model.name))

    for condition, sources in {"word rate": brain.nuisance, "true latents": brain.latents}.items():
        if sources:
            X = {0: bench.trimmed(sources)}
            add(condition, last, encode(X, bench.responses, spec, seed, **how))
    shuffles = shuffled_stimulus(unit.aligned, bench.responses, spec, spec.shuffles, seed, **how)
    for number, scores in enumerate(shuffles):
        add("shuffled stimulus", f"shuffle-{number}", scores)
    return pd.concat(tables, ignore_index=True)
