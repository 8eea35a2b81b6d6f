"""Features on the TRs of the responses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from phaselab import stimuli
from phaselab.errors import expect
from phaselab.features.base import FeatureError, Features, Lazy
from phaselab.stimuli import Stimulus
from phaselab.study import FeatureSpec


def to_trs(features: Features, stimulus: Stimulus, spec: FeatureSpec) -> Mapping[int, dict[str, np.ndarray]]:
    """Features on the TR grid, haemodynamics included, each run by itself; of items, one row each.

    Returns
    -------
    layer -> run -> float32 (n_trs - trim, p), or p times the number of delays where they are
    stacked; the first ``spec.trim`` TRs of each run are dropped. A layer is computed when it is asked
    for, so that only one of them need be in memory.
    """
    names = [run.name for run in stimulus.runs for _ in run.texts]
    found, right = (
        f"{len(of)} texts in runs {', '.join(dict.fromkeys(map(str, of))) or '(none)'}" for of in (features.runs, names)
    )
    same = list(features.runs) == names
    expect(same, "features", found, f"{right} of stimulus {stimulus.name}", FeatureError)
    for run in stimulus.runs:
        expect(
            run.n_trs > spec.trim, f"run {run.name}: trim", spec.trim, f"fewer than its {run.n_trs} TRs", FeatureError
        )

    def aligned(layer: int) -> dict[str, np.ndarray]:
        parts = np.split(features.layers[layer], np.cumsum([len(run.texts) for run in stimulus.runs])[:-1])
        return {
            run.name: stimuli.align(values, run, spec)[spec.trim :]
            for run, values in zip(stimulus.runs, parts, strict=True)
        }

    return Lazy(list(features.layers), aligned)
