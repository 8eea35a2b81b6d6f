"""Hidden states of every layer for the texts of a stimulus, and their way to the TR grid."""

from phaselab.features.extract import extract
from phaselab.features.store import Features, read_features, to_trs, write_features

__all__ = ["Features", "extract", "read_features", "to_trs", "write_features"]
