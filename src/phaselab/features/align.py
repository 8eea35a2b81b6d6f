"""Features on the TRs of the responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from phaselab import stimuli
from phaselab.errors import expect
from phaselab.features.store import FeatureError, Features
from phaselab.lazy import Lazy
from phaselab.stimuli import Stimulus
from phaselab.study import FeatureSpec


def to_trs(features: Features, stimulus: Stimulus, spec: FeatureSpec) -> Mapping[int, dict[str, np.ndarray]]:
    """Features on the TR grid, haemodynamics included, each run by itself; of items, one row each.

    Gives layer -> run -> float32 (n_trs - trim, p), or p times the number of delays where they are stacked; the first
    ``spec.trim`` TRs of each run are dropped. A layer is computed when it is asked for, and only one is in memory.
    """
    names = [run.name for run in stimulus.runs for _ in run.texts]
    same, found = list(features.runs) == names, dict(Counter(map(str, features.runs)))
    expected = f"{dict(Counter(names))} of stimulus {stimulus.name}"
    expect(same, "features: texts by run", found, expected, FeatureError)
    for run in stimulus.runs:
        left, more = run.n_trs > spec.trim, f"fewer than its {run.n_trs} TRs"
        expect(left, f"run {run.name}: trim", spec.trim, more, FeatureError)

    def aligned(layer: int) -> dict[str, np.ndarray]:
        parts = np.split(features.layers[layer], np.cumsum([len(run.texts) for run in stimulus.runs])[:-1])
        of_run = zip(stimulus.runs, parts, strict=True)
        return {run.name: stimuli.align(part, run, spec)[spec.trim :] for run, part in of_run}

    return Lazy(features.layers, aligned)
