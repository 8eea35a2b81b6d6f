"""A real SLURM on this machine: a study made on it is the study made by `run`, whatever is killed meanwhile.

munged, slurmctld and slurmd of Debian's packages on loopback, without accounting. A small study, with a book of two
pages of which one cannot be made, is made three times: by `phaselab book` and `phases`, by `phaselab sweep`, and by
`phaselab sweep --profile slurm`, where one job is cancelled and the daemon of the node is killed under another. All
files of the results, and the pages, must be the same, byte for byte. Then of two sweeps one is interrupted and one
killed: no job may be left.

    python tests/slurm/check.py        # as root, where no SLURM is configured; else says why it does nothing
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from phaselab.results import MANIFEST, digest_file, folders
from phaselab.sweep.workers import with_parent

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import with_

#: Where the daemons look, and what Debian calls them.
CONFIGURATION, PROGRAMS = Path("/etc/slurm/slurm.conf"), ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
PHASELAB = [sys.executable, "-m", "phaselab"]
#: What the plugin needs where SLURM keeps no accounts, and not to wait.
HERE = ["--slurm-no-account", "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2"]
HERE += ["--seconds-between-status-checks", "2", "--latency-wait", "10", "--config", "group=2"]
CONF = """
ClusterName=phaselab
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
MinJobAge=3600
KillWait=5
ReturnToService=2
SlurmdTimeout=10
JobRequeue=0
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def said(*command: object) -> str:
    """What a command prints."""
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout


def until(what: str, true: Callable[[], Any], seconds: float = 600) -> Any:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.3)
    return found


class Slurm:
    """The daemons, in the foreground, and what they say in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, dict[str, subprocess.Popen[bytes]]()
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        host = os.uname().nodename.partition(".")[0]
        CONFIGURATION.write_text(CONF.format(host=host, folder=folder))
        socket = [f"--socket={folder}/munge.socket", f"--seed-file={folder}/munge.seed"]
        files = [f"--key-file={key}", f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log"]
        self.start("munged", "--foreground", "--force", *socket, *files)
        until("munge", lambda: (folder / "munge.socket").exists())
        self.start("slurmctld", "-D", "-c")
        self.start("slurmd", "-D")
        until("a node", lambda: "idle" in said("sinfo", "--noheader", "--format=%t"))

    def start(self, name: str, *options: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.running[name] = subprocess.Popen([shutil.which(name) or name, *options], stdout=out, stderr=out)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def jobs(self, rule: str = "", state: str = "RUNNING") -> list[str]:
        """Numbers of the jobs of a rule, of one state."""
        rows = [
            line.split("|") for line in said("squeue", "--noheader", f"--states={state}", "--format=%i|%k").splitlines()
        ]
        return [number for number, comment in rows if rule in comment]

    def end(self) -> None:
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["scancel", "--user=root"], capture_output=True, timeout=10, check=False)
            until("no job", lambda: not said("squeue", "--noheader"), 10)
        for name in [*self.running][::-1]:
            self.running[name].terminate()
            with suppress(subprocess.TimeoutExpired):
                self.running[name].wait(10)
            self.kill(name)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A SLURM, and nothing of it left behind."""
    found: Any = None
    try:
        found = Slurm(folder)
        yield found
    except BaseException:
        for log in sorted(folder.glob("*.out")) + sorted(folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}")
        raise
    finally:
        if found:
            found.end()
        CONFIGURATION.unlink(missing_ok=True)


#: A book of two pages, as notebooks: that of a model, and one that cannot be made.
PAGE = """---
jupytext: {{text_representation: {{extension: .md, format_name: myst}}}}
---
({0})=
# A page

```{{code-cell}}
:tags: [parameters]
study: str = "demo"
model: str = ""
results: str = "results"
data: str = ""
device: str = "cpu"
```

```{{code-cell}}
from phaselab.book import begin

lab = begin()
{1}
```
"""
BOOK = {
    "_config.yml": "title: A book\nexecute: {execute_notebooks: 'off'}\nonly_build_toc_files: true\n",
    "_toc.yml": "format: jb-book\nroot: index\nchapters: [file: book/executed/01_not, file: book/executed/models/one]",
    "index.md": "# A book\n",
    "notebooks/01_not.md": PAGE.format("not", "raise ValueError('as it should')"),
    "notebooks/11_model_page.md": PAGE.format("of-a-model", "lab.curves()"),
}
#: What is compared of a folder in which a study was made.
PARTS = ("results", "root/book/executed", "root/_build/html")


def work_in(folder: Path) -> Path:
    """A folder with the study and the sources of the book."""
    for name, text in BOOK.items():
        (folder / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "root" / name).write_text(text)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(with_(("models", with_()["models"][:1]))))
    return folder


