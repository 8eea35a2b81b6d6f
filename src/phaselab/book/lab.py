"""Notebooks with parameters: a strict papermill runner, and what a notebook sees of a study.

``notebooks/*.md`` are the sources (jupytext MyST). ``execute`` runs one by papermill with typed,
checked parameters and leaves a copy without timestamps or machine paths, so that the same results
give the same bytes. ``begin`` is a notebook's first call: it checks the parameters again (plain
papermill takes anything) and returns the ``Lab``, through which the notebook reads results and
computes those that are missing in its own process.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from phaselab import __version__, curves, results
from phaselab.errors import PhaselabError
from phaselab.results import Store, data_folder
from phaselab.study import Model, Study, digest_of, load_study
from phaselab.sweep.unit import Workbench, hub_family

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from phaselab.brains import BrainData
    from phaselab.checkpoints import Checkpoint
    from phaselab.phases import TriplePhase
    from phaselab.texts.base import Item


class ParameterError(PhaselabError):
    """A parameter that a notebook does not have, or a value of the wrong type."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: its name, annotated type, default (as Python source) and help."""

    name: str
    type: str
    default: str
    help: str


# --------------------------------------------------------------------------- parameters


def read_source(path: Path) -> NotebookNode:
    """A notebook source (.md by jupytext, or .ipynb) as a notebook node."""
    import jupytext

    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; expected a notebook (.md or .ipynb)")
    return jupytext.read(path)


def parameters_of(notebook: NotebookNode, name: str) -> dict[str, Parameter]:
    """Parameters of a notebook, from its cell tagged ``parameters``; raises ValueError without one."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            break
    else:
        raise ValueError(f"{name}: no cell with the tag 'parameters'; expected one")
    found = {}
    pattern = re.compile(r"^(\w+)\s*:\s*([^=#]+?)\s*=\s*(.+?)\s*(?:#\s*(.*))?$")
    for line in cell.source.splitlines():
        if match := pattern.match(line):
            key, kind, default, text = match.groups()
            found[key] = Parameter(key, kind, default, text or "")
    return found


def _table(known: Mapping[str, Parameter]) -> str:
    return "\n".join(f"  {p.name}: {p.type} = {p.default}  {p.help}" for p in known.values())


def check_parameters(known: Mapping[str, Parameter], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`given` with each value of its parameter's type.

    Strings are read as the type asks (``"3"`` is an int), since a command line has nothing else.

    Raises
    ------
    ParameterError
        For an unknown name or a value of the wrong type; lists the right ones, types and defaults.
    """
    types = {"str": str, "int": int, "float": float, "bool": bool}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise ParameterError(f"{name}: unknown parameter {key!r}; expected one of\n{_table(known)}")
        kind = types[known[key].type]
        try:
            strict = kind is str or not isinstance(value, str)
            values[key] = TypeAdapter(kind).validate_python(value, strict=strict)
        except ValidationError as error:
            raise ParameterError(
                f"{name}: parameter {key!r}: found {value!r} ({type(value).__name__}), "
                f"expected {known[key].type}; the parameters are\n{_table(known)}"
            ) from error
    return values


# --------------------------------------------------------------------------- execution


def execute(
    source: Path,
    output: Path,
    given: Mapping[str, Any],
    results_digest: str = "",
) -> bool:
    """Run a notebook with parameters; whether it had to be run.

    Parameters
    ----------
    source : notebook source; `output` : the executed copy, written whole or not at all.
    given : values of parameters, checked before anything runs.
    results_digest : digest of the results that it reads; when this, the source, the parameters and
        the package are those of the copy that is there, nothing is run. Empty: always run.

    Raises
    ------
    ParameterError
        See ``check_parameters``.
    papermill.PapermillExecutionError
        When a cell fails; the executed copy up to there is kept beside `output` as ``*.failed.ipynb``.
    """
    import nbformat
    import papermill
    from traitlets.config import Config

    notebook = read_source(source)
    known = parameters_of(notebook, source.name)
    values = check_parameters(known, given, source.name)
    key = hashlib.sha256(
        json.dumps(
            [source.read_text(encoding="utf-8"), values, results_digest, results.digest_code(".")],
            sort_keys=True,
        ).encode()
    ).hexdigest()
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
                # Sockets that are files, and no ports: nobody else can listen. In a folder of this kernel's
                # own, since kernels that start together would choose the same names.
                config=Config({"KernelManager": {"transport": "ipc", "ip": str(Path(folder, "kernel"))}}),
            )
        except papermill.PapermillExecutionError:
            os.replace(done, output.with_suffix(".failed.ipynb")) if done.exists() else None
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
        return json.loads(output.read_text(encoding="utf-8"))["metadata"]["phaselab"]["key"]
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
        for item in cell.get("outputs", ()):
            if item.get("output_type") == "stream":
                item["text"] = item["text"].replace(root, ".")


