"""What is inside a model: the geometry of each layer's hidden states, and linear probes of them.

Geometry: intrinsic dimension, participation ratio, effective rank, anisotropy, norm. Probes: how well
a label of each word (who is meant, where the hero is, how far the story has come ...) can be read off
its hidden state by a linear map, tested on narratives that the map was not fitted to, beside what the
same map reaches on labels that mean nothing.

Probes are ridge regressions onto one-hot labels (the label with the highest output is taken; as
scikit-learn's RidgeClassifier does). They have a closed form: one eigendecomposition of a fold serves
all labels, all controls and all penalties, where iterative logistic regressions cost a hundred times
as much over a sweep of checkpoints; those are there for who asks for them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from phaselab.errors import PhaselabError
from phaselab.study import InternalSpec

#: Folds of the probes; fewer only if there are fewer narratives.
FOLDS = 5
#: A class is probed when at least so many words have it, in at least two folds.
CLASS_WORDS = 10
#: A label is probed when at least so many words have it.
LABEL_WORDS = 50
#: Ridge penalties, as multiples of the mean eigenvalue of the standardised features' products.
PENALTIES = np.logspace(-4, 1, 6)
#: Neighbours of the second estimate of the intrinsic dimension.
NEIGHBOURS = 10
#: Inverse penalties tried by logistic probes.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: Penalty of sparse probes, which have too few features to need a choice.
SPARSE_PENALTY = 1e-3
#: Vectors nearer to each other than this share of the typical distance from the mean count as one.
SAME = 1e-5


class InternalsError(PhaselabError):
    """Hidden states or labels that cannot be used; the message names the layer or the column."""


def measure(layers: Mapping[int, np.ndarray], labels: pd.DataFrame, spec: InternalSpec, seed: int = 0) -> pd.DataFrame:
    """Measure the hidden states of one checkpoint.

    Parameters
    ----------
    layers : layer -> (n_words, n_features) hidden states, float32.
    labels : (n_words, ...) one row a word. Column ``word`` is its type, which the controls need;
        ``narrative``, if there, keeps the words of a narrative in one fold; the other columns are
        labels: text for classes, float for values. A word with an empty text or NaN has no label.
    spec : the study's section ``internals``: which columns to probe, and of how many words at most,
        evenly spaced.
    seed : of the control labels; they are the same for all layers and checkpoints.

    Returns
    -------
    One row a layer, measure and probed label: ``layer, measure, task, value, stderr`` (`task` is the
    label, or empty). Measures of a layer, of n words:

    - ``intrinsic_dimension``: TwoNN (Facco et al. 2017) by maximum likelihood with the largest tenth
      of the distance ratios censored; identical vectors count once; left out where fewer than 20
      distinct vectors remain. Standard error: asymptotic.
    - ``participation_ratio``: (sum of l)^2 / sum of l^2, l the eigenvalues of the covariance.
    - ``effective_rank``: exp of the entropy of the normalised singular values of the centred matrix
      (Roy & Vetterli 2007).
    - ``anisotropy``: mean cosine between two different words (Ethayarajh 2019).
    - ``norm``: mean Euclidean norm; standard error over words.
    - ``intrinsic_dimension_mle``: a second estimate, for agreement: from the ratios of distances to
      the ten nearest neighbours, pooled over words (Levina & Bickel 2004; MacKay & Ghahramani 2005).
    - ``massive_ratio``: largest absolute value over the median one (massive activations, Sun et al.
      2024); ``massive_share``: share of all squared values in the one feature that has most of them.

    and of a layer and a label, means over folds with their standard errors:

    - ``probe_accuracy`` (classes): share of words of held-out narratives whose label is found;
      ``probe_correlation`` and ``probe_r2`` (values): Pearson correlation with, and variance
      explained of, the held-out values;
    - ``probe_control``: the first of these for labels that belong to the word's type and to nothing
      else: each type has one label drawn from the labels' distribution (Hewitt & Liang 2019);
    - ``probe_selectivity``: the first minus ``probe_control``;
    - ``probe_sparse_<k>`` for each k of ``spec.sparse`` (classes): accuracy of probes that see, for
      each class, only the k single neurons whose means within and outside the class differ most in
      the folds of the fit, in units of the neuron's standard deviation (Gurnee et al. 2023);
    - ``probe_logistic`` and ``probe_logistic_shuffled`` (classes, with ``spec.logistic``): the first and
      the next of these by multinomial logistic regression, its penalty chosen in the same way;
    - ``probe_shuffled``: the first for the same labels in random order;
    - ``probe_chance``: share of the most frequent class, which is what always giving it reaches; 0 for
      values.

    ``attrs["left_out"]`` of the table: label -> why it was not probed, for labels with too few words,
    classes or differing values.

    Raises
    ------
    InternalsError
        When shapes do not agree, a layer holds numbers that are not finite, or a column is not there.
    """
    for layer, values in layers.items():
        if values.ndim != 2 or len(values) != len(labels):
            raise InternalsError(f"layer {layer}: found shape {values.shape}, expected ({len(labels)} words, features)")
        if not np.isfinite(values).all():
            raise InternalsError(f"layer {layer}: found numbers that are not finite")
    for column in (*spec.probes, *(["word"] if spec.probes else [])):
        if column not in labels:
            raise InternalsError(f"labels: found columns {', '.join(map(str, labels))}, expected {column!r} too")

    sample = sampled(len(labels), spec)
    targets, left_out = _targets(labels.iloc[sample].reset_index(drop=True), spec.probes, seed)
    rows: list[tuple[int, str, str, float, float]] = []
    for layer, values in layers.items():
        states = values[sample].astype(np.float64)  # (n, p)
        rows += [(layer, name, "", value, stderr) for name, (value, stderr) in geometry(states).items()]
        for group in _same_words(targets):
            for target, scores in zip(group, _probe(states, group, spec), strict=True):
                rows += [(layer, name, target.name, *_over_folds(s)) for name, s in scores.items()]
    frame = pd.DataFrame(rows, columns=["layer", "measure", "task", "value", "stderr"])
    frame.attrs["left_out"] = left_out
    return frame


def sampled(n: int, spec: InternalSpec) -> np.ndarray:
    """Which of `n` words are measured: at most ``spec.samples``, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(spec.samples, n)).round().astype(int))


