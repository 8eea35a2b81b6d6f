"""``python -m phaselab``."""

from phaselab.cli import app

app()
