"""Hidden states that are kept, and checkpoints of a model compared by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from phaselab.stages.context import Unit
from phaselab.stages.registry import STAGES, stage

FEATURES, SAMPLED = "features.zarr", "states.safetensors"


@stage("features", version=1, data=("checkpoint", "stimulus"), asked=lambda study, model: False)
def features(unit: Unit, folder: Path) -> None:
    """All of them, for work beyond the stages and where asked for alone: ``phaselab.features.read_features``."""
    from phaselab.features import write_features

    bench, path = unit.bench, folder / FEATURES
    spec = bench.study.features.model_dump(mode="json")
    write_features(unit.features, bench.brain.stimulus, path, unit=unit.same, device=bench.device, spec=spec)


@stage(
    "states",
    version=1,
    reads=("internals.samples",),
    data=("checkpoint", "stimulus"),
    asked=lambda study, model: study.internals.compare,
)
def states(unit: Unit, folder: Path) -> None:
    """Those of ``internals.samples`` words, float32 (n_words, p) for each layer."""
    from safetensors.numpy import save_file

    from phaselab.internals import sampled

    words = sampled(len(unit.bench.brain.stimulus.labels), unit.bench.study.internals)
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
