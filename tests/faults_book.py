"""What may befall `phaselab book`: kills at any moment, Sphinx included, and several at once on the same folders.

    python tests/faults_book.py --seed 1 --count 200

A book of three pages of its own, of a study that is made in seconds. After each fault the same command is given again:
then results, executed pages and finished pages are those of a book that nothing befell, only pages that were missing
were executed, and no process, semaphore or file that is hidden is left.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from faults import LEFT, asked
from phaselab.results import MANIFEST, digest_file, seal
from tiny import TINY

HEAD = """---
kernelspec: {name: python3, display_name: Python 3}
---
# %s

```{code-cell} ipython3
:tags: [parameters]

study: str = "demo"  # a study
model: str = ""  # one of its models
results: str = "results"  # folder of results
data: str = ""  # folder of data
device: str = "cpu"  # where it runs
```

```{code-cell} ipython3
from phaselab import figures
from phaselab.book import begin

lab = begin()
%s
```
"""
PAGES = {
    "01_curves": HEAD % ("Curves", "figures.brain_curve(lab.curves())"),
    "02_verdicts": HEAD % ("Verdicts", "lab.phases().table[['phase', 'verdict']]"),
    "11_model_page": HEAD % ("A model", "figures.behaviour_curves(lab.curves(), measures=('accuracy',))"),
}
CONFIG = {
    "title": "A small book",
    "only_build_toc_files": True,
    "execute": {"execute_notebooks": "off"},
    "sphinx": {"config": {"html_last_updated_fmt": None}},
}
PARTS = ["book/executed/01_curves", "book/executed/02_verdicts"]
TOC = {"format": "jb-book", "root": "book/index", "chapters": [*({"file": p} for p in PARTS)]}
TOC["chapters"].append({"glob": "book/executed/models/*"})  # type: ignore[attr-defined]
#: Seconds that what is left of a killed book has to end itself.
PATIENCE = 20


class Books:
    """Books in folders of their own, against one that nothing befell."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random, self.number = folder, random.Random(seed), 0
        whole = self.fresh()
        executed = self.make(whole)
        assert len(executed) == 3, executed
        self.expected = self.files(whole)
        assert {"html", "ipynb", "parquet"} <= {name.rsplit(".")[-1] for name in self.expected}, self.expected
        # What is killed later has the results: training and stages have a campaign of their own (tests/faults.py).
        self.results = whole / "results"
        assert self.make(whole) == [], "pages that are current were executed again"
        began, another = time.monotonic(), self.fresh()
        self.make(another)
        self.seconds = time.monotonic() - began
        assert self.files(another) == self.expected

    def fresh(self) -> Path:
        self.number += 1
        root = self.folder / f"book-{self.number}"
        (root / "notebooks").mkdir(parents=True)
        (root / "book").mkdir()
        study = TINY | {"models": TINY["models"][:1], "tasks": TINY["tasks"][:1]}
        texts = {"tiny.yaml": yaml.safe_dump(study), "_config.yml": yaml.safe_dump(CONFIG)}
        texts |= {"_toc.yml": yaml.safe_dump(TOC), "book/index.md": "# Home\n\nA book.\n"}
        texts |= {f"notebooks/{name}.md": text for name, text in PAGES.items()}
        for name, text in texts.items():
            (root / name).write_text(text, encoding="utf-8")
        if self.number > 1:
            shutil.copytree(self.results, root / "results", ignore=shutil.ignore_patterns("pages"))
        return root

    def start(self, root: Path) -> subprocess.Popen[str]:
        command = [str(Path(sys.executable).with_name("phaselab")), "book", "tiny.yaml", "-j", "2"]
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen(command, cwd=root, **how)  # type: ignore[call-overload,no-any-return]

    def make(self, root: Path) -> list[str]:
        """Make a book; the pages that were executed for it."""
        book = self.start(root)
        said, _ = book.communicate()
        assert book.returncode == 0, said
        return re.findall(r"executed (\S+)", said)

    @staticmethod
    def files(root: Path) -> dict[str, str]:
        """Name -> digest of all that a reader sees and what it is made from; manifests say how long it took."""
        found = [*root.glob("results/**/*"), *root.glob("book/executed/**/*"), *root.glob("_build/html/**/*.html")]
        kept = (p for p in found if p.is_file() and p.name != MANIFEST and ".stamps" not in p.parts)
        return {str(path.relative_to(root)): digest_file(path) for path in kept}

    @staticmethod
    def processes(root: Path) -> list[str]:
        """What runs in a book's folder."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if Path(os.readlink(place / "cwd")).is_relative_to(root):
                    found.append((place / "cmdline").read_text(encoding="utf-8").replace("\0", " ")[:100])
            except OSError:
                continue
        return found

    def ended(self, root: Path, what: str) -> None:
        """What is left of a killed book has ended itself."""
        until = time.monotonic() + PATIENCE
        while (running := self.processes(root)) and time.monotonic() < until:
            time.sleep(0.1)
        assert not running, f"{what}: still run {running}"

    def mended(self, root: Path, what: str, semaphores: set[str]) -> None:
        """Make the book again and look whether all is as it should be."""
        self.ended(root, what)
        pages = [f"{name}.ipynb" for name in (*list(PAGES)[:2], "models/one")]
        missing = {name for name in pages if not seal(root / "results" / "tiny" / "pages" / name, None)}
        executed = self.make(root)
        assert sorted(executed) == sorted(missing), f"{what}: {executed} executed, {missing} were missing"
        made = self.files(root)
        assert made == self.expected, f"{what}: {sorted({*made.items()} ^ {*self.expected.items()})}"
        left = [str(path) for path in root.rglob("*") if LEFT.match(path.name)]
        assert not left, f"{what}: left {left}"
        gone = {*os.listdir("/dev/shm")} - semaphores if Path("/dev/shm").is_dir() else set()
        assert not [name for name in gone if name.startswith("sem.")], f"{what}: semaphores {gone}"
        shutil.rmtree(root)

    def kill(self, count: int) -> Iterator[str]:
        """SIGKILL at random moments, before Sphinx or in it; the next book goes on and is killed in its turn."""
        kills = 0
        while kills < count:
            root, killed = self.fresh(), ""
            semaphores = {*os.listdir("/dev/shm")} if Path("/dev/shm").is_dir() else set()
            while kills < count:
                book, after = self.start(root), self.random.uniform(0, self.seconds)
                time.sleep(after)
                book.kill()
                book.communicate()
                self.ended(root, f"killed after{killed} {after:.2f} s")
                if book.returncode != -signal.SIGKILL:
                    break
                kills, killed = kills + 1, f"{killed} {after:.2f},"
            what = f"killed after{killed[:-1]} s of {self.seconds:.2f}" if killed else "ended before it could be killed"
            self.mended(root, what, semaphores)
            yield what

    def several(self, books: int) -> str:
        """Books at once on one folder: none fails, and no page is executed twice."""
        root = self.fresh()
        started = [self.start(root) for _ in range(books)]
        said = [book.communicate()[0] for book in started]
        assert not any(book.returncode for book in started), said
        executed = re.findall(r"executed (\S+)", "".join(said))
        assert len(executed) == 3, f"{books} books at once executed {executed}"
        self.mended(root, f"{books} books at once", {*os.listdir("/dev/shm")} if Path("/dev/shm").is_dir() else set())
        return f"{books} books at once"


if __name__ == "__main__":
    given = asked(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        books = Books(Path(folder).resolve(), given.seed)
        print(books.several(2), flush=True)
        for line in books.kill(given.count):
            print(line, flush=True)
