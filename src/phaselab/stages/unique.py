"""Unique contributions: what a layer explains beyond nuisance regressors of the stimulus."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phaselab.stages.brain import ALIKE, RIDGE
from phaselab.stages.context import Unit
from phaselab.stages.registry import stage


@stage("unique", version=2, reads=RIDGE, asked=lambda study, model: study.encoding.unique, **ALIKE)
def unique(unit: Unit, folder: Path) -> pd.DataFrame:
    """Variance that each layer explains beyond word rate and other nuisance of the stimulus, by region."""
    from phaselab.encoding.unique import unique_contribution

    bench, study, rois = unit.bench, unit.bench.study, unit.bench.brain.rois
    nuisance, spec, seed = bench.trimmed(bench.brain.nuisance), study.encoding, study.brain.seed
    return unique_contribution(unit.aligned, nuisance, bench.responses, spec, seed, rois=rois, device=bench.device)
