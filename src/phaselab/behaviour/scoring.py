"""Log-probabilities of the options of many prompts, what prompts share computed once.

Prompts of like length go through the network together. What all prompts of a batch begin with (the
examples, with few shots) goes through it once for the batch, and a prompt once for all its options:
first tokens of options are read off the prompt's last position, what follows them continues its cache.

The networks are causal, so rows are filled up on the right and prompts need neither a mask nor a padding token:
nothing that is read comes after the filling. What continues them has a mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

#: A shared beginning shorter than this costs more in bookkeeping than it saves.
SHARED = 16


class Request(NamedTuple):
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
    tokenizer, begin = lm.tokenizer, lm.prefix_token_id
    fast = getattr(tokenizer, "backend_tokenizer", None) if lm.add_bos_token is None else None
    if begin is None:  # neither a first nor a last token: the harness would look for one
        return [tokenizer.encode(text) for text in texts]
    if fast is None or any(text.startswith(tokenizer.decode(begin)) for text in texts):
        return [lm.tok_encode(text) for text in texts]
    tokenizer.encode("")  # leaves the fast tokenizer without truncation and padding
    return [encoding.ids for encoding in fast.encode_batch_fast(texts)]


@torch.inference_mode()
def score(model: Any, requests: Sequence[Request], batch_size: int) -> list[list[tuple[float, bool]]]:
    """For each request and option: log-probability (summed over tokens, nats), and whether it is greedy.

    An option is greedy when each of its tokens is the most probable one where it stands.
    """
    scores: list[list[tuple[float, bool]]] = [[] for _ in requests]
    # Of like length, longest first, so that what is too long for the memory is seen at once.
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt))
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        for i, found in zip(batch, _scored(model, [requests[i] for i in batch]), strict=True):
            scores[i] = found
    return scores


def _scored(model: Any, rows: list[Request]) -> list[list[tuple[float, bool]]]:
    start, cache = _begin(model, rows)
    prompts = [r.prompt[start:] for r in rows]
    options, owner = [o for r in rows for o in r.options], np.repeat(range(len(rows)), [len(r.options) for r in rows])
    longer = np.flatnonzero([len(o) > 1 for o in options])
    last = np.array([len(p) - 1 for p in prompts])
    use = {"past_key_values": cache, "use_cache": bool(longer.size or start)}
    logp, cache = _log_probabilities(model, prompts, np.arange(len(rows)), last, **use)  # (n_rows, V)
    value, greedy = _told(logp, owner, [o[0] for o in options])
    if longer.size:
        cache.batch_select_indices(torch.from_numpy(owner[longer]).to(model.device))
        begun = [options[k][:-1] for k in longer]
        row = np.repeat(range(len(begun)), [len(o) for o in begun])
        column = np.concatenate([np.arange(len(o)) for o in begun])
        after = _places(model, start, 1 + last, owner[longer], 1 + max(column))
        logp, _ = _log_probabilities(model, begun, row, column, past_key_values=cache, use_cache=True, **after)
        of_token = _told(logp, np.arange(len(row)), [t for k in longer for t in options[k][1:]])
        np.add.at(value, longer[row], of_token[0])
        np.logical_and.at(greedy, longer[row], of_token[1])
    flat = zip(value.tolist(), greedy.tolist(), strict=True)
    return [[next(flat) for _ in r.options] for r in rows]


def _told(logp: torch.Tensor, row: np.ndarray, tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each token in its row of (n, V), and whether it is the most probable one there."""
    at, token = torch.from_numpy(row).to(logp.device), torch.tensor(tokens, device=logp.device)
    return logp[at, token].double().cpu().numpy(), (logp.argmax(-1)[at] == token).cpu().numpy()


def _places(model: Any, start: int, lengths: np.ndarray, owner: np.ndarray, n: int) -> dict[str, torch.Tensor]:
    """Where `n` tokens stand after the prompts `owner` of those of these `lengths`, which follow `start` tokens of all.

    The shorter prompts were filled up to the longest: that is not to be seen, and does not count as a place.
    """
    longest, own = max(lengths), lengths[owner, None]
    if (own == longest).all():
        return {}
    seen = np.ones((len(owner), start + longest + n), dtype=np.int64)
    seen[:, start:-n] = np.arange(longest) < own
    given = {"attention_mask": seen, "position_ids": start + own + np.arange(n)}
    known = inspect.signature(model.forward).parameters
    return {name: torch.from_numpy(values).to(model.device) for name, values in given.items() if name in known}


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


def _log_probabilities(
    model: Any, sequences: Sequence[Sequence[int]], row: np.ndarray, column: np.ndarray, **given: Any
) -> tuple[torch.Tensor, Any]:
    """Float32 (n, vocabulary), of what follows each (row, column) of `sequences`; and the cache."""
    # The vocabulary's side of the network is run only for the columns that somebody reads.
    columns, at = np.unique(column, return_inverse=True)
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    kept = {"logits_to_keep": torch.from_numpy(columns).to(model.device)} if keeps else {}
    ids = pad_sequence([torch.tensor(sequence) for sequence in sequences], batch_first=True)
    found = model(input_ids=ids.to(model.device), **given, **kept)
    read: torch.Tensor = found.logits[torch.from_numpy(row), torch.from_numpy(at if keeps else column)]
    return read.float().log_softmax(-1), found.get("past_key_values")
