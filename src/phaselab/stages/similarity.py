"""Representational similarity and kernel alignment of each layer with each region."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phaselab.stages.brain import ROOMS
from phaselab.stages.context import Unit
from phaselab.stages.registry import GRID, STATES, stage


@stage(
    "similarity",
    version=1,
    reads=(*STATES, *GRID, "encoding.similarity"),
    data=("checkpoint", "stimulus", "responses"),
    rooms=ROOMS,
    perspective="brain",
    asked=lambda study, model: bool(study.encoding.similarity),
)
def similarity(unit: Unit, folder: Path) -> pd.DataFrame:
    """The measures that ``encoding.similarity`` names."""
    from phaselab.encoding import similarity as measures

    bench = unit.bench
    return measures.summarise(unit.aligned, bench.responses, bench.brain.rois, bench.study.encoding.similarity)
