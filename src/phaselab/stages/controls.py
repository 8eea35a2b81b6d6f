"""Controls beside the scores of a model: nuisance alone, the true latents, and a stimulus shifted in time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phaselab.stages.brain import ROOMS
from phaselab.stages.context import Unit
from phaselab.stages.registry import GRID, RIDGE, STATES, stage

#: Names of the control conditions in the column ``model``; ``task`` names the model that they belong to.
WORD_RATE = "control: word rate"
LATENTS = "control: true latents"
SHUFFLED = "control: shuffled stimulus"


@stage(
    "controls",
    version=1,
    reads=(*STATES, *GRID, *RIDGE, "encoding.shuffles"),
    data=("checkpoint", "stimulus", "responses"),
    rooms=ROOMS,
    perspective="brain",
    scope="last",
)
def controls(unit: Unit, folder: Path) -> pd.DataFrame:
    """What a reviewer asks for, from the last checkpoint of a model.

    Word rate and other nuisance alone; the true latents where the brain is simulated; and the features of the
    checkpoint against responses that are shifted in time, ``encoding.shuffles`` times.
    """
    from phaselab.encoding import encode, shuffled_stimulus, summarise

    bench, brain = unit.bench, unit.bench.brain
    spec, trim = bench.study.encoding, bench.study.features.trim
    conditions = []
    for name, sources in {WORD_RATE: brain.nuisance, LATENTS: brain.latents}.items():
        if sources:
            X = {0: {run: values[trim:] for run, values in sources.items()}}
            conditions.append(
                (name, unit.same["checkpoint"], encode(X, bench.responses, spec, bench.seed, device=bench.device))
            )
    shuffles = shuffled_stimulus(unit.aligned, bench.responses, spec, spec.shuffles, bench.seed, bench.device)
    conditions += [(SHUFFLED, f"shuffle-{number}", scores) for number, scores in enumerate(shuffles)]
    tables = [
        summarise(scores, brain.rois, brain.ceiling).assign(model=name, checkpoint=at, task=unit.model.name)
        for name, at, scores in conditions
    ]
    return pd.concat(tables, ignore_index=True)
