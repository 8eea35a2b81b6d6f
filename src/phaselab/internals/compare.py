"""One checkpoint's hidden states beside another's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from phaselab.errors import expect
from phaselab.stats import cka


def compare(layers: Mapping[int, np.ndarray], others: Mapping[int, np.ndarray], to: str) -> pd.DataFrame:
    """Compare the hidden states of one checkpoint with those of another for the same words.

    Parameters
    ----------
    layers, others : layer -> (n_words, n_features); the same words in the same order.
    to : what the other checkpoint is (``final``, ``previous``), the end of the measures' names.

    Returns
    -------
    One row per layer and measure: ``layer, measure, task, value, stderr``. ``cka_<to>``: linear centred kernel
    alignment, 1 for the same geometry, whatever the axes; ``drift_<to>``, where features are as many: mean over words
    of one minus the cosine between a word's two centred hidden states, what moved on the network's own axes; its
    standard error.
    """
    expect(set(layers) == set(others), "layers", f"{sorted(layers)} and {sorted(others)}", "the same")
    rows = []
    for layer, states in layers.items():
        other = others[layer]
        expect(len(states) == len(other), f"layer {layer}", f"{len(states)} and {len(other)} words", "as many")
        rows.append((layer, f"cka_{to}", "", cka(states, other), float("nan")))
        if states.shape == other.shape:
            a, b = (v.astype(np.float64) - v.mean(0, dtype=np.float64) for v in (states, other))
            lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            apart = 1 - (a * b).sum(1)[lengths > 0] / lengths[lengths > 0]
            if (n := len(apart)) > 1:
                rows.append((layer, f"drift_{to}", "", float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(n))))
    return pd.DataFrame(rows, columns=["layer", "measure", "task", "value", "stderr"])
