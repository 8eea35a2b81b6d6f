"""Hidden states of every layer for the texts of a stimulus, and their way to the TR grid."""

from phaselab.features.pooling import Features, extract, joined, read_features, to_trs, write_features, write_layers

__all__ = ["Features", "extract", "joined", "read_features", "to_trs", "write_features", "write_layers"]
