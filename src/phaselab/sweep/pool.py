"""All units of a study on this machine: a pool of single-threaded workers, with progress."""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from phaselab import curves
from phaselab.checkpoints import Checkpoint
from phaselab.checkpoints.manifest import without_absent
from phaselab.errors import PhaselabError, expect, told
from phaselab.results import Store, read_manifest, try_beside, write_table
from phaselab.stages import STAGES, Workbench, check, choose_device
from phaselab.study import Model, Study

#: Bound before numpy and torch are imported in a worker: one thread each, and threads that sleep while they wait.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
THREADS |= {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
#: Workers a core at most: more have gained nothing for anybody, and memory is gone before they have begun.
JOBS_PER_CORE = 8
#: What is said of a unit whose worker has ended twice, the second time alone.
KILLED = (
    "its worker process was killed, twice, the second time with no other beside it; most often memory has run out: "
    "expected more of it, fewer workers (-j 1), a smaller encoding.memory, or fewer features.layers"
)


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
    expect(jobs is None or jobs <= most, "--jobs", jobs, f"at most {most}: this process may use {cores()} cores")
    if device.startswith("cuda"):
        return 1
    return jobs or (1 if any(model.family or model.repository for model in models) else cores())


# Inside a worker:
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


def _train(name: str, _: None) -> int:
    _bench.folder(_bench.study.model(name), lambda done, total: _messages.put(("bar", f"train {name}", done, total)))
    return 0


def _make(name: str, checkpoint: Checkpoint | None) -> int:
    return _bench.make(_bench.study.model(name), checkpoint)


def _attempt(function: Callable[..., int], *arguments: Any) -> tuple[int, str]:
    """What was made and what went wrong: a sentence, for not every error can be sent to the parent."""
    try:
        return function(*arguments), ""
    except BaseException as error:
        return getattr(error, "made", 0), told(error)


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
    try_beside(store.curves(study.name))
    with _Told(console or Console(stderr=True)) as told:
        study = without_absent(study, told.say, ask=True)
        chosen = [study.model(name) for name in dict.fromkeys(models)] if models else list(study.models)
        bench = Workbench(study, store, data, told.say, **options)
        root = store.study(study.name)
        if any(any((root / model.name).glob("*/brain.parquet")) for model in chosen):
            why = "found results of an older layout (one folder per checkpoint)"
            told.say(f"{root}: {why}; they stay, and new ones are made")
        failed = check(bench, chosen, checkpoints)
        with _Sweep(bench, chosen, workers(chosen, jobs, options["device"]), told, options) as sweep:
            sweep.outcome.failures |= failed
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
        """A queue for ``("say", line)`` or ``("bar", name, done, total)``, one a pool: a killed worker may lock it."""
        self.messages = context.Queue()
        self.thread = threading.Thread(target=self._listen, args=(self.messages,), daemon=True)
        self.thread.start()
        return self.messages

    def _listen(self, messages: Any) -> None:
        for kind, *rest in iter(messages.get, None):
            (self.say if kind == "say" else self.bar)(*rest)


class _Task(NamedTuple):
    """A model to be trained, or a unit to be made; its name in what is said of it."""

    name: str
    function: Callable[[str, Any], int]
    model: Model
    at: Checkpoint | None = None


class _Sweep(AbstractContextManager["_Sweep"]):
    """Worker processes, started by the first task and ended with the block, and what became of their tasks."""

    def __init__(self, bench: Workbench, models: list[Model], jobs: int, told: _Told, options: dict[str, Any]) -> None:
        self.bench, self.models, self.jobs, self.told, self.options = bench, models, jobs, told, options
        self.outcome = Outcome()
        self.executor: ProcessPoolExecutor | None = None
        self.environment = dict(os.environ)

    def make(self, what: str, units: Callable[[Model], Iterable[Checkpoint | None]]) -> None:
        """Train what is missing, and make the stale stages of the `units` of models that are there meanwhile."""
        models: dict[bool, list[Model]] = {False: [], True: []}
        for model in (model for model in self.models if model.name not in self.outcome.failures):
            try:
                models[self.bench.there(model)].append(model)
            except Exception as error:
                self.outcome.failures[model.name] = told(error)
        waiting = deque(_Task(model.name, _train, model) for model in models[False])
        done, total = 0, 0
        for model in models[True]:
            total += self._begin(model, units, waiting)
        if total:
            self.told.bar(what, 0, total)
        for task, made, why in self._finished(waiting):
            self.outcome.computed += made
            if why:
                self.outcome.failures[task.name] = why
            elif task.function is _train:
                total += self._begin(task.model, units, waiting)
            else:
                self.bench.trust(task.model, task.at)
            done += task.function is _make
            if total:
                self.told.bar(what, done, total)

    def _begin(self, model: Model, units: Callable[[Model], Iterable[Checkpoint | None]], waiting: deque[_Task]) -> int:
        """Put a task for each unit that has stale stages behind those that wait; the number of them."""
        before = len(waiting)
        try:
            for at in units(model):
                stale = self.bench.stale(model, at)
                self.outcome.reused += len(self.bench.asked(model, at)) - len(stale)
                if stale:
                    waiting.append(_Task(f"{model.name} {at.revision if at else 'compared'}", _make, model, at))
        except Exception as error:
            self.outcome.failures[model.name] = told(error)
        return len(waiting) - before

    def _finished(self, waiting: deque[_Task]) -> Iterator[tuple[_Task, int, str]]:
        """Each task, what it made and what went wrong, as they end; meanwhile others may be put behind `waiting`.

        When a worker is killed all are lost, and every task under way may be the reason: each is tried again alone.
        """
        running, again = dict[Future[tuple[int, str]], _Task](), list[_Task]()
        while waiting or running or again:
            while (again and not running) or (waiting and not again and len(running) < self.jobs):
                task = again[0] if again else waiting.popleft()
                running[self._submit(task)] = task
            ended = wait(running, return_when=FIRST_COMPLETED).done
            if any(isinstance(future.exception(), BrokenProcessPool) for future in ended):
                ended, self.executor = wait(running).done, None
            for future in ended:
                task = running.pop(future)
                if (killed := future.exception() is not None) and task not in again:
                    again.append(task)
                    continue
                again = [other for other in again if other is not task]
                yield task, *((0, KILLED) if killed else future.result())

    def _submit(self, task: _Task) -> Future[tuple[int, str]]:
        if self.executor is None:
            os.environ.update(THREADS)
            context = multiprocessing.get_context("spawn")
            setting = (self.told.listen(context), self.bench.study, self.bench.store, self.bench.data, self.options)
            self.executor = ProcessPoolExecutor(self.jobs, context, _start_worker, setting)
        return self.executor.submit(_attempt, task.function, task.model.name, task.at)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.executor is not None:
            if kind is not None:
                for process in list((self.executor._processes or {}).values()):
                    process.terminate()
            self.executor.shutdown(wait=kind is None, cancel_futures=True)
        os.environ.clear()
        os.environ.update(self.environment)


#: Columns of the table of states: numbers of results, and what changed for the stale ones.
STATES = ("model", "stage", "current", "stale", "missing", "damaged", "other code", "why")


def status(bench: Workbench) -> pd.DataFrame:
    """One row per model and stage that the study asks for, `STATES`; nothing is made, downloaded or loaded."""
    rows: list[dict[str, object]] = []
    for model in bench.study.models:
        try:
            found = _of_model(bench, model) if bench.there(model) else [{"stage": "", "why": "not trained yet"}]
        except (PhaselabError, OSError) as error:
            found = [{"stage": "", "why": told(error)}]
        rows += [{**dict.fromkeys(STATES, 0), "model": model.name, **row} for row in found]
    return pd.DataFrame(rows, columns=list(STATES))


def _of_model(bench: Workbench, model: Model) -> list[dict[str, object]]:
    counts, whys = ({name: Counter[str]() for name in STAGES} for _ in range(2))
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
