"""Internal states: registered measures and probes of hidden states."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pandas as pd

from phaselab.errors import expect
from phaselab.lazy import Lazy
from phaselab.stages.context import Unit
from phaselab.stages.registry import stage


@stage(
    "internal",
    version=2,
    reads=("internals.probes", "internals.samples", "internals.sparse", "internals.logistic"),
    data=("checkpoint", "stimulus"),
    perspective="internal",
    parts=lambda: import_module("phaselab.internals").versions(),
)
def internal(unit: Unit, folder: Path) -> pd.DataFrame:
    """All registered measures and the probes of the study, layer by layer, of the texts that have a state."""
    from phaselab.internals import measure

    taken, labels = unit.features, unit.bench.brain.stimulus.labels[unit.features.there]
    expect(len(labels) > 1, unit.model.name, f"{len(labels)} texts with hidden states", "two or more to measure")
    states = Lazy(taken.layers, lambda layer: taken.layers[layer][taken.there])
    # What has not been told yet cannot be read from a model; as a class of its own it could be guessed.
    rows = measure(states, labels.replace("unknown", ""), unit.bench.study.internals)
    rows.attrs["notes"] = {"not_probed": rows.attrs["left_out"], "features": taken.notes}
    return rows
