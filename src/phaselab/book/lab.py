"""What a notebook sees of a study.

``begin`` is a notebook's first call: it checks the parameters (plain papermill takes anything) and returns the
``Lab``, through which the notebook reads results and computes those that are missing in its own process.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pandas as pd

from phaselab import __version__, curves, results
from phaselab.book.runner import check_parameters, inspect
from phaselab.results import Store, data_folder
from phaselab.stages import STAGES, Workbench, choose_device, hub_family
from phaselab.study import Model, Study, digest_of, load_study

if TYPE_CHECKING:
    import numpy as np

    from phaselab.brains import BrainData
    from phaselab.checkpoints import Checkpoint
    from phaselab.phases import TriplePhase
    from phaselab.texts.base import Item

#: Parameters that say what the lab is of; a notebook's others are its own.
COMMON = ("study", "model", "results", "data", "device")


def begin() -> Lab:
    """Check the parameters of the notebook that calls it, and return the ``Lab`` that they describe.

    Annotated names are parameters; any other public name was given by mistake (plain papermill only warns).
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    assert shell is not None, "begin() is for notebooks; in a program use Lab"
    space = shell.user_ns
    public = {name: value for name, value in space.items() if not name.startswith("_")}
    given = {
        name: value
        for name, value in public.items()
        if name not in shell.user_ns_hidden and not callable(value) and not isinstance(value, ModuleType)
    }
    values = check_parameters(inspect("\n".join(space["In"][:-1])), given, "this notebook")
    return Lab(
        load_study(values["study"]),
        Store(Path(values.get("results", "results"))),
        data_folder(Path(values["data"]) if values.get("data") else None),
        values.get("model", ""),
        {name: value for name, value in values.items() if name not in COMMON},
        choose_device(values.get("device", "cpu")),
    )


