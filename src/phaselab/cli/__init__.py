"""The command line: one file a group of commands."""

from phaselab.cli import arrays, models, new, phases, run  # noqa: F401  (each adds its commands)
from phaselab.cli.common import app

__all__ = ["app"]