# --- geometry -----------------------------------------------------------------------------------------


def geometry(states: np.ndarray) -> dict[str, tuple[float, float]]:
    """Measure -> (value, standard error) of hidden states (n, p); see `measure` for their definitions."""
    norms = np.linalg.norm(states, axis=1)  # (n,)
    found = {"norm": (float(norms.mean()), float(norms.std(ddof=1) / np.sqrt(len(norms))))}
    units = states[norms > 0] / norms[norms > 0, None]
    n = len(units)
    if n > 1:
        # The sum of all cosines is the squared norm of the sum of unit vectors; n of them are 1.
        found["anisotropy"] = (float((np.square(units.sum(0)).sum() - n) / (n * (n - 1))), float("nan"))
    centred = states - states.mean(0)
    wide = centred.shape[1] > centred.shape[0]
    products = centred @ centred.T if wide else centred.T @ centred
    eigenvalues = np.linalg.eigvalsh(products).clip(0)
    if eigenvalues.sum() > 0:
        singular = np.sqrt(eigenvalues)
        share = singular[singular > 0] / singular.sum()
        ratio = eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()
        found["participation_ratio"] = (float(ratio), float("nan"))
        found["effective_rank"] = (float(np.exp(-(share * np.log(share)).sum())), float("nan"))
    nearest = _nearest(centred)
    if nearest is not None:
        found["intrinsic_dimension"] = _two_nn(nearest)
        found["intrinsic_dimension_mle"] = _levina_bickel(nearest)
    squares = np.square(states)
    size = np.abs(states)
    if (middle := float(np.median(size))) > 0:
        found["massive_ratio"] = (float(size.max() / middle), float("nan"))
    if squares.sum() > 0:
        found["massive_share"] = (float(squares.sum(0).max() / squares.sum()), float("nan"))
    return found


