"""Hidden states of every layer for the texts of a stimulus, and their way to the TR grid.

A stimulus is cut into *documents*, inside which context flows: one a text (``context: text``), one a
text with those of the seconds before it (``seconds``), or one a narrative (``words``). A document is
cut into *passes* over the network, and each pass gives the values of some of its texts. Documents
that occur twice are encoded once. Hidden states are pooled by hooks while the network runs, so that
those of all layers never exist together; pooled ones that would fill the memory go to a file.

The networks are causal: what follows a token cannot change its hidden state. Hence rows of a batch
are filled up on the right, whatever the tokenizer prefers, and need neither an attention mask nor a
padding token (a recurrent state, too, only flows to the right); and one pass over many words gives
each of them what a pass that ended there would.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from phaselab import stimuli
from phaselab.errors import PhaselabError
from phaselab.stimuli import Run, Stimulus
from phaselab.study import FeatureSpec as Spec

#: Tokens of a batch, padding included, by type of device: more gain no speed there.
MAX_TOKENS = {"cpu": 1024, "cuda": 16384}
#: Padding in a batch at most, as a share of its tokens at most: about what it costs to begin a batch.
PADDING = 1 / 32
#: Bytes of pooled hidden states that are held in memory; larger ones go to a file where there is a folder.
IN_MEMORY = 1 << 30
#: Documents that are tokenised at a time: the tokenizer's lists are many times as large as the ids.
TOKENISED = 1024

Document = tuple[str, ...]
Value = TypeVar("Value")
Say = Callable[[str], None]


class FeatureError(PhaselabError):
    """Features that cannot be had or used; the message names the model, the layer or the run."""


class Lazy(Mapping[int, Value]):
    """A mapping from layers to what `make` gives for them, made anew whenever it is asked for."""

    def __init__(self, layers: Sequence[int], make: Callable[[int], Value]) -> None:
        self._layers, self._make = tuple(layers), make

    def __getitem__(self, layer: int) -> Value:
        if layer not in self._layers:
            raise KeyError(layer)
        return self._make(layer)

    def __iter__(self) -> Iterator[int]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


@dataclass(frozen=True)
class Features:
    """Hidden states of a stimulus, one row a text, the runs one after another.

    Attributes
    ----------
    layers : layer -> float32 (n_texts, p); 0 is the embedding output, the last one is after the
        final norm, as in the ``hidden_states`` of transformers (where those of Mamba leave the
        embedding output out). A layer is put together when it is asked for.
    runs : (n_texts,) name of the run of each text.
    notes : counts: ``texts``; ``empty``, texts without a token; ``truncated``, texts that got less
        context than the window asks for (or were cut themselves) because the model's context is
        shorter; ``documents``, different ones; ``tokens``, that went through the network;
        ``batch_tokens``, most tokens of a batch at the end, less than at first if memory ran out.
    constant_columns : layer -> number of columns that have one value for all texts.
    """

    layers: Mapping[int, np.ndarray]
    runs: np.ndarray
    notes: dict[str, int]
    constant_columns: dict[int, int]


@dataclass(frozen=True, slots=True)
class _Pass:
    """One row of a batch: token ids, and which of them belong to which text.

    The columns of ``spans`` (3, n) are a text's number, its first token, and the one behind its last.
    """

    ids: np.ndarray
    spans: np.ndarray


def _silent(message: str) -> None:
    return None


def extract(
    model: Any,
    tokenizer: Any,
    stimulus: Stimulus,
    spec: Spec,
    max_tokens: int | None = None,
    scratch: Path | None = None,
    say: Say = _silent,
) -> Features:
    """Hidden states of every layer, or of some, one row a text of the stimulus.

    With ``spec.context == "text"`` each text is read alone. With ``"seconds"`` it is read after the
    texts of its narrative that began in the last ``seconds`` seconds, its own onset included and at
    an earlier moment than it (what several annotators write of one moment is not context of each
    other), joined by single spaces. With ``"words"`` the texts between two ``starts`` of a run are
    joined by single spaces and read in passes: the first ``window + stride`` of them together, then
    ``stride`` new ones at a time with the ``window`` before them as left context. So a text has at
    least ``window`` others on its left, as far as its narrative has them.

    A text's value is taken from its own tokens, whatever context they were read in: the last one,
    their mean or their maximum. Blanks around a text are dropped; a text without a token has the
    value zero, or with ``spec.empty == "carry"`` that of the text before it in its narrative. Tokens
    that the tokenizer puts before a text (such as BOS) begin every pass and are never pooled; those
    that it puts behind are left out. A pass that is longer than the model's context loses tokens on
    its left, but no more than half of that context: beyond, it takes fewer new texts.

    Parameters
    ----------
    model : causal language model of transformers in evaluation mode, on any device.
    tokenizer : its tokenizer; for a context of several texts a fast one, for character offsets tell
        which token is whose.
    stimulus : the texts.
    spec : ``context``, ``seconds``, ``window``, ``stride``, ``pooling``, ``layers`` and ``empty`` are used.
    max_tokens : tokens of a batch, padding included; by default 1,024 on a CPU and 16,384 on CUDA. A
        longer pass makes a batch of its own. When memory runs out it is halved, and the batch tried again.
    scratch : folder for a file without a name, gone with the result, that takes hidden states of more
        than 1 GiB; without it they stay in memory.
    say : receives a sentence when memory ran out, and when texts were truncated.

    Raises
    ------
    FeatureError
        When hidden states are not finite (naming the layer and the model's folder), when the
        tokenizer gives no offsets, the layers of the network cannot be told or one that is asked for
        is not there, when one pass alone does not fit into memory, or the file does not into `scratch`.
    """
    documents: dict[Document, int] = {}  # document -> number of its first wanted text
    numbers: list[int] = []
    n_texts = 0
    for document, wanted in _documents(stimulus, spec):
        if document not in documents:
            documents[document] = n_texts
            n_texts += wanted
        numbers.extend(range(documents[document], documents[document] + wanted))
    source = np.array(numbers, dtype=np.int64)

    passes, truncated = _passes(documents, n_texts, tokenizer, _context_length(model), spec)
    passes.sort(key=lambda item: -len(item.ids))
    order = np.concatenate([np.empty(0, dtype=np.int64), *(item.spans[0] for item in passes)])
    row_of = np.full(n_texts, -1)
    row_of[order] = np.arange(len(order))
    rows = row_of[source]
    n_empty = int((rows < 0).sum())
    if spec.empty == "carry":
        rows = _carried(rows, stimulus)

    layers = _chosen(spec.layers, len(_blocks(model)), model)
    states = _States(len(layers), len(order), model.config.get_text_config().hidden_size, scratch)
    last_budget = _encode(model, passes, layers, spec.pooling, states, max_tokens, say)
    if states.not_finite.any():
        worst = int(np.argmax(states.not_finite > 0))
        raise FeatureError(
            f"{model.name_or_path}: layer {layers[worst]}: hidden states are not finite for "
            f"{states.not_finite[worst]} of {len(order)} texts"
        )
    notes = {
        "texts": len(source),
        "empty": n_empty,
        "truncated": int(truncated[source].sum()),
        "documents": len(documents),
        "tokens": sum(len(item.ids) for item in passes),
        "batch_tokens": last_budget,
    }
    if notes["truncated"]:
        say(
            f"{model.name_or_path}: {notes['truncated']} of {notes['texts']} texts have less context than "
            f"asked for: the model reads {_context_length(model)} tokens at once"
        )
    runs = np.array([run.name for run in stimulus.runs for _ in run.texts], dtype=str)
    return Features(
        Lazy(layers, lambda layer: states.read(layers.index(layer))[rows]),
        runs,
        notes,
        dict(zip(layers, states.constant_columns(rows), strict=True)),
    )


def to_trs(features: Features, stimulus: Stimulus, spec: Spec) -> Mapping[int, dict[str, np.ndarray]]:
    """Features on the TR grid, haemodynamics included, each run by itself.

    Returns
    -------
    layer -> run -> float32 (n_trs - trim, p), or p times the number of delays where they are
    stacked; the first ``spec.trim`` TRs of each run are dropped. A layer is computed when it is asked
    for, so that only one of them need be in memory.

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
            raise FeatureError(f"run {run.name}: trim: found {spec.trim}, expected fewer than its {run.n_trs} TRs")

    def aligned(layer: int) -> dict[str, np.ndarray]:
        values = features.layers[layer]
        return {run.name: stimuli.align(values[own], run, spec)[spec.trim :] for run, own in _by_run(stimulus)}

    return Lazy(list(features.layers), aligned)


def write_features(features: Features, stimulus: Stimulus, path: Path, **provenance: Any) -> None:
    """Write features as Zarr: ``states`` (n_layers, n_texts, p), a chunk a layer; ``onsets`` (n_texts,), s.

    Attributes of the group: ``layers``, ``runs`` (pairs of name and number of texts, in order), the
    ``notes``, and `provenance`. One layer is in memory at a time.
    """
    import zarr

    group = zarr.open_group(path, mode="w")
    layers = list(features.layers)
    shape = features.layers[layers[0]].shape
    states = group.create_array(
        "states", shape=(len(layers), *shape), chunks=(1, max(1, shape[0]), shape[1]), dtype="float32"
    )
    for number, layer in enumerate(layers):
        states[number] = features.layers[layer]
    onsets = np.concatenate([np.empty(0), *(run.onsets for run in stimulus.runs)])
    group.create_array("onsets", data=onsets)
    group.attrs.update(
        {
            "layers": layers,
            "runs": [[run.name, len(run.texts)] for run in stimulus.runs],
            "notes": features.notes,
            "constant_columns": {str(layer): n for layer, n in features.constant_columns.items()},
            **provenance,
        }
    )


def read_features(path: Path) -> Features:
    """What ``write_features`` wrote; a layer is read when it is asked for."""
    import zarr

    group = zarr.open_group(path, mode="r")
    attrs: dict[str, Any] = group.attrs.asdict()
    states: Any = group["states"]
    layers = [int(layer) for layer in attrs["layers"]]
    names, counts = zip(*attrs["runs"], strict=True)
    constant = {int(layer): int(n) for layer, n in attrs["constant_columns"].items()}
    return Features(
        Lazy(layers, lambda layer: np.asarray(states[layers.index(layer)])),
        np.repeat(np.array(names, dtype=str), counts),
        attrs["notes"],
        constant,
    )


def _names(runs: Sequence[str] | np.ndarray) -> str:
    return ", ".join(dict.fromkeys(map(str, runs))) or "(none)"


def _by_run(stimulus: Stimulus) -> Iterator[tuple[Run, slice]]:
    """Each run, and where its texts are among those of all runs."""
    start = 0
    for run in stimulus.runs:
        yield run, slice(start, start + len(run.texts))
        start += len(run.texts)


def _documents(stimulus: Stimulus, spec: Spec) -> Iterator[tuple[Document, int]]:
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


def _carried(rows: np.ndarray, stimulus: Stimulus) -> np.ndarray:
    """Each -1 replaced by the row of the text before it, unless a run or a narrative begins."""
    rows = rows.copy()
    for run, own in _by_run(stimulus):
        of_run = rows[own]
        for i in range(1, len(of_run)):
            if of_run[i] < 0 and not run.starts[i]:
                of_run[i] = of_run[i - 1]
    return rows


def _chosen(wanted: str | tuple[int, ...], n_blocks: int, model: Any) -> list[int]:
    """Numbers of the layers that `wanted` names, in ascending order; -1 is the last one."""
    every = range(n_blocks + 1)
    if isinstance(wanted, str):
        return list(every)
    beyond = [layer for layer in wanted if not -len(every) <= layer <= n_blocks]
    if beyond:
        raise FeatureError(
            f"{model.name_or_path}: features.layers: found {beyond[0]}, expected 0 to {n_blocks} "
            f"(or -1, the last one, to {-len(every)})"
        )
    return sorted({every[layer] for layer in wanted})


def _passes(
    documents: dict[Document, int], n_texts: int, tokenizer: Any, context: int | None, spec: Spec
) -> tuple[list[_Pass], np.ndarray]:
    """The passes that give every text with a token its value, and which texts (bool) were truncated."""
    truncated = np.zeros(n_texts, dtype=bool)
    readable = [(document, text) for document, text in documents.items() if any(document)]
    if not readable:
        return [], truncated
    prefix = _prefix(tokenizer, _joined(readable[0][0]))
    room = np.iinfo(np.int64).max if context is None else context - len(prefix)
    if room < 1:
        raise FeatureError(f"model: found a context of {context} tokens, expected more than {len(prefix)}")
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
            passes.append(_Pass(np.concatenate([prefix, ids[left:right]]), np.vstack([numbers[new:stop], at])))
            truncated[numbers[new:stop]] = left > wished
    return passes, truncated


def _joined(document: Document) -> str:
    return " ".join(text for text in document if text)


def _tokens(
    readable: Sequence[tuple[Document, int]], tokenizer: Any, spec: Spec
) -> Iterator[tuple[tuple[Document, int], np.ndarray, np.ndarray, np.ndarray]]:
    """Each item, the token ids of its document, and the first and the end (exclusive) of each text's."""
    alone = spec.context == "text"
    if not alone and not tokenizer.is_fast:
        raise FeatureError(
            f"tokenizer {type(tokenizer).__name__}: it gives no character offsets; expected a fast tokenizer "
            f"(tokenizer.json), or features.context: text instead of {spec.context}"
        )
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


def _windows(first: np.ndarray, last: np.ndarray, room: int, spec: Spec) -> Iterator[tuple[int, int, int, int, int]]:
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


def _context_length(model: Any) -> int | None:
    """Tokens that the model can read at once; None for an architecture without a limit."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _blocks(model: Any) -> list[torch.nn.Module]:
    """The layers of the network, in order."""
    number = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == number:
            return list(module)
    raise FeatureError(f"{type(model).__name__}: expected a list of {number} layers in its base model, found none")


class _States:
    """Pooled hidden states, float32 (n_layers, n_rows + 1, p), as they come; the last row of each is zero.

    They lie in memory, or in a file without a name if that is what `scratch` is for. What a check
    needs to know of all rows is gathered on the way: ``not_finite``, (n_layers,) rows with NaN or
    infinite values.
    """

    def __init__(self, n_layers: int, n_rows: int, width: int, scratch: Path | None) -> None:
        self.shape = n_layers, n_rows + 1, width
        self.filled = 0
        self.not_finite = np.zeros(n_layers, dtype=np.int64)
        self.lowest = np.full((n_layers, width), np.inf, dtype=np.float32)
        self.highest = np.full((n_layers, width), -np.inf, dtype=np.float32)
        size = 4 * n_layers * (n_rows + 1) * width
        self.file = None
        if scratch is None or size <= IN_MEMORY:
            self.values = np.zeros(self.shape, dtype=np.float32)
            return
        scratch.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(scratch).free
        if free < size:
            raise FeatureError(
                f"{scratch}: found {free / 1e9:.1f} GB free, expected {size / 1e9:.1f} GB for hidden states "
                f"of {n_layers} layers (features.layers can name fewer)"
            )
        self.file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
        self.file.truncate(size)

    def add(self, block: np.ndarray) -> None:
        """Take the next rows, (n_layers, n, p)."""
        start, self.filled = self.filled, self.filled + block.shape[1]
        self.not_finite += (~np.isfinite(block).all(axis=2)).sum(axis=1)
        np.minimum(self.lowest, block.min(axis=1), out=self.lowest)
        np.maximum(self.highest, block.max(axis=1), out=self.highest)
        if self.file is None:
            self.values[:, start : self.filled] = block
            return
        for layer, rows in enumerate(block):
            self.file.seek(4 * self.shape[2] * (layer * self.shape[1] + start))
            self.file.write(rows.tobytes())

    def read(self, layer: int) -> np.ndarray:
        """(n_rows + 1, p) of one layer."""
        if self.file is None:
            return self.values[layer]
        count = self.shape[1] * self.shape[2]
        self.file.seek(4 * layer * count)
        return np.fromfile(self.file, dtype=np.float32, count=count).reshape(self.shape[1:])

    def constant_columns(self, rows: np.ndarray) -> list[int]:
        """For each layer the columns that have one value in all of `rows`, of which -1 is the zero row."""
        if not len(rows):
            return [0] * len(self.lowest)
        zero = (rows < 0).any()
        lowest = np.minimum(self.lowest, 0) if zero else self.lowest
        highest = np.maximum(self.highest, 0) if zero else self.highest
        return [int(n) for n in (lowest == highest).sum(axis=1)]


@torch.inference_mode()
def _encode(
    model: Any,
    passes: list[_Pass],
    layers: list[int],
    pooling: str,
    states: _States,
    max_tokens: int | None,
    say: Say,
) -> int:
    """Pool the hidden states of all passes, in order; returns the most tokens of a batch at the end."""
    base, blocks = model.base_model, _blocks(model)
    device = model.device.type
    budget = max_tokens or MAX_TOKENS.get(device, MAX_TOKENS["cpu"])
    plan: dict[str, torch.Tensor] = {}
    pooled: list[torch.Tensor] = []

    def pool(hidden: torch.Tensor) -> None:
        tokens = hidden[plan["row"], plan["column"]].float()
        if pooling != "last":
            # Sums in one order whatever the device, which index_add does not promise.
            tokens = torch.segment_reduce(tokens, pooling, lengths=plan["lengths"])
        pooled.append(tokens)

    def before_block(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pool(args[0] if args else kwargs["hidden_states"])

    def read(batch: list[_Pass]) -> np.ndarray | None:
        """(n_layers, n_rows, p), or None when memory ran out."""
        pooled.clear()
        plan.clear()
        try:
            plan.update({name: array.to(model.device) for name, array in _plan(batch, pooling).items()})
            final = base(input_ids=plan["ids"], use_cache=False).last_hidden_state
            if len(blocks) in layers:
                pool(final)
            if len(pooled) != len(layers):
                raise FeatureError(f"{type(model).__name__}: found {len(pooled)} hidden states, expected {len(layers)}")
            return torch.stack(pooled).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            return None

    # What goes into block i is the output of block i - 1, or the embeddings; the model's own output
    # comes after the final norm. So no hook has to know what else a block returns.
    hooks = [
        blocks[layer].register_forward_pre_hook(before_block, with_kwargs=True)
        for layer in layers
        if layer < len(blocks)
    ]
    start = 0
    try:
        while start < len(passes):
            batch = passes[start : start + _rows(passes, start, budget)]
            block = read(batch)
            if block is None:
                # Outside the except clause: until it ends, the error keeps the tensors of the failed pass.
                pooled.clear()
                longest = len(batch[0].ids)
                if len(batch) == 1:
                    raise FeatureError(f"{model.name_or_path}: no memory on {device} for {longest} tokens")
                budget = len(batch) * longest // 2
                if device == "cuda":
                    torch.cuda.empty_cache()
                say(f"{model.name_or_path}: memory ran out on {device}; now at most {budget} tokens a batch")
                continue
            states.add(block)
            start += len(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return budget


def _out_of_memory(error: Exception) -> bool:
    """Whether torch (on an accelerator, on a CPU of Linux or of Windows) or Python found no memory."""
    said = ("out of memory", "DefaultCPUAllocator", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(s in str(error) for s in said)


def _rows(passes: list[_Pass], start: int, budget: int) -> int:
    """How many passes from `start`, in order of falling length, make a batch of at most `budget` tokens.

    Passes of one length, and shorter ones as long as filling them up costs less than the batch that
    they would else begin.
    """
    longest = len(passes[start].ids)
    padding = rows = 0
    for item in passes[start : start + max(1, budget // longest)]:
        padding += longest - len(item.ids)
        if padding > budget * PADDING:
            break
        rows += 1
    return rows


def _plan(batch: list[_Pass], pooling: str) -> dict[str, torch.Tensor]:
    """Token ids (n_rows, n_columns), and where the pooled tokens of each text are in them."""
    ids = np.zeros((len(batch), max(len(item.ids) for item in batch)), dtype=np.int64)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = item.ids
    rows = np.repeat(np.arange(len(batch)), [item.spans.shape[1] for item in batch])
    _, first, last = np.concatenate([item.spans for item in batch], axis=1)
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
