"""Checkpoints of a training run: finding them, choosing some of them, loading one."""

from phaselab.checkpoints.loading import load
from phaselab.checkpoints.local import local_checkpoints
from phaselab.checkpoints.revisions import Checkpoint, CheckpointError, choose, parse_revision

__all__ = ["Checkpoint", "CheckpointError", "choose", "load", "local_checkpoints", "parse_revision"]
