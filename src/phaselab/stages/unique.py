"""Unique contributions: what a layer explains beyond nuisance regressors of the stimulus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from phaselab.stages.brain import ALIKE, RIDGE
from phaselab.stages.context import Unit
from phaselab.stages.registry import stage


@stage("unique", version=2, reads=RIDGE, asked=lambda study, model: study.encoding.unique, **ALIKE)
def unique(unit: Unit, folder: Path) -> pd.DataFrame:
    """Variance that each layer explains beyond word rate and other nuisance of the stimulus, by region."""
    from phaselab.encoding.unique import unique_contribution

    bench, study, brain = unit.bench, unit.bench.study, unit.bench.brain
    nuisance, spec, seed = bench.trimmed(brain.nuisance), study.encoding, study.brain.seed
    how: dict[str, Any] = {"rois": brain.rois, "device": bench.device, "given": brain.folds}
    return unique_contribution(unit.aligned, nuisance, bench.responses, spec, seed, **how)
