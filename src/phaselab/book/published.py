"""Published studies: small tables of runs that are too long for a build; written, read and compared with a rerun.

Layout of ``published/<study>/``::

    study.yaml            the study
    curves.parquet        all curves; numbers rounded to four digits
    controls.parquet      the controls of each model
    phases.parquet        the verdicts when it was published
    loss.parquet          held-out loss of the models that were trained
    checkpoint/           of the demo also a sample of the first model (book/_ext/sample.py): its last checkpoint,
    voxels.parquet        the correlation r of each voxel at each checkpoint,
    outcomes.parquet      and its answers to the items
    manifest.json         command, commit, date, machine, hours, data, and the digest of each file
"""

# ruff: noqa: D102  (a PublishedLab has the methods of a Lab)

import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import yaml

from phaselab import __version__, results
from phaselab.book.lab import Lab, commit
from phaselab.checkpoints import Checkpoint
from phaselab.errors import expect, number_of, shown
from phaselab.files import shipped
from phaselab.results import CURVE_COLUMNS, MANIFEST, check, read_manifest, read_table, write_folder, write_table
from phaselab.stages import STAGES, Workbench
from phaselab.study import PUBLISHED, Model, StudyError
from phaselab.sweep.states import status
from phaselab.training.folder import place

#: Tables with the columns that are asked for, and what the manifest has of them.
TABLES = dict.fromkeys(("curves", "controls"), CURVE_COLUMNS) | {"phases": ("model", "phase", "verdict")}
TABLES |= {"loss": ("model",)}
ABOUT: dict[str, type] = dict.fromkeys(("hours", "brain", "ceiling", "tasks"), dict)
ABOUT |= dict.fromkeys(("date", "command", "commit", "machine"), str)
#: Bytes of a file at most: published tables lie in the repository.
LARGEST = 2_000_000
#: What tells a row of the curves table from the others.
KEYS = [name for name in CURVE_COLUMNS if name not in ("study", "step", "tokens", "value", "stderr")]


def publish(lab: Lab, root: Path = PUBLISHED) -> Path:
    """Write the tables of a study into a folder below `root`; StudyError for results that are not whole and current."""
    study, bench = lab.study, lab.bench
    found = status(bench)
    wrong = found[(found[["stale", "missing", "damaged"]].sum(axis=1) > 0) | (found["stage"] == "")]
    if len(wrong):
        rows = wrong[["model", "stage", "stale", "missing", "damaged", "why"]].to_dict("records")
        told = (", ".join(f"{name} {shown(value)}" for name, value in row.items() if value) for row in rows)
        right = f"all of it current: phaselab run {study.name}"
        expect(False, f"{study.where}: results", "\n  " + "\n  ".join(told) + "\n ", right, StudyError)
    folder, tables = root / study.name, {"curves": lab.curves("all"), "phases": lab.verdicts()}
    tables["controls"] = pd.concat([lab.controls(name) for name in lab.models], ignore_index=True)
    tables["loss"] = pd.concat([lab.loss(name).assign(model=name) for name in lab.models], ignore_index=True)
    places = [bench.place(s, m, c) for m in study.models for c in lab.checkpoints(m.name) for s in bench.asked(m, c)]
    # Stages that do not say their seconds count nothing; training may have paused: its steps times the median of one.
    stages, trained = sum(float(read_manifest(place).get("made_by", {}).get("seconds", 0)) for place in places), 0.0
    for at in (bench.folder(model) for model in study.models if model.train):
        made = {path.stat().st_mtime: read_manifest(path.parent) for path in at.glob("step*/manifest.json")}
        step = np.array([made[time]["checkpoint"]["step"] for time in sorted(made)])
        trained += float(np.median(np.diff(sorted(made)) / np.diff(step))) * step[-1]
    about = {
        "command": f"phaselab run {study.name}",
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {number_of(os.cpu_count() or 1, 'core')}",
        "versions": {"phaselab": __version__} | {name: version(name) for name in ("torch", "transformers")},
        "hours": {"training": round(trained / 3600, 2), "stages": round(stages / 3600, 2)},
        "brain": {"description": lab.brain.description, "notes": lab.brain.notes},
        "ceiling": {who: float(np.nanmean(of)) for who, of in (lab.brain.ceiling or {}).items()},
        "tasks": {name: lab.tasks(name) for name in lab.models},
    }
    with write_folder(folder, {"study": study.name, "data": lab.data_digest}, **about) as aside:
        for name, table in tables.items():
            numbers = table.select_dtypes("float").columns
            table[numbers] = table[numbers].map(lambda value: float(f"{value:.4g}"))
            write_table(table, aside / f"{name}.parquet")
        content = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)
        (aside / "study.yaml").write_text(content, encoding="utf-8")
        large = {path.name: size for path in aside.iterdir() if (size := path.stat().st_size) > LARGEST}
        expect(not large, str(folder), f"files of {large} bytes", f"at most {LARGEST}")
    return folder


