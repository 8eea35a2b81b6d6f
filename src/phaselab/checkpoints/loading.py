"""A checkpoint as a model that is ready to be read: safetensors and built-in architectures alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaselab.checkpoints.revisions import Checkpoint, CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")


def load(
    checkpoint: Checkpoint, device: str = "cpu", dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The causal language model of a checkpoint, in evaluation mode, and its tokenizer.

    Weights come from safetensors files in ``checkpoint.path`` and from nowhere else: no pickle, no
    code of the model's own, no network.

    Parameters
    ----------
    checkpoint : where it lies.
    device : torch device, such as ``cpu`` or ``cuda``.
    dtype : ``float32``, ``bfloat16`` or ``float16``: what the weights are converted to.

    Raises
    ------
    CheckpointError
        When a file is missing or cannot be read, or when weights are missing or have another shape
        than the configuration says (transformers would fill them with random numbers).
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype: found {dtype!r}, expected one of {', '.join(DTYPES)}")
    folder = checkpoint.path
    _require_files(folder)

    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _no_bars():
            # transformers does not declare that it returns a pair here.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, **local, use_safetensors=True, dtype=getattr(torch, dtype), output_loading_info=True
            )
        model, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: cannot be loaded as a causal language model of transformers: {error}"
        ) from error
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise CheckpointError(
            f"{folder}: {len(absent)} weights missing or of another shape than config.json says, "
            f"the first being {absent[0]}"
        )
    return model.to(device).eval(), tokenizer


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar for each checkpoint across the progress of a whole sweep."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected a checkpoint written by save_pretrained")
    names = sorted(p.name for p in folder.iterdir())
    wanted = {
        "config.json": "config.json" in names,
        "*.safetensors": any(n.endswith(".safetensors") for n in names),
        "a tokenizer (tokenizer.json)": any(n.startswith("tokenizer") for n in names),
    }
    missing = [name for name, there in wanted.items() if not there]
    if missing:
        raise CheckpointError(
            f"{folder}: found {', '.join(names) or 'nothing'}; expected also {', '.join(missing)}"
        )
