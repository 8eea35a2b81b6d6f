"""Brain data: each file of this folder beside ``base`` and ``signal`` is a data set, which registers itself."""

from importlib import import_module
from pkgutil import iter_modules

from phaselab.brains.base import BRAINS, BrainData, Group, brain, load_brain
from phaselab.results import DataMissing

__all__ = ["BRAINS", "BrainData", "DataMissing", "Group", "brain", "load_brain"]

for _found in iter_modules(__path__):
    import_module(f"{__name__}.{_found.name}")
