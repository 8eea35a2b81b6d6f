"""The folder of a model that is trained here: its name, its revisions, and whether it is whole.

<store>/trained/<name>-<digest>/
    step0-tokens0/ ... step1000-tokens2048000/    save_pretrained: config, safetensors, tokenizer
    training.json                                 step, tokens and held-out loss of each revision
    trainer/                                      state of the run, while training is under way
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from phaselab.results import Store, check, stamped_digest
from phaselab.study import Training, digest_of
from phaselab.texts import VERSION as TEXT_VERSION
from phaselab.texts import TextSource, source

#: Raised by hand when a recipe gives other weights than before: models are then trained again.
VERSION = 1
LOG, TRAINER = "training.json", "trainer"


def checkpoint_steps(steps: int, n: int) -> list[int]:
    """`n` distinct steps from 0 to `steps`, as evenly spaced in log steps as whole numbers allow.

    The first after 0 comes when a hundredth of the steps is done: before, nothing is to be seen that
    would be worth the checkpoints.
    """
    found = [0, max(1, steps // 100)]
    while len(found) < min(n, steps + 1):
        ratio = (steps / found[-1]) ** (1 / (n - len(found)))
        found.append(max(found[-1] + 1, round(found[-1] * ratio)))
    return found if n > 2 else [0, steps]


def revisions(training: Training) -> dict[int, str]:
    """Step -> name of each checkpoint."""
    steps = checkpoint_steps(training.steps, training.checkpoints)
    return {step: f"step{step}-tokens{step * training.batch * training.context}" for step in steps}


def inputs_of(training: Training, text: TextSource) -> dict[str, Any]:
    """What decides the weights: another recipe, text or version is another folder."""
    versions = {"version of text": TEXT_VERSION[training.text], "version of training": VERSION}
    return {"training": training.model_dump(mode="json"), "text": text.digest, **versions}


def missing(folder: Path, training: Training, inputs: dict[str, Any], store: Store) -> dict[int, str]:
    """The `revisions` that are not there, whole and undamaged."""
    digest = partial(stamped_digest, stamps=store.stamps)
    return {step: name for step, name in revisions(training).items() if not check(folder / name, inputs, digest)}


def trained(name: str, training: Training, store: Store, data: Path | None) -> Path | None:
    """The folder of a model that has been trained, or None; raises as `phaselab.texts.source` does."""
    inputs = inputs_of(training, source(training, data))
    folder = store.trained(name, digest_of(inputs))
    return folder if (folder / LOG).is_file() and not missing(folder, training, inputs, store) else None
