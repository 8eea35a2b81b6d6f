"""Behaviour: following the form, accuracy, knowing and log-probabilities in the tasks of the study."""

from pathlib import Path

import pandas as pd

from phaselab.results import write_table
from phaselab.stages.context import Unit, stage


@stage("behaviour", version=2, reads=("tasks",), data=("checkpoint", "text", "task files"), perspective="behaviour")
def behaviour(unit: Unit, folder: Path) -> pd.DataFrame:
    """Scores of each task; ``items.parquet`` keeps what the checkpoint answered, one row per item."""
    from phaselab.behaviour import score_tasks

    generate = {task.name: task.generate for task in unit.bench.study.tasks}
    rows, per_item = score_tasks(*unit.loaded, unit.bench.items(unit.model), generate=generate)
    write_table(per_item, folder / "items.parquet")
    return rows
