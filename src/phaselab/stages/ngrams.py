"""Log-probabilities beside n-grams of the training text."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from phaselab.stages.context import Unit
from phaselab.stages.registry import stage


@stage(
    "ngrams",
    version=1,
    reads=("internals.ngrams",),
    data=("checkpoint", "text"),
    perspective="internal",
    asked=lambda study, model: study.internals.ngrams > 0 and model.train is not None,
)
def ngrams(unit: Unit, folder: Path) -> pd.DataFrame:
    """What 1-, 2- and 3-grams of the training text explain of a model's log-probabilities, and its held-out loss."""
    from phaselab.internals import ngrams

    bench, model = unit.bench, unit.model
    assert model.train is not None
    network, tokenizer = unit.loaded
    source, batches = bench.source(model), bench.study.internals.ngrams
    counts = bench.once(("ngrams", model.name), ngrams.count, source, model.train, batches, len(tokenizer))
    return ngrams.measure(network, source, model.train, counts)
