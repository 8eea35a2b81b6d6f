"""What the network reads: documents (a text, one with those of the seconds before, a narrative), cut into passes."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from phaselab.errors import expect
from phaselab.stimuli import Stimulus
from phaselab.study import FeatureSpec

#: Documents that are tokenised at a time: the tokenizer's lists are many times as large as the ids.
TOKENISED = 1024

Document = tuple[str, ...]


class Pass(NamedTuple):
    """One row of a batch: token ids, and which of them belong to which text."""

    ids: np.ndarray
    spans: np.ndarray  # (3, n): a text's number, its first token, and the one behind its last


def opening(tokenizer: Any, texts: Iterable[str], keep: bool = False) -> list[int]:
    """Ids of the tokens that begin every pass: what the tokenizer puts before a text, else BOS, else EOS, else none.

    In trained networks the token at position 0 is an attention sink of enormous norm, whatever it is (Xiao et al. 2023,
    arXiv 2309.17453; Sun et al. 2024, arXiv 2402.17762): it must not be one of the text's. With `keep` it may be, and
    there are the tokenizer's own alone. They show in the first of `texts` that has a token.
    """
    own: list[int] = []
    for text in texts:
        whole, bare = (tokenizer(text, add_special_tokens=s, verbose=False)["input_ids"] for s in (True, False))
        if bare:
            # By what is there, and not by the mask of special tokens, which some tokenizers fill with zeros.
            own = whole[: next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)]
            break
    first = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
    return own if own or keep or first is None else [first]


def documents_of(stimulus: Stimulus, spec: FeatureSpec) -> Iterator[tuple[Document, int]]:
    """The documents of all runs in order, and how many texts at the end of each have their value there."""
    for run in stimulus.runs:
        texts = tuple(text.strip() for text in run.texts)
        begins = np.ones(len(texts), dtype=bool) if spec.context == "text" else run.starts.astype(bool)
        for start, stop in pairwise([0, *(int(i) for i in np.flatnonzero(begins) if i > 0), len(texts)]):
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
) -> tuple[list[Pass], list[int], np.ndarray]:
    """Passes that give every text its value, longest first; what begins each (`opening`); texts cut by `context`."""
    readable, truncated = [item for item in documents.items() if any(item[0])], np.zeros(n_texts, dtype=bool)
    begin = opening(tokenizer, (_joined(document) for document, _ in readable), spec.first_token == "keep")
    prefix = np.array(begin, dtype=np.int32)
    room = np.iinfo(np.int64).max if context is None else context - len(prefix)
    expect(room >= 1, "model", f"a context of {context} tokens", f"more than {len(prefix)}")
    passes = []
    for document, text, ids, first, last in _tokens(readable, tokenizer, spec):
        texts = np.flatnonzero(last > first)
        first, last, numbers = first[texts], last[texts], texts + text
        if spec.context != "seconds":
            windows = _windows(first, last, room, spec)
        elif len(texts) and texts[-1] == len(document) - 1:
            left, right, numbers = int(first[0]), int(last[-1]), np.full(len(texts), text)  # the last text alone is new
            windows = iter([(left, max(left, right - room), right, len(texts) - 1, len(texts))])
        else:
            continue
        for wished, left, right, new, stop in windows:
            at = np.stack([np.maximum(first[new:stop] - left, 0), last[new:stop] - left]) + len(prefix)
            if spec.first_token == "drop":
                at[0] = np.maximum(at[0], 1)  # where nothing else begins the pass, its first text does
            truncated[numbers[new:stop]] = left > wished
            spans = np.vstack([numbers[new:stop], at])[:, at[0] < at[1]]
            passes += [Pass(np.concatenate([prefix, ids[left:right]]), spans)] if spans.size else []
    return sorted(passes, key=lambda item: -len(item.ids)), begin, truncated


def _joined(document: Document) -> str:
    return " ".join(text for text in document if text)


def _tokens(
    readable: Sequence[tuple[Document, int]], tokenizer: Any, spec: FeatureSpec
) -> Iterator[tuple[Document, int, np.ndarray, np.ndarray, np.ndarray]]:
    """Each document with its number, its token ids, and the first and the end (exclusive) of each text's."""
    alone = spec.context == "text"
    found = f"no character offsets with features.context: {spec.context}"
    fast = "a fast tokenizer (tokenizer.json), or features.context: text"
    expect(alone or tokenizer.is_fast, f"tokenizer {type(tokenizer).__name__}", found, fast)
    asked = {"add_special_tokens": False, "return_offsets_mapping": not alone, "return_attention_mask": False}
    for start in range(0, len(readable), TOKENISED):
        part = readable[start : start + TOKENISED]
        # A document is longer than the model's context by design: the tokenizer need not warn of it.
        encoded = tokenizer([_joined(document) for document, _ in part], **asked, verbose=False)
        for number, (document, text) in enumerate(part):
            ids = np.array(encoded["input_ids"][number], dtype=np.int32)
            if alone:
                yield document, text, ids, np.array([0]), np.array([len(ids)])
            else:
                offsets = np.array(encoded["offset_mapping"][number], dtype=np.int64).reshape(-1, 2)
                yield document, text, ids, *_spans(document, offsets)


def _spans(document: Document, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First token of each text (or of the space before it), and the one behind its last; `offsets` (n_tokens, 2)."""
    lengths = np.array([len(text) for text in document])
    stops = np.cumsum(lengths + (lengths > 0)) - (lengths > 0)
    first = np.searchsorted(offsets[:, 1], stops - lengths - 1, side="right")
    last = np.searchsorted(offsets[:, 0], stops, side="left")
    return np.where(lengths > 0, first, 0), np.where(lengths > 0, last, 0)


def _windows(first: np.ndarray, last: np.ndarray, room: int, spec: FeatureSpec) -> Iterator[tuple[int, ...]]:
    """Of each pass over a document: first token wished, token range (left, right), new texts (new, stop)."""
    new = 0
    while new < len(first):
        stop = min(len(first), new + spec.stride + (spec.window if new == 0 else 0))
        # New texts that crowd out their own left context would be read as if they began the story.
        most = room if new == 0 else max(1, room // 2)
        fitting = int(np.searchsorted(last[new:stop] - first[new], most, side="right"))
        stop = new + max(1, fitting)
        wished, right = int(first[max(0, new - spec.window)]), int(last[stop - 1])
        yield wished, max(wished, right - room), right, new, stop
        new = stop
