"""Representational similarity (RSA) and centred kernel alignment (CKA) of layers with regions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phaselab.stages.brain import ALIKE
from phaselab.stages.context import Unit
from phaselab.stages.registry import stage


@stage(
    "similarity",
    version=2,
    reads=("encoding.similarity",),
    asked=lambda study, model: bool(study.encoding.similarity),
    **ALIKE,
)
def similarity(unit: Unit, folder: Path) -> pd.DataFrame:
    """Representational similarity and kernel alignment of each layer with each region, as the study asks for."""
    from phaselab.encoding import similarity as measures

    bench = unit.bench
    return measures.summarise(unit.aligned, bench.responses, bench.brain.rois, bench.study.encoding.similarity)
