"""Hidden states of every layer for the texts of a stimulus, and their way to the TR grid.

Hooks pool them while the network runs, so that they never exist together. Networks are causal: rows are filled up on
the right and need no mask, and a pass over many words serves each of them.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import zarr
from torch.nn.utils.rnn import pad_sequence

from phaselab import stimuli
from phaselab.errors import PhaselabError, expect, number_of
from phaselab.lazy import Lazy
from phaselab.stimuli import Stimulus
from phaselab.study import FeatureSpec

#: Documents that are tokenised at a time: the tokenizer's lists are many times as large as the ids.
TOKENISED = 1024
Document = tuple[str, ...]
#: Tokens of a batch, padding included, by type of device: more gain no speed there. Halved when memory runs out.
MAX_TOKENS = {"cpu": 1024, "cuda": 16384}
#: Padding in a batch at most, as a share of its tokens at most: about what it costs to begin a batch.
PADDING = 1 / 32
#: Bytes of pooled hidden states that are held in memory; larger ones go to a file where there is a folder.
IN_MEMORY = 1 << 30
#: What torch says when memory runs out, on an accelerator, on a CPU of Linux or of Windows.
OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator", "not enough memory")
Say = Callable[[str], None]
States = Callable[[], np.ndarray]
#: Values of a chunk of Zarr at most, whose compressor takes 2 GiB.
CHUNK = 1 << 28


@dataclass(frozen=True)
class Features:
    """Hidden states of a stimulus, one row per text, the runs one after another.

    Layer 0 is the embedding output, the last one is after the final norm, as in the ``hidden_states`` of transformers.
    `notes` count ``texts``; ``empty``, without a state; ``truncated``, with less context than asked for (or cut);
    ``documents``; ``tokens`` through the network; ``batch_tokens``; and say what begins a pass (``opening``).
    """

    layers: Mapping[int, np.ndarray]  # layer -> float32 (n_texts, p), made when it is asked for
    runs: np.ndarray  # (n_texts,) name of the run of each text
    there: np.ndarray  # (n_texts,) whether a text has a state of its own; else it is 0 or as the one before (``empty``)
    notes: dict[str, Any]


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
    joined = (" ".join(filter(None, document)) for document, _ in readable)
    begin = opening(tokenizer, joined, spec.first_token == "keep")
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


def _tokens(readable: Sequence[tuple[Document, int]], tokenizer: Any, spec: FeatureSpec) -> Iterator[tuple[Any, ...]]:
    """Each document with its number, its token ids, and the first and the end (exclusive) of each text's."""
    alone, name = spec.context == "text", type(tokenizer).__name__
    fast = "those of a fast tokenizer (tokenizer.json), or features.context: text"
    expect(alone or tokenizer.is_fast, f"tokenizer {name}", "no character offsets of tokens", fast)
    asked = {"add_special_tokens": False, "return_offsets_mapping": not alone, "return_attention_mask": False}
    for start in range(0, len(readable), TOKENISED):
        part = readable[start : start + TOKENISED]
        # A document is longer than the model's context by design: the tokenizer need not warn of it.
        encoded = tokenizer([" ".join(filter(None, document)) for document, _ in part], **asked, verbose=False)
        for number, (document, text) in enumerate(part):
            ids = np.array(encoded["input_ids"][number], dtype=np.int32)
            first, last = np.array([0]), np.array([len(ids)])
            if not alone:
                begins, ends = np.array(encoded["offset_mapping"][number], dtype=np.int64).reshape(-1, 2).T
                lengths = np.array([len(text) for text in document])
                stops = np.cumsum(lengths + (lengths > 0)) - (lengths > 0)
                # The space before a text belongs to it.
                first = np.where(lengths > 0, np.searchsorted(ends, stops - lengths - 1, side="right"), 0)
                last = np.where(lengths > 0, np.searchsorted(begins, stops, side="left"), 0)
            yield document, text, ids, first, last


