"""What features are: one array per layer, made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from phaselab.errors import PhaselabError

Value = TypeVar("Value")


class FeatureError(PhaselabError):
    """Features that cannot be had or used; the message names the model, the layer or the run."""


class Lazy(Mapping[int, Value]):
    """A mapping from layers to what `make` gives for them, made anew whenever it is asked for."""

    def __init__(self, layers: Sequence[int], make: Callable[[int], Value]) -> None:
        self._layers, self._make = tuple(layers), make

    def __getitem__(self, layer: int) -> Value:
        if layer not in self._layers:
            raise KeyError(layer)
        return self._make(layer)

    def __iter__(self) -> Iterator[int]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


@dataclass(frozen=True)
class Features:
    """Hidden states of a stimulus, one row per text, the runs one after another.

    Attributes
    ----------
    layers : layer -> float32 (n_texts, p); 0 is the embedding output, the last one is after the
        final norm, as in the ``hidden_states`` of transformers (where those of Mamba leave the
        embedding output out). A layer is put together when it is asked for.
    runs : (n_texts,) name of the run of each text.
    notes : counts: ``texts``; ``empty``, texts without a token; ``truncated``, texts that got less
        context than the window asks for (or were cut themselves) because the model's context is
        shorter; ``documents``, different ones; ``tokens``, that went through the network;
        ``batch_tokens``, most tokens of a batch at the end, less than at first if memory ran out.
    """

    layers: Mapping[int, np.ndarray]
    runs: np.ndarray
    notes: dict[str, int]
