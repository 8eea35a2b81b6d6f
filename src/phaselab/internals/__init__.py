"""What is inside a model: registered measures of each layer's hidden states, and linear probes of them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from phaselab.errors import expect
from phaselab.internals import probes
from phaselab.internals.registry import geometry, versions
from phaselab.stats import cka
from phaselab.study import InternalSpec

__all__ = ["cka", "compare", "geometry", "measure", "sampled", "versions"]

COLUMNS = ["layer", "measure", "task", "value", "stderr"]


def measure(layers: Mapping[int, np.ndarray], labels: pd.DataFrame, spec: InternalSpec) -> pd.DataFrame:
    """Measure the hidden states of one checkpoint, layer -> float32 (n_words, n_features).

    `labels` has one row per word: ``word``, its type; ``narrative``, if there, whose words stay in one fold; and
    labels, text for classes, float for values, where "" and NaN are none; ``attrs["left_out"]`` of the result says of
    which label why it was not probed. Gives one row per layer, measure and probed label (column ``task``, else empty):
    each registered measure where it is defined, and for each label, over folds:

    - ``probe_accuracy`` (classes): share of words of held-out narratives whose label is found; ``probe_correlation``
      and ``probe_r2`` (values): Pearson correlation with, and variance explained of, the held-out values;
    - ``probe_control``: the first of these for labels that belong to the word's type and to nothing else: each type
      has one label drawn from the labels' distribution (Hewitt & Liang 2019); ``probe_selectivity``: first minus it;
    - ``probe_shuffled``: the first for the same labels in random order; ``probe_chance``: share of the most frequent
      class, 0 for values;
    - ``probe_sparse_<k>`` for each k of ``spec.sparse`` (classes): accuracy of probes that see, for each class, only
      the k neurons whose means within and outside it differ most, in standard deviations (Gurnee et al. 2023);
    - ``probe_logistic`` and ``probe_logistic_shuffled`` (classes, with ``spec.logistic``): ``probe_accuracy`` and
      ``probe_shuffled`` by multinomial logistic regression, its penalty chosen in the same way.
    """
    for column in ("word", *spec.probes) if spec.probes else ():
        expect(column in labels, "labels", f"columns {', '.join(map(str, labels))}", f"{column!r} too")
    sample = sampled(len(labels), spec)
    groups, left_out = probes.targets(labels.iloc[sample].reset_index(drop=True), spec.probes)
    rows: list[tuple[int, str, str, float, float]] = []
    for layer, values in layers.items():
        expect(np.isfinite(values).all(), f"layer {layer}", "numbers that are not finite", "none")
        states = values[sample].astype(np.float64)  # (n, p)
        rows += [(layer, name, "", *value) for name, value in geometry(states).items()]
        rows += [(layer, *row) for group in groups for row in probes.probe(states, group, spec)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame.attrs["left_out"] = left_out
    return frame


def sampled(n: int, spec: InternalSpec) -> np.ndarray:
    """Which of `n` words are measured: at most ``spec.samples``, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(spec.samples, n)).round().astype(int))


def compare(layers: Mapping[int, np.ndarray], others: Mapping[int, np.ndarray], to: str) -> pd.DataFrame:
    """Compare hidden states, layer -> (n_words, n_features), with another checkpoint's (`to`) for the same words.

    ``cka_<to>``: linear centred kernel alignment, 1 for the same geometry, whatever the axes; ``drift_<to>``: mean over
    words of one minus the cosine between a word's two centred hidden states, what moved on the network's own axes.
    """
    rows = []
    for layer, states in layers.items():
        rows.append((layer, f"cka_{to}", "", cka(states, others[layer]), float("nan")))
        a, b = (v.astype(np.float64) - v.mean(0, dtype=np.float64) for v in (states, others[layer]))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        apart = 1 - (a * b).sum(1)[lengths > 0] / lengths[lengths > 0]
        if (n := len(apart)) > 1:
            rows.append((layer, f"drift_{to}", "", float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(n))))
    return pd.DataFrame(rows, columns=COLUMNS)
