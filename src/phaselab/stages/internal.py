"""Internal states: measures and probes of hidden states, attention heads, and what n-grams explain."""

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


@stage(
    "attention",
    version=1,
    reads=("internals.attention",),
    perspective="internal",
    asked=lambda study, model: study.internals.attention > 0,
)
def attention(unit: Unit, folder: Path) -> pd.DataFrame:
    """Induction and previous-token scores of attention heads on repeated random sequences, layer by layer."""
    from phaselab.internals.attention import head_scores

    return head_scores(*unit.loaded, unit.bench.study.internals.attention)


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
