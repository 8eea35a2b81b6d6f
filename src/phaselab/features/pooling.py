"""Hidden states of all layers, pooled by hooks while the network runs, so that they never exist together.

Networks are causal: rows are filled up on the right and need no mask, and a pass over many words serves each of them.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phaselab.errors import PhaselabError, expect
from phaselab.features.passes import Document, Pass, documents_of, passes_of
from phaselab.features.store import Features, Say
from phaselab.lazy import Lazy
from phaselab.stimuli import Stimulus
from phaselab.study import FeatureSpec

#: Tokens of a batch, padding included, by type of device: more gain no speed there.
MAX_TOKENS = {"cpu": 1024, "cuda": 16384}
#: Padding in a batch at most, as a share of its tokens at most: about what it costs to begin a batch.
PADDING = 1 / 32
#: Bytes of pooled hidden states that are held in memory; larger ones go to a file where there is a folder.
IN_MEMORY = 1 << 30
#: What torch says when memory runs out, on an accelerator, on a CPU of Linux or of Windows.
OUT_OF_MEMORY = ("out of memory", "DefaultCPUAllocator", "not enough memory")


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


def room_for(shape: tuple[int, ...], scratch: Path | None) -> Callable[[], np.ndarray]:
    """Gives float32 zeros of `shape`: in memory, or a new map of a file without a name in `scratch` each time."""
    size = 4 * math.prod(shape)
    if scratch is None or size <= IN_MEMORY:
        values = np.zeros(shape, dtype=np.float32)
        return lambda: values
    scratch.mkdir(parents=True, exist_ok=True)
    free, expected = shutil.disk_usage(scratch).free, f"{size / 1e9:.1f} GB for hidden states of {shape[0]} layers"
    expect(free >= size, str(scratch), f"{free / 1e9:.1f} GB free", f"{expected} (features.layers: fewer)")
    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
    if hasattr(os, "posix_fallocate"):  # else a disk that fills up meanwhile would end the process without a word
        os.posix_fallocate(file.fileno(), 0, size)
    file.truncate(size)
    return lambda: np.memmap(file, np.float32, "r+", shape=shape)  # an old map keeps in memory what it has touched


@torch.inference_mode()
def encode(
    model: Any,
    passes: list[Pass],
    layers: list[int],
    pooling: str,
    states: Callable[[], np.ndarray],
    max_tokens: int | None,
    say: Say,
) -> int:
    """Pool all passes in order into `states` (n_layers, n_rows, p); returns the most tokens of a batch at the end."""
    blocks, device, name = blocks_of(model), model.device.type, model.name_or_path
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

    def read(batch: list[Pass]) -> np.ndarray | None:
        """(n_layers, n_rows, p), or None when memory ran out."""
        try:
            plan.update({name: array.to(model.device) for name, array in _plan(batch, pooling).items()})
            final = model.base_model(input_ids=plan["ids"], use_cache=False).last_hidden_state
            if len(blocks) in layers:
                wide, width = final.shape[-1], states().shape[-1]
                found = f"a last layer of {wide} numbers, where others have {width}"
                expect(wide == width, f"{name}: features.layers", found, f"some of 0 to {len(blocks) - 1}")
                pool(final)
            return torch.stack(pooled).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and not any(said in str(error) for said in OUT_OF_MEMORY):
                raise
            return None

    start = row = 0
    with ExitStack() as hooks:
        # The input of block i is the output of block i - 1: so no hook has to know what else a block returns.
        for block in (blocks[layer] for layer in layers if layer < len(blocks)):
            hooks.callback(block.register_forward_pre_hook(before_block, with_kwargs=True).remove)
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
    ids = np.zeros((len(batch), max(len(item.ids) for item in batch)), dtype=np.int64)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = item.ids
    rows = np.repeat(np.arange(len(batch)), [item.spans.shape[1] for item in batch])
    _, first, last = np.concatenate([item.spans for item in batch], axis=1)
    plan = {"ids": ids, "row": rows, "column": last - 1}
    if pooling != "last":
        lengths = last - first
        # The tokens of all texts one behind the other: position in this list, less where its text began.
        column = np.arange(lengths.sum()) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)
        plan |= {"row": np.repeat(rows, lengths), "column": column, "lengths": lengths}
    return {name: torch.from_numpy(array) for name, array in plan.items()}


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