def intrinsic_dimension(states: np.ndarray) -> tuple[float, float] | None:
    """TwoNN estimate of the intrinsic dimension of (n, p) vectors, and its standard error.

    Vectors that repeat an earlier one are left out (a zero distance has no ratio). None where fewer
    than 20 distinct vectors remain. Facco et al. 2017, Scientific Reports 7:12140.
    """
    nearest = _nearest(states)
    return None if nearest is None else _two_nn(nearest)


def _nearest(states: np.ndarray) -> np.ndarray | None:
    """Distances (n, NEIGHBOURS) to the nearest neighbours, nearest first, of the distinct ones of (n, p)."""
    centred = (states - states.mean(0)).astype(np.float64)
    squares = np.square(centred).sum(1)
    distances = centred @ centred.T  # (n, n); in place, since making room costs more than the sums
    distances *= -2
    distances += squares
    distances += squares[:, None]  # squared
    repeats = (np.tril(distances <= SAME**2 * squares.mean(), -1)).any(1)
    if repeats.any():
        distances = distances[np.ix_(~repeats, ~repeats)]
    if len(distances) < 20:
        return None
    np.fill_diagonal(distances, np.inf)
    distances.partition(NEIGHBOURS - 1, axis=1)
    return np.sqrt(np.sort(distances[:, :NEIGHBOURS], axis=1))


def _two_nn(nearest: np.ndarray) -> tuple[float, float]:
    from skdim.id import TwoNN

    discard = 0.1
    first = np.ascontiguousarray(nearest[:, :2])
    value = float(TwoNN(discard_fraction=discard, dist=True, method="mle").fit(first).dimension_)
    return value, value / float(np.sqrt(len(nearest) * (1 - discard)))


def _levina_bickel(nearest: np.ndarray) -> tuple[float, float]:
    # The inverse of the mean log ratio of the farthest of k neighbours to the others, pooled over words,
    # so that every ratio counts once.
    n, k = nearest.shape
    value = float(n * (k - 1) / np.log(nearest[:, -1:] / nearest[:, :-1]).sum())
    return value, value / float(np.sqrt(n * (k - 1)))


# --- two checkpoints ----------------------------------------------------------------------------------


def compare(layers: Mapping[int, np.ndarray], others: Mapping[int, np.ndarray], to: str) -> pd.DataFrame:
    """Compare the hidden states of one checkpoint with those of another for the same words.

    Parameters
    ----------
    layers, others : layer -> (n_words, n_features); the same words in the same order. Features may
        differ in number for ``cka``; ``drift`` is then left out.
    to : what the other checkpoint is (``final``, ``previous``), the end of the measures' names.

    Returns
    -------
    One row a layer and measure: ``layer, measure, task, value, stderr``:

    - ``cka_<to>``: linear centred kernel alignment, 0 to 1 (Kornblith et al. 2019): 1 for the same
      geometry, whatever the axes;
    - ``drift_<to>``: mean over words of one minus the cosine between a word's two centred hidden
      states: what moved on the network's own axes; standard error over words.

    Raises
    ------
    InternalsError
        When layers or numbers of words differ.
    """
    if set(layers) != set(others):
        raise InternalsError(f"layers: found {sorted(layers)} and {sorted(others)}, expected the same")
    rows = []
    for layer, states in layers.items():
        other = others[layer]
        if len(states) != len(other):
            raise InternalsError(f"layer {layer}: found {len(states)} and {len(other)} words, expected as many")
        rows.append((layer, f"cka_{to}", "", cka(states, other), float("nan")))
        if states.shape == other.shape:
            a, b = (v.astype(np.float64) - v.mean(0, dtype=np.float64) for v in (states, other))
            lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            apart = 1 - (a * b).sum(1)[lengths > 0] / lengths[lengths > 0]
            if len(apart) > 1:
                stderr = float(apart.std(ddof=1) / np.sqrt(len(apart)))
                rows.append((layer, f"drift_{to}", "", float(apart.mean()), stderr))
    return pd.DataFrame(rows, columns=["layer", "measure", "task", "value", "stderr"])


