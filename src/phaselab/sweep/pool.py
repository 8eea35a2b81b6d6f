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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from phaselab import curves
from phaselab.checkpoints import Checkpoint
from phaselab.errors import PhaselabError
from phaselab.results import Store, write_table
from phaselab.stages import Workbench, choose_device
from phaselab.study import Model, Study

#: Bound before numpy and torch are imported in a worker: one thread each, and threads that sleep while they wait, so
#: that two workers do not fight over two cores.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
THREADS |= {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}


@dataclass
class Outcome:
    """What a sweep did: stages that were computed or reused, and what went wrong, by unit.

    ``curves`` is the file of the curves table, which is written for a whole study alone.
    """

    computed: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    curves: Path | None = None

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
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _train(name: str) -> None:
    _bench.folder(_bench.study.model(name), lambda done, total: _messages.put(("bar", f"train {name}", done, total)))


def _make(name: str, checkpoint: Checkpoint | None) -> int:
    return _bench.make(_bench.study.model(name), checkpoint)


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
    """Make all that is missing of a study and write its curves table; failures are in the outcome, by unit.

    A PhaselabError when the device is not there, or a stage to be made anew is none.

    Parameters
    ----------
    models : names; empty: all models of the study.
    checkpoints : a choice other than the study's (``all``, ``log:20``, revisions).
    jobs : workers, by default as `workers` says.
    device : where checkpoints are read: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
    options : of ``Workbench``: ``keep_downloads``, ``keep_features``, ``fresh``.
    """
    began = time.monotonic()
    options["device"] = choose_device(device)
    store.try_writing(study.name)
    chosen = [study.model(name) for name in models] if models else list(study.models)
    with _Told(console or Console(stderr=True)) as told:
        bench = Workbench(study, store, data, told.say, **options)
        _say_older_layout(bench, chosen)
        with _Sweep(bench, chosen, workers(chosen, jobs, options["device"]), told, options) as sweep:
            sweep.make("checkpoints", lambda model: reversed(bench.checkpoints(model, checkpoints)))
            if checkpoints is None:
                sweep.make("models", lambda model: [None])
    outcome = sweep.outcome
    if not models and checkpoints is None and not outcome.failures:
        files = [file for model in chosen for file in bench.tables(model)]
        outcome.curves = store.curves(study.name)
        write_table(curves.gather(files), outcome.curves)
    outcome.seconds = time.monotonic() - began
    return outcome


def _say_older_layout(bench: Workbench, models: list[Model]) -> None:
    """Results of before stages had folders of their own lie one level higher; they are left alone."""
    root = bench.store.study(bench.study.name)
    if any(any((root / model.name).glob("*/brain.parquet")) for model in models):
        why = "found results of an older layout (one folder per checkpoint)"
        bench.say(f"{root}: {why}; they stay, and new ones are made")


class _Sweep:
    """Worker processes, started by the first task and ended with the block, and what became of their tasks."""

    def __init__(self, bench: Workbench, models: list[Model], jobs: int, told: _Told, options: dict[str, Any]) -> None:
        self.bench, self.models, self.jobs, self.told, self.options = bench, models, jobs, told, options
        self.outcome = Outcome()
        self.executor: ProcessPoolExecutor | None = None

    def make(self, what: str, units: Callable[[Model], Iterable[Checkpoint | None]]) -> None:
        """Train what is missing, and make the stale stages of the `units` of each model, checkpoints or None.

        Those of a model are begun when it is there, while others are still trained; where something of it has failed
        before, they are not.
        """
        failed = {name.partition(" ")[0] for name in self.outcome.failures}
        there, training = [], dict[Future[Any], Model]()
        for model in (model for model in self.models if model.name not in failed):
            with self._failing(model.name):
                if self.bench.there(model):
                    there.append((None, model))
                else:
                    training[self._submit(_train, model.name)] = model
        waiting: dict[Future[int], tuple[Model, Checkpoint | None]] = {}
        for trained, model in chain(there, ((future, training[future]) for future in as_completed(training))):
            with self._failing(model.name):
                if trained is not None:
                    trained.result()
                for at in units(model):
                    stale = self.bench.stale(model, at)
                    self.outcome.reused += len(self.bench.asked(model, at)) - len(stale)
                    if stale:
                        waiting[self._submit(_make, model.name, at)] = model, at
        if waiting:
            self.told.bar(what, 0, len(waiting))
        for number, future in enumerate(as_completed(waiting), 1):
            model, at = waiting[future]
            with self._failing(f"{model.name} {at.revision if at else 'compared'}"):
                self.outcome.computed += future.result()
                self.bench.trust(model, at)
            self.told.bar(what, number, len(waiting))

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """An error inside is the failure of `name`; one that is not phaselab's own is also named by its type."""
        try:
            yield
        except Exception as error:
            own = isinstance(error, PhaselabError)
            self.outcome.failures[name] = str(error) if own else f"{type(error).__name__}: {error}"

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        if self.executor is None:
            self.environment = dict(os.environ)
            os.environ.update(THREADS)
            context = multiprocessing.get_context("spawn")
            setting = (self.told.listen(context), self.bench.study, self.bench.store, self.bench.data, self.options)
            self.executor = ProcessPoolExecutor(self.jobs, context, _start_worker, setting)
        return self.executor.submit(function, *arguments)

    def __enter__(self) -> _Sweep:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.executor is None:
            return
        if kind is not None:
            for process in list((self.executor._processes or {}).values()):
                process.terminate()
        self.executor.shutdown(wait=kind is None, cancel_futures=True)
        os.environ.clear()
        os.environ.update(self.environment)


class _Told(Progress):
    """Progress bars on a terminal, lines elsewhere, and what the workers say, each line once."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:<32}"), BarColumn(), MofNCompleteColumn())
        super().__init__(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self.bars: dict[str, Any] = {}
        self.lines: set[str] = set()
        self.messages: Any = None

    def stop(self) -> None:
        if self.messages is not None:
            self.messages.put(None)
            self.thread.join(timeout=5)
        super().stop()

    def say(self, line: str) -> None:
        # What concerns the whole study is said by each worker.
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

    def listen(self, context: Any) -> Any:
        """A queue for the messages of workers, ``("say", line)`` or ``("bar", name, done, total)``."""
        self.messages = context.Queue()
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()
        return self.messages

    def _listen(self) -> None:
        for kind, *rest in iter(self.messages.get, None):
            (self.say if kind == "say" else self.bar)(*rest)
