"""How frequent words are in a corpus, and how predictable after the two words before them."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

#: Parts of words, of which contractions have two: could n't, it 's.
PART = re.compile(r"[a-z]+?(?=n't\b)|n't\b|'(?:s|ll|ve|d|re|m)\b|[a-z]+")


def parts_of(text: str) -> list[str]:
    """Words of a text in lower case, contractions in two, without punctuation."""
    return PART.findall(text.lower().replace("’", "'"))


def predictability(words: Sequence[str], corpus: Iterable[str]) -> np.ndarray:
    """Log2 frequency of each word in a `corpus` of texts, and its surprisal in bits after the two before; (n_words, 2).

    Interpolated trigrams (Witten & Bell 1991): ``p(w|h) = (c(hw) + t(h) p(w|h')) / (c(h) + t(h))``, c being counts,
    t(h) the number of different words seen after h, h' what is left of h without its first word, and p of no word at
    all uniform over the words of both; frequency is p of the word alone. Those of a contraction are summed.
    """
    numbers: dict[str, int] = {}
    said = [parts_of(word) for word in words]
    own = np.array([numbers.setdefault(part, len(numbers)) for word in said for part in word], dtype=np.int64)
    read = [np.array([numbers.setdefault(p, len(numbers)) for p in parts_of(t)], dtype=np.int64) for t in corpus]
    base, p, logs = len(numbers), np.full(len(own), 1 / max(1, len(numbers))), []
    for n in (1, 2, 3):
        known, counts = np.unique(np.concatenate([n_grams(ids, n, base) for ids in read]), return_counts=True)
        mine, ends = n_grams(own, n, base), np.append(0, counts.cumsum())
        # Where each n-gram, and all those of its context, begin and end among the known ones, which ascend.
        whole = np.stack([np.searchsorted(known, mine, side) for side in ("left", "right")])
        context = np.stack([np.searchsorted(known // base, mine // base, side) for side in ("left", "right")])
        count, total, kinds = (np.diff(of, axis=0)[0] for of in (ends[whole], ends[context], context))
        rest = p[n - 1 :]
        p[n - 1 :] = np.where(kinds > 0, (count + kinds * rest) / np.maximum(total + kinds, 1), rest)
        logs.append(np.log2(p))
    out = np.zeros((len(words), 2))
    np.add.at(out, np.repeat(np.arange(len(words)), [*map(len, said)]), np.stack([logs[0], -logs[2]], axis=1))
    return out


def n_grams(ids: np.ndarray, n: int, base: int) -> np.ndarray:
    """One number for each n-gram of numbers below `base`; int64 (..., k) -> (..., max(0, k - n + 1))."""
    if ids.shape[-1] < n:
        return np.empty((*ids.shape[:-1], 0), np.int64)
    return np.asarray(sliding_window_view(ids, n, axis=-1) @ base ** np.arange(n - 1, -1, -1, dtype=np.int64))
