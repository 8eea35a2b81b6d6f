"""What may befall results: kills at any moment and at each event of the file system, damage, several runs at once.

    python tests/faults.py --seed 1 --count 200

After each the study is made again, and then every file of a result is that of a run that nothing befell, no more was
made than was missing, and nothing else is left. Children are forked: modules are imported once.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import sklearn.linear_model  # noqa: F401  (this and what is marked below is only imported once for all children)
import transformers.models.gpt_neox.modeling_gpt_neox  # noqa: F401

import phaselab.behaviour.score
import phaselab.encoding
import phaselab.internals.probes
import phaselab.training.loop  # noqa: F401
from phaselab import curves, results
from phaselab.results import MANIFEST, Store, digest_file, folders, write_table
from phaselab.stages import Workbench
from phaselab.study import Study
from phaselab.sweep.pool import clear_all
from tiny import CHECKPOINT, LAST, TINY

STUDY = Study.model_validate({**TINY, "models": TINY["models"][:1]})
MODEL = STUDY.models[0]
#: Stages of the study; seconds after which a child is taken for hung.
ALL, HUNG = 3 * len(CHECKPOINT) + len(LAST), 300
#: What is written beside what it is to become.
LEFT = re.compile(r"\..*(~|\.claim)")


def child(work: Callable[[], int]) -> int:
    """Start a process that does some work and whose exit code is what that returns; its number."""
    if pid := os.fork():
        return pid
    faulthandler.dump_traceback_later(HUNG - 10)
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
        code = 255
    sys.stderr.flush()
    os._exit(code)


def outcome(pid: int) -> int:
    """The exit code of a child; minus the signal that has ended it. One that hangs is an error."""
    until = time.monotonic() + HUNG
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"hung for {HUNG} s")


def make(root: Path) -> int:
    """What ``phaselab run`` does, in this process; the number of stages made."""
    store = Store(root)
    clear_all(store, STUDY)
    bench = Workbench(STUDY, store)
    made = sum(bench.make(MODEL, at) for at in (*bench.checkpoints(MODEL), None))
    table = store.curves(STUDY.name)
    if made or not table.exists():
        write_table(curves.gather(bench.tables(MODEL)), table)
    return made


def files(root: Path) -> dict[str, str]:
    """Name -> digest of each file that results are; manifests say how long it took, and stamps when."""
    found = (path for path in root.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(p.relative_to(root)): digest_file(p) for p in found if ".stamps" not in p.parts}


def stale(root: Path) -> int:
    """Stages that a run must make, told without writing anything."""
    bench = Workbench(STUDY, Store(root))
    if not bench.there(MODEL):
        return 99  # not known: it is trained first
    return sum(len(bench.stale(MODEL, at)) for at in (*bench.checkpoints(MODEL), None))


def may_mount() -> bool:
    """Whether a disk of a given size can be had here, as root can on most machines; said where not."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = not subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode
        if mounted:
            subprocess.run(["umount", folder], check=True)
    print("" if mounted else "no disk can be mounted here: full disks are left out", end="" if mounted else "\n")
    return mounted


