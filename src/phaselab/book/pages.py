"""The book: executes the notebooks of a study and lets Jupyter Book stitch the pages together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from phaselab import results
from phaselab.book import runner
from phaselab.errors import expect
from phaselab.files import read_text
from phaselab.results import Store
from phaselab.study import OF_TABLES, PUBLISHED, Study, StudyError, digest_of

#: The source that is executed once for each model of the study.
MODEL_PAGE = "11_model_page"


def pages(study: Study, sources: Path, given: Mapping[str, str]) -> dict[str, tuple[Path, dict[str, str]]]:
    """Name of the executed copy -> source and parameters, of all pages of a study; `given` are parameters of all.

    A page whose own study is a published one is of that, whichever study the book is of.
    """
    found = sorted(sources.glob("[0-9][0-9]_*.md"))
    expect(found, str(sources), "no notebooks", "files such as 01_name.md", StudyError)
    own = {source: f'study: str = "{OF_TABLES}' in read_text(source) for source in found if source.stem != MODEL_PAGE}
    rest = {name: value for name, value in given.items() if name != "study"}
    made = {f"{source.stem}.ipynb": (source, dict(rest if other else given)) for source, other in own.items()}
    source = sources / f"{MODEL_PAGE}.md"
    return made | {f"models/{m.name}.ipynb": (source, {**given, "model": m.name}) for m in study.models}


def results_digest(study: Study, store: Store, *tables: Path) -> str:
    """Digest of all that the notebooks of a study read: manifests, and published tables in the folders `tables`."""
    folder = store.study(study.name)
    manifests = {str(unit.relative_to(folder)): results.read_manifest(unit) for unit in results.folders(folder)}
    return digest_of([study.model_dump(mode="json"), manifests, *map(results.digest_file, tables)])


def execute_pages(
    study: Study, sources: Path, store: Store, given: Mapping[str, str], jobs: int, console: Console
) -> bool:
    """Execute the pages that have changed, `jobs` at once; whether all of them could be."""
    digest = results_digest(study, store, *(sources.parent / name for name in ("book/data", PUBLISHED)))
    folder, whole = store.study(study.name) / "pages", True
    with Progress(console=console) as bars, ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {
            pool.submit(runner.execute, source, folder / name, parameters, digest): name
            for name, (source, parameters) in pages(study, sources, given).items()
        }
        for future in bars.track(as_completed(futures), total=len(futures), description="pages"):
            if error := future.exception():
                whole = False
                said = f"[red]failed[/] {futures[future]}: {escape(str(error))}"
                console.print(said, highlight=False, soft_wrap=True)
            elif future.result():
                console.print(f"executed {futures[future]}")
    return whole


def place_pages(study: Study, store: Store, root: Path) -> None:
    """Copy a study's executed pages that changed to ``book/executed``; what belongs to another study goes."""
    target = root / "book" / "executed"
    names = pages(study, root / "notebooks", {})
    for old in target.rglob("*.ipynb"):
        if old.relative_to(target).as_posix() not in names:
            old.unlink()
    for name in names:
        to, content = target / name, (store.study(study.name) / "pages" / name).read_bytes()
        if not to.is_file() or to.read_bytes() != content:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(content)


def build(root: Path, student: bool = False) -> Path:
    """Build the book strictly (a warning is an error), for students without solutions. Returns the home page."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "-W", "-n", "--keep-going"]
    output = root / "_build" / "student" if student else root
    # Read by book/_ext/phaselab_book.py.
    environment = {**os.environ, **({"PHASELAB_STUDENT": "1"} if student else {})}
    subprocess.run([*command, "--path-output", str(output)], cwd=root, check=True, env=environment)
    return output / "_build" / "html" / "index.html"
