"""Checkpoints of a model beside each other: hidden states that are kept, and what they have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phaselab.stages.context import Unit
from phaselab.stages.registry import STAGES, STATES, stage
from phaselab.study import Model, Study

FILE = "states.safetensors"


def _asked(study: Study, model: Model) -> bool:
    return study.internals.compare


@stage(
    "states",
    version=1,
    reads=(*STATES, "internals.samples"),
    data=("checkpoint", "stimulus"),
    rooms=("checkpoints/load", "features", "stimuli"),
    asked=_asked,
)
def states(unit: Unit, folder: Path) -> None:
    """Hidden states of ``internals.samples`` words, float32 (n_words, p) for each layer."""
    from safetensors.numpy import save_file

    from phaselab.internals import sampled

    words = sampled(len(unit.bench.brain.stimulus.labels), unit.bench.study.internals)
    save_file({str(layer): values[words] for layer, values in unit.features.layers.items()}, folder / FILE)


@stage(
    "compare",
    version=1,
    data=(),
    rooms=("internals",),
    perspective="internal",
    scope="model",
    after="states",
    asked=_asked,
)
def compare(unit: Unit, folder: Path) -> pd.DataFrame:
    """Alignment and drift of each checkpoint with the last one and with the one before."""
    from safetensors.numpy import load_file

    from phaselab import internals

    bench, model = unit.bench, unit.model

    def read(at: int) -> dict[int, np.ndarray]:
        kept = bench.place(STAGES["states"], model, checkpoints[at]) / FILE
        return {int(layer): values for layer, values in load_file(kept).items()}

    checkpoints = bench.checkpoints(model)
    final, before, tables = read(-1), None, []
    for at, checkpoint in enumerate(checkpoints):
        own = read(at)
        others = {"final": final} | ({} if before is None else {"previous": before})
        place: dict[str, Any] = {
            "checkpoint": checkpoint.revision,
            "step": checkpoint.step,
            "tokens": checkpoint.tokens,
        }
        tables += [internals.compare(own, other, to).assign(**place) for to, other in others.items()]
        before = own
    return pd.concat(tables, ignore_index=True)
