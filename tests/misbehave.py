"""What tasks of worker processes may do; a worker finds it by its name."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

_send: Any = None


def begin(send: Any) -> None:
    global _send
    _send = send


class Odd(Exception):
    """It can be pickled, and not unpickled."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} {why}")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def fine(value: int) -> int:
    return value


def environment(name: str) -> str | None:
    return os.environ.get(name)


def parent() -> int:
    return os.getppid()


def odd() -> int:
    raise Odd("broken", "inside")


def mute() -> int:
    raise Mute


def killed(marker: str, times: int) -> int:
    """Killed so many times, by what it notes in a file."""
    with Path(marker).open("a") as stream:
        stream.write("x")
    if len(Path(marker).read_text()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


def hung(seconds: float, stopped: bool = False) -> int:
    _send(("begin", "brain"))
    if stopped:
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(seconds)
    return 1


def loaded(folder: str, name: str, module: str) -> int:
    """Note whether a module is there, this process and the one that it was forked from; and hang."""
    Path(folder, name).write_text(f"{module in sys.modules} {os.getpid()} {os.getppid()} .")
    time.sleep(600)
    return 1
