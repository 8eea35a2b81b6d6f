"""The wheel without a checkout: it builds the book, and the book's clean notebooks run in an empty folder.

    python tests/wheel.py FOLDER [RESULTS]

Into FOLDER go the wheel (``pip wheel``), the package that is installed from it, a book that ``phaselab book demo``
builds strictly from the package alone, and an empty folder in which every clean notebook of that book is run. RESULTS
is a folder with results of the demo (without it they are made, which takes minutes); the notebooks do not see it. Exits
with 1 when a notebook fails, or trains more than an untrained model; how long each took is said, two minutes being what
the book promises.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
#: Seconds after which a cell is taken for hung; notebooks at once.
HUNG, AT_ONCE = 600, 2


def installed(folder: Path) -> Path:
    """A folder with the package out of the wheel, and nothing else."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", str(ROOT), "--no-deps", "--wheel-dir", str(folder / "dist")], check=True)
    (wheel,) = (folder / "dist").glob("phaselab-*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
    subprocess.run([*pip, "install", str(wheel), "--no-deps", "--target", str(folder / "site")], check=True)
    return folder / "site"


def run(path: Path, name: str, empty: Path) -> str:
    """Run a notebook in a folder; what went wrong, or nothing."""
    notebook, began = nbformat.read(path, as_version=4), time.monotonic()
    client = NotebookClient(notebook, timeout=HUNG, resources={"metadata": {"path": str(empty)}})
    try:
        client.execute()
    except Exception as error:  # of many kinds, told with the notebook's name
        return f"{name}: {error}"
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return ""


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    (folder / "built").mkdir(parents=True)  # a new one
    (folder / "empty").mkdir()
    # Before the checkout, in which this environment may have the package.
    os.environ |= {"PYTHONPATH": str(installed(folder)), "PHASELAB_REPOSITORY": "https://github.com/owner/name"}
    if sys.argv[2:]:
        (folder / "built" / "results").symlink_to(Path(sys.argv[2]).resolve())
    where = "import phaselab; print(phaselab.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=folder, check=True, capture_output=True, text=True).stdout
    assert Path(found.strip()).is_relative_to(folder), found
    subprocess.run([sys.executable, "-m", "phaselab", "book", "demo"], cwd=folder / "built", check=True)
    html = folder / "built" / "phaselab-book" / "_build" / "html"
    paths = {path.relative_to(html / "notebooks").as_posix(): path for path in (html / "notebooks").rglob("*.ipynb")}
    models = [name for name in paths if name.startswith("models/")]  # one source, of which one is run
    chosen = {name: path for name, path in sorted(paths.items()) if name not in models[1:]}
    sources = [*(ROOT / "notebooks").glob("[0-9]*.md"), *(ROOT / "notebooks" / "starters").glob("session_*.md")]
    assert len(chosen) == len(sources), f"{len(chosen)} clean notebooks of {len(sources)} sources"
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [*filter(None, pool.map(lambda name: run(paths[name], name, folder / "empty"), chosen))]
    wrong += [f"trained: {path}" for path in folder.glob("empty/results/trained/*/step*") if "step0-" not in path.name]
    print(f"{len(chosen)} clean notebooks took {time.monotonic() - began:.0f} s")
    raise SystemExit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
