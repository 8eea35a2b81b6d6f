"""What is inside a model: registered measures of each layer's hidden states, and linear probes of them.

Attention heads (``attention``) and n-gram statistics (``ngrams``) take passes of the model of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from phaselab.errors import PhaselabError, expect
from phaselab.internals import probes
from phaselab.internals.compare import compare
from phaselab.internals.registry import geometry, labels, versions
from phaselab.stats import cka
from phaselab.study import InternalSpec

__all__ = ["cka", "compare", "geometry", "labels", "measure", "sampled", "versions"]


def measure(layers: Mapping[int, np.ndarray], labels: pd.DataFrame, spec: InternalSpec, seed: int = 0) -> pd.DataFrame:
    """Measure the hidden states of one checkpoint.

    Parameters
    ----------
    layers : layer -> (n_words, n_features) hidden states, float32.
    labels : one row per word. Column ``word`` is its type, which the controls need; ``narrative``, if there, keeps the
        words of a narrative in one fold; the other columns are labels: text for classes, float for values. A word with
        an empty text or NaN has no label.
    spec : the study's section ``internals``: which columns to probe, and of how many words at most, evenly spaced.
    seed : of the control labels; they are the same for all layers and checkpoints.

    Returns
    -------
    One row per layer, measure and probed label: ``layer, measure, task, value, stderr`` (`task` is the label or empty):
    each registered measure where it is defined (``registry``), and for each label, over folds:

    - ``probe_accuracy`` (classes): share of words of held-out narratives whose label is found; ``probe_correlation``
      and ``probe_r2`` (values): Pearson correlation with, and variance explained of, the held-out values;
    - ``probe_control``: the first of these for labels that belong to the word's type and to nothing else: each type
      has one label drawn from the labels' distribution (Hewitt & Liang 2019); ``probe_selectivity``: first minus it;
    - ``probe_shuffled``: the first for the same labels in random order; ``probe_chance``: share of the most frequent
      class, which is what always giving it reaches; 0 for values;
    - ``probe_sparse_<k>`` for each k of ``spec.sparse`` (classes): accuracy of probes that see, for each class, only
      the k single neurons whose means within and outside the class differ most in the folds of the fit, in units of
      the neuron's standard deviation (Gurnee et al. 2023);
    - ``probe_logistic`` and ``probe_logistic_shuffled`` (classes, with ``spec.logistic``): ``probe_accuracy`` and
      ``probe_shuffled`` by multinomial logistic regression, its penalty chosen in the same way.

    ``attrs["left_out"]`` of the table: label -> why it was not probed. Raises PhaselabError when shapes do not agree, a
    layer holds numbers that are not finite, or a column is not there.
    """
    n = len(labels)
    for layer, values in layers.items():
        expect(values.shape[:-1] == (n,), f"layer {layer}", f"shape {values.shape}", f"({n} words, features)")
        if not np.isfinite(values).all():
            raise PhaselabError(f"layer {layer}: found numbers that are not finite")
    for column in (*spec.probes, *(["word"] if spec.probes else [])):
        expect(column in labels, "labels", f"columns {', '.join(map(str, labels))}", f"{column!r} too")
    sample = sampled(n, spec)
    groups, left_out = probes.targets(labels.iloc[sample].reset_index(drop=True), spec.probes, seed)
    rows: list[tuple[int, str, str, float, float]] = []
    for layer, values in layers.items():
        states = values[sample].astype(np.float64)  # (n, p)
        rows += [(layer, name, "", *value) for name, value in geometry(states).items()]
        rows += [(layer, *row) for group in groups for row in probes.probe(states, group, spec)]
    frame = pd.DataFrame(rows, columns=["layer", "measure", "task", "value", "stderr"])
    frame.attrs["left_out"] = left_out
    return frame


def sampled(n: int, spec: InternalSpec) -> np.ndarray:
    """Which of `n` words are measured: at most ``spec.samples``, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(spec.samples, n)).round().astype(int))
