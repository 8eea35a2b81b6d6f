"""Internal states: registered measures and probes of hidden states."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pandas as pd

from phaselab.stages.context import Unit
from phaselab.stages.registry import stage


@stage(
    "internal",
    version=1,
    reads=("internals.probes", "internals.samples", "internals.sparse", "internals.logistic"),
    data=("checkpoint", "stimulus"),
    perspective="internal",
    parts=lambda: import_module("phaselab.internals").versions(),
)
def internal(unit: Unit, folder: Path) -> pd.DataFrame:
    """All registered measures and the probes of the study, layer by layer."""
    from phaselab.internals import measure

    # What has not been told yet cannot be read from a model; as a class of its own it could be guessed.
    labels = unit.bench.brain.stimulus.labels.replace("unknown", "")
    rows = measure(unit.features.layers, labels, unit.bench.study.internals)
    rows.attrs["notes"] = {"not_probed": rows.attrs["left_out"], "features": unit.features.notes}
    return rows
