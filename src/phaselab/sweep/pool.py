"""All units of a study on this machine: a pool of single-threaded workers, with progress.

Units do not depend on each other, so their order and the number of workers change nothing in the results. What goes
wrong in one is reported at the end and stops none of the others. What is current is found before any worker is
started: with nothing to do there is none.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from phaselab import curves
from phaselab.checkpoints import Checkpoint
from phaselab.errors import PhaselabError
from phaselab.results import Store, write_table
from phaselab.stages import STAGES, Workbench, choose_device
from phaselab.study import Model, Study

#: Bound before numpy and torch are imported in a worker: one thread each, and threads that sleep while they wait, so
#: that two workers do not fight over two cores.
THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass
class Outcome:
    """What a sweep did: stages that were computed or reused, and what went wrong, by unit.

    ``curves`` is the file of the curves table, which is written for a whole study alone.
    """

    trained: int = 0
    computed: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    curves: Path | None = None

    def summary(self, study: Study) -> Table:
        """A table of it, and where the curves table of the study is."""
        table = Table(title=f"study {study.name}", show_header=False)
        table.add_row("models", str(len(study.models)))
        table.add_row("stages computed", str(self.computed))
        table.add_row("stages reused", str(self.reused))
        table.add_row("failed", str(len(self.failures)))
        table.add_row("seconds", f"{self.seconds:.1f}")
        if self.curves:
            table.add_row("curves table", str(self.curves))
        elif not self.failures:
            table.add_row("curves table", "not written: it is of all models and checkpoints of the study")
        return table


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def workers(models: Sequence[Model], jobs: int | None, device: str) -> int:
    """How many units are computed at once: `jobs`, or else as many as there are cores.

    One on a CUDA device, whose memory they would have to share; and one by default where a model is on a hub: such a
    model may have 29 GB, and each worker downloads and holds a checkpoint of its own.
    """
    if device.startswith("cuda"):
        return 1
    return jobs or (1 if any(model.family or model.repository for model in models) else cores())


# ------------------------------------------------------------------------------------------------- inside a worker

_bench: Workbench
_messages: Any


def _start_worker(messages: Any, study: Study, store: Store, data: Path | None, options: dict[str, Any]) -> None:
    global _bench, _messages
    # Ctrl-C is the parent's to handle; a worker that it ends leaves only whole results.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _messages = messages
    _bench = Workbench(study, store, data, say=lambda line: messages.put(("say", line)), **options)


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on with its task for minutes, for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(name: str) -> None:
    _bench.folder(_bench.study.model(name), lambda done, total: _messages.put(("train", name, done, total)))


def _make(name: str, checkpoint: Checkpoint | None, stages: list[str]) -> int:
    return _bench.make(_bench.study.model(name), checkpoint, [STAGES[stage] for stage in stages])


# ----------------------------------------------------------------------------------------------------- the parent


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
    """Make all that is missing of a study and write its curves table.

    Parameters
    ----------
    models : names; empty: all models of the study.
    checkpoints : a choice other than the study's (``all``, ``log:20``, revisions).
    jobs : workers, by default as `workers` says.
    device : where checkpoints are read: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
    options : of ``Workbench``: ``keep_downloads``, ``keep_features``, ``fresh``.

    Returns
    -------
    Outcome
        Failures are in it, by unit; they do not raise.

    Raises
    ------
    PhaselabError
        When the device is not there, or a stage to be made anew is none.
    """
    began, console = time.monotonic(), console or Console(stderr=True)
    options["device"] = choose_device(device)
    chosen = [study.model(name) for name in models] if models else list(study.models)
    whole = not models and checkpoints is None
    with _Told(console, {model.name for model in chosen}) as told:
        bench = Workbench(study, store, data, told.line, **options)
        sweep = _Sweep(bench, chosen, checkpoints, told)
        _say_older_layout(bench, chosen, told.line)
        with _Pool(workers(chosen, jobs, options["device"]), told, (study, store, data, options)) as pool:
            sweep.train(pool)
            sweep.units(pool)
            if checkpoints is None:
                sweep.models(pool)
    outcome = sweep.outcome
    if whole and not outcome.failures:
        files = [file for model in chosen for file in bench.tables(model)]
        outcome.curves = store.curves(study.name)
        write_table(curves.gather(files), outcome.curves)
    outcome.seconds = time.monotonic() - began
    return outcome


def _say_older_layout(bench: Workbench, models: list[Model], say: Callable[[str], None]) -> None:
    """Results of before stages had folders of their own lie one level higher; they are left alone."""
    root = bench.store.study(bench.study.name)
    if any(any((root / model.name).glob("*/brain.parquet")) for model in models):
        say(f"{root}: found results of an older layout (one folder per checkpoint); they stay, and new ones are made")


class _Sweep:
    """The units of some models: which are stale, and what became of them."""

    def __init__(self, bench: Workbench, models: list[Model], wanted: Any, told: _Told) -> None:
        self.bench, self.chosen, self.wanted, self.told = bench, models, wanted, told
        self.outcome = Outcome()

    def train(self, pool: _Pool) -> None:
        """Train what is missing; a model whose checkpoints cannot be had is left out of the rest."""
        waiting = {pool.submit(_train, model.name): model.name for model in self.chosen if not self._there(model)}
        self.outcome.trained = sum(1 for _ in self._collect(waiting))
        self.chosen = [model for model in self.chosen if model.name not in self.outcome.failures]

    def _there(self, model: Model) -> bool:
        with self._failing(model.name):
            return self.bench.there(model)
        return True

    def units(self, pool: _Pool) -> None:
        """Make the stale stages of all checkpoints; the last ones, which have controls as well, begin."""
        tasks: list[tuple[str, Model, Checkpoint | None, list[str]]] = []
        for model in self.chosen:
            with self._failing(model.name):
                for checkpoint in reversed(self.bench.checkpoints(model, self.wanted)):
                    tasks += self._stale(f"{model.name} {checkpoint.revision}", model, checkpoint)
        self._make(pool, tasks)

    def models(self, pool: _Pool) -> None:
        """Stages of whole models, which read what their checkpoints have left."""
        failed = {name.partition(" ")[0] for name in self.outcome.failures}
        whole = [model for model in self.chosen if model.name not in failed]
        self._make(pool, [task for model in whole for task in self._stale(f"{model.name} compared", model, None)])

    def _stale(self, name: str, model: Model, checkpoint: Checkpoint | None) -> list[Any]:
        stale = [stage.name for stage in self.bench.stale(model, checkpoint)]
        self.outcome.reused += len(self.bench.asked(model, checkpoint)) - len(stale)
        return [(name, model, checkpoint, stale)] if stale else []

    def _make(self, pool: _Pool, tasks: list[tuple[str, Model, Checkpoint | None, list[str]]]) -> None:
        waiting = {pool.submit(_make, model.name, at, stages): name for name, model, at, stages in tasks}
        done = {name: (model, at, stages) for name, model, at, stages in tasks}
        for name, made in self._collect(waiting, "checkpoints"):
            model, at, stages = done[name]
            self.bench.trust(model, at, stages)
            self.outcome.computed += made

    def _collect(self, waiting: dict[Future[Any], str], title: str = "") -> Iterator[tuple[str, Any]]:
        if not waiting:
            return
        bar = self.told.bars.add_task(title, total=len(waiting)) if title else None
        for number, future in enumerate(as_completed(waiting), 1):
            name = waiting[future]
            with self._failing(name):
                yield name, future.result()
            if bar is not None:
                self.told.advance(bar, number, len(waiting))

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """An error inside is the failure of `name`; one that is not phaselab's own is also named by its type."""
        try:
            yield
        except Exception as error:
            own = isinstance(error, PhaselabError)
            self.outcome.failures[name] = str(error) if own else f"{type(error).__name__}: {error}"


