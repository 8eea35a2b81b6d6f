"""The files that a checkpoint is loaded from, and what it is, known without loading it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from phaselab.checkpoints.names import Checkpoint, CheckpointError
from phaselab.errors import expect
from phaselab.results import stamped_digest

_TOKENIZER = re.compile(r"tokenizer.*|vocab\.(json|txt)|merges\.txt|spiece\.model")
_SMALL = re.compile(
    rf"{_TOKENIZER.pattern}|(generation_)?config\.json|special_tokens_map\.json|added_tokens\.json|chat_template\.jinja"
)


def needed(names: Iterable[str], where: object, code: bool = False) -> list[str]:
    """Which of these files a model is loaded from: configuration, tokenizer and one set of weights.

    Safetensors where there are some, else ``pytorch_model*.bin``. `code`: also modules of the checkpoint's own, for a
    study that trusts them. `where` is what an error begins with.

    Raises
    ------
    CheckpointError
        When there is no configuration, no tokenizer or no weights.
    """
    files = sorted(names)
    weights: list[str] = []
    for stem, ending in (("pytorch_model", "bin"), ("model", "safetensors")):
        whole, index = f"{stem}.{ending}", f"{stem}.{ending}.index.json"
        parts = [f for f in files if re.fullmatch(rf"{stem}-\d+-of-\d+\.{ending}", f)]
        weights = [whole] if whole in files else [index, *parts] if parts and index in files else weights
    wanted = {
        "config.json": "config.json" in files,
        "weights (model*.safetensors or pytorch_model*.bin)": weights,
        "a tokenizer (tokenizer.json)": any(map(_TOKENIZER.fullmatch, files)),
    }
    missing = ", ".join(name for name, there in wanted.items() if not there)
    expect(not missing, str(where), ", ".join(files) or "nothing", f"also {missing}", CheckpointError)
    return [f for f in files if _SMALL.fullmatch(f) or (code and f.endswith(".py"))] + weights


def within(folder: Path) -> list[str]:
    """Names of the files of a checkpoint's folder."""
    expected = "a checkpoint written by save_pretrained"
    expect(folder.is_dir(), str(folder), "no such folder", expected, CheckpointError)
    return [path.name for path in folder.iterdir()]


def identity(checkpoint: Checkpoint, stamps: Path) -> str:
    """What a checkpoint is: its exact commit on a hub, or a digest of the files that it is loaded from.

    Files are read once: their digests are stamped in the folder `stamps` (``results.stamped_digest``).

    Raises
    ------
    CheckpointError
        When a local folder is not there, or lacks what a model is loaded from.
    """
    folder = checkpoint.path
    if checkpoint.repository or folder is None:
        return f"{checkpoint.repository}@{checkpoint.commit}"
    files = needed(within(folder), folder, code=True)
    told = "".join(f"{name} {stamped_digest(folder / name, stamps)}\n" for name in files)
    return hashlib.sha256(told.encode()).hexdigest()
