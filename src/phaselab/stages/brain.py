"""Brain alignment: ridge encoding models of every layer, scored in held-out time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from phaselab.stages.context import Unit
from phaselab.stages.registry import stage

#: Fields that change what is fitted and tested; memory and device change the last digits at most.
_FITTED = ("log10_alphas", "folds", "n_folds", "gap", "permutations", "block", "null", "fdr", "solver")
RIDGE = tuple(f"encoding.{name}" for name in _FITTED)
ALIKE: dict[str, Any] = {"data": ("checkpoint", "stimulus", "responses"), "perspective": "brain"}
BESIDE = ALIKE | {"data": (*ALIKE["data"], "nuisance")}


@stage("brain", version=2, reads=RIDGE, **ALIKE)
def brain(unit: Unit, folder: Path) -> pd.DataFrame:
    """Scores of each region; ``voxels.zarr`` keeps those of each voxel."""
    from phaselab.encoding import encode, summarise, write_voxels

    bench = unit.bench
    scores = encode(unit.aligned, bench.responses, bench.study.encoding, bench.study.brain.seed, device=bench.device)
    write_voxels(scores, folder / "voxels.zarr")
    return summarise(scores, bench.brain.rois, bench.brain.ceiling)
