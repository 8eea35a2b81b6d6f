"""Linear probes (ridge onto one-hot labels): what can be read off hidden states, on narratives not fitted to."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from phaselab.errors import number_of
from phaselab.stats import pearson
from phaselab.study import InternalSpec

FOLDS = 5  #: fewer only if there are fewer narratives
CLASS_WORDS = 10  #: a class is probed when at least so many words have it, in at least two folds
LABEL_WORDS = 50  #: a label is probed when at least so many words have it
PENALTIES = np.logspace(-4, 1, 6)  #: as multiples of the mean eigenvalue of the standardised features' products
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  #: inverse penalties tried by logistic probes
SPARSE_PENALTY = 1e-3  #: of sparse probes, which have too few features to need a choice


class Target(NamedTuple):
    """A label that is probed."""

    name: str
    words: np.ndarray  # (m,) the rows that have it
    fold: np.ndarray  # (m,)
    codes: tuple[np.ndarray, np.ndarray, np.ndarray]  # (m,) of the label, the control, the label shuffled
    classes: int  # codes are class numbers from 0; values when this is 0


def targets(labels: pd.DataFrame, names: Sequence[str]) -> tuple[list[list[Target]], dict[str, str]]:
    """Labels in groups that the same words have, which share their decompositions; label -> why it is not probed."""
    groups, left_out = dict[bytes, list[Target]](), {}
    for name in names:
        found = _target(labels, name)
        if isinstance(found, str):
            left_out[name] = found
        else:
            groups.setdefault(found.words.tobytes(), []).append(found)
    return list(groups.values()), left_out


def _target(labels: pd.DataFrame, name: str) -> Target | str:
    column = labels[name]
    text = column.astype(str).to_numpy()
    words = np.flatnonzero(column.notna().to_numpy() & (text != ""))
    if len(words) < LABEL_WORDS:
        return f"{number_of(len(words), 'word has it', 'words have it')}, expected at least {LABEL_WORDS}"
    fold, classes = _folds(labels, words), 0
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        codes = column.to_numpy(dtype=float)[words]
        # A fold in which the value never changes has no correlation.
        if any(np.ptp(codes[fold == f]) == 0 for f in np.unique(fold)):
            return "the same value throughout a fold"
    else:
        of = {c: text[words] == c for c in np.unique(text[words])}
        kept = [c for c, at in of.items() if at.sum() >= CLASS_WORDS and np.ptp(fold[at]) > 0]
        if (classes := len(kept)) < 2:
            found = number_of(classes, "class has", "classes have")
            return f"{found} {CLASS_WORDS} words in two or more folds, expected at least 2"
        words = words[np.isin(text[words], kept)]
        fold, codes = _folds(labels, words), np.searchsorted(kept, text[words])
    # Seeded by the label's name, so that adding a label leaves the others as they were.
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    types, of_word = np.unique(labels["word"].astype(str).to_numpy()[words], return_inverse=True)
    return Target(name, words, fold, (codes, rng.choice(codes, len(types))[of_word], rng.permutation(codes)), classes)


def _folds(labels: pd.DataFrame, words: np.ndarray) -> np.ndarray:
    """Fold (m,) of the rows `words`: contiguous blocks of about equal size, narratives kept whole."""
    narrative = labels["narrative"].to_numpy()[words] if "narrative" in labels else np.zeros(len(words))
    # Runs of equal values, so that a number used again later still is another narrative; one alone is divided.
    group = np.concatenate([[0], np.cumsum(narrative[1:] != narrative[:-1])])
    group = group if group[-1] else np.arange(len(words))
    # The middle of each group decides, in words; empty folds close up.
    first, last = np.searchsorted(group, group, "left"), np.searchsorted(group, group, "right")
    return np.unique((first + last) / 2 * FOLDS // len(words), return_inverse=True)[1]


def probe(states: np.ndarray, group: list[Target], spec: InternalSpec) -> list[tuple[str, str, float, float]]:
    """Rows (measure, label, mean over folds, its standard error) of labels that the same words have."""
    x, fold = states[group[0].words], group[0].fold  # (m, p), (m,)
    n_folds = int(fold.max()) + 1
    # One-hot columns of classes, values as one column; all in one matrix (m, all outputs).
    outputs = [np.eye(t.classes)[c] if t.classes else c[:, None] for t in group for c in t.codes]
    ends, ridge = np.cumsum([o.shape[1] for o in outputs])[:-1], Ridge(x, np.concatenate(outputs, axis=1), fold)
    scores = dict[tuple[str, str], list[float]]()
    for test in range(n_folds):
        choose = (test + 1) % n_folds
        # The penalty is chosen on the next fold, by a fit that saw neither that one nor the test fold; of two folds
        # the one that is fitted must do, for the test fold may not choose.
        inner = (test, choose) if n_folds > 2 else (test,)
        tried = iter(np.split(ridge.predict(inner, choose, PENALTIES), ends, axis=2))
        asked = [(codes[fold == choose], target.classes) for target in group for codes in target.codes]
        quality = np.array([[_score(guess, *of) for guess in next(tried)] for of in asked])  # (outputs, penalties)
        # Of equally good penalties the largest; only those that were chosen are fitted again.
        best = len(PENALTIES) - 1 - quality[:, ::-1].argmax(axis=1)
        chosen, of = np.unique(best, return_inverse=True)
        fitted = np.split(ridge.predict((test,), test, PENALTIES[chosen]), ends, axis=2)
        guesses = iter([outputs[k] for outputs, k in zip(fitted, of, strict=True)])
        outer, within = fold != test, ~np.isin(fold, inner)
        for target in group:
            classes, codes, own = target.classes, target.codes[0], [next(guesses) for _ in target.codes]
            held, true = zip(own, target.codes, strict=True), codes[~outer]
            real, control, shuffled = (_score(guess, of[~outer], classes) for guess, of in held)
            if classes:
                found, chance = {"probe_accuracy": real}, float((true == np.bincount(codes).argmax()).mean())
            else:
                r2 = 1 - np.square(true - own[0][:, 0]).sum() / np.square(true - true.mean()).sum()
                found, chance = {"probe_r2": float(r2), "probe_correlation": real}, 0.0
            found |= {"probe_control": control, "probe_selectivity": real - control}
            found |= {"probe_shuffled": shuffled, "probe_chance": chance}
            if classes and spec.logistic:
                found["probe_logistic"] = _logistic(x, codes, within, fold == choose, outer)
                found["probe_logistic_shuffled"] = _logistic(x, target.codes[2], within, fold == choose, outer)
            if classes and spec.sparse:
                sparse = _sparse(x[outer], codes[outer], x[~outer], classes, spec.sparse)
                found |= {f"probe_sparse_{k}": _score(g, true, classes) for k, g in sparse.items()}
            for name, score in found.items():
                scores.setdefault((name, target.name), []).append(score)
    return [(*key, float(np.mean(of)), float(np.std(of, ddof=1) / np.sqrt(len(of)))) for key, of in scores.items()]


def _score(guess: np.ndarray, true: np.ndarray, classes: int) -> float:
    """Accuracy of (n, classes) outputs, or correlation of (n, 1) ones (0 where they do not vary)."""
    return float((guess.argmax(1) == true).mean() if classes else pearson(guess[:, 0], true))


class Ridge:
    """Ridge regressions of y (m, q) on x (m, p), each fitted on the words of all folds but some.

    With x standardised and y centred by the words of the fit, coefficients are (x'x + a)^-1 x'y, a being a multiple of
    the mean eigenvalue, read from products of all words less those of the folds left out; for p > n x'(x x' + a)^-1 y.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> None:
        self.x, self.y, self.fold = x - x.mean(0), y, fold
        parts = [np.hstack([self.x[of], y[of], np.ones((of.sum(), 1))]) for of in fold == np.unique(fold)[:, None]]
        tall = x.shape[1] <= len(x) - sum(sorted(map(len, parts))[-2:])
        products = np.stack([part.T @ part for part in parts]) if tall else None
        self.products = None if products is None else (products.sum(0), products)

    def predict(self, without: tuple[int, ...], test: int, penalties: np.ndarray) -> np.ndarray:
        """Outputs (n_penalties, n_test, q) for the fold `test` of fits on all folds but those `without`."""
        from scipy.linalg.lapack import dposv

        p, z = self.x.shape[1], self.x[self.fold == test]
        if self.products is None:
            fitted = ~np.isin(self.fold, without)
            x, offset = self.x[fitted], self.y[fitted].mean(0)
            mean, spread = x.mean(0), _divisor(x.std(0))
            x, right = (x - mean) / spread, self.y[fitted] - offset
            gram, z = x @ x.T, (z - mean) / spread @ x.T
        else:
            whole, of_fold = self.products
            total = whole - of_fold[list(without)].sum(0)
            n, means = total[-1, -1], total[-1, :-1] / total[-1, -1]
            about = total[:-1, :-1] - n * means[:, None] * means
            spread, offset = _divisor(np.sqrt(about.diagonal()[:p].clip(0) / n)), means[p:]
            gram, right = about[:p, :p] / spread[:, None] / spread, about[:p, p:] / spread[:, None]
            z = (z - means[:p]) / spread
        kept = np.flatnonzero(gram.diagonal())
        gram, right, z = gram[np.ix_(kept, kept)], right[kept], z[:, kept]
        own, found = gram.diagonal().copy(), np.tile(offset, (len(penalties), len(z), 1))
        for guess, penalty in zip(found, penalties if len(own) else (), strict=False):
            np.fill_diagonal(gram, own + penalty * own.mean())
            guess += z @ dposv(gram, right)[1]  # by Cholesky
        return found