class _Pool:
    """Worker processes, started by the first task and ended with the block."""

    def __init__(self, jobs: int, told: _Told, setting: tuple[Any, ...]) -> None:
        self.jobs, self.told, self.setting = jobs, told, setting
        self.executor: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self.executor is None:
            self.before = {name: os.environ.get(name) for name in THREADS}
            os.environ.update(THREADS)
            context = multiprocessing.get_context("spawn")
            setting = (self.told.listen(context), *self.setting)
            self.executor = ProcessPoolExecutor(self.jobs, context, _start_worker, setting)
        return self.executor.submit(function, *arguments)

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.executor is None:
            return
        if kind is not None:
            for process in list((self.executor._processes or {}).values()):
                process.terminate()
        self.executor.shutdown(wait=kind is None, cancel_futures=True)
        for name, value in self.before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


class _Told:
    """Progress bars on a terminal, lines elsewhere, and what the workers say, each line once."""

    def __init__(self, console: Console, names: set[str]) -> None:
        columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn())
        self.console = console
        self.bars = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self.lines: set[str] = set()
        self.trainings: dict[str, TaskID] = {}
        self.messages: Any = None

    def __enter__(self) -> _Told:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.messages is not None:
            self.messages.put(None)
            self.thread.join(timeout=5)
        self.bars.stop()

    def line(self, line: str) -> None:
        # What concerns the whole study is said by each worker.
        if line not in self.lines:
            self.lines.add(line)
            self.console.print(f"[yellow]{escape(line)}", highlight=False, soft_wrap=True)

    def advance(self, bar: TaskID, done: int, total: int) -> None:
        """One more of `total`; a log file, which has no bar that moves, gets a line at each tenth."""
        self.bars.update(bar, completed=done, total=total)
        if not self.console.is_terminal and 10 * done // total > 10 * (done - 1) // total:
            left = timedelta(seconds=round(self.bars.tasks[bar].time_remaining or 0))
            about = f", about {left} left" if left else ""
            self.console.print(f"{self.bars.tasks[bar].description}: {done} of {total}{about}", highlight=False)

    def listen(self, context: Any) -> Any:
        """A queue for the messages of workers, ``("say", line)`` or ``("train", name, done, total)``."""
        self.messages = context.Queue()
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()
        return self.messages

    def _listen(self) -> None:
        while (message := self.messages.get()) is not None:
            kind, *rest = message
            if kind == "say":
                self.line(*rest)
                continue
            name, done, total = rest
            if name not in self.trainings:
                self.trainings[name] = self.bars.add_task(f"train {name}", total=total)
            self.advance(self.trainings[name], done, total)
