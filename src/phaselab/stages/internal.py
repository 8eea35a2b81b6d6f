"""Internal states: hidden states and what is measured of them, attention heads, n-grams, checkpoints side by side."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phaselab.errors import expect, number_of
from phaselab.lazy import Lazy
from phaselab.stages.context import STAGES, Unit, stage, when

SAMPLED = "states.safetensors"
_MEASURED = tuple(f"internals.{name}" for name in ("probes", "samples", "sparse", "logistic"))
_HEARD = ("checkpoint", "stimulus")
_ROWS: dict[str, Any] = {"perspective": "internal"}


@stage("attention", version=2, reads=("internals.attention",), asked=when("internals.attention"), **_ROWS)
def attention(unit: Unit, folder: Path) -> pd.DataFrame:
    """Induction and previous-token scores of attention heads on repeated random sequences, layer by layer."""
    from phaselab.internals.attention import head_scores

    return head_scores(*unit.loaded, unit.bench.study.internals.attention)


@stage("features", version=2, data=_HEARD, asked=lambda study, model: False)
def features(unit: Unit, folder: Path) -> None:
    """All hidden states, for work beyond the stages (``phaselab.features.read_features``); asked for by name alone."""
    from phaselab.features import write_features

    bench, path = unit.bench, folder / "features.zarr"
    spec = bench.study.features.model_dump(mode="json")
    write_features(unit.features, bench.brain.stimulus, path, unit=unit.same, device=bench.device, spec=spec)


@stage(
    "internal", 2, reads=_MEASURED, data=_HEARD, parts=lambda: import_module("phaselab.internals").versions(), **_ROWS
)
def internal(unit: Unit, folder: Path) -> pd.DataFrame:
    """All registered measures and the probes of the study, layer by layer, of the texts that have a state."""
    from phaselab.internals import measure

    taken, labels = unit.features, unit.bench.brain.stimulus.labels[unit.features.there]
    found = f"{number_of(len(labels), 'text')} with hidden states"
    expect(len(labels) > 1, unit.model.name, found, "two or more to measure")
    states = Lazy(taken.layers, lambda layer: taken.layers[layer][taken.there])
    # What has not been told yet cannot be read from a model; as a class of its own it could be guessed.
    rows = measure(states, labels.replace("unknown", ""), unit.bench.study.internals)
    rows.attrs["notes"] = {"not_probed": rows.attrs["left_out"], "features": taken.notes}
    return rows


@stage(
    "ngrams", 1, reads=("internals.ngrams",), data=("checkpoint", "text"), asked=when("internals.ngrams", True), **_ROWS
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


@stage("states", version=2, reads=("internals.samples",), data=_HEARD, asked=when("internals.compare"))
def states(unit: Unit, folder: Path) -> None:
    """Those of ``internals.samples`` words, float32 (n_words, p) for each layer."""
    from safetensors.numpy import save_file

    from phaselab.internals import sampled

    there = np.flatnonzero(unit.features.there)
    words = there[sampled(len(there), unit.bench.study.internals)]
    save_file({str(layer): values[words] for layer, values in unit.features.layers.items()}, folder / SAMPLED)


@stage("compare", version=1, data=(), scope="model", after="states", asked=when("internals.compare"), **_ROWS)
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
