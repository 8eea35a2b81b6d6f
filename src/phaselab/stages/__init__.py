"""Stages: what is computed of a checkpoint. Every file of this folder is imported here and registers its own."""

from importlib import import_module
from pkgutil import iter_modules

from phaselab.stages.context import STAGES, Stage, Unit, Workbench, choose_device, one_thread, stage
from phaselab.stages.faults import check

__all__ = ["STAGES", "Stage", "Unit", "Workbench", "check", "choose_device", "one_thread", "stage"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
for _name in sorted(STAGES):  # the order in which they are listed
    STAGES[_name] = STAGES.pop(_name)
