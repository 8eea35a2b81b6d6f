"""Hidden states of every layer for the texts of a stimulus, and their way to the TR grid.

A stimulus is cut into *documents*, inside which context flows: one a text (``context: text``) or
one a narrative (``context: words``). A document is cut into *passes* over the network, and each
pass gives the values of some of its texts. Documents that occur twice are encoded once. Hidden
states are pooled by hooks while the network runs, so that those of all layers never exist together.

The networks are causal: what follows a token cannot change its hidden state. Hence rows of a batch
are filled up on the right, whatever the tokenizer prefers, and need neither an attention mask nor a
padding token; and one pass over many words gives each of them what a pass that ended there would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from phaselab import stimuli
from phaselab.stimuli import Stimulus
from phaselab.study import Features as Spec

Document = tuple[str, ...]


class FeatureError(ValueError):
    """Features that cannot be had or used; the message names the model, the layer or the run."""


@dataclass(frozen=True)
class Features:
    """Hidden states of a stimulus, one row a text, the runs one after another.

    Attributes
    ----------
    layers : layer -> float32 (n_texts, p); 0 is the embedding output, the last one is after the
        final norm, as in the ``hidden_states`` of transformers.
    runs : (n_texts,) name of the run of each text.
    notes : counts: ``texts``; ``empty``, texts without a token, whose values are zero;
        ``truncated``, texts that got less context than the window asks for (or were cut themselves)
        because the model's context is shorter; ``documents``, different ones; ``tokens``, that went
        through the network.
    constant_columns : layer -> number of columns that have one value for all texts.
    """

    layers: dict[int, np.ndarray]
    runs: np.ndarray
    notes: dict[str, int]
    constant_columns: dict[int, int]


@dataclass(frozen=True)
class _Pass:
    """One row of a batch: token ids, and which of them belong to which text.

    ``texts[i]`` is a row of the result; its tokens are ``ids[first[i]:last[i]]``.
    """

    ids: np.ndarray
    texts: np.ndarray
    first: np.ndarray
    last: np.ndarray


def extract(model: Any, tokenizer: Any, stimulus: Stimulus, spec: Spec, max_tokens: int = 2048) -> Features:
    """Hidden states of every layer, one row a text of the stimulus.

    With ``spec.context == "text"`` each text is read alone. With ``"words"`` the texts between two
    ``starts`` of a run are joined by single spaces and read in passes: the first ``window + stride``
    of them together, then ``stride`` new ones at a time with the ``window`` before them as left
    context. So a text has at least ``window`` others on its left, as far as its narrative has them.

    A text's value is taken from its own tokens: the last one, their mean or their maximum. Blanks
    around a text are dropped; a text without a token has the value zero. Tokens that the tokenizer
    puts before a text (such as BOS) begin every pass and are never pooled; those that it puts
    behind are left out. A pass that is longer than the model's context loses tokens on its left, but
    no more than half of that context: beyond, it takes fewer new texts.

    Parameters
    ----------
    model : causal language model of transformers in evaluation mode, on any device.
    tokenizer : its tokenizer; a fast one, for character offsets tell which token is whose.
    stimulus : the texts.
    spec : ``context``, ``pooling``, ``window`` and ``stride`` are used.
    max_tokens : tokens of a batch, padding included; a longer pass makes a batch of its own.

    Raises
    ------
    FeatureError
        When hidden states are not finite (naming the layer and the model's folder), when the
        tokenizer gives no offsets, or when the layers of the network cannot be told.
    """
    documents: dict[Document, int] = {}  # document -> its first row among the rows that are computed
    sources = []
    n_rows = 0
    for document in _documents(stimulus, spec):
        if document not in documents:
            documents[document] = n_rows
            n_rows += len(document)
        sources.append(np.arange(len(document)) + documents[document])
    source = np.concatenate([np.empty(0, dtype=np.int64), *sources])

    passes, truncated = _passes(documents, tokenizer, _context_length(model), spec)
    values = _encode(model, passes, n_rows, spec.pooling, max_tokens)
    finite = np.isfinite(values).all(axis=(1, 2))
    if not finite.all():
        raise FeatureError(
            f"{model.name_or_path}: layer {int(np.argmin(finite))}: hidden states are not finite for "
            f"{int((~np.isfinite(values[np.argmin(finite)]).all(axis=1)).sum())} of {n_rows} texts"
        )

    read = np.zeros(n_rows, dtype=bool)
    for item in passes:
        read[item.texts] = True
    layers = {layer: values[layer][source] for layer in range(len(values))}
    constant = {
        layer: int((states.min(axis=0) == states.max(axis=0)).sum()) if len(states) else 0
        for layer, states in layers.items()
    }
    notes = {
        "texts": len(source),
        "empty": int((~read[source]).sum()),
        "truncated": int(truncated[source].sum()),
        "documents": len(documents),
        "tokens": sum(len(item.ids) for item in passes),
    }
    runs = np.array([run.name for run in stimulus.runs for _ in run.texts], dtype=str)
    return Features(layers, runs, notes, constant)


def to_trs(features: Features, stimulus: Stimulus, spec: Spec) -> dict[int, dict[str, np.ndarray]]:
    """Features on the TR grid, haemodynamics included, each run by itself.

    Returns
    -------
    layer -> run -> float32 (n_trs - trim, p), or p times the number of delays where they are
    stacked; the first ``spec.trim`` TRs of each run are dropped.

    Raises
    ------
    FeatureError
        When the features are not of this stimulus, or a run has no TR left.
    """
    names = [run.name for run in stimulus.runs for _ in run.texts]
    if list(features.runs) != names:
        raise FeatureError(
            f"features of {len(features.runs)} texts in runs {_names(features.runs)}, "
            f"expected {len(names)} texts in runs {_names(names)} of stimulus {stimulus.name}"
        )
    for run in stimulus.runs:
        if run.n_trs <= spec.trim:
            raise FeatureError(
                f"run {run.name}: trim: found {spec.trim}, expected fewer than its {run.n_trs} TRs"
            )
    stops = np.cumsum([len(run.texts) for run in stimulus.runs])
    return {
        layer: {
            run.name: stimuli.align(values[stop - len(run.texts) : stop], run, spec)[spec.trim :]
            for run, stop in zip(stimulus.runs, stops, strict=True)
        }
        for layer, values in features.layers.items()
    }


def _names(runs: Sequence[str] | np.ndarray) -> str:
    return ", ".join(dict.fromkeys(map(str, runs))) or "(none)"


def _documents(stimulus: Stimulus, spec: Spec) -> Iterator[Document]:
    """The texts of all runs in order, cut where context ends."""
    for run in stimulus.runs:
        texts = tuple(text.strip() for text in run.texts)
        begins = np.ones(len(texts), dtype=bool) if spec.context == "text" else run.starts.astype(bool)
        cuts = [0, *(int(i) for i in np.flatnonzero(begins) if i > 0), len(texts)]
        for start, stop in pairwise(cuts):
            yield texts[start:stop]


def _passes(
    documents: dict[Document, int], tokenizer: Any, context: int | None, spec: Spec
) -> tuple[list[_Pass], np.ndarray]:
    """The passes that give every text with a token its value, and which rows (bool) were truncated."""
    truncated = np.zeros(sum(map(len, documents)), dtype=bool)
    readable = {document: first for document, first in documents.items() if any(document)}
    if not readable:
        return [], truncated
    if not tokenizer.is_fast:
        raise FeatureError(
            f"tokenizer {type(tokenizer).__name__}: it gives no character offsets; expected a fast tokenizer "
            "(tokenizer.json)"
        )
    joined = [" ".join(text for text in document if text) for document in readable]
    prefix = _prefix(tokenizer, joined[0])
    room = np.iinfo(np.int64).max if context is None else context - len(prefix)
    if room < 1:
        raise FeatureError(f"model: found a context of {context} tokens, expected more than {len(prefix)}")
    # A document is longer than the model's context by design: the tokenizer need not warn of it.
    encoded = tokenizer(joined, add_special_tokens=False, return_offsets_mapping=True, verbose=False)

    passes = []
    for (document, row), ids, offsets in zip(
        readable.items(), encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        first, last = _spans(document, np.array(offsets, dtype=np.int64).reshape(-1, 2))
        texts = np.flatnonzero(last > first)
        first, last, texts = first[texts], last[texts], texts + row
        for left, right, new, stop in _windows(first, last, room, spec):
            passes.append(
                _Pass(
                    np.concatenate([prefix, ids[left:right]]).astype(np.int64),
                    texts[new:stop],
                    np.maximum(first[new:stop] - left, 0) + len(prefix),
                    last[new:stop] - left + len(prefix),
                )
            )
            truncated[texts[new:stop]] = left > first[max(0, new - spec.window)]
    return passes, truncated


def _prefix(tokenizer: Any, text: str) -> np.ndarray:
    """Ids of the special tokens that the tokenizer puts before `text`, such as BOS."""
    encoded = tokenizer(text, return_special_tokens_mask=True, verbose=False)
    special = np.array([*encoded["special_tokens_mask"], 0], dtype=bool)
    return np.array(encoded["input_ids"][: int(np.argmin(special))], dtype=np.int64)


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


def _windows(
    first: np.ndarray, last: np.ndarray, room: int, spec: Spec
) -> Iterator[tuple[int, int, int, int]]:
    """Token range (left, right) and range of new texts (new, stop) of each pass over a document."""
    new = 0
    while new < len(first):
        stop = min(len(first), new + spec.stride + (spec.window if new == 0 else 0))
        # New texts that crowd out their own left context would be read as if they began the story.
        most = room if new == 0 else max(1, room // 2)
        fitting = int(np.searchsorted(last[new:stop] - first[new], most, side="right"))
        stop = new + max(1, fitting)
        right = int(last[stop - 1])
        left = max(int(first[max(0, new - spec.window)]), right - room)
        yield left, right, new, stop
        new = stop


def _context_length(model: Any) -> int | None:
    """Tokens that the model can read at once; None for an architecture without a limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _blocks(model: Any) -> list[torch.nn.Module]:
    """The layers of the network, in order."""
    number = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == number:
            return list(module)
    raise FeatureError(
        f"{type(model).__name__}: expected a list of {number} layers in its base model, found none"
    )


@torch.inference_mode()
def _encode(model: Any, passes: list[_Pass], n_rows: int, pooling: str, max_tokens: int) -> np.ndarray:
    """Pooled hidden states: float32 (n_layers + 1, n_rows, p), zero for rows that no pass gives."""
    base, blocks = model.base_model, _blocks(model)
    width = model.config.get_text_config().hidden_size
    values = np.zeros((len(blocks) + 1, n_rows, width), dtype=np.float32)
    plan: dict[str, torch.Tensor] = {}
    pooled: list[torch.Tensor] = []

    def pool(states: torch.Tensor) -> None:
        tokens = states[plan["row"], plan["column"]].float()
        if pooling != "last":
            # Sums in one order whatever the device, which index_add does not promise.
            tokens = torch.segment_reduce(tokens, pooling, lengths=plan["lengths"])
        pooled.append(tokens)

    def before_block(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pool(args[0] if args else kwargs["hidden_states"])

    # What goes into block i is the output of block i - 1, or the embeddings; the model's own output
    # comes after the final norm. So no hook has to know what else a block returns.
    hooks = [block.register_forward_pre_hook(before_block, with_kwargs=True) for block in blocks]
    try:
        for batch in _batches(passes, max_tokens):
            plan = {name: array.to(model.device) for name, array in _plan(batch, pooling).items()}
            pooled.clear()
            pool(base(input_ids=plan["ids"], use_cache=False).last_hidden_state)
            if len(pooled) != len(values):
                raise FeatureError(
                    f"{type(model).__name__}: found {len(pooled)} hidden states, expected {len(values)}"
                )
            values[:, np.concatenate([item.texts for item in batch])] = torch.stack(pooled).cpu().numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return values


def _batches(passes: list[_Pass], max_tokens: int) -> Iterator[list[_Pass]]:
    """Passes of about the same length together, the longest first, at most `max_tokens` with padding."""
    ordered = sorted(passes, key=lambda item: -len(item.ids))
    start = 0
    while start < len(ordered):
        rows = max(1, max_tokens // len(ordered[start].ids))
        yield ordered[start : start + rows]
        start += rows


def _plan(batch: list[_Pass], pooling: str) -> dict[str, torch.Tensor]:
    """Token ids (n_rows, n_columns), and where the pooled tokens of each text are in them."""
    ids = np.zeros((len(batch), max(len(item.ids) for item in batch)), dtype=np.int64)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = item.ids
    rows = np.repeat(np.arange(len(batch)), [len(item.texts) for item in batch])
    first = np.concatenate([item.first for item in batch])
    last = np.concatenate([item.last for item in batch])
    if pooling == "last":
        return {
            "ids": torch.from_numpy(ids),
            "row": torch.from_numpy(rows),
            "column": torch.from_numpy(last - 1),
        }
    lengths = last - first
    # The tokens of all texts one behind the other: position in this list, less where its text began.
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return {
        "ids": torch.from_numpy(ids),
        "row": torch.from_numpy(np.repeat(rows, lengths)),
        "column": torch.from_numpy(np.repeat(first, lengths) + within),
        "lengths": torch.from_numpy(lengths),
    }
