"""Public data sets: ``sets.yaml`` has the facts, ``registries`` bytes and digest of each file; `download` brings it."""

from phaselab.data.sets import SETS, DataSet, File, counted, data_missing, published

__all__ = ["SETS", "DataSet", "File", "counted", "data_missing", "published"]
