"""Published studies: small tables of runs that are too long for a build, how they are written, read and compared.

Layout of ``published/<study>/``, with no weights and no text of a corpus in it::

    study.yaml            the study
    curves.parquet        all curves; numbers rounded to six digits
    controls.parquet      the controls of each model
    phases.parquet        the verdicts when it was published
    loss.parquet          held-out loss of the models that were trained
    provenance.json       command, commit, date, machine, hours, data, and the digest of each file
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import yaml

from phaselab import __version__
from phaselab.book.lab import Lab, commit
from phaselab.checkpoints import local_checkpoints
from phaselab.errors import PhaselabError, expect, shown
from phaselab.results import CURVE_COLUMNS, digest_file, read_json, read_manifest, write_file, write_json, write_table
from phaselab.stages import STAGES, Workbench
from phaselab.study import PUBLISHED, StudyError
from phaselab.sweep.pool import status

PROVENANCE = "provenance.json"
TABLES = ("curves", "controls", "phases", "loss")
#: Bytes of a file at most: published tables lie in the repository.
LARGEST = 2_000_000
#: What tells a row of the curves table from the others.
KEYS = [name for name in CURVE_COLUMNS if name not in ("study", "step", "tokens", "value", "stderr")]


def publish(lab: Lab, root: Path = PUBLISHED) -> Path:
    """Write the tables of a study from its results; its folder below `root`.

    Refuses with a StudyError what is incomplete, stale or damaged, with the stages and reasons.
    """
    study, bench = lab.study, lab.bench
    found = status(bench)
    wrong = found[(found[["stale", "missing", "damaged"]].sum(axis=1) > 0) | (found["stage"] == "")]
    if len(wrong):
        rows = wrong[["model", "stage", "stale", "missing", "damaged", "why"]].to_dict("records")
        told = (", ".join(f"{name} {shown(value)}" for name, value in row.items() if value) for row in rows)
        right = f"all of it current: phaselab run {study.name}"
        expect(False, f"{study.where}: results", "\n  " + "\n  ".join(told) + "\n ", right, StudyError)
    folder, labs = root / study.name, {name: Lab(study, bench.store, bench.data, name) for name in lab.models}
    last = {name: of.checkpoints()[-1] for name, of in labs.items()}
    tables = {
        "curves": lab.curves("all"),
        "controls": pd.concat([of.controls() for of in labs.values()], ignore_index=True),
        "phases": lab.verdicts(),
        "loss": pd.concat([of.loss().assign(model=name) for name, of in labs.items()], ignore_index=True),
    }
    for name, table in tables.items():
        numbers = table.select_dtypes("float").columns
        table[numbers] = table[numbers].map(lambda value: float(f"{value:.6g}"))
        write_table(table, folder / f"{name}.parquet")
    with write_file(folder / "study.yaml") as aside:
        aside.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    files = {path.name: digest_file(path) for path in sorted(folder.iterdir()) if path.name != PROVENANCE}
    large = {name: size for name in files if (size := (folder / name).stat().st_size) > LARGEST}
    expect(not large, str(folder), f"files of {large} bytes", f"at most {LARGEST}")
    places = [bench.place(s, m, c) for m in study.models for c in lab.checkpoints(m.name) for s in bench.asked(m, c)]
    write_json(
        {
            "study": study.name,
            "command": f"phaselab run {study.name}",
            "published by": shlex.join(["phaselab", *sys.argv[1:]]),
            "commit": commit(),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "versions": {"phaselab": __version__} | {name: version(name) for name in ("torch", "transformers")},
            "hours": {"training": _trained_hours(bench), "stages": _hours(places)},
            "made by": sorted({str(read_manifest(place).get("made_by", {}).get("phaselab")) for place in places}),
            "brain": {"description": lab.brain.description, "notes": lab.brain.notes, "digest": lab.data_digest},
            "ceiling": {who: float(np.nanmean(of)) for who, of in (lab.brain.ceiling or {}).items()},
            "tasks": {name: lab.tasks(name) for name in lab.models},
            "last checkpoint": {name: at.revision for name, at in last.items()},
            "files": files,
        },
        folder / PROVENANCE,
    )
    return folder


def _hours(places: Sequence[Path]) -> float:
    """What the stages took, one after the other; those that do not say it count nothing."""
    seconds = (float(read_manifest(place).get("made_by", {}).get("seconds", 0)) for place in places)
    return round(sum(seconds) / 3600, 2)


def _trained_hours(bench: Workbench) -> float:
    """From the first to the last checkpoint of each trained model, by the times of their files, summed."""
    folders = [bench.folder(model) for model in bench.study.models if model.train]
    times = [[path.stat().st_mtime for path in folder.glob("*/manifest.json")] for folder in folders]
    return round(sum(max(of) - min(of) for of in times) / 3600, 2)


class PublishedLab(Lab):
    """A study of which there are published tables alone: what needs a checkpoint or the brain data says so."""

    folder: Path

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.folder = Path(self.study.where).parent
        where = self.folder / PROVENANCE
        self.provenance = read_json(where)
        expect(self.provenance.get("files"), str(where), "no record that can be read", "that of a published study")
        for name, digest in self.provenance["files"].items():
            path = self.folder / name
            there = path.is_file() and digest_file(path) == digest
            expect(there, str(path), "a file that is not there, or changed since", f"the digest in {PROVENANCE}")
        self.tables = {name: pd.read_parquet(self.folder / f"{name}.parquet") for name in TABLES}
        del self.bench

    def __getattr__(self, name: str) -> Any:
        if name != "bench":
            raise AttributeError(name)
        right = f"the study's own results: phaselab run {self.study.name}, and study: {self.study.name}"
        raise PhaselabError(f"{self.folder}: found published tables alone, expected {right}")

    def curves(self, model: str = "") -> pd.DataFrame:
        """The curves table of a model, or of ``"all"``."""
        table = self.tables["curves"]
        table = table if model == "all" else table[table["model"] == self._chosen(model).name]
        table.attrs["layer"] = self.study.phases.layer
        return table

    def controls(self) -> pd.DataFrame:
        """The table of controls; same columns, ``task`` names the model."""
        table = self.tables["controls"]
        return table[table["task"] == self.model.name]

    def loss(self) -> pd.DataFrame:
        """Loss on held-out text at each checkpoint: revision, step, tokens, loss (nats per token)."""
        table = self.tables["loss"]
        return table[table["model"] == self.model.name].drop(columns="model").reset_index(drop=True)

    def tasks(self, model: str = "") -> list[str]:
        """Tasks over which means are taken."""
        return list(self.provenance["tasks"][self._chosen(model).name])

    @cached_property
    def brain(self) -> Any:
        """What is known of the brain data without them: description, notes, mean ceiling of each subject or None."""
        own, ceiling = self.provenance["brain"], self.provenance["ceiling"]
        of = {subject: np.array([value]) for subject, value in ceiling.items()} or None
        return SimpleNamespace(description=own["description"], notes=tuple(own["notes"]), ceiling=of)

    @property
    def data_digest(self) -> str:
        """Digest of the stimulus and responses that the tables were made of."""
        return str(self.provenance["brain"]["digest"])

    def origin_of_numbers(self) -> str:
        """Where the numbers come from, in a sentence."""
        of, hours = self.provenance, self.provenance["hours"]
        made = f"published tables, made on {of['date']} by `{of['command']}` at commit {of['commit']}"
        took = f"{hours['training']:g} hours of training and {hours['stages']:g} of evaluation"
        return f"{made} on {of['machine']} ({took}); this build computes the figures and verdicts from them"


def compare(bench: Workbench, models: Sequence[str], revision: str = "", root: Path = PUBLISHED) -> pd.DataFrame:
    """How far the results of a rerun are from the published ones: a row per model, checkpoint, perspective and measure.

    Columns: model, checkpoint, perspective, measure, rows, largest difference (absolute). Without `revision` all
    checkpoints whose results are here and current; with it that one, made if need be: a model is trained up to it.
    """
    study, folder = bench.study, root / bench.study.name
    expect((folder / PROVENANCE).is_file(), "study", repr(study.name), f"one with tables in {root}", StudyError)
    published, found = pd.read_parquet(folder / "curves.parquet"), []
    for model in (study.model(name) for name in models or [m.name for m in study.models]):
        for at in _checkpoints(bench, model, revision):
            stages = [s for s in STAGES.values() if s.scope == "checkpoint" and s.perspective and s.asked(study, model)]
            if revision:
                bench.make(model, at, stages)
            here = [bench.place(s, model, at) / s.table for s in stages if bench.state(s, model, at)]
            if here:
                rerun = pd.concat([pd.read_parquet(path) for path in here], ignore_index=True)
                found.append(_differences(published, rerun))
    expect(found, f"{study.where}: results", "none to compare", f"some: phaselab run {study.name}", StudyError)
    return pd.concat(found, ignore_index=True)


def _checkpoints(bench: Workbench, model: Any, revision: str) -> list[Any]:
    if not (revision and model.train) or bench.there(model):
        return [at for at in bench.checkpoints(model) if revision in ("", at.revision)] if bench.there(model) else []
    from phaselab.training.folder import place
    from phaselab.training.loop import train

    steps = {
        name: step for step, name in place(model.name, model.train, bench.store, bench.source(model)).revisions.items()
    }
    expect(revision in steps, "--checkpoint", repr(revision), f"one of {', '.join(steps)}", StudyError)
    folder = train(model.name, model.train, bench.store, bench.data, until=steps[revision])
    bench.use(model, folder)
    return [at for at in local_checkpoints(folder) if at.revision == revision]


def _differences(published: pd.DataFrame, rerun: pd.DataFrame) -> pd.DataFrame:
    """Rows of a rerun beside the published ones of the same measure, layer, subject ...; where there is none: inf."""
    both = rerun.merge(published, on=KEYS, how="left", suffixes=("", "_published"))
    apart = (both["value"] - both["value_published"]).abs()
    apart = apart.mask(both["value"].notna() & both["value_published"].isna(), np.inf).fillna(0.0)
    by = ["model", "checkpoint", "perspective", "measure"]
    told = both[by].assign(apart=apart).groupby(by, sort=False)["apart"].agg(["size", "max"]).reset_index()
    return told.rename(columns={"size": "rows", "max": "largest difference"})