class Faults:
    """Runs in folders of their own, against one that nothing befell."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random, self.number = folder, random.Random(seed), 0
        began = time.monotonic()
        self.whole = self.fresh(empty=True)
        assert outcome(child(lambda: make(self.whole))) == ALL
        self.seconds, self.expected = time.monotonic() - began, files(self.whole)

    def fresh(self, empty: bool = False) -> Path:
        """A new folder of results: empty, or all of them."""
        self.number += 1
        root = self.folder / str(self.number)
        if not empty:
            shutil.copytree(self.whole, root, symlinks=True)
        return root

    def mended(self, root: Path, what: str) -> None:
        """Make the study again and look whether all is as it should be."""
        before = outcome(child(lambda: stale(root)))
        made = outcome(child(lambda: make(root)))
        assert made == before or (before == 99 and made <= ALL), f"{what}: {made} made, {before} were missing"
        assert files(root) == self.expected, f"{what}: {sorted(set(files(root).items()) ^ set(self.expected.items()))}"
        left = [str(p) for p in root.rglob("*") if LEFT.match(p.name)]
        assert not left, f"{what}: left {left}"
        assert outcome(child(lambda: make(root))) == 0, f"{what}: made again what was current"
        shutil.rmtree(root)

    @staticmethod
    def finished(root: Path) -> dict[Path, tuple[int, int]]:
        """Each folder that a run has finished, and what becomes another where it is made again.

        Hidden ones are under way; the state of a training is one of them, and is written with each checkpoint.
        """
        manifests = ((path.parent, path.stat()) for path in root.rglob(MANIFEST))
        return {path: (at.st_ino, at.st_mtime_ns) for path, at in manifests if path.name[0] != "."}

    def kill_at_moments(self, count: int) -> None:
        """SIGKILL at random moments of runs from nothing; the next run goes on from there and is killed in its turn."""
        kills = 0
        while kills < count:
            root, kept, killed = self.fresh(empty=True), {}, ""
            while kills < count:
                pid = child(lambda root=root: make(root))
                time.sleep(after := self.random.uniform(0, self.seconds / 3))
                os.kill(pid, signal.SIGKILL)
                if outcome(pid) != -signal.SIGKILL:
                    break
                kills, killed = kills + 1, f"{killed}, {after:.3f}"
                before, kept = kept, self.finished(root)
                lost = before.items() - kept.items()
                assert not lost, f"killed after{killed} s: made again {lost}"
            self.mended(root, f"killed after{killed} s")

    def kill_at_events(self, count: int) -> None:
        """SIGKILL at events of the file system while a unit is made; `count` of them, or all.

        Of events between which nothing changes on the disk the first stands for the others: a kill leaves the same.
        """
        unit = folders(self.whole / STUDY.name)[0].parent.relative_to(self.whole)

        def until(root: Path, last: int) -> int:
            """Make the study, killed at an event; with 0 as `last`, those that find the disk changed are noted."""
            own, seen, before, looking, changed = str(root), 0, {}, False, []

            def event(name: str, arguments: tuple[object, ...]) -> None:
                nonlocal seen, before, looking
                if looking or not (
                    name.startswith(("open", "os.", "shutil.")) and any(own in str(a) for a in arguments)
                ):
                    return
                seen += 1
                if seen == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                if not last:
                    looking = True
                    if (found := {p: p.lstat() for p in root.rglob("*")}) != before:
                        before = found
                        changed.append(seen)
                    looking = False

            sys.addaudithook(event)
            make(root)
            (root / "events").write_text(json.dumps([seen, *changed]))
            return 0

        def without() -> Path:
            shutil.rmtree((root := self.fresh()) / unit)
            return root

        counted = without()
        assert outcome(child(lambda: until(counted, 0))) == 0
        events, *changed = json.loads((counted / "events").read_text())
        chosen = self.random.sample(changed, min(count, len(changed)))
        for at in sorted(chosen):
            root = without()
            assert outcome(child(lambda root=root, at=at: until(root, at))) == -signal.SIGKILL
            self.mended(root, f"killed at event {at} of {events}, {len(changed)} of which find the disk changed")

    def kill_in_claims(self, count: int) -> None:
        """SIGKILL while a claim is taken, taken over or given back; the next one has it soon, and nothing is left."""
        (root := self.fresh(empty=True)).mkdir()

        def claims() -> int:
            while True:
                with results.claim(root / "unit"):
                    pass

        with mock.patch.object(results, "NAMELESS", 0.2):
            for number in range(count):
                pid = child(claims)
                time.sleep(self.random.uniform(0, 0.02))
                os.kill(pid, signal.SIGKILL)
                assert outcome(pid) == -signal.SIGKILL
                if number % 2:  # else the next one is killed while it takes over
                    with results.claim(root / "unit").acquire(timeout=HUNG):
                        pass
                    results.clear(root)
                    assert not [*root.iterdir()], f"{number + 1} kills in claims: left {[*root.iterdir()]}"
        shutil.rmtree(root)

    def damage(self, count: int) -> None:
        """Files of every kind truncated, with a bit flipped, and away."""
        kinds: dict[str, Path] = {}
        for path in sorted(p for p in self.whole.rglob("*") if p.is_file() and ".stamps" not in p.parts):
            of = path.relative_to(self.whole)
            kinds.setdefault(f"{of.parts[0]}/{of.parts[-2] if len(of.parts) > 4 else ''}/{path.name}", of)
        hows: dict[str, Callable[[Path], object]] = {
            "flipped": self._flip,
            "truncated": lambda p: os.truncate(p, self.random.randrange(p.stat().st_size)),
            "away": Path.unlink,
        }
        cases = [(of, how) for of in kinds.values() for how in hows if of.name != "curves.parquet" or len(of.parts) > 2]
        for of, how in self.random.sample(cases, min(count, len(cases))):
            root = self.fresh()
            hows[how](root / of)
            self.mended(root, f"{of} {how}")

    def _flip(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        # A space of JSON made another one is no change of what it says.
        at = self.random.choice([i for i, byte in enumerate(content) if byte not in b" \n"])
        content[at] ^= 1 << self.random.randrange(7)
        path.write_bytes(content)

    def several(self, runs: int) -> None:
        """Runs on one folder of results: nothing is made twice, and none fails."""
        root = self.fresh(empty=True)
        made = [outcome(pid) for pid in [child(lambda: make(root)) for _ in range(runs)]]
        assert sum(made) == ALL, f"{runs} runs at once made {made}"
        self.mended(root, f"{runs} runs at once")

    def clock_set_back(self) -> None:
        """All that lies there is of the future: whole results, and what a killed run has left."""
        later = time.time() + 10 * 24 * 3600
        for root, killed in ((self.fresh(), False), (self.fresh(empty=True), True)):
            if killed:
                pid = child(lambda root=root: make(root))
                time.sleep(self.random.uniform(0.3, 0.9) * self.seconds)
                os.kill(pid, signal.SIGKILL)
                outcome(pid)
            for path in root.rglob("*"):
                os.utime(path, (later, later), follow_symlinks=False)
            assert killed or outcome(child(lambda root=root: stale(root))) == 0, "results of the future are made again"
            self.mended(root, "the clock set back")

    def full_disk(self, count: int) -> None:
        """A disk that is full at some moment of a run from nothing; then it is given more room, until all fits."""
        needed = sum(path.stat().st_size for path in self.whole.rglob("*") if path.is_file())

        def refused(root: Path) -> int:
            try:
                make(root)
            except ValueError as error:
                told = str(root) in str(error) and "free" in str(error)
                print("" if told else f"{error!r}\n", end="", file=sys.stderr)
                return 1 if told else 2
            return 0

        (disk := self.folder / "disk").mkdir(exist_ok=True)
        full = 0
        while full < count:
            size = int(self.random.uniform(0.05, 0.4) * needed)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=True)
            try:
                while (code := outcome(child(lambda: refused(disk / "results")))) and full < count:
                    assert code == 1, (
                        f"a disk of {size} of {needed} bytes: {code}, expected 1: the error names the path"
                    )
                    full, size = full + 1, size + int(self.random.uniform(0, 0.2) * needed)
                    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
                subprocess.run(["mount", "-o", f"remount,size={4 * needed}", disk], check=True)
                self.mended(disk / "results", f"disks of up to {size} bytes")
            finally:
                subprocess.run(["umount", disk], check=True)

    def read_only(self) -> None:
        """Results that are current are read where nothing can be written, and what is missing is refused."""
        root = self.fresh()

        def unprivileged(work: Callable[[], int]) -> int:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            return work()

        def missing() -> int:
            try:
                make(root)
            except ValueError as error:
                return 1 if "cannot be written" in str(error) else 2
            return 3

        self.folder.chmod(0o755)
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        assert outcome(child(lambda: unprivileged(lambda: make(root)))) == 0
        self._writable(root)
        shutil.rmtree(folders(root / STUDY.name)[0])
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        assert outcome(child(lambda: unprivileged(missing))) == 1
        self._writable(root)
        self.mended(root, "read-only")

    @staticmethod
    def _writable(root: Path) -> None:
        for path in (root, *root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def campaign(folder: Path, seed: int, count: int) -> Iterator[str]:
    """All of it; what was done."""
    faults = Faults(folder, seed)
    parts: dict[str, Callable[[], None]] = {
        "two runs at once": lambda: faults.several(2),
        "three runs at once": lambda: faults.several(3),
        "the clock set back": faults.clock_set_back,
        f"{count} full disks": lambda: faults.full_disk(count if may_mount() else 0),
        "read-only": faults.read_only,
        f"{count} kills at moments": lambda: faults.kill_at_moments(count),
        f"{2 * count} kills at events, or all": lambda: faults.kill_at_events(2 * count),
        f"{5 * count} kills in claims": lambda: faults.kill_in_claims(5 * count),
        f"{count} damaged files, or all": lambda: faults.damage(count),
    }
    for name, part in parts.items():
        began = time.monotonic()
        part()
        yield f"{name}: {time.monotonic() - began:.0f} s"


def asked(about: str | None) -> argparse.Namespace:
    """Seed and count, as both campaigns take them."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    given = asked(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        for line in campaign(Path(folder), given.seed, given.count):
            print(line, flush=True)
