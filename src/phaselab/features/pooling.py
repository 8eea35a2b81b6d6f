"""Hidden states of all layers, pooled by hooks while the network runs, so that they never exist together.

The networks are causal: what follows a token cannot change its hidden state. Hence rows of a batch are filled up on
the right, whatever the tokenizer prefers, and need neither an attention mask nor a padding token (a recurrent state,
too, only flows to the right); and one pass over many words gives each of them what a pass that ended there would.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phaselab.errors import expect
from phaselab.features.base import FeatureError
from phaselab.features.passes import Pass

#: Tokens of a batch, padding included, by type of device: more gain no speed there.
MAX_TOKENS = {"cpu": 1024, "cuda": 16384}
#: Padding in a batch at most, as a share of its tokens at most: about what it costs to begin a batch.
PADDING = 1 / 32
#: Bytes of pooled hidden states that are held in memory; larger ones go to a file where there is a folder.
IN_MEMORY = 1 << 30


def blocks_of(model: Any) -> list[torch.nn.Module]:
    """The layers of the network, in order."""
    number = model.config.get_text_config().num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == number:
            return list(module)
    raise FeatureError(f"{type(model).__name__}: expected a list of {number} layers in its base model, found none")


class States:
    """Pooled hidden states, float32 (n_layers, n_rows + 1, p), as they come; the last row of each is zero.

    They lie in memory, or in a file without a name if that is what `scratch` is for. ``not_finite`` is gathered on
    the way: (n_layers,) rows with NaN or infinite values.
    """

    def __init__(self, n_layers: int, n_rows: int, width: int, scratch: Path | None) -> None:
        self.shape = n_layers, n_rows + 1, width
        self.filled = 0
        self.not_finite = np.zeros(n_layers, dtype=np.int64)
        size = 4 * n_layers * (n_rows + 1) * width
        self._file = None
        if scratch is None or size <= IN_MEMORY:
            self._memory = np.zeros(self.shape, dtype=np.float32)
            return
        scratch.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(scratch).free, f"{size / 1e9:.1f} GB for hidden states of {n_layers} layers"
        room = f"{needed} (features.layers can name fewer)"
        expect(free >= size, str(scratch), f"{free / 1e9:.1f} GB free", room, FeatureError)
        self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
        # Reserved where that can be done: writing to a map of a full disk would end the process without a word.
        getattr(os, "posix_fallocate", lambda file, _, size: os.truncate(file, size))(self._file.fileno(), 0, size)

    @property
    def values(self) -> np.ndarray:
        """The array; of a file a new map each time, for what a map has touched stays in memory as long as it does."""
        return self._memory if self._file is None else np.memmap(self._file, np.float32, "r+", shape=self.shape)

    def add(self, block: np.ndarray) -> None:
        """Take the next rows, (n_layers, n, p)."""
        start, self.filled = self.filled, self.filled + block.shape[1]
        self.not_finite += (~np.isfinite(block).all(axis=2)).sum(axis=1)
        self.values[:, start : self.filled] = block


class Pooling:
    """A network that is read batch by batch within a ``with``; hooks pool what goes into its layers."""

    def __init__(self, model: Any, layers: list[int], pooling: str) -> None:
        self.model, self.layers, self.pooling = model, layers, pooling
        self.blocks = blocks_of(model)
        self.plan: dict[str, torch.Tensor] = {}
        self.pooled: list[torch.Tensor] = []

    def __enter__(self) -> Pooling:
        # What goes into block i is the output of block i - 1, or the embeddings; the model's own output
        # comes after the final norm. So no hook has to know what else a block returns.
        self.hooks = ExitStack()
        for layer in self.layers[: len(self.layers) - (len(self.blocks) in self.layers)]:
            handle = self.blocks[layer].register_forward_pre_hook(self._before_block, with_kwargs=True)
            self.hooks.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self.hooks.close()

    def _before_block(self, _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._pool(args[0] if args else kwargs["hidden_states"])

    def _pool(self, hidden: torch.Tensor) -> None:
        tokens = hidden[self.plan["row"], self.plan["column"]].float()
        if self.pooling != "last":
            # Sums in one order whatever the device, which index_add does not promise.
            tokens = torch.segment_reduce(tokens, self.pooling, lengths=self.plan["lengths"])
        self.pooled.append(tokens)

    def read(self, batch: list[Pass]) -> np.ndarray | None:
        """(n_layers, n_rows, p), or None when memory ran out."""
        self.pooled.clear()
        self.plan.clear()
        try:
            self.plan.update({name: array.to(self.model.device) for name, array in _plan(batch, self.pooling).items()})
            final = self.model.base_model(input_ids=self.plan["ids"], use_cache=False).last_hidden_state
            if len(self.blocks) in self.layers:
                self._pool(final)
            found, right = f"{len(self.pooled)} hidden states", str(len(self.layers))
            expect(len(self.pooled) == len(self.layers), type(self.model).__name__, found, right, FeatureError)
            return torch.stack(self.pooled).cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            return None


@torch.inference_mode()
def encode(
    model: Any,
    passes: list[Pass],
    layers: list[int],
    pooling: str,
    states: States,
    max_tokens: int | None,
    say: Callable[[str], None],
) -> int:
    """Pool the hidden states of all passes, in order; returns the most tokens of a batch at the end."""
    device, name = model.device.type, model.name_or_path
    budget = max_tokens or MAX_TOKENS.get(device, MAX_TOKENS["cpu"])
    start = 0
    with Pooling(model, layers, pooling) as network:
        while start < len(passes):
            batch = passes[start : start + _rows(passes, start, budget)]
            block = network.read(batch)
            if block is not None:
                states.add(block)
                start += len(batch)
                continue
            # Outside the except clause: until it ends, the error keeps the tensors of the failed pass.
            network.pooled.clear()
            longest = len(batch[0].ids)
            expect(len(batch) > 1, name, f"no memory on {device} for {longest} tokens", "a larger one", FeatureError)
            budget = len(batch) * longest // 2
            if device == "cuda":
                torch.cuda.empty_cache()
            say(f"{name}: memory ran out on {device}; now at most {budget} tokens a batch")
    return budget


def _out_of_memory(error: Exception) -> bool:
    """Whether torch (on an accelerator, on a CPU of Linux or of Windows) or Python found no memory."""
    said = ("out of memory", "DefaultCPUAllocator", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(s in str(error) for s in said)


def _rows(passes: list[Pass], start: int, budget: int) -> int:
    """How many passes from `start`, in order of falling length, make a batch of at most `budget` tokens.

    Passes of one length, and shorter ones as long as filling them up costs less than the batch that
    they would else begin.
    """
    longest = len(passes[start].ids)
    most = passes[start : start + max(1, budget // longest)]
    padding = np.cumsum([longest - len(item.ids) for item in most])
    return int(np.searchsorted(padding, budget * PADDING, side="right"))


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
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        column = np.repeat(first, lengths) + within
        plan |= {"row": np.repeat(rows, lengths), "column": column, "lengths": lengths}
    return {name: torch.from_numpy(array) for name, array in plan.items()}
