"""Run notebooks by papermill, strictly: typed and checked parameters, and copies without traces of the machine.

``notebooks/*.md`` are the sources (jupytext MyST). The same results give the same bytes of the executed copy.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter, ValidationError

from phaselab import results
from phaselab.errors import PhaselabError
from phaselab.study import digest_of

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from papermill.models import Parameter

TYPES = {"str": str, "int": int, "float": float, "bool": bool}


class ParameterError(PhaselabError):
    """A parameter that a notebook does not have, or a value of the wrong type."""


def read_source(path: Path) -> NotebookNode:
    """A notebook source (.md by jupytext, or .ipynb) as a notebook node."""
    import jupytext

    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; expected a notebook (.md or .ipynb)")
    return cast("NotebookNode", jupytext.read(path))


def inspect(source: str) -> dict[str, Parameter]:
    """Parameters that Python source declares (``name: type = default  # help``), as papermill reads them."""
    from papermill.translators import PythonTranslator

    found = PythonTranslator.inspect({"source": source})
    return {p.name: p for p in found if p.inferred_type_name in TYPES}


def parameters_of(notebook: NotebookNode, name: str) -> dict[str, Parameter]:
    """Parameters of a notebook, from its cell tagged ``parameters``; raises ParameterError without one."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            return inspect(cell.source)
    raise ParameterError(f"{name}: no cell with the tag 'parameters'; expected one")


def pair(text: str) -> tuple[str, str]:
    """``name=value`` of a command line, taken apart."""
    name, sign, value = text.partition("=")
    if not sign:
        raise ParameterError(f"--parameter: found {text!r}, expected name=value")
    return name, value


def check_parameters(known: Mapping[str, Parameter], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`given` with each value of its parameter's type; strings are read as the type asks (``"3"`` is an int).

    Raises ParameterError, with the list of the right ones, for an unknown name or a value of the wrong type.
    """
    listed = "\n".join(f"  {p.name}: {p.inferred_type_name} = {p.default}  {p.help}" for p in known.values())
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise ParameterError(f"{name}: unknown parameter {key!r}; expected one of\n{listed}")
        kind = TYPES[known[key].inferred_type_name]
        try:
            strict = kind is str or not isinstance(value, str)
            values[key] = TypeAdapter(kind).validate_python(value, strict=strict)
        except ValidationError as error:
            raise ParameterError(
                f"{name}: parameter {key!r}: found {value!r} ({type(value).__name__}), "
                f"expected {known[key].inferred_type_name}; the parameters are\n{listed}"
            ) from error
    return values


def execute(source: Path, output: Path, given: Mapping[str, Any], results_digest: str = "") -> bool:
    """Run a notebook with parameters, checked before anything runs; whether it had to be run.

    `output` is written whole or not at all: a cell that fails raises papermill's PapermillExecutionError and leaves the
    copy up to there as ``*.failed.ipynb``. With `results_digest`, of the results that it reads, nothing is run when
    this, the source, the parameters and the package are those of the copy that is there.
    """
    import nbformat
    import papermill
    from traitlets.config import Config

    notebook = read_source(source)
    values = check_parameters(parameters_of(notebook, source.name), given, source.name)
    key = digest_of([source.read_text(encoding="utf-8"), values, results_digest, results.digest_code(".")])
    if results_digest and _key_of(output) == key:
        return False

    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        raw, done = Path(folder, "in.ipynb"), Path(folder, "out.ipynb")
        nbformat.write(notebook, raw)
        try:
            papermill.execute_notebook(
                raw,
                done,
                parameters=values,
                progress_bar=False,
                kernel_name="python3",
                cwd=str(Path.cwd()),
                # Sockets that are files: nobody else can listen; in a folder of this kernel's own, for kernels
                # that start together would choose the same names.
                config=Config({"KernelManager": {"transport": "ipc", "ip": str(Path(folder, "kernel"))}}),
            )
        except papermill.PapermillExecutionError:
            if done.exists():
                os.replace(done, output.with_suffix(".failed.ipynb"))
            raise
        executed = nbformat.read(done, as_version=4)
    _clean(executed)
    executed.metadata["phaselab"] = {"key": key, "source": source.name, "parameters": values}
    aside = output.with_name(f".{output.name}.partial")
    nbformat.write(executed, aside)
    os.replace(aside, output)
    return True


def _key_of(output: Path) -> str:
    try:
        return str(json.loads(output.read_text(encoding="utf-8"))["metadata"]["phaselab"]["key"])
    except (OSError, ValueError, KeyError):
        return ""


def _clean(notebook: NotebookNode) -> None:
    """Take out timestamps, machine paths and the cell that papermill injected, in place."""
    notebook.metadata.pop("papermill", None)
    root = str(Path.cwd())
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell.metadata["tags"] = ["injected-parameters", "remove-cell"]
        for item in (o for o in cell.get("outputs", ()) if o.get("output_type") == "stream"):
            item["text"] = item["text"].replace(root, ".")


def kernel_environment() -> None:
    """Let kernels start from this interpreter's environment, whatever the shell's PATH is."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
