"""Tokens and log-probabilities of the options of many prompts, what prompts share computed once.

What all of a batch begin with goes through the network once, and a prompt once for all its options, whose further
tokens continue its cache. Rows are filled up on the right and, as networks are causal, prompts need no mask; what
continues them has one. A network whose cache is a state (Mamba, RWKV) or ends at a window reads both together.
"""

import inspect
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from phaselab.features import context_of, opening

#: A shared beginning shorter than this costs more in bookkeeping than it saves.
SHARED = 16
#: How a fault begins that is none of the item's.
LONG = "longer than"


class Request(NamedTuple):
    """A prompt and its options, as token ids, and why it cannot be scored: empty if it can."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    fault: str = ""


def requests(model: Any, tokenizer: Any, asked: Sequence[tuple[str, Sequence[str], int]]) -> list[Request]:
    """Tokens of (prompt, options, tokens to generate), after those that the tokenizer itself puts before a text.

    As in lm-evaluation-harness, an option is a space and its text, white space that ends a prompt goes to the option,
    and its tokens are those of both together beyond the prompt's. If a token spans prompt and option, all options of
    the prompt are encoded alone (the harness's pull request 4055). What has no prompt comes after BOS, or else EOS.
    """
    if not asked:
        return []
    texts = [text for prompt, options, _ in asked for text in (prompt.rstrip(), *(f"{prompt} {o}" for o in options))]
    space, *encoded = _encoded(tokenizer, [" ", *texts])
    begin, alone = (opening(tokenizer, texts, keep) for keep in (True, False))
    each, found = iter(encoded), list[Request]()
    size, room = len(model.get_input_embeddings().weight), context_of(model) or sys.maxsize
    for prompt, options, tokens in asked:
        own, *both = (next(each) for _ in range(1 + len(options)))
        if any(ids[: len(own)] != own for ids in both):
            end = prompt[len(prompt.rstrip()) :]
            both = [own + ids for ids in _encoded(tokenizer, [f"{end} {option}" for option in options])]
        said = [ids[len(own) :] for ids in both]
        own = own if own[: len(begin)] == begin else begin + own  # a prompt may have them as text
        own = own or alone
        fault = ""
        if not own:
            fault = "a prompt without tokens"
        elif not all({*option} - {*space, tokenizer.unk_token_id} for option in said):
            fault = "an option without tokens of its own (characters that the tokenizer does not know)"
        elif len({*map(tuple, said)}) < len(said):
            fault = "options with the same tokens"
        elif max(max(own), *map(max, said)) >= size:
            fault = f"tokens beyond the {size} that the network has"
        elif len(own) + max(tokens, *(len(option) - 1 for option in said)) > room:
            fault = f"{LONG} the model's context of {room} tokens"
        found.append(Request(tuple(own), tuple(map(tuple, said)), fault))
    return found


def _encoded(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text without special ones; all at once by a fast tokenizer."""
    if (fast := getattr(tokenizer, "backend_tokenizer", None)) is None:
        return [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    tokenizer.encode("")  # leaves the fast tokenizer without truncation and padding
    return [encoding.ids for encoding in fast.encode_batch_fast(texts, add_special_tokens=False)]


@torch.inference_mode()
def score(model: Any, requests: Sequence[Request], batch_size: int) -> list[list[tuple[float, bool]]]:
    """Log-probability of each option (summed over tokens, nats), and whether it is greedy: all tokens most probable."""
    scores, reach = dict[int, list[tuple[float, bool]]](), _reach(model)
    # Of like length, longest first, so that what is too long for the memory is seen at once.
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt))
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        scores |= zip(batch, _scored(model, [requests[i] for i in batch], reach), strict=True)
    return [scores[i] for i in range(len(requests))]


