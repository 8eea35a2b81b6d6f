"""From a network and a stimulus to hidden states, one row per text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from phaselab.errors import expect
from phaselab.features.passes import Document, documents_of, passes_of
from phaselab.features.pooling import Say, blocks_of, context_of, encode, room_for
from phaselab.features.store import Features
from phaselab.lazy import Lazy
from phaselab.stimuli import Stimulus
from phaselab.study import FeatureSpec


def extract(
    model: Any,
    tokenizer: Any,
    stimulus: Stimulus,
    spec: FeatureSpec,
    max_tokens: int | None = None,
    scratch: Path | None = None,
    say: Say = lambda message: None,
) -> Features:
    """Hidden states of every layer, or of some, one row per text of the stimulus.

    The context of ``seconds`` are the texts of a narrative that began in the last ``seconds`` seconds and at an earlier
    moment. With ``words`` the texts between two ``starts`` of a run are read in passes: the first ``window + stride``
    together, then ``stride`` new ones at a time after the ``window`` before them. Texts are joined by single spaces,
    and what occurs twice is read once.

    What begins every pass (``passes.opening``) is never pooled; what the tokenizer puts behind a text is left out. With
    neither, a text that begins a pass is pooled without its first token, and is empty if it has no other; unless
    ``first_token`` is ``keep``. A pass that is longer than the model's context loses tokens on its left, but no more
    than half of that context: beyond, it takes fewer new texts.

    max_tokens : tokens of a batch, padding included; None: `MAX_TOKENS`. Halved when memory runs out.
    scratch : folder for a file without a name, gone with the result, that takes hidden states of more than 1 GiB.
    say : receives a sentence when memory ran out, texts were truncated, or a first token is pooled or lost.
    """
    documents: dict[Document, int] = {}  # document -> number of its first wanted text
    numbers: list[int] = []
    n_texts = 0
    for document, wanted in documents_of(stimulus, spec):
        if document not in documents:
            documents[document] = n_texts
            n_texts += wanted
        numbers.extend(range(documents[document], documents[document] + wanted))
    source = np.array(numbers, dtype=np.int64)

    context, name = context_of(model), model.name_or_path
    passes, begin, truncated = passes_of(documents, n_texts, tokenizer, context, spec)
    last, known = max((int(item.ids.max()) for item in passes), default=0), len(model.get_input_embeddings().weight)
    found = f"token {last} ({tokenizer.convert_ids_to_tokens(last)!r})"
    expect(last < known, f"{name}: tokenizer", found, f"one below {known}, as many as the network has embeddings of")
    order = np.concatenate([np.empty(0, dtype=np.int64), *(item.spans[0] for item in passes)])
    row_of = np.full(n_texts, -1)  # the last row, of zeros
    row_of[order] = np.arange(len(order))
    rows = row_of[source]
    layers = chosen_layers(spec.layers, len(blocks_of(model)), name)
    states = room_for((len(layers), len(order) + 1, model.config.get_text_config().hidden_size), scratch)
    budget = encode(model, passes, layers, spec.pooling, states, max_tokens, say)
    tokens, there = sum(len(item.ids) for item in passes), rows >= 0
    notes: dict[str, Any] = {"texts": len(source), "empty": int((~there).sum())}
    notes |= {"truncated": int(truncated[source].sum()), "opening": tokenizer.convert_ids_to_tokens(begin)}
    notes |= {"documents": len(documents), "tokens": tokens, "batch_tokens": budget}
    if notes["truncated"]:
        told = f"{notes['truncated']} of {notes['texts']} texts have less context than asked for"
        say(f"{name}: {told}: the model reads {context} tokens at once")
    if passes and not begin:
        told = f"is not pooled: {notes['empty']} of {notes['texts']} texts have no state (features.empty: {spec.empty})"
        told = "is pooled, and may be an attention sink" if spec.first_token == "keep" else told
        say(f"{name}: no token begins a pass but the text's own first one, which {told}")
    if spec.empty == "carry":  # what is there before, unless a run or a narrative begins
        begins = [new for run in stimulus.runs for new in (True, *run.starts[1:])[: len(run.texts)]]
        keeps = there | np.array(begins, dtype=bool)
        rows = rows[np.maximum.accumulate(np.where(keeps, np.arange(len(rows)), 0))]
    runs = np.array([run.name for run in stimulus.runs for _ in run.texts], dtype=str)
    return Features(Lazy(layers, lambda layer: np.asarray(states()[layers.index(layer)][rows])), runs, there, notes)


def chosen_layers(wanted: str | tuple[int, ...], n_blocks: int, name: str) -> list[int]:
    """Numbers of the layers that `wanted` names, in ascending order; -1 is the last one."""
    every = range(n_blocks + 1)
    wanted = tuple(every) if isinstance(wanted, str) else wanted
    for layer in wanted:
        inside, right = -len(every) <= layer <= n_blocks, f"0 to {n_blocks} (or -1, the last one, to {-len(every)})"
        expect(inside, f"{name}: features.layers", layer, right)
    return sorted({every[layer] for layer in wanted})
