"""The book: executes the notebooks of a study and lets Jupyter Book stitch the pages together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import yaml
from rich.progress import Progress

from phaselab import results
from phaselab.book import runner
from phaselab.errors import expect
from phaselab.results import Store
from phaselab.study import Study, StudyError, digest_of

#: The source that is executed once for each model of the study.
MODEL_PAGE = "11_model_page"
EXECUTED = Path("book", "executed")

Audience = Literal["teacher", "student"]


@dataclass(frozen=True)
class Page:
    """A notebook to be executed: source, executed copy below ``pages/``, parameters."""

    source: Path
    name: str
    parameters: dict[str, str]


def pages(study: Study, sources: Path, given: Mapping[str, str]) -> list[Page]:
    """All pages of a study, in order of their names; `given` are the parameters that all of them get."""
    found = sorted(sources.glob("[0-9][0-9]_*.md"))
    expect(found, str(sources), "no notebooks", "files such as 01_name.md", StudyError)
    made = []
    for source in found:
        if source.stem == MODEL_PAGE:
            made += [Page(source, f"models/{m.name}.ipynb", {**given, "model": m.name}) for m in study.models]
        else:
            made.append(Page(source, f"{source.stem}.ipynb", dict(given)))
    return made


def results_digest(study: Study, store: Store, tables: Path) -> str:
    """Digest of all that the notebooks of a study read: manifests, and the published tables in folder `tables`."""
    folder = store.study(study.name)
    manifests = {str(unit.relative_to(folder)): results.read_manifest(unit) for unit in results.folders(folder)}
    published = results.digest_file(tables) if tables.is_dir() else ""
    return digest_of([study.model_dump(mode="json"), manifests, published])


def _execute(page: Page, output: Path, digest: str) -> bool:
    runner.kernel_environment()
    return runner.execute(page.source, output, page.parameters, digest)


def execute_pages(
    study: Study, sources: Path, store: Store, given: Mapping[str, str], jobs: int, bars: Progress
) -> Iterator[tuple[str, bool | Exception]]:
    """Execute what has changed, `jobs` at once; each page's name, and whether it was run or the error it ended with."""
    digest = results_digest(study, store, sources.parent / "book" / "data")
    folder = store.study(study.name) / "pages"
    wanted = pages(study, sources, given)
    bar = bars.add_task("pages", total=len(wanted))
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_execute, page, folder / page.name, digest): page for page in wanted}
        for future in as_completed(futures):
            error = future.exception()
            yield futures[future].name, error if isinstance(error, Exception) else future.result()
            bars.update(bar, advance=1)


def place_pages(study: Study, store: Store, root: Path) -> None:
    """Copy a study's executed pages that changed to ``book/executed``; what belongs to another study goes."""
    source, target = store.study(study.name) / "pages", root / EXECUTED
    target.mkdir(parents=True, exist_ok=True)
    current = {p.relative_to(source) for p in source.rglob("*.ipynb") if not p.name.endswith(".failed.ipynb")}
    models = {Path("models", f"{m.name}.ipynb") for m in study.models}
    current = {p for p in current if p.parent == Path() or p in models}
    for old in target.rglob("*.ipynb"):
        if old.relative_to(target) not in current:
            old.unlink()
    for name in sorted(current):
        to = target / name
        content = (source / name).read_bytes()
        if not to.is_file() or to.read_bytes() != content:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(content)


def build(root: Path, audience: Audience = "teacher") -> Path:
    """Build the book strictly (a warning is an error), for students without solutions. Returns the home page."""
    output = root / "_build" / ("" if audience == "teacher" else audience)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "-W", "-n", "--keep-going"]
    if audience == "student":
        config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
        sphinx = config["sphinx"]
        sphinx["config"]["hide_solutions"] = True
        # Jupyter Book looks for these from the folder of the configuration.
        sphinx["local_extensions"] = {n: str(root / path) for n, path in sphinx["local_extensions"].items()}
        aside = root / "_build" / "_config.student.yml"
        aside.parent.mkdir(exist_ok=True)
        aside.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        command += ["--config", str(aside), "--path-output", str(root / "_build" / "student")]
    subprocess.run(command, cwd=root, check=True)
    built = root / "_build" / "html" if audience == "teacher" else output / "_build" / "html"
    return built / "index.html"