# --------------------------------------------------------------------------- inside a notebook


def begin() -> Lab:
    """The first call of a notebook: checks its parameters and returns the ``Lab`` they describe.

    Annotated names of the notebook are its parameters; any other public name that is there already
    was given by mistake (plain papermill only warns).
    """
    from IPython.core.getipython import get_ipython

    # Said by libraries that draw progress bars, once a kernel; nothing of it belongs on a page.
    warnings.filterwarnings("ignore", message="IProgress not found")
    shell = get_ipython()
    assert shell is not None, "notebooks.begin() is for notebooks; in a program use notebooks.Lab"
    space = shell.user_ns
    known: dict[str, Parameter] = {}
    for line in "\n".join(space["In"][:-1]).splitlines():
        if match := re.match(r"^(\w+)\s*:\s*(str|int|float|bool)\s*=\s*(.+?)\s*(?:#\s*(.*))?$", line):
            known.setdefault(match[1], Parameter(match[1], match[2], match[3], match[4] or ""))
    hidden = set(shell.user_ns_hidden) | {"notebooks", "figures"}
    given = {
        name: value
        for name, value in space.items()
        if not name.startswith("_") and name not in hidden and not callable(value) and not hasattr(value, "__path__")
    }
    given = {name: value for name, value in given.items() if type(value).__name__ != "module"}
    values = check_parameters(known, given, "this notebook")
    extra = {name: value for name, value in values.items() if name not in ("study", "model", "results", "data")}
    return Lab(
        load_study(values["study"]),
        Store(Path(values.get("results", "results"))),
        data_folder(Path(values["data"]) if values.get("data") else None),
        values.get("model", ""),
        extra,
    )


