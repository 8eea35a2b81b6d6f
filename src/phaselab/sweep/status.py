"""What there is of a study, stage by stage: current, stale and why, missing, damaged, or made by other code."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from phaselab.errors import PhaselabError, told
from phaselab.results import read_manifest
from phaselab.stages import STAGES, Workbench
from phaselab.study import Model

#: Columns of the table of states: numbers of results, and what changed for the stale ones.
COLUMNS = ("model", "stage", "current", "stale", "missing", "damaged", "other code", "why")


def status(bench: Workbench) -> pd.DataFrame:
    """One row per model and stage that the study asks for, `COLUMNS`; nothing is made, downloaded or loaded.

    Current results that were made by other code are counted in ``current`` as well. A model that is not trained yet, or
    whose checkpoints cannot be listed, has one row with what is said of it.
    """
    rows: list[dict[str, object]] = []
    for model in bench.study.models:
        try:
            found = _of_model(bench, model) if bench.there(model) else [{"stage": "", "why": "not trained yet"}]
        except (PhaselabError, OSError) as error:
            found = [{"stage": "", "why": told(error)}]
        rows += [{**dict.fromkeys(COLUMNS, 0), "model": model.name, **row} for row in found]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of_model(bench: Workbench, model: Model) -> list[dict[str, object]]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in STAGES}
    whys: dict[str, Counter[str]] = {name: Counter() for name in STAGES}
    for checkpoint in (*bench.checkpoints(model), None):
        for stage in bench.asked(model, checkpoint):
            state = bench.state(stage, model, checkpoint)
            counts[stage.name][state.kind] += 1
            if state:
                made_by = read_manifest(bench.place(stage, model, checkpoint)).get("made_by", {})
                counts[stage.name]["other code"] += made_by.get("code") != bench.code(stage)
            elif state.kind != "missing":
                whys[stage.name][state.why] += 1
    told = {name: [f"{why} ({n} times)" if n > 1 else why for why, n in whys[name].items()] for name in STAGES}
    return [{"stage": name, **counts[name], "why": "; ".join(told[name])} for name in STAGES if counts[name]]
