"""What a stage is: one function that makes one kind of result of a checkpoint, and what that result depends on.

Its results are current while what it `reads` is the same. Code is not compared: whoever changes a stage's numbers
raises its `version`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from phaselab.errors import expect
from phaselab.study import FeatureSpec, Model, Study

if TYPE_CHECKING:
    from phaselab.stages.context import Unit

#: What a stage may depend on beside fields of the study: the checkpoint's weights, what the subjects heard and the
#: hidden states of it, their responses, nuisance regressors of what they heard, the text that the model was trained on,
#: the tasks' files. Of each: fields of the study that come with it, and rooms whose code makes it.
DATA: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "checkpoint": ((), ("checkpoints/load",)),
    "stimulus": (tuple(f"features.{name}" for name in FeatureSpec.STATES), ("features", "stimuli")),
    "responses": (tuple(f"features.{name}" for name in FeatureSpec.GRID), ("brains",)),
    "nuisance": ((), ("brains", "texts")),
    "text": ((), ("texts",)),
    "task files": ((), ()),
}
#: The room that computes what a perspective counts.
ROOMS = {"brain": "encoding", "behaviour": "behaviour", "internal": "internals"}
Run = Callable[["Unit", Path], "pd.DataFrame | None"]


@dataclass(frozen=True)
class Stage:
    """A registered stage.

    Attributes
    ----------
    name : also the name of its folder.
    version : raised by hand when its numbers change.
    run : takes the unit (``context.Unit``) and an empty folder for its files. It returns rows of the curves table
        without the columns that are the unit's, or None when it has files alone.
    reads : fields of the study, dotted, beside those that its `data` bring; a section stands for all its fields.
    data : names of ``DATA``.
    perspective : the column of its rows; empty where there are none.
    scope : made for each checkpoint, for the last one of a model, or once for a model from all of its checkpoints.
    after : for scope ``model``: the stage of all checkpoints whose files it reads.
    asked : whether a study asks for it, for a model.
    parts : name -> version of registered parts that it runs (measures): a part whose version is raised is stale.
    """

    name: str
    version: int
    run: Run
    reads: tuple[str, ...] = ()
    data: tuple[str, ...] = ("checkpoint",)
    perspective: str = ""
    scope: Literal["checkpoint", "last", "model"] = "checkpoint"
    after: str = ""
    asked: Callable[[Study, Model], bool] = lambda study, model: True
    parts: Callable[[], Mapping[str, int]] = dict

    @property
    def table(self) -> str:
        """File of its rows: of the curves table, or of the table of controls."""
        return "controls.parquet" if self.scope == "last" else "curves.parquet"

    @property
    def rooms(self) -> list[str]:
        """Rooms of the package whose code makes its numbers, and its module; recorded, not compared."""
        package, _, module = self.run.__module__.partition(".")
        own = [module.replace(".", "/")] if package == "phaselab" else []
        own += [ROOMS[self.perspective]] if self.perspective else []
        return own + [room for name in self.data for room in DATA[name][1]]

    def fields(self, study: Study) -> dict[str, Any]:
        """The fields of a study that it reads and their values, flat (see ``fields``)."""
        return fields(study, [*self.reads, *(field for name in self.data for field in DATA[name][0])])


#: Name -> stage, in the order in which the stages of a checkpoint run.
STAGES: dict[str, Stage] = {}


def stage(name: str, version: int, **options: Any) -> Callable[[Run], Run]:
    """Register a function as a stage; `options` are attributes of ``Stage``."""

    def register(run: Run) -> Run:
        expect(name not in STAGES, "stage", f"a second {name!r}", "distinct names")
        STAGES[name] = Stage(name, version, run, **options)
        return run

    return register


def fields(study: Study, names: Iterable[str]) -> dict[str, Any]:
    """The values of dotted `names` in a study, flat: ``{"encoding.fdr": 0.05, "tasks.reading.items": 20}``.

    A list of named sections (tasks) is flattened by their names, so that what is stale names the field.
    """
    dump, found = study.model_dump(mode="json"), dict[str, Any]()
    for name in names:
        found |= _flat(name, reduce(getitem, name.split("."), dump))
    return found


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        value = {item["name"]: item for item in value}
    if isinstance(value, dict) and value:
        return {key: leaf for part, inner in value.items() for key, leaf in _flat(f"{name}.{part}", inner).items()}
    return {name: value}
