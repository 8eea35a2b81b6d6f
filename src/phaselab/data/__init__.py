"""Public data sets: what they are, which of their files are here, and getting those that are not.

``sets.yaml`` has the facts, ``registries`` the bytes and digest of each file; ``download`` brings them.
"""

from phaselab.data.sets import SETS, DataSet, File, counted, data_missing

__all__ = ["SETS", "DataSet", "File", "counted", "data_missing"]
