"""Hidden states of all words, kept for work beyond the stages."""

from __future__ import annotations

from pathlib import Path

from phaselab.stages.context import Unit
from phaselab.stages.registry import stage


@stage("features", version=2, data=("checkpoint", "stimulus"), asked=lambda study, model: False)
def features(unit: Unit, folder: Path) -> None:
    """All of them, for work beyond the stages and where asked for alone: ``phaselab.features.read_features``."""
    from phaselab.features import write_features

    bench, path = unit.bench, folder / "features.zarr"
    spec = bench.study.features.model_dump(mode="json")
    write_features(unit.features, bench.brain.stimulus, path, unit=unit.same, device=bench.device, spec=spec)