class Lab:
    """A study as a notebook sees it; what is missing of its results is computed when asked for.

    `study`, `store`, `data` and `device` are as in ``stages.Workbench``; `model` names the model in focus (empty: the
    first); `parameters` are further ones, for the provenance line.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        data: Path | None = None,
        model: str = "",
        parameters: Mapping[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        self.study, self.store, self.device = study, store, device
        self.model: Model = study.model(model)
        #: Whether the brain is simulated; model name -> label for figures; the names alone.
        self.simulated = study.simulated
        self.labels = {model.name: model.label or model.name for model in study.models}
        self.models = tuple(self.labels)
        self._said: set[str] = set()
        self.bench = Workbench(study, store, data, say=self._say, device=device)
        self.parameters = dict(parameters or {})

    def _say(self, line: str) -> None:
        # What is asked for in several cells is said in the first of them.
        if line not in self._said:
            self._said.add(line)
            print(line)

    @property
    def brain(self) -> BrainData:
        """Stimulus, responses, regions and ceilings."""
        return self.bench.brain

    def _chosen(self, model: str | None) -> list[Model]:
        if model == "all":
            return list(self.study.models)
        return [self.study.model(model) if model else self.model]

    def checkpoints(self, model: str | None = None) -> list[Checkpoint]:
        """Checkpoints of a model (default: the one in focus), in order of tokens."""
        return self.bench.checkpoints(self._chosen(model)[0])

    def load(self, checkpoint: Checkpoint | None = None, model: str | None = None) -> tuple[Any, Any]:
        """Network and tokenizer of a checkpoint (default: the last), on the device and in the model's dtype."""
        from phaselab.checkpoints import load, present

        chosen = self._chosen(model)[0]
        wanted = checkpoint or self.checkpoints(model)[-1]
        with present(wanted, lambda: True, chosen.trust_remote_code, self._say) as here:
            return load(here, self.device, chosen.dtype, chosen.trust_remote_code)

    def result(self, stage: str, checkpoint: Checkpoint | None = None, model: str | None = None) -> Path:
        """Folder of the results of a stage (``brain``, ``behaviour``, ...) of a checkpoint (default: the last)."""
        return self.bench.result(stage, self._chosen(model)[0], checkpoint or self.checkpoints(model)[-1])

    def curves(self, model: str | None = None) -> pd.DataFrame:
        """The curves table of a model (default: the one in focus), or of ``"all"``."""
        return curves.gather(file for chosen in self._chosen(model) for file in self.bench.tables(chosen))

    def controls(self, model: str | None = None) -> pd.DataFrame:
        """The table of controls of a model; same columns, ``task`` names the model."""
        names = [chosen.name for chosen in self._chosen(model)]
        return curves.gather(self.result("controls", model=name) / STAGES["controls"].table for name in names)

    def voxels(
        self, checkpoint: Checkpoint | None = None, model: str | None = None
    ) -> dict[str, dict[str, np.ndarray]]:
        """Per-voxel scores: subject -> {r, p, significant, alpha: (n_layers, n_voxels), layers}."""
        from phaselab.encoding import read_voxels

        return read_voxels(self.result("brain", checkpoint, model) / "voxels.zarr")

    def items(self, task: str, model: str | None = None) -> list[Item]:
        """The items of a task."""
        return self.bench.items(self._chosen(model)[0])[task]

    def tasks(self, model: str | None = None) -> list[str]:
        """Tasks in the languages of a model's training text, over which means are taken; all of a model found."""
        chosen = self._chosen(model)[0]
        languages = chosen.train.mix.split("+") if chosen.train else None
        items = self.bench.items(chosen)
        return [task for task, own in items.items() if languages is None or own[0].language in languages]

    def outcomes(self, checkpoint: Checkpoint | None = None, model: str | None = None) -> pd.DataFrame:
        """What a checkpoint answered, one row per item."""
        return pd.read_parquet(self.result("behaviour", checkpoint, model) / "items.parquet")

    def loss(self, model: str | None = None) -> pd.DataFrame:
        """Loss on held-out text at each checkpoint: revision, step, tokens, loss (nats per token)."""
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
        facts = {"family": chosen.family or "", "repository": ", ".join(family.repositories)}
        facts |= {"architecture": family.architecture, "licence": family.licence}
        facts |= {"languages": " ".join(family.languages), "tokens from": family.tokens_from}
        facts |= {"checkpoints": str(chosen.checkpoints), "dtype": chosen.dtype}
        return {name: fact for name, fact in facts.items() if fact}

    def within(self, exact: float, stage: str) -> float:
        """How far a page's own number may be from the table's: `exact` in float32 on a CPU, .02 elsewhere."""
        made_by = results.read_manifest(self.result(stage))["made_by"]["device"]
        return exact if (self.device, made_by, self.model.dtype) == ("cpu", "cpu", "float32") else 0.02

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

    def score_unit(self, table: pd.DataFrame) -> str:
        """What the brain score of a curves table counts: ``correlation r``, or ``share of the ceiling``."""
        return curves.MEASURES[curves.brain_measure(table)][1]

    def provenance(self) -> str:
        """One line that says where a page's numbers come from."""
        given = {"study": self.study.name, "model": self.model.name, **self.parameters}
        parts = [f"{name} {value}" for name, value in given.items()]
        kind = "simulated brain" if self.simulated else "real fMRI"
        return f"phaselab {__version__}, commit {commit()}; {', '.join(parts)}; data {self.digest} ({kind})"

    def stamp(self) -> Any:
        """The provenance line; the last call of a notebook."""
        from IPython.display import HTML

        return HTML(f'<p class="provenance">Provenance: {escape(self.provenance())}</p>')

    def glue(self, name: str, value: Any) -> None:
        """Keep a value under a name for ``{glue:text}`` in the text of the same page."""
        from myst_nb import glue

        glue(name, value, display=False)

    @staticmethod
    def table(rows: Any, **options: Any) -> Any:
        """A table of a page: whatever pandas makes a frame of, without its index; `options` of ``to_html``."""
        from IPython.display import HTML

        return HTML(pd.DataFrame(rows).to_html(**{"index": False, "border": 0, **options}))


def interactive(figure: Any, name: str, alt: str) -> Any:
    """A plotly figure as HTML without a request, with an id unique on its page and a text for who cannot see it."""
    from IPython.display import HTML

    figure.update_layout(height=figure.layout.height or 460, autosize=True, meta={"alt": alt})
    config = {"displaylogo": False, "responsive": True}
    return HTML(figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"plotly-{name}", config=config))


def commit() -> str:
    """The commit of the checkout that this package runs from, ``+`` when files differ; else ``unknown``."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
