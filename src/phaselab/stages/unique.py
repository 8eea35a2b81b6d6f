"""What a layer explains beyond nuisance: banded ridge of both together against the nuisance alone."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phaselab.stages.brain import ROOMS
from phaselab.stages.context import Unit
from phaselab.stages.registry import GRID, RIDGE, STATES, stage


@stage(
    "unique",
    version=1,
    reads=(*STATES, *GRID, *RIDGE),
    data=("checkpoint", "stimulus", "responses"),
    rooms=ROOMS,
    perspective="brain",
    asked=lambda study, model: study.encoding.unique,
)
def unique(unit: Unit, folder: Path) -> pd.DataFrame:
    """Variance that each layer explains beyond word rate and other nuisance of the stimulus, by region."""
    from phaselab.encoding.unique import unique_contribution

    bench, trim = unit.bench, unit.bench.study.features.trim
    nuisance = {run: values[trim:] for run, values in bench.brain.nuisance.items()}
    spec, rois = bench.study.encoding, bench.brain.rois
    return unique_contribution(
        unit.aligned, nuisance, bench.responses, spec, bench.seed, rois=rois, device=bench.device
    )
