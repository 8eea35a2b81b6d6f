"""The folder of a model that is trained here, ``<store>/trained/<name>-<digest>``, and whether it is whole.

A revision is a folder in it, ``step0-tokens0``; ``training.json`` has step, tokens and held-out loss of each, and
``.trainer`` the state of the run while training is under way.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from phaselab.results import Store, as_json, check, read_manifest, stamped_digest
from phaselab.study import Training, digest_of
from phaselab.texts import VERSION as TEXT_VERSION
from phaselab.texts import TextSource

#: Raised by hand when a recipe gives other weights than before: models are then trained again.
VERSION = 1


def checkpoint_steps(steps: int, n: int) -> list[int]:
    """`n` distinct steps from 0 to `steps`, as evenly spaced in log steps as whole numbers allow."""
    found = [0, max(1, steps // 100)]  # what is to be seen before is not worth checkpoints
    while len(found) < min(n, steps + 1):
        ratio = (steps / found[-1]) ** (1 / (n - len(found)))
        found.append(max(found[-1] + 1, round(found[-1] * ratio)))
    return found if n > 2 else [0, steps]


class Place(NamedTuple):
    """Where a model lies, what decides its weights, and its revisions by step."""

    folder: Path
    log: Path  # the last file to be written
    inputs: dict[str, Any]
    revisions: dict[int, str]
    missing: dict[int, str]  # of these, what is not there and undamaged
    damaged: dict[Path, str]  # what is said of those, and of the log

    @property
    def record(self) -> bytes:
        """What the log must say: what the manifests of the checkpoints do, which have digests."""
        return as_json([read_manifest(self.folder / name).get("checkpoint") for name in self.revisions.values()])


def place(name: str, training: Training, store: Store, text: TextSource) -> Place:
    """Of a model to be trained on `text`: another recipe, text or version is another folder."""
    versions = {"version of text": TEXT_VERSION[training.text], "version of training": VERSION}
    inputs = {"training": training.model_dump(mode="json"), "text": text.digest, **versions}
    folder = store.root / "trained" / f"{name}-{digest_of(inputs)[:8]}"  # of all studies that train the same model
    digest = partial(stamped_digest, stamps=store.stamps)
    steps = checkpoint_steps(training.steps, training.checkpoints)
    revisions = {step: f"step{step}-tokens{step * training.batch * training.context}" for step in steps}
    states = {step: check(folder / name, inputs, digest) for step, name in revisions.items()}
    missing = {step: name for step, name in revisions.items() if not states[step]}
    damaged = {folder / revisions[step]: state.why for step, state in states.items() if state.kind == "damaged"}
    found = Place(folder, folder / "training.json", inputs, revisions, missing, damaged)
    log, record = found.log, found.record
    if not missing and log.exists() and (log.stat().st_size != len(record) or log.read_bytes() != record):
        damaged[found.log] = f"{found.log}: not what the manifests of its checkpoints say"
    return found
