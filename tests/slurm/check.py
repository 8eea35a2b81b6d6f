"""A real SLURM on this machine: a study made on it is the study made by `run`, whatever is killed meanwhile.

munged, slurmctld and slurmd of Debian's packages on loopback, without accounting. A small study is made three times:
by `phaselab run`, by `phaselab sweep`, and by `phaselab sweep --profile slurm`, where one job is cancelled and the
daemon of the node is killed under another. All files of the results must be the same, byte for byte. Then a sweep is
interrupted, and one is killed: no job may be left.

    python tests/slurm/check.py        # as root, where no SLURM is configured; else says why it does nothing
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from phaselab.results import MANIFEST, digest_file

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


def until(what: str, true: Callable[[], Any], seconds: float = 90) -> Any:
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


def results_of(root: Path) -> dict[str, str]:
    """Digest of every file but those that say how long it took, and hidden ones."""
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path): digest_file(root / path) for path in files if not any(part[0] == "." for part in path.parts)}


def begin(folder: Path, *command: str) -> subprocess.Popen[str]:
    """A command that hears an interrupt, as one that was typed does: a shell has its background jobs ignore it."""
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([*PHASELAB, *command], cwd=folder, text=True, preexec_fn=hears)


def finish(process: subprocess.Popen[str], expected: int = 0) -> None:
    assert process.wait() == expected, f"{process.args}: {process.returncode}"


def check(folder: Path, cluster: Slurm) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(with_(("models", with_()["models"][:1]))))
    jobs = ("--until", "phases")
    began = time.monotonic()

    def step(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s: {what}", flush=True)

    sweep = begin(
        folder, "sweep", "tiny.yaml", "--profile", "slurm", "-j", "2", "--results", "slurm", *jobs, "--", *HERE
    )
    (first, *_) = until("jobs of units", lambda: cluster.jobs("rule_units"), 150)
    time.sleep(2)
    step(f"job {first} of units is cancelled")
    said("scancel", first)
    (second, *_) = until("another job of units", lambda: [job for job in cluster.jobs("rule_units") if job != first])
    time.sleep(2)
    step(f"the node's daemon is killed under job {second}")
    cluster.kill("slurmd")
    until("the node is down", lambda: "down" in said("sinfo", "--noheader", "--format=%t"))
    cluster.start("slurmd", "-D")
    finish(sweep)
    step("made by SLURM")
    finish(begin(folder, "run", "tiny.yaml", "--results", "run", "-j", "2"))
    finish(begin(folder, "phases", "tiny.yaml", "--results", "run"))
    step("made by run")
    finish(begin(folder, "sweep", "tiny.yaml", "-j", "2", "--results", "here", *jobs, "--", "--config", "group=1"))
    step("made by sweep on this machine")
    wanted = results_of(folder / "run")
    assert wanted
    for other in ("here", "slurm"):
        assert results_of(folder / other) == wanted, other
    step(f"{len(wanted)} files are the same, byte for byte")
    for sent, code, left in ((signal.SIGINT, 130, "interrupted"), (signal.SIGKILL, -9, "killed")):
        sweep = begin(folder, "sweep", "tiny.yaml", "--profile", "slurm", "--results", left, *jobs, "--", *HERE)
        until("a job", lambda: cluster.jobs(), 150)
        sweep.send_signal(sent)
        finish(sweep, code)
        until(f"no job of a sweep that was {left}", lambda: not cluster.jobs(state="RUNNING,PENDING,COMPLETING"), 30)
        step(f"a sweep that was {left} leaves no job")


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
