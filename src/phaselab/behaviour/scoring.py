"""Log-probabilities of the options of many prompts, what prompts share computed once.

Prompts of like length go through the network together. What all prompts of a batch begin with (the
examples, with few shots) goes through it once for the batch, and a prompt once for all its options:
options of one token are read off the prompt's last position, longer ones continue its cache.

The networks are causal, so rows are filled up on the right and need neither a mask nor a padding
token: nothing that is read comes after the filling.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

#: A shared beginning shorter than this costs more in bookkeeping than it saves.
SHARED = 16


@dataclass(frozen=True)
class Request:
    """A prompt and its options, as token ids; none of them is empty."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


def requests(lm: Any, asked: Sequence[tuple[str, Sequence[str]]]) -> list[Request]:
    """Tokens of (prompt, options) by a model of the harness: an option's are those beyond as many as the prompt has."""
    texts = [text for prompt, options in asked for text in (prompt, *(f"{prompt} {option}" for option in options))]
    encoded = iter(_encoded(lm, texts))
    found = []
    for _, options in asked:
        own = next(encoded)
        found.append(Request(tuple(own), tuple(tuple(next(encoded)[len(own) :]) for _ in options)))
    return found


def _encoded(lm: Any, texts: Sequence[str]) -> list[list[int]]:
    """What ``lm.tok_encode`` gives for each text; all at once where it does nothing but call a fast tokenizer."""
    fast, bos = getattr(lm.tokenizer, "backend_tokenizer", None), lm.tokenizer.decode(lm.prefix_token_id)
    if fast is None or lm.add_bos_token is not None or any(text.startswith(bos) for text in texts):
        return [lm.tok_encode(text) for text in texts]
    lm.tok_encode("")  # leaves the fast tokenizer without truncation and padding
    return [encoding.ids for encoding in fast.encode_batch_fast(texts)]


@torch.inference_mode()
def score(model: Any, requests: Sequence[Request], batch_size: int) -> list[list[tuple[float, bool]]]:
    """For each request and option: log-probability (summed over tokens, nats), and whether it is greedy.

    An option is greedy when each of its tokens is the most probable one where it stands.

    Parameters
    ----------
    model : a causal language model of transformers.
    batch_size : prompts of a forward pass.
    """
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    scores: list[list[tuple[float, bool]]] = [[] for _ in requests]
    for batch in _batches(requests, batch_size):
        rows = [requests[i] for i in batch]
        single = all(len(o) == 1 for r in rows for o in r.options)
        for i, found in zip(batch, (_single if single else _several)(model, rows, keeps), strict=True):
            scores[i] = found
    return scores


def _batches(requests: Sequence[Request], batch_size: int) -> Iterator[list[int]]:
    """Indices of requests of like length, longest first; options of one token and of several apart."""
    several = [any(len(o) > 1 for o in r.options) for r in requests]
    for kind in (False, True):
        of_kind = [i for i, s in enumerate(several) if s == kind]
        of_kind.sort(key=lambda i: -len(requests[i].prompt))
        for start in range(0, len(of_kind), batch_size):
            yield of_kind[start : start + batch_size]


def _single(model: Any, rows: list[Request], keeps: bool) -> list[list[tuple[float, bool]]]:
    start, cache = _begin(model, rows)
    prompts = [r.prompt[start:] for r in rows]
    last = np.array([len(p) - 1 for p in prompts])
    logp = _log_probabilities(model, prompts, cache, np.arange(len(rows)), last, keeps)  # (n_rows, V)
    greedy = logp.argmax(-1).tolist()
    return [[(float(logp[i, o[0]]), greedy[i] == o[0]) for o in row.options] for i, row in enumerate(rows)]


def _several(model: Any, rows: list[Request], keeps: bool) -> list[list[tuple[float, bool]]]:
    start, cache = _begin(model, rows)
    # Up to before the last token of the shortest prompt all rows are full.
    shared = min(len(r.prompt) for r in rows) - 1
    if shared > start:
        ids = _ids([r.prompt[start:shared] for r in rows]).to(model.device)
        cache = model.base_model(input_ids=ids, past_key_values=cache, use_cache=True).past_key_values
    owner = [i for i, r in enumerate(rows) for _ in r.options]
    if cache is not None:
        cache.batch_select_indices(torch.tensor(owner, device=model.device))
    options = [o for r in rows for o in r.options]
    begins = [len(rows[i].prompt) - 1 - shared for i in owner]  # column that gives an option's first token
    ids_of = [rows[i].prompt[shared:] + o[:-1] for i, o in zip(owner, options, strict=True)]
    row = np.repeat(np.arange(len(options)), [len(o) for o in options])
    column = np.concatenate([b + np.arange(len(o)) for b, o in zip(begins, options, strict=True)])
    logp = _log_probabilities(model, ids_of, cache, row, column, keeps)  # (n_tokens of all options, V)
    token = torch.tensor([t for o in options for t in o], device=logp.device)
    of_token = logp.gather(1, token[:, None])[:, 0].double().cpu().numpy()
    greedy = (logp.argmax(-1) == token).cpu().numpy()
    ends = np.cumsum([len(o) for o in options])[:-1]
    found = zip(np.split(of_token, ends), np.split(greedy, ends), strict=True)
    flat = iter([(float(p.sum()), bool(g.all())) for p, g in found])
    return [[next(flat) for _ in r.options] for r in rows]


def _begin(model: Any, rows: list[Request]) -> tuple[int, Any]:
    """How many tokens all prompts begin with, and their cache for each row; (0, None) where not worth it."""
    least, greatest = min(r.prompt for r in rows), max(r.prompt for r in rows)
    # What the first and the last in order of their tokens share, all between them share too.
    length = next((i for i, (a, b) in enumerate(zip(least, greatest, strict=False)) if a != b), len(least))
    length = min(length, min(len(r.prompt) for r in rows) - 1)
    if length < SHARED or len(rows) == 1:
        return 0, None
    ids = torch.tensor([rows[0].prompt[:length]], device=model.device)
    cache = model.base_model(input_ids=ids, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(rows))
    return length, cache


def _ids(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """int64 (n_sequences, longest), filled up on the right with zeros."""
    ids = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    return torch.from_numpy(ids)


def _log_probabilities(
    model: Any, sequences: Sequence[Sequence[int]], cache: Any, row: np.ndarray, column: np.ndarray, keeps: bool
) -> torch.Tensor:
    """Float32 (n, vocabulary): of what follows each (row, column) of `sequences`, which continue `cache`."""
    # The vocabulary's side of the network is run only for the columns that somebody reads.
    columns, at = np.unique(column, return_inverse=True)
    kept = {"logits_to_keep": torch.from_numpy(columns).to(model.device)} if keeps else {}
    logits = model(
        input_ids=_ids(sequences).to(model.device),
        past_key_values=cache,
        use_cache=cache is not None,
        **kept,
    ).logits
    read: torch.Tensor = logits[torch.from_numpy(row), torch.from_numpy(at if keeps else column)]
    return read.float().log_softmax(-1)