def _divisor(spread: np.ndarray) -> np.ndarray:
    """Standard deviations (p,) to divide by: a feature that does not vary becomes zero, and tells nothing."""
    return np.where(spread > 1e-6 * spread.max(), spread, np.inf)


def _sparse(x: np.ndarray, codes: np.ndarray, z: np.ndarray, classes: int, ks: Sequence[int]) -> dict[int, np.ndarray]:
    """Size k -> outputs (n_test, classes): each class from the k neurons that tell it best from the others."""
    mean, spread = x.mean(0), _divisor(x.std(0))
    x, z = (x - mean) / spread, (z - mean) / spread
    found = {k: np.zeros((len(z), classes)) for k in ks}
    for c in np.unique(codes) if np.ptp(codes) else ():
        inside = codes == c
        share = inside.mean()
        cross = (inside - share) @ x  # (p,), in proportion to the difference of the means within and outside the class
        order = np.argsort(-np.abs(cross), kind="stable")[: max(ks)]
        gram = x[:, order].T @ x[:, order]
        for k in ks:
            best, own = order[:k], gram[:k, :k]
            penalty = SPARSE_PENALTY * own.trace() / len(best) or 1.0
            weights = np.linalg.solve(own + penalty * np.eye(len(best)), cross[best])
            found[k][:, c] = z[:, best] @ weights + share
    return found


def _logistic(x: np.ndarray, codes: np.ndarray, inner: np.ndarray, choose: np.ndarray, outer: np.ndarray) -> float:
    """Accuracy on the test fold (not in `outer`) of the penalty that is best on `choose` after `inner`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not np.ptp(codes[inner]) or not np.ptp(codes[outer]):
        # One class alone is no question; all that such a fold teaches is to give it always.
        return float((codes[~outer] == np.bincount(codes[outer]).argmax()).mean())
    # Of equally good penalties the largest, which comes first.
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = [(np.flatnonzero(inner[outer]), np.flatnonzero(choose[outer]))]
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=folds)
    return float(search.fit(x[outer], codes[outer]).score(x[~outer], codes[~outer]))
