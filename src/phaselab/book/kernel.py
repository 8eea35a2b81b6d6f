"""The kernel of a page: forked from a process that has imported what pages need, which takes seconds each time."""

import multiprocessing
import os
import threading
from typing import Any

from jupyter_client.manager import AsyncKernelManager

from phaselab.sweep.workers import end_with_parent, import_first

#: What all pages import; what most do, with libraries that take seconds.
NEEDED = ("ipykernel.kernelapp", "papermill.translators", "phaselab.book.lab", "phaselab.figures")
SLOW = (
    "nilearn.datasets",
    "nilearn.glm.first_level",
    "phaselab.encoding.estimator",
    "transformers.models.gpt_neox.modeling_gpt_neox",
)


import_first(*NEEDED)


class _Process:
    """A process of ``multiprocessing`` as a kernel's manager asks of one of ``subprocess``."""

    stdin = stdout = stderr = None

    def __init__(self, *arguments: Any) -> None:
        self.process = multiprocessing.get_context("forkserver").Process(target=_serve, args=arguments)
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, signum: int) -> None:
        if self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, signum)


def _serve(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    import matplotlib as mpl
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()  # not of those that Ctrl-C in a terminal interrupts
    os.chdir(folder)
    os.environ.update(environment)
    # Not by mpl.use, which would load it before there is a shell to show figures in.
    mpl.rcParams["backend"] = "module://matplotlib_inline.backend_inline"
    # Not by ipykernel's own watch over the process that it was forked from, which lives as long as it does itself.
    threading.Thread(target=end_with_parent, daemon=True).start()
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


class Kernel(AsyncKernelManager):
    """Is not interrupted before it ends: when its last answer is still being sent ipykernel logs that as an error."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        assert self.provisioner is not None
        options = kernel_cmd[kernel_cmd.index("ipykernel_launcher") + 1 :]
        self.provisioner.process = _Process(options, kw.get("cwd") or os.getcwd(), kw["env"])  # type: ignore[attr-defined]

    async def _async_interrupt_kernel(self) -> None: ...
