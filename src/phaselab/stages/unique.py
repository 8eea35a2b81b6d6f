"""Unique contributions: what a layer explains beyond nuisance regressors of the stimulus."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phaselab.stages.brain import BESIDE, RIDGE
from phaselab.stages.context import Unit
from phaselab.stages.registry import stage
from phaselab.study import at_depth


@stage("unique", version=3, reads=(*RIDGE, "phases.layer"), asked=lambda study, model: study.encoding.unique, **BESIDE)
def unique(unit: Unit, folder: Path) -> pd.DataFrame:
    """Variance that the layer of the phases' rule (all for ``mean``, ``best``) explains beyond nuisance, by region."""
    from phaselab.encoding.unique import unique_contribution

    bench, study, rois = unit.bench, unit.bench.study, unit.bench.brain.rois
    nuisance, rule, layers = bench.trimmed(bench.brain.nuisance), study.phases.layer, sorted(unit.aligned)
    if not isinstance(rule, str):
        layers = [at_depth(layers, rule) if isinstance(rule, float) else rule]
    X = {layer: unit.aligned[layer] for layer in layers}
    return unique_contribution(X, nuisance, bench.responses, study.encoding, rois=rois, device=bench.device)
