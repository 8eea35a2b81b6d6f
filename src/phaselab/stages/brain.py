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


@stage("brain", version=2, reads=RIDGE, **ALIKE)
def brain(unit: Unit, folder: Path) -> pd.DataFrame:
    """Scores of each region; ``voxels.zarr`` keeps those of each voxel."""
    from phaselab.encoding import encode, summarise, write_voxels

    bench, spec, of_brain = unit.bench, unit.bench.study.encoding, unit.bench.brain
    how: dict[str, Any] = {"seed": bench.study.brain.seed, "device": bench.device, "given": of_brain.folds}
    scores = encode(unit.aligned, bench.responses, spec, **how)
    write_voxels(scores, folder / "voxels.zarr")
    return summarise(scores, of_brain.rois, of_brain.ceiling)
