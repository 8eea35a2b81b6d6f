"""Hidden states of every layer for the texts of a stimulus, and their way to the TR grid."""

from phaselab.features.align import to_trs
from phaselab.features.extract import extract
from phaselab.features.store import FeatureError, Features, read_features, write_features

__all__ = ["FeatureError", "Features", "extract", "read_features", "to_trs", "write_features"]
