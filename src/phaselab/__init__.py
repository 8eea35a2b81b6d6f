"""phaselab: how language models come to resemble the brain while they train."""

__version__ = "0.1.0"
