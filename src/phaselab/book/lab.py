"""What a notebook sees of a study: a ``Lab`` reads results, and computes those that are missing in its own process."""

import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache, cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phaselab import __version__, curves, results
from phaselab.brains import BrainData
from phaselab.checkpoints import Checkpoint
from phaselab.errors import expect, shown
from phaselab.files import BOOK, parse_json, read_text
from phaselab.phases import TriplePhase, triple_phase_test
from phaselab.results import Store
from phaselab.stages import STAGES, Unit, Workbench
from phaselab.stages.context import hub_family
from phaselab.study import Model, Study, digest_of
from phaselab.texts.base import Item


class Lab:
    """A study (see ``stages.Workbench``) as a notebook sees it; what is missing of results is computed when asked for.

    `model`, by default the first, is the one that methods are about unless they name another; `parameters` are further
    ones, for the provenance line. A `checkpoint` that is not given is the last.
    """

    #: Where the numbers come from.
    numbers = "computed in this build, or found where a build had computed them"
    #: Whether the results are here, and not tables of them alone.
    whole = True

    def __init__(
        self,
        study: Study,
        store: Store,
        data: Path | None = None,
        model: str = "",
        parameters: Mapping[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        self.device, self.parameters = device, dict(parameters or {})
        # What is asked for in several cells is said in the first of them.
        self.bench = self.inputs = Workbench(study, store, data, say=cache(print), device=device)
        self.study = self.bench.study
        self.model: Model = self.study.model(model)
        self.simulated = self.study.brain.simulated  #: Whether the brain is simulated.
        self.attributes = {"layer": self.study.phases.layer, "tasks": [task.name for task in self.study.tasks]}
        #: Name of each model -> its label, no two the same.
        self.labels: dict[str, str] = {row.model: row.label for row in curves.each_row(curves.families(self.study))}
        self.models = tuple(self.labels)  #: The names of the models.

    @property
    def brain(self) -> BrainData:
        """Stimulus, responses, regions and ceilings."""
        return self.bench.brain

    def _chosen(self, model: str) -> Model:
        return self.study.model(model) if model else self.model

    def checkpoints(self, model: str = "") -> list[Checkpoint]:
        """Checkpoints of a model, in order of tokens."""
        return self.bench.checkpoints(self._chosen(model))

    def load(self, checkpoint: Checkpoint | None = None) -> tuple[Any, Any]:
        """Network and tokenizer of a checkpoint, on the device and in the model's dtype."""
        with ExitStack() as stack:
            return Unit(self.bench, self.model, checkpoint or self.checkpoints()[-1], stack).loaded

    def result(self, stage: str, checkpoint: Checkpoint | None = None, model: str = "") -> Path:
        """Folder of the results of a stage (``brain``, ``behaviour``, ...) of a checkpoint."""
        return self.bench.result(stage, self._chosen(model), checkpoint or self.checkpoints(model)[-1])

    def curves(self, model: str = "") -> pd.DataFrame:
        """The curves table of a model, or of ``"all"``."""
        models = self.study.models if model == "all" else [self._chosen(model)]
        table = curves.gather(file for chosen in models for file in self.bench.tables(chosen))
        table.attrs |= self.attributes  # the layer that stands for each model; all tasks, for their colours
        return table

    def controls(self, model: str = "") -> pd.DataFrame:
        """The table of controls of a model; same columns, ``task`` names the model."""
        return curves.gather([self.result("controls", model=model) / STAGES["controls"].table])

    def voxels(self, checkpoint: Checkpoint | None = None) -> dict[str, dict[str, np.ndarray]]:
        """Per-voxel scores: subject -> {r, p, significant, alpha: (n_layers, n_voxels), layers}."""
        from phaselab.encoding import read_voxels

        return read_voxels(self.result("brain", checkpoint) / "voxels.zarr")

    def items(self, task: str) -> list[Item]:
        """The items of a task."""
        return self.inputs.items(self.model)[task]

    def tasks(self, model: str = "") -> list[str]:
        """Tasks in the languages of a model's training text, over which means are taken; all of a model found."""
        return self.bench.tasks(self._chosen(model))

    def outcomes(self, checkpoint: Checkpoint | None = None) -> pd.DataFrame:
        """What a checkpoint answered, one row per item."""
        return results.read_table(self.result("behaviour", checkpoint) / "items.parquet")

    def loss(self, model: str = "") -> pd.DataFrame:
        """Loss of a model on held-out text at each checkpoint: revision, step, tokens, loss (nats per token)."""
        columns = ["revision", "step", "tokens", "loss"]
        if (chosen := self._chosen(model)).train or chosen.folder:
            record = self.bench.folder(chosen) / "training.json"
            if record.is_file():
                rows = parse_json(read_text(record), record)
                fits = isinstance(rows, list) and all(isinstance(row, dict) and {*columns} <= {*row} for row in rows)
                expect(fits, str(record), shown(rows), f"a list of {', '.join(columns)}")
                return pd.DataFrame(rows)
        return pd.DataFrame(columns=columns)

    @cached_property
    def seeds(self) -> dict[str, list[str]]:
        """Models that differ in their seed alone, by the name of their group; none where the study judges each."""
        groups = curves.families(self.study).groupby("group", sort=False)["model"].agg(list)
        return {str(k): own for k, own in groups.items() if len(own) > 1 and self.study.phases.seeds == "all"}

    def phases(self, model: str = "") -> TriplePhase:
        """The test of the three phases for a model, or for a group of ``seeds`` as replicates of one curve."""
        names = self.seeds.get(model) or [self._chosen(model).name]
        table = pd.concat([self.curves(name) for name in names], ignore_index=True)
        return triple_phase_test(table, names, self.study.phases, tasks=self.tasks(names[0]) or None)

    def verdicts(self) -> pd.DataFrame:
        """The three phases of each model and of each group of seeds, a row per phase."""
        return pd.concat([self.phases(name).table for name in (*self.models, *self.seeds)], ignore_index=True)

    @property
    def data_digest(self) -> str:
        """Digest of the stimulus and the responses."""
        return digest_of([self.brain.stimulus.digest, self.brain.digest])

    def origin(self) -> dict[str, str]:
        """Where the model comes from, by the study: how it was trained, or its folder or repository."""
        model = self.model
        if model.train:
            facts = model.train.model_dump(mode="json")
        elif family := hub_family(model):
            facts = {"family": model.family or "", "repository": ", ".join(family.repositories)}
            facts |= {"architecture": family.architecture, "licence": family.licence}
            facts |= {"languages": " ".join(family.languages), "tokens from": family.tokens_from}
            facts |= {"checkpoints": model.checkpoints, "dtype": model.dtype}
        else:  # the folder above its own is a matter of this machine
            facts = {"folder": model.folder and model.folder.name, "checkpoints": model.checkpoints}
        return {name: str(fact) for name, fact in facts.items() if fact != ""}

    def within(self, exact: float, stage: str) -> float:
        """How far a page's own number may be from the table's: `exact` in float32 on a CPU, .02 elsewhere."""
        made_by = results.read_manifest(self.result(stage))["made_by"]["device"]
        return exact if (self.device, made_by, self.model.dtype) == ("cpu", "cpu", "float32") else 0.02

    def about(self) -> Any:
        """The head of a page: which data, simulated or not, and which model."""
        from IPython.display import Markdown

        kind = "Simulated brain" if self.simulated else "Measured brain"
        spec = self.model.train
        made = f"; {spec.steps * spec.batch * spec.context:,} training tokens" if spec else ""
        said = " ".join(f"{curves.plain(text.rstrip('.'))}." for text in (self.brain.description, *self.brain.notes))
        return Markdown(
            f"**{kind}.** {said}\n\n"
            f"**Model in focus.** {curves.plain(self.labels[self.model.name])} (`{self.model.name}`{made}).\n\n"
            f"**Numbers.** {self.numbers[0].upper()}{self.numbers[1:]}."
        )

    def score_unit(self, table: pd.DataFrame) -> str:
        """What the brain score of a curves table counts: ``correlation r``, or ``share of the ceiling``."""
        return curves.MEASURES[curves.brain_measure(table)][1]

    def stamp(self) -> Any:
        """The line that says where a page's numbers come from; the last call of a notebook."""
        from IPython.display import HTML

        given = {"study": self.study.name, "model": self.model.name, **self.parameters}
        parts = ", ".join(f"{name} {value}" for name, value in given.items())
        kind = "simulated brain" if self.simulated else "real fMRI"
        line = f"Provenance: phaselab {__version__}, commit {commit()}; {parts}; data {self.data_digest} ({kind})"
        return HTML(f'<p class="provenance">{escape(line)}</p>')

    def glue(self, name: str, value: Any) -> None:
        """Keep a value under a name for ``{glue:text}`` in the text of the same page."""
        from myst_nb import glue

        glue(name, value, display=False)

    @staticmethod
    def table(rows: Any, **options: Any) -> Any:
        """A table of a page: whatever pandas makes a frame of, without its index; `options` of ``to_html``."""
        from IPython.display import HTML

        with pd.option_context("display.html.use_mathjax", False):  # of JupyterLab; the book has none
            return HTML(pd.DataFrame(rows).to_html(**{"index": False, "border": 0, **options}))


def interactive(figure: Any, name: str, alt: str) -> Any:
    """A plotly figure as HTML without a request, with an id unique on its page and a text for who cannot see it."""
    from IPython.display import HTML

    figure.update_layout(height=figure.layout.height or 460, autosize=True, meta={"alt": alt})
    config = {"displayModeBar": False, "responsive": True, "typesetMath": False}
    return HTML(figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"plotly-{name}", config=config))


def commit() -> str:
    """The commit of the checkout that this package runs from, ``+`` when files differ; else ``unknown``."""
    if BOOK.name == "_book":  # a wheel, in an environment that may lie in somebody else's checkout
        return "unknown"
    describe = ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
