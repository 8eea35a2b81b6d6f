"""The book: notebooks run strictly, with parameters, by papermill, and stitched together by Jupyter Book."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import Progress

from phaselab import results
from phaselab.book.lab import Lab
from phaselab.book.published import PublishedLab
from phaselab.errors import PhaselabError, escape, expect, quoted, shown, told
from phaselab.files import BOOK, home, read_text, refuse_crowd, shipped
from phaselab.results import Store
from phaselab.stages import choose_device
from phaselab.study import OF_TABLES, PUBLISHED, Study, StudyError, digest_of, load_study
from phaselab.sweep.workers import Task, Workers, import_first, with_parent

#: The source that is executed once for each model of the study.
MODEL_PAGE = "11_model_page"
TYPES = {"str": str, "int": int, "float": float, "bool": bool}
#: Parameters that say what a notebook's lab is of; others are its own.
COMMON = ("study", "model", "results", "data", "device")
#: What executing a page takes, without its kernel.
FIRST = ("phaselab.book.runner", "phaselab.book.kernel", "papermill.translators", "papermill", "jupytext")
#: Pages from which on the process that kernels are forked from imports what most of them need.
MANY = 6


def inspect(source: str) -> dict[str, Any]:
    """Parameters that Python source declares (``name: type = default  # help``), as papermill reads them."""
    from papermill.translators import PythonTranslator

    found = PythonTranslator.inspect({"source": source})
    return {p.name: p for p in found if p.inferred_type_name != "None"}


def parameters_of(notebook: Any, name: str) -> dict[str, Any]:
    """Parameters of a notebook, from its cell tagged ``parameters``; raises PhaselabError without one."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            return inspect(cell.source)
    raise PhaselabError(f"{name}: no cell with the tag 'parameters'; expected one")


def check_parameters(known: Mapping[str, Any], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`given` with each value of its parameter's type; text is read (``"3"`` is an int); PhaselabError if not."""
    listed = "\n".join(f"  {p.name}: {p.inferred_type_name} = {p.default}  {p.help}" for p in known.values())
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise PhaselabError(f"{name}: unknown parameter {quoted(key)}; expected one of\n{listed}")
        typed, right = known[key].inferred_type_name, f"one of {', '.join(TYPES)}: a list can be a str with commas"
        expect(typed in TYPES, f"{name}: parameter {key!r}", f"the type {typed}", right)
        kind = TYPES[typed]
        try:
            strict = kind is str or not isinstance(value, str)
            values[key] = TypeAdapter(kind).validate_python(value, strict=strict)
        except ValidationError as error:
            found = f"{name}: parameter {key!r}: found {quoted(value)} ({type(value).__name__})"
            raise PhaselabError(f"{found}, expected {typed}; the parameters are\n{listed}") from error
    return values


def begin() -> Lab:
    """A notebook's first call: its ``Lab``. Checks all public names that are given, as plain papermill does not."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    assert shell is not None, "begin() is for notebooks; in a program use Lab"
    space = shell.user_ns
    own = [name for name in space if not name.startswith("_") and name not in shell.user_ns_hidden]
    given = {name: space[name] for name in own if not callable(space[name]) and not isinstance(space[name], ModuleType)}
    values = check_parameters(inspect("\n".join(space["In"][:-1])), given, "this notebook")
    data = values.get("data") or os.environ.get("PHASELAB_DATA")
    kind = PublishedLab if values["study"].startswith(OF_TABLES) else Lab
    return kind(
        load_study(values["study"]),
        Store(Path(values.get("results", "results"))),
        Path(data) if data else None,
        values.get("model", ""),
        {name: value for name, value in values.items() if name not in COMMON},
        choose_device(values.get("device", "cpu")),
    )


def execute(source: Path, output: Path, given: Mapping[str, Any], results_digest: str = "") -> bool:
    """Run a notebook with parameters, checked before anything runs; whether it had to be run.

    A cell that fails raises papermill's PapermillExecutionError and leaves the copy up to there as ``*.failed.ipynb``.
    With the digest of the results that it reads nothing is run when all is as it was for the copy that is there.
    """
    import jupytext
    import nbformat

    source, output = shipped(source), home(output)
    refuse_crowd(text := read_text(source), source)
    try:
        notebook = jupytext.reads(text, {"extension": source.suffix})
        nbformat.validate(notebook)
    except Exception as error:  # of many kinds, by the format that the ending stands for
        raise PhaselabError(f"{source}: expected a notebook, .md or .ipynb, found none: {told(error)}") from error
    values = check_parameters(parameters_of(notebook, source.name), given, source.name)
    key = digest_of([text, values, results_digest, results.digest_code(".")])
    made = {"key": key, "source": source.name, "parameters": values}

    def current() -> bool:
        return bool(results_digest) and results.seal(output, None).get("made") == made

    if current():
        return False
    with results.claim(output):
        if current():  # another process has just made it
            return False
        # Those of other studies.
        others = output.parent.parent.parent.glob(f"*/pages/{output.name}") if results_digest else ()
        if same := next((other for other in others if results.seal(other, None).get("made") == made), None):
            with results.write_file(output) as aside:
                shutil.copyfile(same, aside)
            results.seal(output, made)
            return False
        _run(notebook, output, values, made)
        if results_digest:
            results.seal(output, made)
    return True


def _run(notebook: Any, output: Path, values: dict[str, Any], made: dict[str, Any]) -> None:
    """Run a notebook with parameters and write the executed copy, or that up to a cell that fails."""
    import nbformat
    import papermill
    from traitlets.config import Config

    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    scratch = Path(tempfile.gettempdir(), "phaselab")
    results.clear(scratch.parent, named=f"{scratch.name}~*")  # others have hidden files there too
    with results.beside(scratch) as folder, results.write_file(output) as aside:
        folder.mkdir(mode=0o700)
        raw, done = folder / "in.ipynb", folder / "out.ipynb"
        nbformat.write(notebook, raw)
        # Sockets that are files: nobody else can listen; in a folder of each kernel, or they would take the same names.
        sockets = folder / "kernel"
        found, right = f"a path too long for sockets: {tempfile.gettempdir()}", "a shorter path, such as /tmp"
        expect(len(os.fsencode(sockets)) < 106, "TMPDIR", found, right)  # and -1 to -5 at the end: 107 bytes
        connection = {"transport": "ipc", "ip": str(sockets), "connection_file": str(folder / "kernel.json")}
        config = Config({"KernelManager": connection})
        how = {"progress_bar": False, "kernel_name": "python3", "cwd": str(Path.cwd()), "config": config}
        how["kernel_manager_class"] = "phaselab.book.kernel.Kernel"
        try:
            papermill.execute_notebook(raw, done, parameters=values, **how)
        except papermill.PapermillExecutionError:
            with results.write_file(output.with_suffix(".failed.ipynb")) as failed:
                failed.write_bytes(done.read_bytes())
            raise
        executed = nbformat.read(done, as_version=4)
        _clean(executed)
        executed.metadata["phaselab"] = made
        nbformat.write(executed, aside)


def _page(*what: Any) -> bool:
    """``execute`` in a worker, whose errors come back as text."""
    try:
        return execute(*what)
    except Exception as error:
        raise PhaselabError(of_cell(error)) from error


def _begin(_: Any, many: bool) -> None:
    from phaselab.book.kernel import SLOW

    import_first(*SLOW * many)


def of_cell(error: Any) -> str:
    """What went wrong in a notebook: the cell and its own exception, without the traceback; of others their text."""
    own = hasattr(error, "ename")
    return f"cell {error.cell_index}: {error.ename}: {shown(error.evalue)}" if own else told(error)


def _clean(notebook: Any) -> None:
    """Take out timestamps, machine paths and the cell that papermill injected, in place."""
    notebook.metadata.pop("papermill", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.metadata["tags"] = ["injected-parameters", "remove-cell"]
        for item in (o for o in cell.get("outputs", ()) if o.get("output_type") == "stream"):
            item["text"] = item["text"].replace(str(Path.cwd()), ".")


def pages(study: Study, sources: Path, given: Mapping[str, str]) -> dict[str, tuple[Path, dict[str, str]]]:
    """Name of the executed copy -> source and parameters: those `given`; none for pages of published tables alone."""
    found = sorted(sources.glob("[0-9][0-9]_*.md"))
    expect(found, str(sources), "no notebooks", "files such as 01_name.md", StudyError)
    own = {source: f'study: str = "{OF_TABLES}' in read_text(source) for source in found if source.stem != MODEL_PAGE}
    made = {f"{source.stem}.ipynb": (source, {} if other else dict(given)) for source, other in own.items()}
    source = sources / f"{MODEL_PAGE}.md"
    return made | {f"models/{m.name}.ipynb": (source, {**given, "model": m.name}) for m in study.models}


def results_digest(study: Study, store: Store) -> str:
    """Digest of the results that the notebooks of a study read: what they were made of and are, not when and where."""
    folder = store.study(study.name)
    manifests = {str(unit.relative_to(folder)): results.read_manifest(unit) for unit in results.folders(folder)}
    made = {unit: [of.get("inputs"), of.get("outputs")] for unit, of in manifests.items()}
    return digest_of([study.model_dump(mode="json"), made])


def execute_pages(
    study: Study, sources: Path, store: Store, given: Mapping[str, str], jobs: int, console: Console, only: Any = ()
) -> dict[str, str]:
    """Execute the pages that have changed, all or `only` some, `jobs` at once; name -> why one could not be."""
    tables = [results.digest_file(sources.parent / name) for name in ("book/data", PUBLISHED, "benchmarks/results")]
    every = digest_of([results_digest(study, store), tables])
    folder, failed, known = store.study(study.name) / "pages", dict[str, str](), pages(study, sources, given)
    expect({*only} <= {*known}, "--page", ", ".join(only), f"some of {', '.join(known)}")
    waiting = deque(
        Task(name, _page, (source, folder / name, parameters, every if parameters else digest_of(tables)), "page")
        for name, (source, parameters) in known.items()
        if name in (only or known)
    )
    many = len(waiting) > MANY and given.get("device", "cpu") == "cpu"  # see ``phaselab.sweep.pool.run``
    pool = Workers(jobs, study.seconds, begin=_begin, setting=(many,), first=FIRST)
    with Progress(console=console) as bars, pool:
        for task, executed, why, _ in bars.track(pool.run(waiting), total=len(waiting), description="pages"):
            if why:
                failed[task.name] = why
                console.print(f"[red]failed[/] {task.name}: {escape(why)}", highlight=False, soft_wrap=True)
            elif executed:
                console.print(f"executed {task.name}")
    return failed


def place_pages(study: Study, store: Store, root: Path, given: dict[str, str], failed: Mapping[str, str]) -> None:
    """Copy executed pages that changed, or a page that says why one failed, to ``book/executed``; other studies' go."""
    target = root / "book" / "executed"
    names = pages(study, root / "notebooks", given)
    for old in target.rglob("*.ipynb"):
        if old.relative_to(target).as_posix() not in names:
            old.unlink()
    for name, (source, given) in names.items():
        made = store.study(study.name) / "pages" / name
        to, content = target / name, _notice(source, given, failed[name]) if name in failed else made.read_bytes()
        if not to.is_file() or to.read_bytes() != content:
            with results.write_file(to) as aside:
                aside.write_bytes(content)


def _notice(source: Path, given: Mapping[str, str], why: str) -> bytes:
    """A notebook with the page's title and label that says why it could not be made, and how to run it alone."""
    import nbformat

    text = read_text(source)
    head = re.findall(r"^\([\w@-]+\)=$|^# .*$", text, flags=re.MULTILINE)[:2]
    given = {name: value for name, value in given.items() if value not in ("", "cpu", "results")}  # the defaults
    options = "".join(f" -p {name}={shlex.quote(value)}" for name, value in given.items())
    alone = f"phaselab notebook notebooks/{source.name}{options}"
    fence = "`" * (3 + why.count("`"))  # longer than any in the text
    said = ["```{error}", "This page could not be made. The others do not depend on it.", "```"]
    said += [f"{fence}text", why, fence, "To run it alone, in the folder of the book:", "````text", alone, "````"]
    cell = nbformat.v4.new_markdown_cell("\n".join([*head, "", *said]), id="cell-0")
    return nbformat.writes(nbformat.v4.new_notebook(cells=[cell])).encode()  # type: ignore[no-any-return]


def sources(root: Path) -> Path:
    """The folder of a book's sources: `root`, or without a checkout ``phaselab-book`` in it, put there by the wheel."""
    target = root if (root / "_toc.yml").is_file() else root / "phaselab-book"
    if not (target / "_toc.yml").is_file():
        expect(BOOK.name == "_book", "--root", f"no _toc.yml in {root}", "a checkout of phaselab", StudyError)
        with results.write_file(target) as aside:
            shutil.copytree(BOOK, aside)
    return target


def build(root: Path, student: bool = False, strict: bool = True) -> Path:
    """Build the book, for students without solutions; `strict`: a warning is an error. Returns the home page."""
    output = root / "_build" / "student" if student else root
    program = str(Path(sys.executable).with_name("jupyter-book"))
    command = [program, "build", ".", *["-W", "-n", "--keep-going"] * strict, "--path-output", str(output)]
    # Read by book/_ext/phaselab_book.py.
    environment = os.environ | ({"PHASELAB_STUDENT": "1"} if student else {})
    with results.claim(output / "_build"):
        subprocess.run(command, cwd=root, check=True, env=environment, preexec_fn=with_parent(signal.SIGKILL))
    return output / "_build" / "html" / "index.html"
