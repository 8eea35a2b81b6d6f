"""Hidden states that are kept, as Zarr: for work beyond the stages, and only where asked for (``--keep-features``)."""

from __future__ import annotations

from pathlib import Path

from phaselab.stages.context import Unit
from phaselab.stages.registry import STATES, stage

FILE = "features.zarr"


@stage(
    "features",
    version=1,
    reads=STATES,
    data=("checkpoint", "stimulus"),
    rooms=("checkpoints/load", "features", "stimuli"),
    asked=lambda study, model: False,
)
def features(unit: Unit, folder: Path) -> None:
    """One chunk per layer, with what they are in the attributes (``phaselab.features.read_features``)."""
    from phaselab.features import write_features

    spec = unit.bench.study.features.model_dump(mode="json")
    write_features(
        unit.features, unit.bench.brain.stimulus, folder / FILE, unit=unit.same, device=unit.bench.device, spec=spec
    )
