"""What features are: in memory, on disk (Zarr), and on the TRs of the responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from phaselab import stimuli
from phaselab.errors import expect
from phaselab.lazy import Lazy
from phaselab.stimuli import Stimulus
from phaselab.study import FeatureSpec


@dataclass(frozen=True)
class Features:
    """Hidden states of a stimulus, one row per text, the runs one after another.

    layers : layer -> float32 (n_texts, p), made when it is asked for; 0 is the embedding output, the last one is after
        the final norm, as in the ``hidden_states`` of transformers (where those of Mamba leave the embeddings out).
    runs : (n_texts,) name of the run of each text.
    notes : counts: ``texts``; ``empty``, without a token; ``truncated``, with less context than asked for (or cut);
        ``documents``; ``tokens`` through the network; ``batch_tokens``, most of a batch, fewer if memory ran out.
    """

    layers: Mapping[int, np.ndarray]
    runs: np.ndarray
    notes: dict[str, int]


def write_features(features: Features, stimulus: Stimulus, path: Path, **provenance: Any) -> None:
    """Write features as Zarr, layer by layer: ``states`` (n_layers, n_texts, p), and ``onsets`` (n_texts,), seconds."""
    group = zarr.open_group(path, mode="w")
    layers = list(features.layers)
    n_texts, width = features.layers[layers[0]].shape
    shape = len(layers), n_texts, width
    states = group.create_array("states", shape=shape, chunks=(1, max(1, n_texts), width), dtype="float32")
    for number, layer in enumerate(layers):
        states[number] = features.layers[layer]
    group.create_array("onsets", data=np.concatenate([np.empty(0), *(run.onsets for run in stimulus.runs)]))
    runs: Any = [[run.name, len(run.texts)] for run in stimulus.runs]
    group.attrs.update({"layers": layers, "runs": runs, "notes": features.notes, **provenance})


def read_features(path: Path) -> Features:
    """What ``write_features`` wrote; a layer is read when it is asked for."""
    group = zarr.open_group(path, mode="r")
    attrs: dict[str, Any] = group.attrs.asdict()
    states: Any = group["states"]
    layers = attrs["layers"]
    names, counts = zip(*attrs["runs"], strict=True)
    read = Lazy(layers, lambda layer: np.asarray(states[layers.index(layer)]))
    return Features(read, np.repeat(np.array(names, dtype=str), counts), attrs["notes"])


def to_trs(features: Features, stimulus: Stimulus, spec: FeatureSpec) -> Mapping[int, dict[str, np.ndarray]]:
    """Features on the TR grid, haemodynamics included: layer -> run -> float32 (n_trs - trim, p), made when asked for.

    Where delays are stacked p is multiplied by their number; of items there is one row each.
    """
    names = [run.name for run in stimulus.runs for _ in run.texts]
    expect(list(features.runs) == names, "features", "other texts by run", f"those of stimulus {stimulus.name}")
    for run in stimulus.runs:
        expect(run.n_trs > spec.trim, f"run {run.name}: trim", spec.trim, f"fewer than its {run.n_trs} TRs")

    def aligned(layer: int) -> dict[str, np.ndarray]:
        parts = np.split(features.layers[layer], np.cumsum([len(run.texts) for run in stimulus.runs])[:-1])
        of_run = zip(stimulus.runs, parts, strict=True)
        return {run.name: stimuli.align(part, run, spec)[spec.trim :] for run, part in of_run}

    return Lazy(features.layers, aligned)
