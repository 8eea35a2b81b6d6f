"""Attention heads on repeated random sequences."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phaselab.stages.context import Unit
from phaselab.stages.registry import stage


@stage(
    "attention",
    version=2,
    reads=("internals.attention",),
    perspective="internal",
    asked=lambda study, model: study.internals.attention > 0,
)
def attention(unit: Unit, folder: Path) -> pd.DataFrame:
    """Induction and previous-token scores of attention heads on repeated random sequences, layer by layer."""
    from phaselab.internals.attention import head_scores

    return head_scores(*unit.loaded, unit.bench.study.internals.attention)
