"""What befalls a worker process costs its task alone, and is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

import misbehave
from phaselab.sweep.workers import Task, Workers


def pool(jobs: int = 2, limit: float = 60.0, first: Any = ()) -> Workers:
    return Workers(jobs, lambda part: limit, print, misbehave.begin, first=first)


def ended(workers: Workers, *tasks: Task) -> dict[str, tuple[Any, str]]:
    return {task.name: (value, why) for task, value, why, _ in workers.run(deque(tasks))}


FINE = [Task(f"fine {n}", misbehave.fine, (n,)) for n in range(4)]


def test_an_error_comes_back_as_text_whatever_it_is() -> None:
    with pool() as workers:
        found = ended(workers, Task("odd", misbehave.odd), Task("mute", misbehave.mute), *FINE)
    assert found["odd"][1].startswith("Odd: broken inside")
    assert found["mute"][1].startswith("Mute: an error that cannot say what it is")
    assert [found[task.name] for task in FINE] == [(n, "") for n in range(4)]


def test_what_was_killed_once_is_made_and_twice_is_named_while_the_others_go_on(tmp_path: Path) -> None:
    tasks = [Task(f"{n} times", misbehave.killed, (str(tmp_path / str(n)), n)) for n in (1, 9)]
    with pool() as workers:
        found = ended(workers, *tasks, *FINE)
    assert found["1 times"] == (7, "")
    assert [found[task.name] for task in FINE] == [(n, "") for n in range(4)]
    value, why = found["9 times"]
    assert value == 0
    for word in ("killed (exit code -9), twice", "memory has run out", "-j 1"):
        assert word in why
    assert len((tmp_path / "9").read_text()) == 2


@pytest.mark.parametrize("stopped", [False, True])
def test_a_part_that_takes_too_long_is_ended_and_said(stopped: bool) -> None:
    began = time.monotonic()
    with pool(limit=1) as workers:
        found = ended(workers, Task("slow", misbehave.hung, (600.0, stopped)), *FINE)
    assert found["slow"][1].startswith("brain: found no end of it after 0.017 minutes, and it was ended;")
    assert [found[task.name] for task in FINE] == [(n, "") for n in range(4)]
    assert time.monotonic() - began < 60


def test_an_interruption_ends_workers_at_once_even_stopped_ones() -> None:
    with pytest.raises(KeyboardInterrupt), pool(first=None) as workers:
        for _ in workers.run(deque([Task("stopped", misbehave.hung, (600.0, True)), *FINE])):
            time.sleep(1)
            processes = [worker.process for worker in (*workers.at_work.values(), *workers.idle)]
            began = time.monotonic()
            raise KeyboardInterrupt
    assert time.monotonic() - began < 10
    assert processes
    assert not any(process.is_alive() for process in processes)


def test_a_worker_that_is_killed_while_it_is_idle_costs_nothing() -> None:
    with pool(1) as workers:
        assert ended(workers, FINE[1])["fine 1"] == (1, "")
        os.kill(workers.idle[0].process.pid or 0, signal.SIGKILL)
        workers.idle[0].process.join()
        assert ended(workers, FINE[2], FINE[3]) == {"fine 2": (2, ""), "fine 3": (3, "")}


def test_what_workers_are_forked_from_may_be_killed(tmp_path: Path) -> None:
    program = """
import os
import signal
import time
from collections import deque
from pathlib import Path
import misbehave
from phaselab.sweep.workers import Task, Workers
if __name__ == "__main__":
    with Workers(1, lambda part: 60.0, print, misbehave.begin) as workers:
        tasks = deque([Task("parent", misbehave.parent)])
        for _, parent, _, _ in workers.run(tasks):
            os.kill(parent, signal.SIGKILL)
            time.sleep(0.5)  # until it is known that the process is gone
            worker = workers.idle.pop()
            worker.end()
            state = Path(f"/proc/{worker.process.pid}/stat")
            while state.exists() and state.read_text().split()[2] != "Z":
                time.sleep(0.05)
        (done,) = workers.run(deque([Task("fine", misbehave.fine, (3,))]))
        assert done[1:3] == (3, ""), done
"""
    (tmp_path / "run.py").write_text(program)
    path = os.pathsep.join([str(Path(misbehave.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "run.py"], cwd=tmp_path, env=environment, check=True, timeout=60)


@pytest.mark.parametrize("first", [(), None], ids=["forked", "by themselves"])
def test_workers_have_the_environment_of_now_and_leave_it_as_it_was(
    first: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pool() as workers:
        ended(workers, *FINE)
    monkeypatch.setenv("PHASELAB_NEW", "later")
    before = dict(os.environ)
    asked = [Task(name, misbehave.environment, (name,)) for name in ("PHASELAB_NEW", "OMP_NUM_THREADS", "HOME")]
    with pool(first=first) as workers:
        found = ended(workers, *asked)
    assert dict(os.environ) == before
    assert {name: value for name, (value, _) in found.items()} == {
        "PHASELAB_NEW": "later",
        "OMP_NUM_THREADS": "1",
        "HOME": before.get("HOME"),
    }


@pytest.mark.parametrize(("sent", "long"), [(signal.SIGKILL, False), (signal.SIGINT, False), (signal.SIGKILL, True)])
def test_what_is_imported_once_is_there_in_each_worker_and_nothing_is_left_of_a_run_that_ends(
    sent: signal.Signals, long: bool, tmp_path: Path
) -> None:
    program = """
import signal
import sys
from collections import deque
import misbehave
from phaselab.sweep.workers import Task, Workers
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background are made to ignore it
    with Workers(2, lambda part: 60.0, print, misbehave.begin, first=("tabnanny",)) as workers:
        tasks = [Task(str(n), misbehave.loaded, (sys.argv[1], str(n), "tabnanny")) for n in range(2)]
        list(workers.run(deque(tasks)))
"""
    (tmp_path / "run.py").write_text(program)
    temporary = tmp_path / ("long" * 20) if long else Path(tempfile.mkdtemp(prefix="phaselab-test-"))
    temporary.mkdir(exist_ok=True)
    path = os.pathsep.join([str(Path(misbehave.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": path}
    with subprocess.Popen([sys.executable, "run.py", str(tmp_path)], cwd=tmp_path, env=environment) as process:
        told = [tmp_path / "0", tmp_path / "1"]
        while not all(path.is_file() and path.read_text().endswith(".") for path in told):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(sent)
    assert [path.read_text().split()[0] for path in told] == [str(not long)] * 2  # no socket can have so long a name
    pids = [int(pid) for path in told for pid in path.read_text().split()[1:3]]
    began = time.monotonic()
    while (left := [pid for pid in {*pids} if Path(f"/proc/{pid}").exists()]) and time.monotonic() - began < 20:
        time.sleep(0.05)
    assert not left
    assert not list(temporary.iterdir())
    temporary.rmdir()
