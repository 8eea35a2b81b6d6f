"""Notebooks in this process, one shell for all of them: no second for each kernel and its imports.

What kernels add (parameters by papermill, clean copies) is tested with them; here it is whether each cell runs, and
what it shows can be shown.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import jupytext
import matplotlib as mpl
from IPython.core.displayhook import DisplayHook
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats

from phaselab.book import runner
from phaselab.study import Study


class Shown(DisplayHook):
    """Makes of a cell's value what a page would show, and keeps it to itself."""

    def __call__(self, result: Any = None) -> None:
        if result is not None:
            self.shell.display_formatter.format(result)


def shell() -> InteractiveShell:
    main = sys.modules["__main__"]
    made: InteractiveShell = InteractiveShell.instance(displayhook_class=Shown)
    sys.modules["__main__"] = main  # which processes that are begun later look at
    mpl.use("agg")
    select_figure_formats(made, {"png"})
    made.showtraceback = lambda *_, **__: None  # it is in the result
    made.display_pub.publish = lambda *_, **__: None
    return made


def run(source: Path, given: Mapping[str, str], into: InteractiveShell) -> str:
    """What went wrong in a notebook, with its cell; empty where nothing did."""
    into.reset()
    for number, cell in enumerate(jupytext.read(source).cells):
        if cell.cell_type != "code":
            continue
        sources = [cell.source]
        if "parameters" in cell.metadata.get("tags", ()):
            sources.append("\n".join(f"{name} = {value!r}" for name, value in given.items()))
        for text in sources:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
                result = into.run_cell(text, store_history=True)
            if error := result.error_before_exec or result.error_in_exec:
                return f"{source.name}: cell {number}: {type(error).__name__}: {error}"
            if said.getvalue():
                return f"{source.name}: cell {number}: said {said.getvalue()}"
    return ""


def run_pages(study: Study, file: Path, results: Path, notebooks: Path, only: str = "") -> dict[str, str]:
    """Page -> what went wrong, of the pages of a study that depend on it, or of those whose names begin with `only`."""
    given, into = {"study": str(file), "results": str(results), "data": "", "device": "cpu"}, shell()
    every = runner.pages(study, notebooks, given)
    own = {name: of for name, of in every.items() if "study" in of[1] and name.startswith(only)}
    elsewhere = ("14_", "15_")  # of tables of others, the same in every book, and long
    found = {name: run(*of, into) for name, of in own.items() if not name.startswith(elsewhere)}
    return {name: why for name, why in found.items() if why}
