"""What there is of a study, stage by stage: current, stale and why, missing, damaged, or made by other code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from phaselab.errors import PhaselabError
from phaselab.results import read_manifest
from phaselab.stages import STAGES, Workbench
from phaselab.study import Model

#: Columns of the table of states: numbers of results, and what changed for the stale ones.
COLUMNS = ("model", "stage", "current", "stale", "missing", "damaged", "other code", "why")


def status(bench: Workbench) -> pd.DataFrame:
    """One row per model and stage that the study asks for; nothing is made, downloaded or loaded.

    Returns
    -------
    DataFrame of `COLUMNS`. Current results that were made by other code (another version of the package, or an edit)
    are counted in ``current`` as well: code is recorded and not compared. A model that is not trained yet, or
    whose checkpoints cannot be listed, has one row with what is said of it.
    """
    rows = []
    for model in bench.study.models:
        try:
            if bench.there(model):
                rows += list(_of_model(bench, model))
                continue
            why = "not trained yet"
        except PhaselabError as error:
            why = str(error)
        rows.append({"model": model.name, "stage": "", "why": why})
    counts = dict.fromkeys(COLUMNS[2:-1], 0)
    return pd.DataFrame([{**counts, **row} for row in rows], columns=list(COLUMNS))


def _of_model(bench: Workbench, model: Model) -> Iterator[dict[str, object]]:
    kinds: dict[str, Counter[str]] = {}
    whys: dict[str, Counter[str]] = {}
    for checkpoint in (*bench.checkpoints(model), None):
        for stage in bench.asked(model, checkpoint):
            state = bench.state(stage, model, checkpoint)
            count = kinds.setdefault(stage.name, Counter())
            count[state.kind] += 1
            if state:
                made_by = read_manifest(bench.place(stage, model, checkpoint)).get("made_by", {})
                count["other code"] += made_by.get("code") != bench.code(stage)
            elif state.kind != "missing":
                whys.setdefault(stage.name, Counter())[state.why] += 1
    for name in (name for name in STAGES if name in kinds):
        why = "; ".join(f"{text} ({n} times)" if n > 1 else text for text, n in whys.get(name, {}).items())
        yield {"model": model.name, "stage": name, **kinds[name], "why": why}