def cka(a: np.ndarray, b: np.ndarray) -> float:
    """Linear centred kernel alignment of (n, p) and (n, q), 0 to 1; 0 where one of them does not vary.

    ||A'B||^2 / (||A'A|| ||B'B||) in Frobenius norms of the centred matrices (Kornblith et al. 2019), by
    the n by n products where there are more features than words.
    """
    a, b = (v.astype(np.float64) - v.mean(0, dtype=np.float64) for v in (a, b))
    if max(a.shape[1], b.shape[1]) > len(a):
        left, right = a @ a.T, b @ b.T
        both = float((left * right).sum())
    else:
        left, right = a.T @ a, b.T @ b
        both = float(np.square(a.T @ b).sum())
    scale = float(np.linalg.norm(left) * np.linalg.norm(right))
    return both / scale if scale > 0 else 0.0


# --- probes -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Target:
    """A label ready to be probed.

    ``words`` (m,) are the rows that have it and ``fold`` (m,) their folds. ``codes`` holds the label, the
    control by word type and the shuffled label, each (m,): class numbers from 0 to ``classes`` - 1, or
    values when ``classes`` is 0.
    """

    name: str
    words: np.ndarray
    fold: np.ndarray
    codes: tuple[np.ndarray, np.ndarray, np.ndarray]
    classes: int


def _targets(labels: pd.DataFrame, names: tuple[str, ...], seed: int) -> tuple[list[_Target], dict[str, str]]:
    targets, left_out = [], {}
    for name in names:
        column = labels[name]
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        there = column.notna().to_numpy() if numeric else (column.notna() & (column.astype(str) != "")).to_numpy()
        words = np.flatnonzero(there)
        if len(words) < LABEL_WORDS:
            left_out[name] = f"{len(words)} words have it, expected at least {LABEL_WORDS}"
            continue
        fold = _folds(labels, words)
        if numeric:
            values = column.to_numpy(dtype=float)[words]
            classes = 0
            # A fold in which the value never changes has no correlation.
            if any(np.ptp(values[fold == f]) == 0 for f in np.unique(fold)):
                left_out[name] = "the same value throughout a fold"
                continue
        else:
            text = column.astype(str).to_numpy()[words]
            kept = [c for c in np.unique(text) if (text == c).sum() >= CLASS_WORDS and np.ptp(fold[text == c]) > 0]
            if len(kept) < 2:
                left_out[name] = (
                    f"{len(kept)} classes have {CLASS_WORDS} words in two or more folds, expected at least 2"
                )
                continue
            words = words[np.isin(text, kept)]
            fold = _folds(labels, words)
            values = np.searchsorted(kept, labels[name].astype(str).to_numpy()[words])
            classes = len(kept)
        # Seeded by the label's name, so that adding a label leaves the others as they were.
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        types, of_word = np.unique(labels["word"].astype(str).to_numpy()[words], return_inverse=True)
        by_type = rng.choice(values, len(types))[of_word]
        targets.append(_Target(name, words, fold, (values, by_type, rng.permutation(values)), classes))
    return targets, left_out


