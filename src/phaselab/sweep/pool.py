"""All units of a study on this machine: a pool of single-threaded workers, with progress.

Units do not depend on each other, so their order and the number of workers change nothing in the
results. What goes wrong in one unit is reported at the end and stops none of the others.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
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
from phaselab.results import Store
from phaselab.study import Model, Study
from phaselab.sweep.unit import Workbench, choose_device

#: Bound before numpy and torch are imported in a worker: one thread each, and threads that sleep
#: while they wait, so that two workers do not fight over two cores.
THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass
class Outcome:
    """What a sweep did: folders of units and controls, how many were made, and what went wrong.

    ``curves`` is the file of the curves table, which is written for a whole study alone.
    """

    units: list[Path] = field(default_factory=list)
    controls: list[Path] = field(default_factory=list)
    compared: list[Path] = field(default_factory=list)
    trained: int = 0
    computed: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    curves: Path | None = None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def workers(models: Sequence[Model], jobs: int | None, device: str) -> int:
    """How many units are computed at once: `jobs`, or else as many as there are cores.

    One on a CUDA device, whose memory they would have to share; and one by default where a model is on a
    hub: such a model may have 29 GB, and each worker downloads and holds a checkpoint of its own.
    """
    if device.startswith("cuda"):
        return 1
    return jobs or (1 if any(model.family or model.repository for model in models) else cores())


_bench: Workbench
_messages: Any


def _start_worker(study: Study, store: Store, data: Path | None, messages: Any, options: dict[str, Any]) -> None:
    global _bench, _messages
    # Ctrl-C is the parent's to handle; a worker that it ends leaves only whole results.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _messages = messages
    _bench = Workbench(study, store, data, say=_teller(messages), **options)


def _teller(messages: Any) -> Callable[[str], None]:
    return lambda line: messages.put(("say", line))


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on with its task for minutes, for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(name: str) -> None:
    model = _bench.study.model(name)
    if model.train:
        _bench.folder(model, progress=lambda done, total: _messages.put(("train", name, done, total)))


def _unit(name: str, checkpoint: Checkpoint) -> tuple[Path, bool]:
    return _bench.unit(_bench.study.model(name), checkpoint)


def _controls(name: str) -> tuple[Path, bool]:
    return _bench.controls(_bench.study.model(name))


def _compared(name: str) -> tuple[Path, bool]:
    return _bench.compared(_bench.study.model(name))


def run(
    study: Study,
    store: Store,
    data: Path | None = None,
    models: tuple[str, ...] = (),
    checkpoints: str | tuple[str, ...] | None = None,
    jobs: int | None = None,
    console: Console | None = None,
    keep_downloads: bool = True,
    device: str = "cpu",
    keep_features: bool = False,
) -> Outcome:
    """Make all that is missing of a study and write its curves table.

    Parameters
    ----------
    models : names; empty: all models of the study.
    checkpoints : a choice other than the study's (``all``, ``log:20``, revisions).
    jobs : workers, by default as `workers` says.
    keep_downloads : whether checkpoints from a hub stay in the cache after their units.
    device : where checkpoints are read: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
    keep_features : write the hidden states of each unit to its folder.

    Returns
    -------
    Outcome
        Failures are in it, by unit; they do not raise.

    Raises
    ------
    StudyError
        When the device is not there.
    """
    device = choose_device(device)
    console = console or Console(stderr=True)
    chosen = [study.model(name) for name in models] if models else list(study.models)
    jobs = workers(chosen, jobs, device)
    began = time.monotonic()
    outcome = Outcome()
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(THREADS)
    options = {"keep_downloads": keep_downloads, "device": device, "keep_features": keep_features}
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=context,
        initializer=_start_worker,
        initargs=(study, store, data, messages, options),
    )
    try:
        with _bars(console) as bars, _listening(messages, bars, console, chosen):
            _sweep(pool, Workbench(study, store, data, _teller(messages)), chosen, checkpoints, bars, outcome)
        pool.shutdown()
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
    if not outcome.failures:
        table = curves.gather(outcome.units, outcome.compared)
        if not models and checkpoints is None:
            outcome.curves = curves.write(table, store, study)
    outcome.seconds = time.monotonic() - began
    return outcome


def _sweep(
    pool: ProcessPoolExecutor,
    bench: Workbench,
    models: list[Model],
    wanted: str | tuple[str, ...] | None,
    bars: Progress,
    outcome: Outcome,
) -> None:
    trainings: dict[Future[None], Model] = {pool.submit(_train, model.name): model for model in models}
    units: dict[Future[tuple[Path, bool]], tuple[Model, str]] = {}
    folders: dict[tuple[str, int], Path] = {}
    bar = bars.add_task("checkpoints", total=None)
    for training in as_completed(trainings):
        model = trainings[training]
        try:
            training.result()
            chosen = bench.checkpoints(model, wanted)
        except Exception as error:
            outcome.failures[model.name] = _why(error)
            continue
        outcome.trained += model.train is not None
        for checkpoint in chosen:
            units[pool.submit(_unit, model.name, checkpoint)] = (model, checkpoint.revision)
        units[pool.submit(_controls, model.name)] = (model, "")
    bars.update(bar, total=len(units))
    order = {(model.name, revision): number for number, (model, revision) in enumerate(units.values())}
    for done, future in enumerate(as_completed(units), 1):
        model, revision = units[future]
        try:
            folder, computed = future.result()
        except Exception as error:
            outcome.failures[f"{model.name} {revision or 'controls'}"] = _why(error)
        else:
            outcome.computed += computed
            outcome.reused += not computed
            if revision:
                folders[model.name, order[model.name, revision]] = folder
            else:
                outcome.controls.append(folder)
        bars.update(bar, advance=1)
        if not bars.console.is_terminal and 10 * done // len(units) > 10 * (done - 1) // len(units):
            # As for trainings: a log file has no bar that moves.
            left = timedelta(seconds=round(bars.tasks[bar].time_remaining or 0))
            about = f", about {left} left" if left else ""
            bars.console.print(f"checkpoints: {done} of {len(units)}{about}", highlight=False)
    outcome.units = [folders[key] for key in sorted(folders, key=lambda key: key[1])]
    outcome.controls.sort()
    # Comparisons read what the units of a model have kept; other checkpoints than the study's have none.
    if bench.study.internals.compare and wanted is None:
        failed = {name.partition(" ")[0] for name in outcome.failures}
        asked = {pool.submit(_compared, m.name): m.name for m in models if m.name not in failed}
        for comparison in as_completed(asked):
            try:
                folder, computed = comparison.result()
            except Exception as error:
                outcome.failures[f"{asked[comparison]} compared"] = _why(error)
            else:
                outcome.computed += computed
                outcome.reused += not computed
                outcome.compared.append(folder)
        outcome.compared.sort()


def _why(error: Exception) -> str:
    """What went wrong; an error of phaselab's own is a sentence, another one is also named by its type."""
    own = type(error).__module__.startswith("phaselab.")
    return str(error) if own else f"{type(error).__name__}: {error}"


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


