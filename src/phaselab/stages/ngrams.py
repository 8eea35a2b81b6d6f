"""What n-gram statistics of the training text explain of the log-probabilities of a model, and its held-out loss."""

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
    rooms=("checkpoints/load", "internals", "texts"),
    perspective="internal",
    asked=lambda study, model: study.internals.ngrams > 0 and model.train is not None,
)
def ngrams(unit: Unit, folder: Path) -> pd.DataFrame:
    """Correlations with 1-, 2- and 3-grams of the text that the model was trained on."""
    from phaselab.internals import ngrams as counts

    bench, model = unit.bench, unit.model
    assert model.train is not None
    network, tokenizer = unit.loaded
    source, key = bench.source(model), ("ngrams", model.name)
    if key not in bench.kept:
        bench.kept[key] = counts.count(source, model.train, bench.study.internals.ngrams, len(tokenizer))
    return counts.measure(network, source, model.train, bench.kept[key])