class PublishedLab(Lab):
    """A study of which there are published tables alone: what needs a checkpoint or the brain data says so.

    With a sample the brain is simulated anew; checkpoints of the first model but the last are trained, up to there.
    """

    whole = False

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.folder = Path(self.study.where).parent
        self.provenance = read_manifest(self.folder)
        state = check(self.folder, self.provenance.get("inputs", {}))
        expect(state, str(self.folder), state.why, "the tables of a published study as they were written")
        of, at = self.provenance, str(self.folder / MANIFEST)
        wrong = [name for name, kind in ABOUT.items() if type(of.get(name)) is not kind]
        expect(not wrong, at, f"no {', '.join(wrong)}", "them, as phaselab publish writes them")
        self.tables = {name: read_table(self.folder / f"{name}.parquet", *needed) for name, needed in TABLES.items()}
        hours = {what: of["hours"].get(what, 0) for what in ("training", "stages")}
        made = f"published tables, made on {of['date']} by `{of['command']}` at commit {of['commit']}"
        # Hours of 0 are of models trained elsewhere, or not known: the files of a folder that was copied do not tell.
        parts = (hours["training"], "training"), (hours["stages"], "evaluation")
        took = [f"{number_of(long, 'hour')} of {what}" for long, what in parts if long]
        made += f" on {of['machine']} ({' and '.join(took) or 'hours not known'})"
        self.numbers = f"{made}; this build computes the figures and verdicts from them"
        del self.bench

    def __getattr__(self, name: str) -> Any:
        if name != "bench":
            raise AttributeError(name)
        return self._sampled(name)

    def _sampled(self, name: str) -> Path:
        there = self.model.name == self.study.models[0].name and (self.folder / name).exists()
        right = f"the study's own results: phaselab run {self.study.name}, and study: {self.study.name}"
        expect(there, str(self.folder), "published tables alone", right)
        return self.folder / name

    def _rows(self, name: str, checkpoint: Checkpoint | None) -> pd.DataFrame:
        table = read_table(self._sampled(f"{name}.parquet"), "checkpoint")
        at = checkpoint or self.checkpoints()[-1]
        return table[table["checkpoint"] == at.revision].drop(columns="checkpoint").reset_index(drop=True)

    def checkpoints(self, model: str = "") -> list[Checkpoint]:
        of = self.curves(model)[["checkpoint", "step", "tokens"]].drop_duplicates().sort_values("tokens")
        return [Checkpoint(name, step, tokens, None) for name, step, tokens in of.to_numpy()]

    def load(self, checkpoint: Checkpoint | None = None) -> tuple[Any, Any]:
        from phaselab.checkpoints import load

        last = replace(self.checkpoints()[-1], path=self._sampled("checkpoint"))
        if (at := checkpoint or last).revision != last.revision:
            (last,) = _checkpoints(replace(self.inputs), self.model, at.revision)
        return load(last, self.device, self.model.dtype)

    def voxels(self, checkpoint: Checkpoint | None = None) -> dict[str, dict[str, np.ndarray]]:
        """Subject -> {r: (n_layers, n_voxels), layers}."""
        rows = self._rows("voxels", checkpoint).set_index("subject")
        layers = rows.columns.to_numpy(int)
        return {str(who): {"r": own.to_numpy().T, "layers": layers} for who, own in rows.groupby("subject")}

    def outcomes(self, checkpoint: Checkpoint | None = None) -> pd.DataFrame:
        return self._rows("outcomes", checkpoint)

    def within(self, exact: float, stage: str) -> float:
        return max(exact, 0.02)

    def curves(self, model: str = "") -> pd.DataFrame:
        table = self.tables["curves"]
        table = table if model == "all" else table[table["model"] == self._chosen(model).name]
        table.attrs |= self.attributes
        return table

    def controls(self, model: str = "") -> pd.DataFrame:
        table = self.tables["controls"]
        return table[table["task"] == self._chosen(model).name]

    def loss(self, model: str = "") -> pd.DataFrame:
        table = self.tables["loss"]
        return table[table["model"] == self._chosen(model).name].drop(columns="model").reset_index(drop=True)

    def tasks(self, model: str = "") -> list[str]:
        return list(self.provenance["tasks"][self._chosen(model).name])

    @cached_property
    def brain(self) -> Any:
        """With a sample the brain; else what is known: description, notes, mean ceiling of each subject or None."""
        if (self.folder / "checkpoint").is_dir():
            return self.inputs.brain
        own, ceiling = self.provenance["brain"], self.provenance["ceiling"]
        of = {subject: np.array([value]) for subject, value in ceiling.items()} or None
        return SimpleNamespace(description=own["description"], notes=tuple(own["notes"]), ceiling=of)

    @property
    def data_digest(self) -> str:
        return str(self.provenance["inputs"]["data"])