def _windows(first: np.ndarray, last: np.ndarray, room: int, spec: FeatureSpec) -> Iterator[tuple[int, ...]]:
    """Of each pass over a document: first token wished, token range (left, right), new texts (new, stop)."""
    new = 0
    while new < len(first):
        stop = min(len(first), new + spec.stride + (spec.window if new == 0 else 0))
        # New texts that crowd out their own left context would be read as if they began the story.
        most = room if new == 0 else max(1, room // 2)
        stop = new + max(1, int(np.searchsorted(last[new:stop] - first[new], most, side="right")))
        wished, right = int(first[max(0, new - spec.window)]), int(last[stop - 1])
        yield wished, max(wished, right - room), right, new, stop
        new = stop


def blocks_of(model: Any) -> list[torch.nn.Module]:
    """The layers of the network, in order."""
    number = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == number:
            return list(module)
    raise PhaselabError(f"{type(model).__name__}: expected a list of {number} layers in its base model, found none")


def context_of(model: Any) -> int | None:
    """Tokens that the network reads at once; None for an architecture without a limit."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", getattr(config, "max_seq_len", None))  # the latter: MPT


def room_for(shape: tuple[int, ...], scratch: Path | None) -> States:
    """Gives float32 zeros of `shape`: in memory, or a new map of a file without a name in `scratch` each time."""
    size = 4 * math.prod(shape)
    if scratch is None or size <= IN_MEMORY:
        values = np.zeros(shape, dtype=np.float32)
        return lambda: values
    scratch.mkdir(parents=True, exist_ok=True)
    free, layers = shutil.disk_usage(scratch).free, number_of(shape[0], "layer")
    expected = f"{size / 1e9:.1f} GB for hidden states of {layers}"
    expect(free >= size, str(scratch), f"{free / 1e9:.1f} GB free", f"{expected} (features.layers: fewer)")
    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
    if hasattr(os, "posix_fallocate"):  # else a disk that fills up meanwhile would end the process without a word
        os.posix_fallocate(file.fileno(), 0, size)
    file.truncate(size)
    return lambda: np.memmap(file, np.float32, "r+", shape=shape)  # an old map keeps in memory what it has touched


@torch.inference_mode()
def encode(model: Any, passes: list[Pass], layers: list[int], pooling: str, states: States, say: Say) -> int:
    """Pool all passes in order into `states` (n_layers, n_rows, p); returns the most tokens of a batch at the end."""
    blocks, device, name = blocks_of(model), model.device.type, model.name_or_path
    budget = MAX_TOKENS.get(device, MAX_TOKENS["cpu"])
    plan: dict[str, torch.Tensor] = {}
    pooled: list[torch.Tensor] = []

    def pool(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        tokens = hidden[plan["row"], plan["column"]].float()
        if pooling != "last":
            # Sums in one order whatever the device, which index_add does not promise.
            tokens = torch.segment_reduce(tokens, pooling, lengths=plan["lengths"])
        pooled.append(tokens)

    def read(batch: list[Pass]) -> np.ndarray | None:
        """(n_layers, n_rows, p), or None when memory ran out."""
        try:
            plan.update({name: array.to(model.device) for name, array in _plan(batch, pooling).items()})
            final = model.base_model(input_ids=plan["ids"], use_cache=False).last_hidden_state
            if len(blocks) in layers:
                wide, width = final.shape[-1], states().shape[-1]
                found = f"a last layer of {wide} numbers, where others have {width}"
                expect(wide == width, f"{name}: features.layers", found, f"some of 0 to {len(blocks) - 1}")
                pool(model, (final,), {})
            return torch.stack(pooled).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and not any(said in str(error) for said in OUT_OF_MEMORY):
                raise
            return None

    start = row = 0
    with ExitStack() as hooks:
        # The input of block i is the output of block i - 1: so no hook has to know what else a block returns.
        for block in (blocks[layer] for layer in layers if layer < len(blocks)):
            hooks.callback(block.register_forward_pre_hook(pool, with_kwargs=True).remove)
        while start < len(passes):
            longest = len(passes[start].ids)
            batch = passes[start : start + max(1, budget // longest)]
            padding = np.cumsum([longest - len(item.ids) for item in batch])
            batch = batch[: int(np.searchsorted(padding, budget * PADDING, side="right"))]
            found = read(batch)
            # Outside the except clause: until it ends, the error keeps the tensors of the failed pass.
            pooled.clear()
            plan.clear()
            if found is not None:
                expect(len(found) == len(layers), name, f"{len(found)} hidden states", str(len(layers)))
                bad = [layer for layer, rows in zip(layers, found, strict=True) if not np.isfinite(rows).all()]
                expect(not bad, f"{name}: layers {bad}", "hidden states that are not finite", "numbers")
                states()[:, row : row + found.shape[1]] = found
                start, row = start + len(batch), row + found.shape[1]
                continue
            expect(len(batch) > 1, name, f"no memory on {device} for {longest} tokens", "some")
            budget = len(batch) * longest // 2
            if device == "cuda":
                torch.cuda.empty_cache()
            say(f"{name}: memory ran out on {device}; now at most {budget} tokens per batch")
    return budget


def _plan(batch: list[Pass], pooling: str) -> dict[str, torch.Tensor]:
    """Token ids (n_rows, n_columns), and where the pooled tokens of each text are in them."""
    rows = np.repeat(np.arange(len(batch)), [item.spans.shape[1] for item in batch])
    _, first, last = np.concatenate([item.spans for item in batch], axis=1)
    lengths = np.ones_like(last) if pooling == "last" else last - first
    # The tokens of all texts one behind the other: position in this list, less where its text began.
    column = np.arange(lengths.sum()) + np.repeat(last - np.cumsum(lengths), lengths)
    plan = {"row": np.repeat(rows, lengths), "column": column, "lengths": lengths}
    ids = pad_sequence([torch.from_numpy(item.ids) for item in batch], batch_first=True)
    return {"ids": ids.long(), **{name: torch.from_numpy(array) for name, array in plan.items()}}


def extract(
    model: Any,
    tokenizer: Any,
    stimulus: Stimulus,
    spec: FeatureSpec,
    scratch: Path | None = None,
    say: Say = lambda message: None,
) -> Features:
    """Hidden states of every layer, or of some, one row per text of the stimulus.

    With ``words`` the first ``window + stride`` texts of a narrative are read together, then ``stride`` new ones at a
    time after the ``window`` before them. Texts are joined by single spaces, and what occurs twice is read once.
    What begins every pass (`opening`) is never pooled; without it a text that begins a pass is pooled without
    its first token, and is empty if it has no other. A pass that is longer than the model's context loses tokens on its
    left, but no more than half of that context: beyond, it takes fewer new texts. Hidden states of more than 1 GiB lie
    in a file without a name in the folder `scratch`.
    """
    documents: dict[Document, int] = {}  # document -> number of its first wanted text
    numbers, n_texts = list[int](), 0
    for document, wanted in documents_of(stimulus, spec):
        first = documents.setdefault(document, n_texts)
        n_texts = max(n_texts, first + wanted)
        numbers.extend(range(first, first + wanted))
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
    budget = encode(model, passes, layers, spec.pooling, states, say)
    tokens, there = sum(len(item.ids) for item in passes), rows >= 0
    notes: dict[str, Any] = {"texts": len(source), "empty": int((~there).sum())}
    notes |= {"truncated": int(truncated[source].sum()), "opening": tokenizer.convert_ids_to_tokens(begin)}
    notes |= {"documents": len(documents), "tokens": tokens, "batch_tokens": budget}
    if notes["truncated"]:
        told = f"less context than asked for in {notes['truncated']:,} of {number_of(notes['texts'], 'text')}"
        say(f"{name}: {told}: the model reads {context} tokens at once")
    if passes and not begin:
        told = f"is not pooled: {notes['empty']:,} of {number_of(notes['texts'], 'text')} without a state"
        told += f" (features.empty: {spec.empty})"
        told = "is pooled, and may be an attention sink" if spec.first_token == "keep" else told
        say(f"{name}: no token begins a pass but the text's own first one, which {told}")
    if spec.empty == "carry":  # what is there before, unless a run or a narrative begins
        begins = [new for run in stimulus.runs for new in (True, *run.starts[1:])[: len(run.texts)]]
        rows = rows[np.maximum.accumulate(np.where(there | np.array(begins, dtype=bool), np.arange(len(rows)), 0))]
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


def write_features(features: Features, stimulus: Stimulus, path: Path, **provenance: Any) -> None:
    """Write features as Zarr: ``states`` (as `write_layers` does), ``onsets`` (n_texts,), seconds, and ``there``."""
    group = zarr.open_group(path, mode="w")
    write_layers(features.layers, path / "states")
    group.create_array("onsets", data=np.concatenate([np.empty(0), *(run.onsets for run in stimulus.runs)]))
    group.create_array("there", data=features.there)
    runs: Any = [[run.name, len(run.texts)] for run in stimulus.runs]
    group.attrs.update({"layers": list(features.layers), "runs": runs, "notes": features.notes, **provenance})


def joined(aligned: Mapping[int, Mapping[str, np.ndarray]]) -> Mapping[int, np.ndarray]:
    """What `to_trs` gives with all runs in one, made when asked for: layer -> (TRs, p)."""
    return Lazy(aligned, lambda layer: np.concatenate([*aligned[layer].values()]))


def write_layers(layers: Mapping[int, np.ndarray], path: Path, **provenance: Any) -> None:
    """Write layers (n, p), one after another, as a Zarr array (n_layers, n, p) whose attributes say which they are."""
    n, width = layers[next(iter(layers))].shape
    chunks, shape = (1, max(1, min(n, CHUNK // width)), width), (len(layers), n, width)
    array: Any = zarr.create_array(path, shape=shape, chunks=chunks, dtype="float32")
    for at, values in enumerate(layers.values()):
        array[at] = values
    array.attrs["phaselab"] = {"layers": list(layers), **provenance}


def read_features(path: Path) -> Features:
    """What ``write_features`` wrote; a layer is read when it is asked for."""
    group: Any = zarr.open_group(path, mode="r")
    expect("there" in group, str(path), "features of an older version", "those of this one: make them again")
    states, attrs, layers = group["states"], group.attrs, group.attrs["layers"]
    names, counts = zip(*attrs["runs"], strict=True)
    read, runs = Lazy(layers, lambda layer: np.asarray(states[layers.index(layer)])), np.array(names, dtype=str)
    return Features(read, np.repeat(runs, counts), np.asarray(group["there"]), attrs["notes"])


def to_trs(
    features: Features, stimulus: Stimulus, spec: FeatureSpec, say: Say = lambda message: None
) -> Mapping[int, dict[str, np.ndarray]]:
    """Features on the TR grid (``stimuli.align``): layer -> run -> float32 (n_trs - trim, p), made when asked for."""
    names, trim = [run.name for run in stimulus.runs for _ in run.texts], spec.trim
    expect(list(features.runs) == names, "features", "other texts by run", f"those of stimulus {stimulus.name}")
    for run in stimulus.runs:
        expect(run.n_trs > run.dropped(trim), f"run {run.name}: trim", trim, f"fewer than its {run.n_trs} TRs")
    for tr in {run.tr for run in stimulus.runs if trim + run.margin < stimuli.carried(run.tr, spec)}:
        reach = f"{stimuli.carried(tr, spec)} TRs of {tr:g} s by hemodynamics: {spec.hemodynamics}"
        say(f"note: a run's first TRs feel what came before it, for {reach}; features.trim drops {trim} of them")

    def aligned(layer: int) -> dict[str, np.ndarray]:
        parts = np.split(features.layers[layer], np.cumsum([len(run.texts) for run in stimulus.runs])[:-1])
        of_run = zip(stimulus.runs, parts, strict=True)
        return {run.name: stimuli.align(part, run, spec)[run.dropped(trim) :] for run, part in of_run}

    return Lazy(features.layers, aligned)