class _listening:
    """While it lasts, shows what the workers report."""

    def __init__(self, messages: Any, bars: Progress, console: Console, models: list[Model]) -> None:
        self.messages, self.bars, self.console = messages, bars, console
        self.tasks: dict[str, TaskID] = {}
        # A log file or CI has no bar that moves: a line at each tenth of a training says as much.
        self.plain = not console.is_terminal
        self.said: Counter[str] = Counter()
        # What concerns the whole study is said by each worker.
        self.lines: set[str] = set()
        self.thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.messages.put(None)
        self.thread.join(timeout=5)

    def _listen(self) -> None:
        while True:
            try:
                message = self.messages.get(timeout=60)
            except queue.Empty:
                continue
            if message is None:
                return
            kind, *rest = message
            if kind == "say":
                if rest[0] in self.lines:
                    continue
                self.lines.add(rest[0])
                self.console.print(f"[yellow]{escape(rest[0])}", highlight=False, soft_wrap=True)
                continue
            name, done, total = rest
            if name not in self.tasks:
                self.tasks[name] = self.bars.add_task(f"train {name}", total=total)
            self.bars.update(self.tasks[name], completed=done)
            tenth = 10 * done // max(total, 1)
            if self.plain and tenth > self.said[name]:
                self.said[name] = tenth
                self.console.print(f"train {name}: step {done} of {total}")


def summary(study: Study, outcome: Outcome) -> Table:
    """A table of what a sweep did, and where the curves table of the study is."""
    table = Table(title=f"study {study.name}", show_header=False)
    table.add_row("models", str(len(study.models)))
    table.add_row("units and controls computed", str(outcome.computed))
    table.add_row("units and controls reused", str(outcome.reused))
    table.add_row("failed", str(len(outcome.failures)))
    table.add_row("seconds", f"{outcome.seconds:.0f}")
    if outcome.curves:
        table.add_row("curves table", str(outcome.curves))
    elif not outcome.failures:
        table.add_row("curves table", "not written: it is of all models and checkpoints of the study")
    return table
