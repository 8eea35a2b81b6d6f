"""Brain alignment: ridge encoding models of every layer, scored in held-out time."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phaselab.stages.context import Unit
from phaselab.stages.registry import GRID, RIDGE, STATES, stage

ROOMS = ("brains", "checkpoints/load", "encoding", "features", "stimuli")


@stage(
    "brain",
    version=1,
    reads=(*STATES, *GRID, *RIDGE),
    data=("checkpoint", "stimulus", "responses"),
    rooms=ROOMS,
    perspective="brain",
)
def brain(unit: Unit, folder: Path) -> pd.DataFrame:
    """Scores of each region; ``voxels.zarr`` keeps those of each voxel."""
    from phaselab.encoding import encode, summarise, write_voxels

    bench = unit.bench
    scores = encode(unit.aligned, bench.responses, bench.study.encoding, bench.seed, device=bench.device)
    write_voxels(scores, folder / "voxels.zarr")
    return summarise(scores, bench.brain.rois, bench.brain.ceiling)