def _folds(labels: pd.DataFrame, words: np.ndarray) -> np.ndarray:
    """Fold (m,) of the rows `words`: contiguous blocks of about equal size, narratives kept whole."""
    if "narrative" in labels:
        narrative = labels["narrative"].to_numpy()[words]
        # Runs of equal values, so that a number used again later still is another narrative.
        group = np.concatenate([[0], np.cumsum(narrative[1:] != narrative[:-1])])
    if "narrative" not in labels or group[-1] == 0:
        group = np.arange(len(words))
    # The middle of each group decides, in words; empty folds close up.
    first, last = np.searchsorted(group, group, "left"), np.searchsorted(group, group, "right")
    fold = (first + last) / 2 * FOLDS // len(words)
    return np.unique(fold, return_inverse=True)[1]


def _same_words(targets: list[_Target]) -> list[list[_Target]]:
    """Targets grouped by the words that have them: a group shares its decompositions."""
    groups: dict[bytes, list[_Target]] = {}
    for target in targets:
        groups.setdefault(target.words.tobytes(), []).append(target)
    return list(groups.values())


def _probe(states: np.ndarray, targets: list[_Target], spec: InternalSpec) -> list[dict[str, list[float]]]:
    """Measure -> one score a fold, for each of `targets`, which all have the same words."""
    x = states[targets[0].words]  # (m, p)
    fold = targets[0].fold
    n_folds = int(fold.max()) + 1
    outputs = [_outputs(codes, t.classes) for t in targets for codes in t.codes]
    ends = np.cumsum([o.shape[1] for o in outputs])
    y = np.concatenate(outputs, axis=1)  # (m, all outputs)
    scores: list[dict[str, list[float]]] = [{} for _ in targets]
    for test in range(n_folds):
        outer = fold != test
        # The penalty is chosen on the next fold, by a fit that saw neither that one nor the test fold;
        # of two folds the one that is fitted must do, for the test fold may not choose.
        choose = (test + 1) % n_folds
        inner = outer & (fold != choose) if n_folds > 2 else outer
        tried = np.split(_ridge(x[inner], y[inner], x[fold == choose], PENALTIES), ends[:-1], axis=2)
        fitted = np.split(_ridge(x[outer], y[outer], x[~outer], PENALTIES), ends[:-1], axis=2)
        for i, target in enumerate(targets):
            found = []
            for j, codes in enumerate(target.codes):
                trial, guess = tried[3 * i + j], fitted[3 * i + j]
                # Of equally good penalties the largest.
                quality = [_score(t, codes[fold == choose], target.classes) for t in trial]
                best = len(quality) - 1 - int(np.argmax(quality[::-1]))
                found.append(_score(guess[best], codes[~outer], target.classes))
                if j == 0 and not target.classes:
                    true = codes[~outer]
                    r2 = 1 - np.square(true - guess[best][:, 0]).sum() / np.square(true - true.mean()).sum()
                    scores[i].setdefault("probe_r2", []).append(float(r2))
            real, control, shuffled = found
            chance = 0.0
            if target.classes:
                commonest = np.bincount(target.codes[0]).argmax()
                chance = float((target.codes[0][~outer] == commonest).mean())
            for name, score in (
                ("probe_accuracy" if target.classes else "probe_correlation", real),
                ("probe_control", control),
                ("probe_selectivity", real - control),
                ("probe_shuffled", shuffled),
                ("probe_chance", chance),
            ):
                scores[i].setdefault(name, []).append(score)
            if target.classes and spec.logistic:
                sets = inner, fold == choose, outer
                for name, codes in (
                    ("probe_logistic", target.codes[0]),
                    ("probe_logistic_shuffled", target.codes[2]),
                ):
                    scores[i].setdefault(name, []).append(_logistic(x, codes, *sets))
            if target.classes and spec.sparse:
                codes = target.codes[0]
                guesses = _sparse(x[outer], codes[outer], x[~outer], target.classes, spec.sparse)
                for k, outputs_of_k in guesses.items():
                    score = _score(outputs_of_k, codes[~outer], target.classes)
                    scores[i].setdefault(f"probe_sparse_{k}", []).append(score)
    return scores


