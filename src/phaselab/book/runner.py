"""Run notebooks by papermill, strictly: typed and checked parameters, and copies without traces of the machine.

``notebooks/*.md`` are the sources (jupytext MyST). The same results give the same bytes of the executed copy.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from phaselab import results
from phaselab.errors import PhaselabError, expect, told
from phaselab.files import home, read_text
from phaselab.study import digest_of

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from papermill.models import Parameter

TYPES = {"str": str, "int": int, "float": float, "bool": bool}


class ParameterError(PhaselabError):
    """A parameter that a notebook does not have, or a value of the wrong type."""


def inspect(source: str) -> dict[str, Parameter]:
    """Parameters that Python source declares (``name: type = default  # help``), as papermill reads them."""
    from papermill.translators import PythonTranslator

    found = PythonTranslator.inspect({"source": source})
    return {p.name: p for p in found if p.inferred_type_name != "None"}


def parameters_of(notebook: NotebookNode, name: str) -> dict[str, Parameter]:
    """Parameters of a notebook, from its cell tagged ``parameters``; raises ParameterError without one."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            return inspect(cell.source)
    raise ParameterError(f"{name}: no cell with the tag 'parameters'; expected one")


def check_parameters(known: Mapping[str, Parameter], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`given` with each value of its parameter's type; strings are read as the type asks (``"3"`` is an int).

    Raises ParameterError, with the list of the right ones, for an unknown name or a value of the wrong type.
    """
    listed = "\n".join(f"  {p.name}: {p.inferred_type_name} = {p.default}  {p.help}" for p in known.values())
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise ParameterError(f"{name}: unknown parameter {key!r}; expected one of\n{listed}")
        typed, right = known[key].inferred_type_name, f"one of {', '.join(TYPES)}: a list can be a str with commas"
        expect(typed in TYPES, f"{name}: parameter {key!r}", f"the type {typed}", right, ParameterError)
        kind = TYPES[typed]
        try:
            strict = kind is str or not isinstance(value, str)
            values[key] = TypeAdapter(kind).validate_python(value, strict=strict)
        except ValidationError as error:
            raise ParameterError(
                f"{name}: parameter {key!r}: found {value!r} ({type(value).__name__}), "
                f"expected {typed}; the parameters are\n{listed}"
            ) from error
    return values


def execute(source: Path, output: Path, given: Mapping[str, Any], results_digest: str = "") -> bool:
    """Run a notebook with parameters, checked before anything runs; whether it had to be run.

    `output` is written whole or not at all: a cell that fails raises papermill's PapermillExecutionError and leaves the
    copy up to there as ``*.failed.ipynb``. With `results_digest`, of the results that it reads, nothing is run when
    this, the source, the parameters and the package are those of the copy that is there.
    """
    import jupytext
    import nbformat
    import papermill
    from traitlets.config import Config

    source, output = home(source), home(output)
    text = read_text(source, ParameterError)
    try:
        notebook = jupytext.reads(text, {"extension": source.suffix})
    except Exception as error:  # of many kinds, by the format that the ending stands for
        raise PhaselabError(f"{source}: expected a notebook, .md or .ipynb, found none: {told(error)}") from error
    values = check_parameters(parameters_of(notebook, source.name), given, source.name)
    key = digest_of([text, values, results_digest, results.digest_code(".")])
    made = {"key": key, "source": source.name, "parameters": values}
    if results_digest and results.read_json(output).get("metadata", {}).get("phaselab") == made:
        return False

    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder, results.write_file(output) as aside:
        raw, done = Path(folder, "in.ipynb"), Path(folder, "out.ipynb")
        nbformat.write(notebook, raw)
        # Sockets that are files: nobody else can listen; in a folder of this kernel's own, for kernels that start
        # together would choose the same names.
        sockets = Path(folder, "kernel")
        found, right = f"a path too long for sockets: {tempfile.gettempdir()}", "a shorter path, such as /tmp"
        expect(len(os.fsencode(sockets)) < 106, "TMPDIR", found, right)  # and -1 to -5 at the end: 107 bytes
        config = Config({"KernelManager": {"transport": "ipc", "ip": str(sockets)}})
        how = {"progress_bar": False, "kernel_name": "python3", "cwd": str(Path.cwd()), "config": config}
        try:
            papermill.execute_notebook(raw, done, parameters=values, **how)
        except papermill.PapermillExecutionError:
            os.replace(done, output.with_suffix(".failed.ipynb"))
            raise
        executed = nbformat.read(done, as_version=4)
        _clean(executed)
        executed.metadata["phaselab"] = made
        nbformat.write(executed, aside)
    return True


def _clean(notebook: NotebookNode) -> None:
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
