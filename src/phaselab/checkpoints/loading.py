"""A checkpoint as a model that is ready to be read.

Weights come from safetensors, or where a checkpoint has nothing else from ``pytorch_model*.bin`` through
torch's ``weights_only`` unpickler, which builds tensors and refuses everything else. Code of the model's
own is not run unless a study asks for it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaselab.checkpoints import hub, manifest
from phaselab.checkpoints.families import find
from phaselab.checkpoints.revisions import Checkpoint, CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")


def load_checkpoint(
    family: str,
    revision: str,
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of one revision of a family on the hub, and its tokenizer; downloaded when it is not there.

    Parameters
    ----------
    family : a name of ``phaselab models list``.
    revision : the name of a checkpoint; its manifest says which commit that is.
    dtype, device, trust_remote_code : as for `load`.

    Raises
    ------
    CheckpointError
        When there is no such family or revision, or it cannot be downloaded or loaded.
    """
    (checkpoint,) = manifest.chosen(find(family), (revision,))
    return load(checkpoint, device, dtype, trust_remote_code)


def load(
    checkpoint: Checkpoint, device: str = "cpu", dtype: str = "float32", trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The causal language model of a checkpoint, in evaluation mode, and its tokenizer.

    Parameters
    ----------
    checkpoint : where it lies; one on a hub is downloaded first.
    device : torch device, such as ``cpu`` or ``cuda``.
    dtype : ``float32``, ``bfloat16`` or ``float16``: what the weights are converted to.
    trust_remote_code : whether modules that lie beside the weights may be run.

    Raises
    ------
    CheckpointError
        When a file is missing or cannot be read, when a ``.bin`` file holds more than tensors, or when
        weights are missing or have another shape than the configuration says (transformers would fill
        them with random numbers).
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype: found {dtype!r}, expected one of {', '.join(DTYPES)}")
    folder = checkpoint.path or hub.fetch(checkpoint, trust_remote_code)
    names = _require_files(folder)

    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _require_tokenizer(folder, names)
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    try:
        with _no_bars():
            # transformers does not declare that it returns a pair here.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                **local,
                use_safetensors=any(n.endswith(".safetensors") for n in names),
                weights_only=True,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
            )
        model, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{folder}: a .bin file holds more than tensors; torch's weights_only loader refused it and ran "
            "nothing of it; expected tensors alone, or safetensors"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: cannot be loaded as a causal language model of transformers: {error}"
        ) from error
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise CheckpointError(
            f"{folder}: {len(absent)} weights missing or of another shape than config.json says, "
            f"the first being {absent[0]}"
        )
    if checkpoint.repository:
        # What is said of the model later names the revision, not a folder of the cache.
        model.name_or_path = f"{checkpoint.repository} {checkpoint.revision}"
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


def _require_files(folder: Path) -> list[str]:
    """Names of the files in `folder`, which has what a checkpoint needs."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected a checkpoint written by save_pretrained")
    names = sorted(p.name for p in folder.iterdir())
    wanted = {
        "config.json": "config.json" in names,
        "weights (*.safetensors, or pytorch_model*.bin)": any(
            n.endswith(".safetensors") or (n.startswith("pytorch_model") and n.endswith(".bin")) for n in names
        ),
        "a tokenizer (tokenizer.json)": any(n.startswith("tokenizer") for n in names),
    }
    missing = [name for name, there in wanted.items() if not there]
    if missing:
        raise CheckpointError(f"{folder}: found {', '.join(names) or 'nothing'}; expected also {', '.join(missing)}")
    return names


def _require_tokenizer(folder: Path, names: list[str]) -> None:
    """transformers reads a SentencePiece model with two packages, and without them blames a third one."""
    from transformers.utils import is_protobuf_available, is_sentencepiece_available

    there = is_sentencepiece_available() and is_protobuf_available()
    if "tokenizer.model" in names and "tokenizer.json" not in names and not there:
        raise CheckpointError(
            f"{folder}: found a tokenizer that is a SentencePiece model (tokenizer.model), expected the "
            "packages that read it: pip install sentencepiece protobuf"
        )
