"""Worker processes: tasks go to each through a pipe, answers come back as text, and what befalls one costs its task."""

import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import wait
from typing import Any, NamedTuple

from phaselab.errors import number_of, told

#: Bound before numpy and torch are imported in a worker: one thread each, and threads that sleep while they wait.
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
THREADS |= {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
#: What the process imports, when it begins, from which workers and kernels are forked.
_FIRST = dict[str, None]()
#: What is said of a task whose worker has ended twice, the second time alone.
KILLED = (
    "its worker process was killed (exit code {}), twice, the second time with no other beside it; most often memory "
    "has run out: expected more of it, fewer workers (-j 1), a smaller encoding.memory, or fewer features.layers"
)


class Task(NamedTuple):
    """A function of a module, its arguments, and the name of it all in what is said; `part`: with which it begins."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    part: str = ""


def import_first(*modules: str) -> None:
    """Have modules that take seconds imported once, by what workers and kernels are forked from; before the first."""
    _FIRST.update(dict.fromkeys(modules))
    multiprocessing.get_context("forkserver").set_forkserver_preload([*_FIRST])


def _fork(process: Any) -> None:
    """Start a process, forked from one that begins with the first of them, or when it was killed."""
    resource_tracker.ensure_running()  # which lets signals through when it begins
    for left in reversed(range(20)):
        # Ctrl-C is not for what imports meanwhile: it would say where it was.
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        try:
            process.start()
            break
        except (EOFError, OSError):
            if not left:
                raise
            time.sleep(0.1)  # until the system says that it has ended


def _work(pipe: Any, environment: dict[str, str], begin: Callable[..., None] | None, setting: tuple[Any, ...]) -> None:
    # Ctrl-C is the parent's to handle; a worker that it ends leaves only whole results.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()  # which is of the time when the first worker began
    os.environ.update(environment)
    threading.Thread(target=end_with_parent, args=(util.get_temp_dir(),), daemon=True).start()
    if begin:
        begin(pipe.send, *setting)
    with suppress(EOFError, BrokenPipeError):  # without a parent
        while True:
            function, arguments = pipe.recv()
            try:
                pipe.send(("end", function(*arguments), ""))
            except BaseException as error:  # as text, for not every error can be sent
                pipe.send(("end", getattr(error, "made", 0), told(error)))


def end_with_parent(*left: str) -> None:
    """For a thread of a process that would go on for minutes, for nobody, when its parent was killed.

    Folders that this parent has `left` go, too.
    """
    if parent := multiprocessing.parent_process():
        parent.join()
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


def with_parent(sent: signal.Signals) -> Callable[[], object] | None:
    """What a program is to do before it begins, so that it is `sent` this when its parent ends; None: not possible."""

    def begin() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has what it starts in the background ignore it
        ctypes.CDLL(None).prctl(1, sent)  # PR_SET_PDEATHSIG

    return begin if sys.platform == "linux" else None


class _Worker:
    """A process, its end of a pipe, and what it is at; `since`: when the part under way has last been heard of."""

    task: Task
    part: str
    since: float

    def __init__(self, first: tuple[str, ...] | None, *how: Any) -> None:
        import_first(*first or ())
        # Made here, or each process makes its own, which stays when it is killed; a socket in it takes 18 bytes of 107.
        forked = len(os.fsencode(util.get_temp_dir())) < 89 and first is not None
        context: Any = multiprocessing.get_context("forkserver" if forked else "spawn")
        self.pipe, theirs = context.Pipe()
        before = dict(os.environ)
        self.process = context.Process(target=_work, args=(theirs, before | THREADS, *how))
        os.environ.update(THREADS)
        try:
            if forked:
                _fork(self.process)
            else:
                self.process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()  # or the pipe would not end with the process

    def end(self) -> None:
        # Whatever it does, and even if it was stopped; what it writes gets its name only when it is whole. One that has
        # ended may have given its number to another; 255: what it was forked from is gone, which alone would know.
        if (pid := self.process.pid) and self.process.exitcode in (None, 255):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.join()
        self.pipe.close()


@dataclass
class Workers(AbstractContextManager["Workers"]):
    """At most `jobs` processes, started when there is a task for them and ended with the block.

    `limit` gives the seconds that a part may take, after which its worker is ended. Each worker calls
    ``begin(send, *setting)`` first, where that is given, and may send ``("begin", part)``, ``("say", line)`` and
    ``("bar", name, done, total)``; `hear` takes the last two. `first`: modules that are imported once for all of them;
    None where each is to begin by itself.
    """

    jobs: int
    limit: Callable[[str], float]
    hear: Callable[..., object] = lambda *sent: None
    begin: Callable[..., None] | None = None
    setting: tuple[Any, ...] = ()
    first: tuple[str, ...] | None = ()

    def __post_init__(self) -> None:
        self.idle, self.at_work = list[_Worker](), dict[Any, _Worker]()

    def run(self, waiting: deque[Task]) -> Iterator[tuple[Task, Any, str, str]]:
        """Each task as it ends, what it gave (0 where it failed and says nothing else), why it failed, where it ended.

        Meanwhile others may be put behind `waiting`. One whose worker was killed is tried again, alone.
        """
        killed, again = deque[Task](), None
        while waiting or killed or self.at_work:
            while waiting and len(self.at_work) < self.jobs:
                self._give(waiting.popleft())
            if killed and not self.at_work:
                self._give(again := killed.popleft())
            for pipe in wait([*self.at_work], timeout=1):
                worker = self.at_work[pipe]
                try:
                    kind, *rest = worker.pipe.recv()
                except (EOFError, OSError):
                    self.at_work.pop(pipe).end()
                    if worker.task is not again:
                        killed.append(worker.task)
                    else:
                        yield worker.task, 0, KILLED.format(worker.process.exitcode), worker.part
                    continue
                if kind != "say":
                    worker.since = time.monotonic()
                if kind == "end":
                    self.idle.append(self.at_work.pop(pipe))
                    yield worker.task, *rest, ""
                elif kind == "begin":
                    (worker.part,) = rest
                else:
                    self.hear(kind, *rest)
            for worker in [*self.at_work.values()]:
                if worker.part and time.monotonic() - worker.since > (most := self.limit(worker.part)):
                    self.at_work.pop(worker.pipe).end()
                    why = f"found no end of it after {number_of(round(most / 60, 3), 'minute')}, and it was ended"
                    right = "expected less, or more 'minutes' in the study"
                    yield worker.task, 0, f"{worker.part}: {why}; {right}", worker.part

    def _give(self, task: Task) -> None:
        worker = self.idle.pop() if self.idle else _Worker(self.first, self.begin, self.setting)
        worker.task, worker.part, worker.since = task, task.part, time.monotonic()
        self.at_work[worker.pipe] = worker
        with suppress(OSError):  # killed while it was idle: its pipe says so
            worker.pipe.send((task.function, task.arguments))

    def __exit__(self, kind: Any, *_: object) -> None:
        for worker in [*self.idle, *self.at_work.values()]:
            worker.end()
        # Interrupted, nobody waits for what it still imports; multiprocessing has no other way to end it at once.
        server = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
        if kind is KeyboardInterrupt and self.first is not None and server:
            os.kill(server, signal.SIGKILL)