def compare(bench: Workbench, models: Sequence[str], revision: str = "", root: Path = PUBLISHED) -> pd.DataFrame:
    """How far the results of a rerun are from the published ones: a row per model, checkpoint, perspective and measure.

    Columns: model, checkpoint, perspective, measure, rows, largest difference (relative for numbers above 1; inf for
    what only one of them has). Without `revision` all checkpoints whose results are here and current; with it that one,
    made if need be: a model is trained up to it.
    """
    study, folder = bench.study, shipped(root / bench.study.name)
    state, right = check(folder, read_manifest(folder).get("inputs", {})), f"one with tables in {root}, as written"
    expect(state, "study", f"{study.name!r} ({state.why})", right, StudyError)
    published, files = results.read_curves([folder / "curves.parquet"]), list[Path]()
    for model in (study.model(name) for name in models or [m.name for m in study.models]):
        for at in _checkpoints(bench, model, revision):
            stages = [s for s in STAGES.values() if s.scope == "checkpoint" and s.perspective and s.asked(study, model)]
            if revision:
                bench.make(model, at, stages)
            files += [bench.place(s, model, at) / s.table for s in stages if bench.state(s, model, at)]
    expect(files, f"{study.where}: results", "none to compare", f"some: phaselab run {study.name}", StudyError)
    rerun = results.read_curves(files)
    by = ["model", "checkpoint", "perspective", "measure"]
    same = published.merge(rerun[by[:3]].drop_duplicates())
    both = rerun.merge(same, on=KEYS, how="outer", suffixes=("", "_published"))
    values = both[["value", "value_published"]]
    apart = values.diff(axis=1).iloc[:, 1].abs() / values["value_published"].abs().clip(lower=1)
    apart = apart.mask(values.isna().all(axis=1), 0.0).fillna(np.inf)
    told = both[by].assign(apart=apart).groupby(by, sort=False)["apart"].agg(["size", "max"]).reset_index()
    return told.rename(columns={"size": "rows", "max": "largest difference"})


def _checkpoints(bench: Workbench, model: Model, revision: str) -> list[Checkpoint]:
    if bench.there(model):
        return [at for at in bench.checkpoints(model) if revision in ("", at.revision)]
    if not revision or not model.train:
        return []
    revisions = place(model.name, model.train, bench.store, bench.source(model)).revisions
    steps = {name: step for step, name in revisions.items()}
    expect(revision in steps, "--checkpoint", repr(revision), f"one of {', '.join(steps)}", StudyError)
    bench.folder(model, until=steps[revision])
    return bench.checkpoints(model, (revision,))
