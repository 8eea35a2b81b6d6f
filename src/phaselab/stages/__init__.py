"""Stages: what is computed of a checkpoint. Every file of this folder is imported here and registers its own."""

from importlib import import_module
from pkgutil import iter_modules

from phaselab.stages.context import (
    STAGES,
    Stage,
    Unit,
    UnitFailed,
    Workbench,
    choose_device,
    hub_family,
    one_thread,
    stage,
)
from phaselab.stages.faults import check

__all__ = ["STAGES", "Stage", "Unit", "UnitFailed", "Workbench"]
__all__ += ["check", "choose_device", "hub_family", "one_thread", "stage"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
