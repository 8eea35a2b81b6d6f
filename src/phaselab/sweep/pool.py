"""All units of a study on this machine: a pool of single-threaded workers, with progress."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from phaselab import curves
from phaselab.checkpoints import Checkpoint
from phaselab.checkpoints.manifest import without_absent
from phaselab.errors import PhaselabError, escape, expect, number_of, told
from phaselab.results import Store, clear, read_table, try_beside, write_table
from phaselab.stages import STAGES, Workbench, check, choose_device
from phaselab.study import Model, Study
from phaselab.sweep.workers import Task, Workers

#: Workers a core at most: more have gained nothing for anybody, and memory is gone before they have begun.
JOBS_PER_CORE = 8
#: What most stages import, with libraries that take seconds.
SLOW = ("phaselab.encoding.encode", "phaselab.features", "phaselab.training.loop", "transformers.modeling_utils")


@dataclass
class Outcome:
    """What a sweep did: stages that were computed or reused, and what went wrong, by unit."""

    computed: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    curves: Path | None = None  # the file of the curves table, which is written for a whole study alone

    def summary(self, study: Study) -> dict[str, object]:
        """What is said of it, and where the curves table of the study is."""
        rows: dict[str, object] = {"models": len(study.models), "stages computed": self.computed}
        rows |= {"stages reused": self.reused, "failed": len(self.failures), "seconds": f"{self.seconds:.1f}"}
        if self.curves or not self.failures:
            rows["curves table"] = self.curves or "not written: it is of all models and checkpoints of the study"
        return rows


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def workers(models: Sequence[Model], jobs: int | None, device: str) -> int:
    """How many units are computed at once: `jobs`, else one a core; on a CUDA device and with models on a hub, one."""
    most = JOBS_PER_CORE * cores()
    right = f"at most {most}: this process may use {number_of(cores(), 'core')}"
    expect(jobs is None or jobs <= most, "--jobs", jobs, right)
    if device.startswith("cuda"):
        return 1
    return jobs or (1 if any(model.family or model.repository for model in models) else cores())


# Inside a worker:
_bench: Workbench
_send: Callable[[Any], None]


def _begin(send: Callable[[Any], None], study: Study, store: Store, data: Path | None, options: dict[str, Any]) -> None:
    global _bench, _send
    _send = send
    say, began = (lambda text, kind=kind: send((kind, text)) for kind in ("say", "begin"))
    _bench = Workbench(study, store, data, say=say, began=began, **options)


def _train(name: str) -> int:
    bar = f"train {name}"
    _bench.folder(_bench.study.model(name), lambda *done: _send(("bar", bar, *done)))
    return 0


def _make(name: str, checkpoint: Checkpoint | None) -> int:
    return _bench.make(_bench.study.model(name), checkpoint)


def run(
    study: Study,
    store: Store,
    data: Path | None = None,
    models: tuple[str, ...] = (),
    checkpoints: str | tuple[str, ...] | None = None,
    jobs: int | None = None,
    console: Console | None = None,
    device: str = "cpu",
    **options: Any,
) -> Outcome:
    """Make all that is missing of a study and write its curves table; failures are in the outcome, by unit.

    `models`: names, empty: all. `checkpoints`: a choice other than the study's. `options`: of ``Workbench``. A
    PhaselabError, before anything is computed, for what cannot be made (``stages.check``) or options that cannot be.
    """
    began = time.monotonic()
    options["device"] = choose_device(device)
    with View(console or Console(stderr=True)) as told:
        study = without_absent(study, told.say, ask=True)
        chosen = [study.model(name) for name in dict.fromkeys(models)] if models else list(study.models)
        bench = Workbench(study, store, data, told.say, **options)
        clear_all(store, study)
        failed = check(bench, chosen, checkpoints)
        setting, at_once = (study, store, data, options), workers(chosen, jobs, options["device"])
        # A process cannot use CUDA that was forked from one which has looked for it, as libraries do when imported.
        first = SLOW if options["device"] == "cpu" else None
        with Workers(at_once, study.seconds, told.hear, _begin, setting, first) as pool:
            sweep = _Sweep(bench, chosen, told, pool)
            sweep.outcome.failures |= failed
            sweep.make("checkpoints", lambda model: reversed(bench.checkpoints(model, checkpoints)))
            if checkpoints is None:
                sweep.make("models", lambda model: [None])
    clear_all(store, study)
    outcome = sweep.outcome
    if not models and checkpoints is None and not outcome.failures:
        outcome.curves = store.curves(study.name)
        table = curves.gather(file for model in chosen for file in bench.tables(model))
        # One that is there and the same stays: a folder of results may be read-only.
        if not same(outcome.curves, table):
            write_table(table, outcome.curves)
    outcome.seconds = time.monotonic() - began
    return outcome


class View(Progress):
    """Progress bars on a terminal, lines elsewhere, and what the workers say, each line once."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn())
        super().__init__(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self.bars: dict[str, Any] = {}
        self.lines: set[str] = set()

    def hear(self, kind: str, *sent: Any) -> None:
        """What a worker has sent: a line to ``say``, or how far a ``bar`` is."""
        getattr(self, kind)(*sent)

    def say(self, line: str) -> None:
        """Say it once: what concerns the whole study is said by each worker."""
        if line not in self.lines:
            self.lines.add(line)
            self.console.print(f"[yellow]{escape(line)}", highlight=False, soft_wrap=True)

    def bar(self, name: str, done: int, total: int) -> None:
        """How many of `total` are done; a log file, which has no bar that moves, gets a line at each tenth."""
        if name not in self.bars:
            self.bars[name] = self.add_task(name)
        self.update(self.bars[name], completed=done, total=total)
        if not self.console.is_terminal and done and 10 * done // total > 10 * (done - 1) // total:
            left = timedelta(seconds=round(self.tasks[self.bars[name]].time_remaining or 0))
            about = f", about {left} left" if left else ""
            self.console.print(f"{name}: {done} of {total}{about}", highlight=False)


class _Sweep:
    """The units of some models on `pool`, and what became of them."""

    def __init__(self, bench: Workbench, models: list[Model], told: View, pool: Workers) -> None:
        self.bench, self.models, self.told, self.pool = bench, models, told, pool
        self.outcome = Outcome()

    def make(self, what: str, units: Callable[[Model], Iterable[Checkpoint | None]]) -> None:
        """Train what is missing, and make the stale stages of the `units` of models that are there meanwhile."""
        models: dict[bool, list[Model]] = {False: [], True: []}
        for model in (model for model in self.models if model.name not in self.outcome.failures):
            try:
                models[self.bench.there(model)].append(model)
            except Exception as error:
                self.outcome.failures[model.name] = told(error)
        waiting = deque(Task(model.name, _train, (model.name,)) for model in models[False])
        done, total = 0, 0
        for model in models[True]:
            total += self._begin(model, units, waiting)
        if total:
            self.told.bar(what, 0, total)
        if waiting:
            try_beside(self.bench.store.curves(self.bench.study.name))  # before anything is computed
        for task, made, why, part in self.pool.run(waiting):
            (name, *at), training = task.arguments, task.function is _train
            model = self.bench.study.model(name)
            self.outcome.computed += made
            if why:
                self.outcome.failures[task.name] = why
                if part in STAGES:
                    self.bench.log(STAGES[part], model, at[0], why)
            elif training:
                total += self._begin(model, units, waiting)
            else:
                self.bench.trust(model, at[0])
            done += not training
            if total:
                self.told.bar(what, done, total)

    def _begin(self, model: Model, units: Callable[[Model], Iterable[Checkpoint | None]], waiting: deque[Task]) -> int:
        """Put a task for each unit that has stale stages behind those that wait; the number of them."""
        before = len(waiting)
        try:
            for at in units(model):
                stale = self.bench.stale(model, at, take=True)
                self.outcome.reused += len(self.bench.asked(model, at)) - len(stale)
                if stale:
                    unit = f"{model.name} {at.revision if at else 'compared'}"
                    waiting.append(Task(unit, _make, (model.name, at)))
        except Exception as error:
            self.outcome.failures[model.name] = told(error)
        return len(waiting) - before


def clear_all(store: Store, study: Study) -> None:
    """Remove what killed processes have left half-written of the results of a study, and of models trained here."""
    for root in (store.study(study.name), store.root / "trained", store.stamps):
        clear(store.root, root, *root.glob("*/"), *root.glob("*/*/"))


def same(path: Path, table: pd.DataFrame) -> bool:
    """Whether a file is there that holds just this table."""
    try:
        return read_table(path).equals(table)
    except (PhaselabError, OSError):
        return False
