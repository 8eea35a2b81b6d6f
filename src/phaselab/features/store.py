"""What features are: in memory, on disk (Zarr), and on the TRs of the responses."""

from collections.abc import Callable, Mapping
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

Say = Callable[[str], None]
#: Values of a chunk of Zarr at most, whose compressor takes 2 GiB.
CHUNK = 1 << 28


@dataclass(frozen=True)
class Features:
    """Hidden states of a stimulus, one row per text, the runs one after another.

    Layer 0 is the embedding output, the last one is after the final norm, as in the ``hidden_states`` of transformers
    (where those of Mamba leave the embeddings out). `notes` count ``texts``; ``empty``, without a state; ``truncated``,
    with less context than asked for (or cut); ``documents``; ``tokens`` through the network; ``batch_tokens``, most of
    a batch, fewer if memory ran out; and say what begins every pass (``opening``).
    """

    layers: Mapping[int, np.ndarray]  # layer -> float32 (n_texts, p), made when it is asked for
    runs: np.ndarray  # (n_texts,) name of the run of each text
    there: np.ndarray  # (n_texts,) whether a text has a state of its own; else it is 0 or as the one before (``empty``)
    notes: dict[str, Any]


def write_features(features: Features, stimulus: Stimulus, path: Path, **provenance: Any) -> None:
    """Write features as Zarr: ``states`` (as `write_layers` does), ``onsets`` (n_texts,), seconds, and ``there``."""
    group = zarr.open_group(path, mode="w")
    write_layers(features.layers, path / "states")
    group.create_array("onsets", data=np.concatenate([np.empty(0), *(run.onsets for run in stimulus.runs)]))
    group.create_array("there", data=features.there)
    runs: Any = [[run.name, len(run.texts)] for run in stimulus.runs]
    group.attrs.update({"layers": list(features.layers), "runs": runs, "notes": features.notes, **provenance})


def joined(aligned: Mapping[int, Mapping[str, np.ndarray]]) -> Mapping[int, np.ndarray]:
    """What `to_trs` gives with all runs in one, made when asked for: layer -> (TRs, p)."""
    return Lazy(aligned, lambda layer: np.concatenate([*aligned[layer].values()]))


def write_layers(layers: Mapping[int, np.ndarray], path: Path, **provenance: Any) -> None:
    """Write layers (n, p), one after another, as a Zarr array (n_layers, n, p) whose attributes say which they are."""
    n, width = layers[next(iter(layers))].shape
    chunks, shape = (1, max(1, min(n, CHUNK // width)), width), (len(layers), n, width)
    array: Any = zarr.create_array(path, shape=shape, chunks=chunks, dtype="float32")
    for at, values in enumerate(layers.values()):
        array[at] = values
    array.attrs["phaselab"] = {"layers": list(layers), **provenance}


def read_features(path: Path) -> Features:
    """What ``write_features`` wrote; a layer is read when it is asked for."""
    group: Any = zarr.open_group(path, mode="r")
    attrs: dict[str, Any] = group.attrs.asdict()
    expect("there" in group, str(path), "features of an older version", "those of this one: make them again")
    states, layers = group["states"], attrs["layers"]
    names, counts = zip(*attrs["runs"], strict=True)
    read, runs = Lazy(layers, lambda layer: np.asarray(states[layers.index(layer)])), np.array(names, dtype=str)
    return Features(read, np.repeat(runs, counts), np.asarray(group["there"]), attrs["notes"])


def to_trs(
    features: Features, stimulus: Stimulus, spec: FeatureSpec, say: Say = lambda message: None
) -> Mapping[int, dict[str, np.ndarray]]:
    """Features on the TR grid (``stimuli.align``): layer -> run -> float32 (n_trs - trim, p), made when asked for.

    `say` receives a sentence when `trim` is shorter than the haemodynamics carry what is in a run's first TR.
    """
    names = [run.name for run in stimulus.runs for _ in run.texts]
    expect(list(features.runs) == names, "features", "other texts by run", f"those of stimulus {stimulus.name}")
    for run in stimulus.runs:
        fewer = f"fewer than its {run.n_trs} TRs"
        expect(run.n_trs > run.dropped(spec.trim), f"run {run.name}: trim", spec.trim, fewer)
    for tr in {run.tr for run in stimulus.runs if spec.trim < stimuli.carried(run.tr, spec)}:
        first = f"but {stimuli.carried(tr, spec)} TRs of {tr:g} s have a part of what is in the first one"
        say(f"features.trim: {spec.trim} TRs of a run are dropped, {first} (hemodynamics: {spec.hemodynamics})")

    def aligned(layer: int) -> dict[str, np.ndarray]:
        parts = np.split(features.layers[layer], np.cumsum([len(run.texts) for run in stimulus.runs])[:-1])
        of_run = zip(stimulus.runs, parts, strict=True)
        return {run.name: stimuli.align(part, run, spec)[run.dropped(spec.trim) :] for run, part in of_run}

    return Lazy(features.layers, aligned)