class Lab:
    """A study as a notebook sees it; what is missing of its results is computed when asked for.

    Parameters
    ----------
    study, store, data : as in ``unit.Workbench``.
    model : name of the model in focus; empty: the first of the study.
    parameters : further parameters, for the provenance line.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        data: Path | None = None,
        model: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.study, self.store = study, store
        self.model: Model = study.model(model)
        self._said: set[str] = set()
        self.bench = Workbench(study, store, data, say=self._say)
        self.parameters = dict(parameters or {})

    def _say(self, line: str) -> None:
        # What is asked for in several cells is said in the first of them.
        if line not in self._said:
            self._said.add(line)
            print(line)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models of the study."""
        return tuple(model.name for model in self.study.models)

    @property
    def labels(self) -> dict[str, str]:
        """Model name -> label for figures."""
        return {model.name: model.label or model.name for model in self.study.models}

    @property
    def simulated(self) -> bool:
        return self.study.simulated

    @property
    def brain(self) -> BrainData:
        return self.bench.brain

    def _chosen(self, model: str | None) -> list[Model]:
        if model == "all":
            return list(self.study.models)
        return [self.study.model(model) if model else self.model]

    def checkpoints(self, model: str | None = None) -> list[Checkpoint]:
        """Checkpoints of a model (default: the one in focus), in order of tokens."""
        return self.bench.checkpoints(self._chosen(model)[0])

    def unit(self, checkpoint: Checkpoint | None = None, model: str | None = None) -> Path:
        """Folder of the results of a checkpoint (default: the last)."""
        chosen = self._chosen(model)[0]
        return self.bench.unit(chosen, checkpoint or self.checkpoints(model)[-1])[0]

    def curves(self, model: str | None = None) -> pd.DataFrame:
        """The curves table of a model (default: the one in focus), or of ``"all"``."""
        chosen = self._chosen(model)
        units = [self.bench.unit(m, c)[0] for m in chosen for c in self.bench.checkpoints(m)]
        more = chosen if self.study.internals.compare else []
        return curves.gather(units, [self.bench.compared(m)[0] for m in more])

    def controls(self, model: str | None = None) -> pd.DataFrame:
        """The table of controls of a model; same columns, ``task`` names the model."""
        return curves.gather_controls(self.bench.controls(m)[0] for m in self._chosen(model))

    def voxels(
        self, checkpoint: Checkpoint | None = None, model: str | None = None
    ) -> dict[str, dict[str, np.ndarray]]:
        """Per-voxel scores: subject -> {r, p, significant, alpha: (n_layers, n_voxels), layers}."""
        from phaselab.encoding import read_voxels

        return read_voxels(self.unit(checkpoint, model) / "voxels.zarr")

    def items(self, task: str, model: str | None = None) -> list[Item]:
        """The items of a task."""
        return self.bench.items(self._chosen(model)[0])[task]

    def tasks(self, model: str | None = None) -> list[str]:
        """Tasks in the languages of a model's training text; all tasks for a model that was found.

        What a model cannot have learnt is measured too, but no mean over tasks is taken over it.
        """
        chosen = self._chosen(model)[0]
        languages = chosen.train.mix.split("+") if chosen.train else None
        items = self.bench.items(chosen)
        return [task for task, own in items.items() if languages is None or own[0].language in languages]

    def outcomes(self, checkpoint: Checkpoint | None = None, model: str | None = None) -> pd.DataFrame:
        """What a checkpoint answered, one row an item."""
        return pd.read_parquet(self.unit(checkpoint, model) / "items.parquet")

    def loss(self, model: str | None = None) -> pd.DataFrame:
        """Loss on held-out text at each checkpoint: revision, step, tokens, loss (nats a token)."""
        chosen = self._chosen(model)[0]
        record = self.bench.folder(chosen) / "training.json" if chosen.train or chosen.folder else None
        if record is None or not record.is_file():
            return pd.DataFrame(columns=["revision", "step", "tokens", "loss"])
        return pd.DataFrame(json.loads(record.read_text(encoding="utf-8")))

    def phases(self, model: str | None = None) -> TriplePhase:
        """The test of the three phases for a model."""
        from phaselab.phases import triple_phase_test

        chosen = self._chosen(model)[0]
        return triple_phase_test(self.curves(chosen.name), chosen.name, tasks=self.tasks(chosen.name) or None)

    def origin(self, model: str | None = None) -> dict[str, str]:
        """Where a model comes from, by the study: how it was trained, or its folder or repository."""
        chosen = self._chosen(model)[0]
        if chosen.train:
            return {name: str(value) for name, value in chosen.train.model_dump(mode="json").items()}
        if chosen.folder:
            # The folder above it is a matter of this machine.
            return {"folder": chosen.folder.name, "checkpoints": str(chosen.checkpoints)}
        family = hub_family(chosen)
        assert family is not None
        facts = {
            "family": chosen.family or "",
            "repository": ", ".join(family.repositories),
            "architecture": family.architecture,
            "licence": family.licence,
            "languages": " ".join(family.languages),
            "tokens from": family.tokens_from,
            "checkpoints": str(chosen.checkpoints),
            "dtype": chosen.dtype,
        }
        return {name: fact for name, fact in facts.items() if fact}

    @cached_property
    def digest(self) -> str:
        """Digest of stimulus and responses."""
        return digest_of([self.brain.stimulus.digest, self.brain.digest])

    def about(self) -> Any:
        """The head of a page: which data, simulated or not, and which model."""
        from IPython.display import Markdown

        kind = "Simulated brain" if self.simulated else "Measured brain"
        spec = self.model.train
        made = f"; {spec.steps * spec.batch * spec.context:,} training tokens" if spec else ""
        notes = "".join(f" {note.rstrip('.')}." for note in self.brain.notes)
        return Markdown(
            f"**{kind}.** {self.brain.description}.{notes}\n\n"
            f"**Model in focus.** {self.labels[self.model.name]} (`{self.model.name}`{made})."
        )

    def provenance(self) -> str:
        """One line that says where a page's numbers come from."""
        given = {"study": self.study.name, "model": self.model.name, **self.parameters}
        parts = [f"{name} {value}" for name, value in given.items()]
        kind = "simulated brain" if self.simulated else "real fMRI"
        return f"phaselab {__version__}, commit {commit()}; {', '.join(parts)}; data {self.digest} ({kind})"

    def stamp(self) -> Any:
        """Show the provenance line; the last call of a notebook."""
        from html import escape

        from IPython.display import HTML, display

        display(HTML(f'<p class="provenance">Provenance: {escape(self.provenance())}</p>'))

    def glue(self, name: str, value: Any) -> None:
        """Keep a value under a name for ``{glue:text}`` in the text of the same page."""
        from myst_nb import glue

        glue(name, value, display=False)


def interactive(figure: Any, name: str, alt: str) -> Any:
    """A plotly figure as HTML that needs no request: the book loads plotly once, from its own files.

    `name` is the element's id, unique on its page; `alt` says what the figure shows to who cannot see it.
    """
    from IPython.display import HTML

    figure.update_layout(height=figure.layout.height or 460, autosize=True, meta={"alt": alt})
    return HTML(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=f"plotly-{name}",
            config={"displaylogo": False, "responsive": True},
        )
    )


def commit() -> str:
    """The commit of the checkout that this package runs from, ``+`` when files differ; else ``unknown``."""
    here = Path(__file__).parent
    try:
        sha = subprocess.run(
            ["git", "rev-parse", "--short=10", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return sha + ("+" if changed else "")


def kernel_environment() -> None:
    """Let kernels start from this interpreter's environment, whatever the shell's PATH is."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
