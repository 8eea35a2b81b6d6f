"""What a stage is: one function that makes one kind of result of a checkpoint, and what that result depends on.

A stage is one file of this folder::

    @stage("internal", version=1, reads=("internals.probes",), data=("checkpoint", "stimulus"), perspective="internal")
    def internal(unit: Unit, folder: Path) -> pd.DataFrame:
        return measure(unit.features.layers, unit.bench.brain.stimulus.labels, unit.bench.study.internals)

Its results are current while what it `reads` is the same. Code is not compared: whoever changes a stage's numbers
raises its `version`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from phaselab.errors import PhaselabError, expect
from phaselab.study import FeatureSpec, Model, Study

if TYPE_CHECKING:
    from phaselab.stages.context import Unit

#: Fields that change the hidden states, and those that bring them to TRs.
STATES = tuple(f"features.{name}" for name in FeatureSpec.STATES)
GRID = tuple(f"features.{name}" for name in FeatureSpec.GRID)
#: Fields that change what is fitted and tested; memory and device change the last digits at most.
_FITTED = ("log10_alphas", "folds", "n_folds", "gap", "permutations", "block", "null", "fdr", "solver")
RIDGE = tuple(f"encoding.{name}" for name in _FITTED)

#: What a stage may depend on beside fields of the study: the checkpoint's weights, what the subjects heard, their
#: responses, the text that the model was trained on, the tasks' files, and results of another stage.
Data = Literal["checkpoint", "stimulus", "responses", "text", "task files"]
#: Made for each checkpoint, for the last one of a model, or once for a model from all of its checkpoints.
Scope = Literal["checkpoint", "last", "model"]
Run = Callable[["Unit", Path], "pd.DataFrame | None"]


@dataclass(frozen=True)
class Stage:
    """A registered stage; see `stage` for what its attributes mean."""

    name: str
    version: int
    reads: tuple[str, ...]
    data: tuple[Data, ...]
    rooms: tuple[str, ...]
    run: Run
    perspective: str
    scope: Scope
    after: str
    asked: Callable[[Study, Model], bool]
    parts: Callable[[], Mapping[str, int]]

    @property
    def table(self) -> str:
        """File of its rows: of the curves table, or of the table of controls."""
        return "controls.parquet" if self.scope == "last" else "curves.parquet"


#: Name -> stage, in the order in which the stages of a checkpoint run.
STAGES: dict[str, Stage] = {}


def stage(
    name: str,
    *,
    version: int,
    reads: tuple[str, ...] = (),
    data: tuple[Data, ...] = ("checkpoint",),
    rooms: tuple[str, ...] = (),
    perspective: str = "",
    scope: Scope = "checkpoint",
    after: str = "",
    asked: Callable[[Study, Model], bool] = lambda study, model: True,
    parts: Callable[[], Mapping[str, int]] = dict,
) -> Callable[[Run], Run]:
    """Register a function as a stage.

    The function takes the unit (``context.Unit``: study, brain, network and features of a checkpoint, made when
    asked for) and an empty folder for its files. It returns rows of the curves table without the columns that are
    the unit's, or None when it has files alone.

    Parameters
    ----------
    name : also the name of its folder.
    version : raised by hand when its numbers change.
    reads : fields of the study, dotted; a section stands for all its fields.
    data : what else it depends on.
    rooms : rooms of the package whose code makes its numbers; their digest is recorded, not compared.
    perspective : the column of its rows; empty where there are none.
    scope : see `Scope`.
    after : for scope ``model``: the stage of all checkpoints whose files it reads.
    asked : whether a study asks for it, for a model.
    parts : name -> version of registered parts that it runs (measures): a part whose version is raised is stale.
    """

    def register(run: Run) -> Run:
        expect(name not in STAGES, "stage", f"a second {name!r}", "distinct names")
        STAGES[name] = Stage(name, version, reads, data, rooms, run, perspective, scope, after, asked, parts)
        return run

    return register


def fields(study: Study, names: tuple[str, ...]) -> dict[str, Any]:
    """The values of dotted `names` in a study, flat: ``{"encoding.fdr": 0.05, "tasks.reading.items": 20}``.

    A list of named sections (tasks) is flattened by their names, so that what is stale names the field.
    """
    dump = study.model_dump(mode="json")
    found: dict[str, Any] = {}
    for name in names:
        value: Any = dump
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                raise PhaselabError(f"stage reads {name!r}: found no such field of a study")
            value = value[part]
        found |= _flat(name, value)
    return found


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
        value = {item["name"]: item for item in value}
    if isinstance(value, dict) and value:
        return {key: leaf for part, inner in value.items() for key, leaf in _flat(f"{name}.{part}", inner).items()}
    return {name: value}