def made_in(folder: Path) -> dict[str, str]:
    """Digest of every file of results and of the book, but those that say when, where or how long, and hidden ones."""
    files = {path.relative_to(folder) for part in PARTS for path in (folder / part).rglob("*") if path.is_file()}
    files -= {path for path in files if path.name in (MANIFEST, "objects.inv") or ".failed." in path.name}
    return {str(path): digest_file(folder / path) for path in files if not any(part[0] == "." for part in path.parts)}


def begin(folder: Path, *command: str, stderr: int | None = None) -> subprocess.Popen[str]:
    """A command that hears an interrupt, as one that was typed does, also that this check has ended before it."""
    how: Any = {"cwd": folder, "text": True, "stderr": stderr, "preexec_fn": with_parent(signal.SIGINT)}
    return subprocess.Popen([*PHASELAB, *command], **how)


def finish(process: subprocess.Popen[str], expected: int = 0) -> None:
    assert process.wait() == expected, f"{process.args}: {process.returncode}"


def check(folder: Path, cluster: Slurm) -> None:
    slurm, here, run, *ended = (work_in(folder / name) for name in ("slurm", "here", "run", "interrupted", "killed"))
    began, whole, sweep = time.monotonic(), ("--root", "root"), ("sweep", "tiny.yaml", "-j", "2")
    on_slurm = (*sweep, "--profile", "slurm")

    def step(what: str) -> None:
        used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        print(f"{time.monotonic() - began:5.0f} s, {used:.0f} s of computing by what has ended: {what}", flush=True)

    process = begin(slurm, *on_slurm, *whole, "--", *HERE)
    (first, *_) = until("jobs of units", lambda: cluster.jobs("rule_units"))
    time.sleep(2)
    step(f"job {first} of units is cancelled")
    said("scancel", first)
    (second, *_) = until("another job of units", lambda: [job for job in cluster.jobs("rule_units") if job != first])
    time.sleep(2)
    step(f"the node's daemon is killed under job {second}")
    cluster.kill("slurmd")
    until("the node is down", lambda: "down" in said("sinfo", "--noheader", "--format=%t"))
    cluster.start("slurmd", "-D")
    finish(process, 2)  # with the page that cannot be made
    comments = said("squeue", "--noheader", "--states=all", "--format=%k")
    assert {"rule_notebooks", "rule_book"} <= {*re.findall(r"rule_[a-z]+", comments)}, comments
    step("made by SLURM, with pages and book")
    finish(begin(run, "book", "tiny.yaml", "-j", "2", *whole), 1)
    finish(begin(run, "phases", "tiny.yaml"))
    step("made by book and phases")
    beside = begin(here, "run", "tiny.yaml", "-j", "1", stderr=subprocess.PIPE)
    finish(begin(here, *sweep, *whole, "--", "--config", "group=1"), 2)
    told = beside.communicate()[1]
    assert beside.returncode == 0, told
    told += "".join(path.read_text() for path in (here / "results/tiny/.sweep/logs").rglob("*.log"))
    made, there = sum(map(int, re.findall(r"stages computed\D+(\d+)", told))), len(folders(here / "results/tiny"))
    assert made == there, f"{made} stages were made, and {there} are there"
    step("made by sweep on this machine, with a run at once: nothing twice")
    wanted = made_in(run)
    assert "This page could not be made" in (run / "root/book/executed/01_not.ipynb").read_text()
    assert {"results/tiny/pages/models/one.ipynb", "root/_build/html/index.html"} <= {*wanted}
    for other in (here, slurm):
        assert made_in(other) == wanted, sorted({*made_in(other).items()} ^ {*wanted.items()})
    step(f"{len(wanted)} files are the same, byte for byte")
    sweeps = [begin(at, *on_slurm, "--until", "units", "--", *HERE) for at in ended]
    until("a job of each", lambda: len(cluster.jobs()) == len(sweeps))
    for process, (sent, code) in zip(sweeps, ((signal.SIGINT, 130), (signal.SIGKILL, -9)), strict=True):
        process.send_signal(sent)
        finish(process, code)
    until("no job of theirs", lambda: not cluster.jobs(state="RUNNING,PENDING,COMPLETING"))
    step("a sweep that was interrupted, and one that was killed, leave no job")


def main() -> None:
    lacking = [name for name in PROGRAMS if not shutil.which(name)]
    why = "not root" if os.geteuid() else f"no {', '.join(lacking)}: apt install slurmctld slurmd slurm-client munge"
    if os.geteuid() or lacking or CONFIGURATION.exists():
        print(f"skipped: {why if os.geteuid() or lacking else f'{CONFIGURATION} is there: it has a SLURM of its own'}")
        return
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, slurm(Path(folder)) as cluster:
        work = Path(folder, "work")
        work.mkdir()
        check(work, cluster)


if __name__ == "__main__":
    main()