def _reach(model: Any) -> int:
    """Up to how many tokens options may continue caches of prompts that were filled up; 0 where they may not: tried."""
    config, size = model.config.get_text_config(), len(model.get_input_embeddings().weight)
    ids = tuple(k % size for k in range(min(3 * SHARED, (context_of(model) or sys.maxsize) - 2)))
    tried = [Request(ids, (ids[:2],)), Request(ids[: SHARED + 1], (ids[:3],))]
    try:
        both = _scored(model, tried, sys.maxsize), [_scored_whole(model, request) for request in tried]
    except Exception:  # whatever a network says of a cache that it has not, or that is none of keys and values
        return 0
    (one, other) = (np.array([value for ((value, _),) in found]) for found in both)
    if np.abs(one - other).max() > (1e-3 if model.dtype == torch.float32 else 0.1):
        return 0
    windows = [getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size")]
    return min((window for window in windows if isinstance(window, int)), default=sys.maxsize)


def _scored(model: Any, rows: list[Request], reach: int) -> list[list[tuple[float, bool]]]:
    longest = max(len(o) for r in rows for o in r.options)
    within = max(len(r.prompt) for r in rows) + longest <= reach
    if longest > 1 and not within:
        return [_scored_whole(model, row) for row in rows]
    start, cache = _begin(model, rows) if within else (0, None)
    prompts = [r.prompt[start:] for r in rows]
    options, owner = [o for r in rows for o in r.options], np.repeat(range(len(rows)), [len(r.options) for r in rows])
    longer = np.flatnonzero([len(o) > 1 for o in options])
    last = np.array([len(p) - 1 for p in prompts])
    use = {"past_key_values": cache, "use_cache": True} if start else {"use_cache": bool(longer.size)}
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


def _scored_whole(model: Any, request: Request) -> list[tuple[float, bool]]:
    """The same of one prompt, which is read again with each option."""
    prompt, options, _ = request
    sequences, lengths = [prompt + option[:-1] for option in options], [len(option) for option in options]
    row = np.repeat(range(len(options)), lengths)
    column = np.concatenate([len(prompt) - 1 + np.arange(length) for length in lengths])
    logp, _ = _log_probabilities(model, sequences, row, column, use_cache=False)
    told = _told(logp, np.arange(len(row)), [token for option in options for token in option])
    return [(float(told[0][row == i].sum()), bool(told[1][row == i].all())) for i in range(len(options))]


def _told(logp: torch.Tensor, row: np.ndarray, tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each token in its row of (n, V), and whether it is the most probable one there."""
    at, token = torch.from_numpy(row).to(logp.device), torch.tensor(tokens, device=logp.device)
    return logp[at, token].double().cpu().numpy(), (logp.argmax(-1)[at] == token).cpu().numpy()


def _places(model: Any, start: int, lengths: np.ndarray, owner: np.ndarray, n: int) -> dict[str, torch.Tensor]:
    """Where `n` tokens stand after prompts of these `lengths`, filled up to the longest, after `start` of all."""
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
    prompts = [r.prompt for r in rows]
    alike = takewhile(lambda tokens: len({*tokens}) == 1, zip(*prompts, strict=False))
    length = min(sum(1 for _ in alike), min(map(len, prompts)) - 1)
    if length < SHARED or len(rows) == 1:
        return 0, None
    ids = torch.tensor([prompts[0][:length]], device=model.device)
    cache = model.base_model(input_ids=ids, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(rows))
    return length, cache


def _log_probabilities(
    model: Any, sequences: Sequence[Sequence[int]], row: np.ndarray, column: np.ndarray, **given: Any
) -> tuple[torch.Tensor, Any]:
    """Float32 (n, vocabulary), of what follows each (row, column) of `sequences`; and the cache."""
    # The vocabulary's side of the network is run only for the columns that somebody reads.
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        columns, column = np.unique(column, return_inverse=True)
        given["logits_to_keep"] = torch.from_numpy(columns).to(model.device)
    ids = pad_sequence([torch.tensor(sequence) for sequence in sequences], batch_first=True)
    found = model(input_ids=ids.to(model.device), **given)
    read: torch.Tensor = found.logits[torch.from_numpy(row), torch.from_numpy(column)]
    return read.float().log_softmax(-1), found.get("past_key_values")


@torch.inference_mode()
def continuations(model: Any, tokenizer: Any, asked: Sequence[tuple[Sequence[int], int]], batch_size: int) -> list[str]:
    """What the network says after each (prompt, most tokens), greedily, up to the end of its line."""
    said: list[str] = []
    last = getattr(model.generation_config, "eos_token_id", None)
    fill = 0 if last is None else int(np.atleast_1d(last)[0])  # for lines that have ended
    size = batch_size if _reach(model) else 1  # a state would take the filling in
    for batch in (asked[first : first + size] for first in range(0, len(asked), size)):
        width = max(len(prompt) for prompt, _ in batch)
        ids = torch.tensor([[0] * (width - len(p)) + [*p] for p, _ in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p, _ in batch], device=model.device)

        def ended(rows: torch.Tensor, *_: Any, width: int = width, **__: Any) -> torch.Tensor:
            return torch.tensor(["\n" in tokenizer.decode(row[width:]) for row in rows], device=rows.device)

        how = {"max_new_tokens": max(most for _, most in batch), "do_sample": False, "pad_token_id": fill}
        rows = model.generate(ids, attention_mask=mask, stopping_criteria=[ended], **how)[:, width:]
        cut = (row[:most] for row, (_, most) in zip(rows, batch, strict=True))
        said += [tokenizer.decode(row, skip_special_tokens=True).split("\n")[0] for row in cut]
    return said
