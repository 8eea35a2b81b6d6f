"""What the network reads: a stimulus is cut into documents, inside which context flows, and these into passes.

A document is a text (``context: text``), a text with those of the seconds before it (``seconds``), or a narrative
(``words``); each pass over the network gives the values of some of its texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from phaselab.errors import expect
from phaselab.features.base import FeatureError
from phaselab.stimuli import Stimulus
from phaselab.study import FeatureSpec

#: Documents that are tokenised at a time: the tokenizer's lists are many times as large as the ids.
TOKENISED = 1024

Document = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pass:
    """One row of a batch: token ids, and which of them belong to which text.

    The columns of ``spans`` (3, n) are a text's number, its first token, and the one behind its last.
    """

    ids: np.ndarray
    spans: np.ndarray


def documents_of(stimulus: Stimulus, spec: FeatureSpec) -> Iterator[tuple[Document, int]]:
    """The documents of all runs in order, and how many texts at the end of each have their value there."""
    for run in stimulus.runs:
        texts = tuple(text.strip() for text in run.texts)
        begins = np.ones(len(texts), dtype=bool) if spec.context == "text" else run.starts.astype(bool)
        cuts = [0, *(int(i) for i in np.flatnonzero(begins) if i > 0), len(texts)]
        for start, stop in pairwise(cuts):
            if spec.context != "seconds":
                yield texts[start:stop], stop - start
                continue
            onsets = np.asarray(run.onsets[start:stop], dtype=float)
            # The small number keeps a text out that began exactly `seconds` before, in binary as on paper.
            oldest = start + np.searchsorted(onsets, onsets - spec.seconds + 1e-9, side="left")
            earlier = start + np.searchsorted(onsets, onsets, side="left")
            for text, first, end in zip(texts[start:stop], oldest, earlier, strict=True):
                yield (*(texts[first:end] if text else ()), text), 1


def passes_of(
    documents: dict[Document, int], n_texts: int, tokenizer: Any, context: int | None, spec: FeatureSpec
) -> tuple[list[Pass], np.ndarray]:
    """The passes that give every text with a token its value, longest first, and which texts (bool) were truncated.

    `documents` are numbered by their first wanted text; `context` is what the model reads at once, None for no limit.
    """
    truncated = np.zeros(n_texts, dtype=bool)
    readable = [(document, text) for document, text in documents.items() if any(document)]
    if not readable:
        return [], truncated
    prefix = _prefix(tokenizer, _joined(readable[0][0]))
    room = np.iinfo(np.int64).max if context is None else context - len(prefix)
    expect(room >= 1, "model", f"a context of {context} tokens", f"more than {len(prefix)}", FeatureError)
    passes = []
    for (document, text), ids, first, last in _tokens(readable, tokenizer, spec):
        texts = np.flatnonzero(last > first)
        if spec.context == "seconds":
            if not len(texts) or texts[-1] != len(document) - 1:
                continue
            windows = iter([_whole(first[texts], last[texts], room)])
            numbers = np.full(len(texts), text)
        else:
            windows = _windows(first[texts], last[texts], room, spec)
            numbers = texts + text
        first, last = first[texts], last[texts]
        for wished, left, right, new, stop in windows:
            at = np.stack([np.maximum(first[new:stop] - left, 0), last[new:stop] - left]) + len(prefix)
            passes.append(Pass(np.concatenate([prefix, ids[left:right]]), np.vstack([numbers[new:stop], at])))
            truncated[numbers[new:stop]] = left > wished
    return sorted(passes, key=lambda item: -len(item.ids)), truncated


def _joined(document: Document) -> str:
    return " ".join(text for text in document if text)


def _tokens(
    readable: Sequence[tuple[Document, int]], tokenizer: Any, spec: FeatureSpec
) -> Iterator[tuple[tuple[Document, int], np.ndarray, np.ndarray, np.ndarray]]:
    """Each item, the token ids of its document, and the first and the end (exclusive) of each text's."""
    alone = spec.context == "text"
    fast = "a fast tokenizer (tokenizer.json), or features.context: text"
    found = f"no character offsets with features.context: {spec.context}"
    expect(alone or tokenizer.is_fast, f"tokenizer {type(tokenizer).__name__}", found, fast, FeatureError)
    for start in range(0, len(readable), TOKENISED):
        part = readable[start : start + TOKENISED]
        # A document is longer than the model's context by design: the tokenizer need not warn of it.
        encoded = tokenizer(
            [_joined(document) for document, _ in part],
            add_special_tokens=False,
            return_offsets_mapping=not alone,
            return_attention_mask=False,
            verbose=False,
        )
        for number, item in enumerate(part):
            ids = np.array(encoded["input_ids"][number], dtype=np.int32)
            if alone:
                yield item, ids, np.array([0]), np.array([len(ids)])
            else:
                offsets = np.array(encoded["offset_mapping"][number], dtype=np.int64).reshape(-1, 2)
                yield item, ids, *_spans(item[0], offsets)


def _prefix(tokenizer: Any, text: str) -> np.ndarray:
    """Ids of the special tokens that the tokenizer puts before `text`, such as BOS."""
    encoded = tokenizer(text, return_special_tokens_mask=True, verbose=False)
    special = np.array([*encoded["special_tokens_mask"], 0], dtype=bool)
    return np.array(encoded["input_ids"][: int(np.argmin(special))], dtype=np.int32)


def _spans(document: Document, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First token of each text, and the one behind its last; equal for a text without a token.

    A token belongs to a text when it has a character of it or of the space before it: tokenizers
    put that space into a word's first token, or make a token of it, or drop it. `offsets` is
    (n_tokens, 2), in characters of the texts joined by spaces, empty ones left out.
    """
    lengths = np.array([len(text) for text in document])
    stops = np.cumsum(lengths + (lengths > 0)) - (lengths > 0)
    first = np.searchsorted(offsets[:, 1], stops - lengths - 1, side="right")
    last = np.searchsorted(offsets[:, 0], stops, side="left")
    return np.where(lengths > 0, first, 0), np.where(lengths > 0, last, 0)


def _whole(first: np.ndarray, last: np.ndarray, room: int) -> tuple[int, int, int, int, int]:
    """As one of ``_windows``: the whole document, its last text alone being new."""
    right = int(last[-1])
    return int(first[0]), max(int(first[0]), right - room), right, len(first) - 1, len(first)


def _windows(
    first: np.ndarray, last: np.ndarray, room: int, spec: FeatureSpec
) -> Iterator[tuple[int, int, int, int, int]]:
    """Of each pass over a document: first token wished, token range (left, right), new texts (new, stop)."""
    new = 0
    while new < len(first):
        stop = min(len(first), new + spec.stride + (spec.window if new == 0 else 0))
        # New texts that crowd out their own left context would be read as if they began the story.
        most = room if new == 0 else max(1, room // 2)
        fitting = int(np.searchsorted(last[new:stop] - first[new], most, side="right"))
        stop = new + max(1, fitting)
        right = int(last[stop - 1])
        wished = int(first[max(0, new - spec.window)])
        yield wished, max(wished, right - room), right, new, stop
        new = stop
