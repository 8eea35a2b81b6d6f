"""Encoding models: how well the features of each layer predict each voxel in held-out time."""

from phaselab.encoding.encode import Scores, encode, normalise, read_voxels, shuffled_stimulus, summarise, write_voxels

__all__ = ["Scores", "encode", "normalise", "read_voxels", "shuffled_stimulus", "summarise", "write_voxels"]
