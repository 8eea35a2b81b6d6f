"""What there is of a study: done, under way, failed, or out of date; and what on disk is not as it was written."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from phaselab import curves
from phaselab.errors import PhaselabError, told
from phaselab.results import State, check, folders, read_manifest, remove, seal, writing
from phaselab.stages import STAGES, Workbench
from phaselab.study import Model
from phaselab.sweep.pool import clear_all, same
from phaselab.training.folder import place

#: Columns of the table of states: numbers of results (those that run or have failed are counted as missing or stale
#: too), what the current ones took (most memory of one, GiB), and what changed for stale ones or failed.
COUNTS = ("current", "running", "failed", "stale", "missing", "damaged", "other code")
STATES = ("model", "stage", *COUNTS, "minutes", "GiB", "device", "why")


def status(bench: Workbench) -> pd.DataFrame:
    """One row per model and stage that the study asks for, `STATES`; nothing is made, downloaded or loaded."""
    rows: list[dict[str, object]] = []
    for model in bench.study.models:
        try:
            found = of_model(bench, model) if bench.there(model) else [{"stage": "", "why": "not trained yet"}]
        except (PhaselabError, OSError) as error:
            found = [{"stage": "", "why": told(error)}]
        rows += [{**dict.fromkeys(STATES, 0), "device": "", "model": model.name, **row} for row in found]
    return pd.DataFrame(rows, columns=list(STATES))


def of_model(bench: Workbench, model: Model) -> list[dict[str, object]]:
    """A row for each stage of a model that is there."""
    counts, whys = ({name: Counter[str]() for name in STAGES} for _ in range(2))
    took: dict[str, list[Any]] = {name: [] for name in STAGES}
    for at in (*bench.checkpoints(model), None):
        for stage in bench.asked(model, at):
            state, folder, row = bench.state(stage, model, at), bench.place(stage, model, at), counts[stage.name]
            row[state.kind] += 1
            if state:
                took[stage.name].append(made_by := read_manifest(folder).get("made_by", {}))
                row["other code"] += made_by.get("code") != bench.code(stage)
                continue
            row["running"] += (running := writing(folder))
            if (log := bench.log(stage, model, at)).is_file() and not running:
                row["failed"] += 1
                whys[stage.name][f"{log.read_text(errors='replace').partition(chr(10))[0]} ({log})"] += 1
            if state.kind != "missing":
                whys[stage.name][state.why] += 1
    out: list[dict[str, object]] = []
    for name in (name for name in STAGES if counts[name]):
        of = {"minutes": round(sum(by.get("seconds", 0) for by in took[name]) / 60, 1)}
        of |= {"GiB": max((by.get("memory", 0) for by in took[name]), default=0)}
        of |= {"device": ", ".join(sorted({by.get("device", "") for by in took[name]}))}
        why = "; ".join(f"{why} ({n} times)" if n > 1 else why for why, n in whys[name].items())
        out.append({"stage": name, **counts[name], **of, "why": why})
    return out


def faults(bench: Workbench) -> Iterator[tuple[Path, State]]:
    """What is damaged or stale of a study's results: stages, models trained here, pages, and the curves table."""
    root, states = bench.store.study(bench.study.name), dict[Path, State]()
    for model in bench.study.models:
        if model.train:
            at = place(model.name, model.train, bench.store, bench.source(model))
            yield from ((path, State("damaged", why)) for path, why in at.damaged.items())
        for checkpoint in (*bench.checkpoints(model), None) if bench.there(model) else ():
            for stage in bench.asked(model, checkpoint):
                states[bench.place(stage, model, checkpoint)] = bench.state(stage, model, checkpoint)
    for folder in {*folders(root)} - {*states}:  # which the study does not ask for now: are they what was written?
        states[folder] = check(folder, read_manifest(folder).get("inputs", {}))
    yield from ((path, state) for path, state in states.items() if state.kind in ("damaged", "stale"))
    for page in sorted((root / "pages").rglob("*.ipynb")):
        if not page.name.endswith(".failed.ipynb") and not seal(page, None):
            yield page, State("damaged", f"{page}: its digest is not the one beside it")
    table = bench.store.curves(bench.study.name)
    if table.exists() and all(states.values()) and all(map(bench.there, bench.study.models)):
        files = [file for model in bench.study.models for file in bench.tables(model)]
        if not same(table, curves.gather(files)):
            yield table, State("stale", f"{table}: not what the results of the stages say")


def repair(bench: Workbench) -> Iterator[tuple[Path, State]]:
    """Remove each of these faults unless it is being written anew, and what killed processes have left."""
    clear_all(bench.store, bench.study)
    for path, state in faults(bench):
        if not writing(path):
            remove(path)
        yield path, state