def _logistic(x: np.ndarray, codes: np.ndarray, inner: np.ndarray, choose: np.ndarray, outer: np.ndarray) -> float:
    """Accuracy on the test fold (not in `outer`) of the penalty that is best on `choose` after `inner`."""
    if not np.ptp(codes[inner]) or not np.ptp(codes[outer]):
        # One class alone is no question; all that such a fold teaches is to give it always.
        return float((codes[~outer] == np.bincount(codes[outer]).argmax()).mean())
    trials = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(x[inner], codes[inner])
        for c in STRENGTHS
    ]
    # Of equally good penalties the largest, which comes first.
    best = trials[int(np.argmax([trial.score(x[choose], codes[choose]) for trial in trials]))]
    return float(best.fit(x[outer], codes[outer]).score(x[~outer], codes[~outer]))


def _sparse(
    x: np.ndarray, codes: np.ndarray, z: np.ndarray, classes: int, sizes: tuple[int, ...]
) -> dict[int, np.ndarray]:
    """k -> outputs (n_test, classes): each class from the k neurons that tell it best from the others."""
    spread = x.std(0)
    found = {k: np.zeros((len(z), classes)) for k in sizes}
    for c in range(classes):
        inside = codes == c
        if not inside.any() or inside.all():
            continue
        apart = np.abs(x[inside].mean(0) - x[~inside].mean(0)) / np.where(spread > 0, spread, np.inf)
        order = np.argsort(-apart, kind="stable")
        target = inside[:, None].astype(float)
        for k in sizes:
            best = order[:k]
            found[k][:, c] = _ridge(x[:, best], target, z[:, best], np.array([SPARSE_PENALTY]))[0, :, 0]
    return found


def _outputs(codes: np.ndarray, classes: int) -> np.ndarray:
    """One-hot columns (m, classes) of class numbers, or the values as one column (m, 1)."""
    return np.eye(classes)[codes] if classes else codes[:, None]


def _ridge(x: np.ndarray, y: np.ndarray, z: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Ridge predictions (n_penalties, n_test, n_outputs) for `z` from a fit of `y` on `x`.

    With x (n, p) standardised and y (n, q) centred, x'x = V diag(l) V', the prediction is
    z V diag(1 / (l + a)) V' x' y; for p > n the eigenvectors come from x x' instead. Each penalty is
    a multiple of the mean eigenvalue.
    """
    mean, spread = x.mean(0), x.std(0)
    kept = spread > 1e-6 * spread.max()
    x, z = (x[:, kept] - mean[kept]) / spread[kept], (z[:, kept] - mean[kept]) / spread[kept]
    offset = y.mean(0)
    y = y - offset
    n, p = x.shape
    if p == 0:
        return np.broadcast_to(offset, (len(penalties), len(z), len(offset)))
    if p <= n:
        values, vectors = np.linalg.eigh(x.T @ x)
        onto, to = vectors.T @ (x.T @ y), z @ vectors  # (k, q), (n_test, k)
    else:
        values, vectors = np.linalg.eigh(x @ x.T)
        onto, to = vectors.T @ y, (z @ x.T) @ vectors
    values = values.clip(0)
    return np.stack([to @ (onto / (values + a * values.mean())[:, None]) + offset for a in penalties])


def _score(guess: np.ndarray, true: np.ndarray, classes: int) -> float:
    """Accuracy of (n, classes) outputs, or correlation of (n, 1) ones (0 where they do not vary)."""
    if classes:
        return float((guess.argmax(1) == true).mean())
    a, b = guess[:, 0] - guess.mean(), true - true.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else 0.0


def _over_folds(scores: list[float]) -> tuple[float, float]:
    """Mean over folds and its standard error."""
    return float(np.mean(scores)), float(np.std(scores, ddof=1) / np.sqrt(len(scores)))


def versions():  # stub
    return {}
