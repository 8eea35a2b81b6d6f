"""Checkpoints of a model beside each other: hidden states that are kept, and what they have in common."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from phaselab.stages.context import Unit
from phaselab.stages.registry import STAGES, stage

SAMPLED = "states.safetensors"


@stage(
    "states",
    version=2,
    reads=("internals.samples",),
    data=("checkpoint", "stimulus"),
    asked=lambda study, model: study.internals.compare,
)
def states(unit: Unit, folder: Path) -> None:
    """Those of ``internals.samples`` words, float32 (n_words, p) for each layer."""
    from safetensors.numpy import save_file

    from phaselab.internals import sampled

    there = np.flatnonzero(unit.features.there)
    words = there[sampled(len(there), unit.bench.study.internals)]
    save_file({str(layer): values[words] for layer, values in unit.features.layers.items()}, folder / SAMPLED)


@stage(
    "compare",
    version=1,
    data=(),
    perspective="internal",
    scope="model",
    after="states",
    asked=lambda study, model: study.internals.compare,
)
def compare(unit: Unit, folder: Path) -> pd.DataFrame:
    """Alignment and drift of each checkpoint with the last one and with the one before."""
    from safetensors.numpy import load_file

    from phaselab import internals

    def read(one: Unit) -> dict[int, np.ndarray]:
        kept = one.bench.place(STAGES["states"], one.model, one.checkpoint) / SAMPLED
        return {int(layer): values for layer, values in load_file(kept).items()}

    units = [replace(unit, checkpoint=checkpoint) for checkpoint in unit.bench.checkpoints(unit.model)]
    final, before, tables = read(units[-1]), None, []
    for one in units:
        own = read(one)
        others = {"final": final} | ({} if before is None else {"previous": before})
        tables += [internals.compare(own, other, to).assign(**one.same) for to, other in others.items()]
        before = own
    return pd.concat(tables, ignore_index=True)
