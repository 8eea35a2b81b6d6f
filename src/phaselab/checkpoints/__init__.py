"""Checkpoints of a training run: finding them, choosing some of them, loading one."""

from phaselab.checkpoints.families import FAMILIES, Family, find, of_repository
from phaselab.checkpoints.hub import present
from phaselab.checkpoints.load import load
from phaselab.checkpoints.manifest import chosen, local_checkpoints
from phaselab.checkpoints.names import Checkpoint, choose, identity

__all__ = ["FAMILIES", "Checkpoint", "Family", "choose", "chosen", "find"]
__all__ += ["identity", "load", "local_checkpoints", "of_repository", "present"]
