"""Checkpoints of a training run: finding them, choosing some of them, loading one."""

from phaselab.checkpoints.families import FAMILIES, Family, find, of_repository
from phaselab.checkpoints.hub import present
from phaselab.checkpoints.loading import load, load_checkpoint
from phaselab.checkpoints.local import local_checkpoints
from phaselab.checkpoints.manifest import chosen
from phaselab.checkpoints.revisions import Checkpoint, CheckpointError, choose, parse_revision


def identity(checkpoint, stamps):  # stub
    from phaselab.results import stamped_digest

    return (
        stamped_digest(checkpoint.path, stamps) if checkpoint.path else f"{checkpoint.repository}@{checkpoint.commit}"
    )


__all__ = [
    "FAMILIES",
    "Checkpoint",
    "CheckpointError",
    "Family",
    "choose",
    "chosen",
    "find",
    "identity",
    "load",
    "load_checkpoint",
    "local_checkpoints",
    "of_repository",
    "parse_revision",
    "present",
]
