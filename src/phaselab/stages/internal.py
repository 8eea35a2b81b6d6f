"""Internal states: geometry of the hidden states and probes of what is told."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phaselab.stages.context import Unit
from phaselab.stages.registry import STATES, stage


def _versions() -> dict[str, int]:
    from phaselab.internals import versions

    return versions()


@stage(
    "internal",
    version=1,
    reads=(*STATES, "internals.probes", "internals.samples", "internals.sparse", "internals.logistic"),
    data=("checkpoint", "stimulus"),
    rooms=("checkpoints/load", "features", "internals", "stimuli"),
    perspective="internal",
    parts=_versions,
)
def internal(unit: Unit, folder: Path) -> pd.DataFrame:
    """All registered measures and the probes of the study, layer by layer."""
    from phaselab.internals import measure

    # What has not been told yet cannot be read from a model; as a class of its own it could be guessed.
    labels = unit.bench.brain.stimulus.labels.replace("unknown", "")
    rows = measure(unit.features.layers, labels, unit.bench.study.internals)
    rows.attrs["notes"] = {"not_probed": rows.attrs["left_out"], "features": unit.features.notes}
    return rows
