"""Features on disk, as Zarr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from phaselab.features.base import Features, Lazy
from phaselab.stimuli import Stimulus


def write_features(features: Features, stimulus: Stimulus, path: Path, **provenance: Any) -> None:
    """Write features as Zarr: ``states`` (n_layers, n_texts, p), a chunk per layer; ``onsets`` (n_texts,), s.

    Attributes of the group: ``layers``, ``runs`` (pairs of name and number of texts, in order), the
    ``notes``, and `provenance`. One layer is in memory at a time.
    """
    import zarr

    group = zarr.open_group(path, mode="w")
    layers = list(features.layers)
    n_texts, width = features.layers[layers[0]].shape
    shape, chunks = (len(layers), n_texts, width), (1, max(1, n_texts), width)
    states = group.create_array("states", shape=shape, chunks=chunks, dtype="float32")
    for number, layer in enumerate(layers):
        states[number] = features.layers[layer]
    group.create_array("onsets", data=np.concatenate([np.empty(0), *(run.onsets for run in stimulus.runs)]))
    runs = [[run.name, len(run.texts)] for run in stimulus.runs]
    group.attrs.update({"layers": layers, "runs": runs, "notes": features.notes, **provenance})


def read_features(path: Path) -> Features:
    """What ``write_features`` wrote; a layer is read when it is asked for."""
    import zarr

    group = zarr.open_group(path, mode="r")
    attrs: dict[str, Any] = group.attrs.asdict()
    states: Any = group["states"]
    layers = [int(layer) for layer in attrs["layers"]]
    names, counts = zip(*attrs["runs"], strict=True)
    read = Lazy(layers, lambda layer: np.asarray(states[layers.index(layer)]))
    return Features(read, np.repeat(np.array(names, dtype=str), counts), attrs["notes"])
