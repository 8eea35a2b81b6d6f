"""``phaselab new`` and ``add-model``: study files with models of one's own, with a word about each part."""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer
import yaml

from phaselab.checkpoints import choose, local_checkpoints
from phaselab.cli.common import app
from phaselab.cli.models import origin_of
from phaselab.errors import expect
from phaselab.files import Loader, home, read_text
from phaselab.results import write_file
from phaselab.study import (
    IN_DATA,
    BrainSpec,
    EncodingSpec,
    FeatureSpec,
    InternalSpec,
    Model,
    PhaseSpec,
    Study,
    StudyError,
    Task,
    embedded,
    read_section,
)

ModelOption = Annotated[str, typer.Option(help="Folder of checkpoints, a family (models list), or organisation/name.")]
NameOption = Annotated[str, typer.Option(help="Of the model; by default that of the folder, family or repository.")]
LabelOption = Annotated[str, typer.Option(help="What pages call it; by default its name.")]
CheckpointsOption = Annotated[str, typer.Option(help="all, log:20, every:3, each also in a range, or revisions.")]
LikeOption = Annotated[str, typer.Option(help="A study that comes with phaselab: all but models is as there.")]
BesideOption = Annotated[bool, typer.Option("--beside", help="Keep the models of that study too.")]

#: Part of a study file -> what documents it.
PARTS = {"brain": BrainSpec, "models": Model, "features": FeatureSpec, "encoding": EncodingSpec, "tasks": Task}
PARTS |= {"internals": InternalSpec, "phases": PhaseSpec}
HEAD = """\
# A study of phaselab. Above each part stands what it is, and where all its fields are documented: in Python,
# help(phaselab.study.Model) and so on; on the page "Your own model" of the book they are a table.
name: {0}  # results lie in results/{0}
title: {0}
description: Models of mine in the experiment of the study {1}.  # stands on the first page
"""
#: What stands behind fields of a model.
NOTES = {
    "folder": "a sub-folder for each checkpoint, named after step and tokens: step1000-tokens4B",
    "family": "'phaselab models show' has its checkpoints",
    "repository": "on the hub; with tokens_per_step: N where the names of its revisions do not tell the tokens",
    "checkpoints": "all, log:20, every:3, each also in a range (log:20@1B-1T), or revisions",
}


@app.command()
def new(
    study: Annotated[Path, typer.Argument(help="The study file to be written: my_study.yaml.")],
    model: ModelOption,
    name: NameOption = "",
    label: LabelOption = "",
    checkpoints: CheckpointsOption = "log:20",
    like: LikeOption = "demo",
    beside: BesideOption = False,
) -> None:
    """Write a study file with a model of yours, and a word about each part; nothing is computed.

    phaselab new my_study.yaml --model runs/my-model
    """
    path = home(study if study.suffix in (".yaml", ".yml") else f"{study}.yaml")
    expect(not path.exists(), str(path), "it there already", "a new file; 'phaselab add-model' adds to one", StudyError)
    expect(path.parent.is_dir(), str(path), f"no folder {path.parent}", "one that is there", StudyError)
    named = _slug(path.stem, "study")
    right = "another name: results of both would lie in one folder"
    expect(named not in embedded(), "study", f"{named!r}, which comes with phaselab", right, StudyError)
    expect(like in embedded(), "--like", repr(like), f"one of {', '.join(embedded())}", StudyError)
    of, entry = read_section(embedded()[like], Study), _entry(model, name, label, checkpoints, path.parent)
    text = HEAD.format(named, like)
    parts = {part.partition(":")[0]: part for part in re.split(r"^(?=\w+:)", read_text(embedded()[like]), flags=re.M)}
    for part, section in PARTS.items():
        about = (section.__doc__ or "").partition("\n")[0].replace("``", "")
        text += f"\n# {about}\n# (phaselab.study.{section.__name__})\n"
        if part == "models" and not beside:
            text += f"models:\n{_lines(entry, 2)}"
        elif part == "tasks" and not beside:  # without those in the language that just models of the demo learn
            text += re.sub(r"^.*-vo\b.*\n", "", parts.get(part, ""), flags=re.M)
        else:
            text += parts.get(part, f"# {part}: {{}}\n")
    _write(path, _with(text, entry, of) if beside else text, entry)


@app.command("add-model")
def add_model(
    study: Annotated[Path, typer.Argument(help="A study file of yours.")],
    model: ModelOption,
    name: NameOption = "",
    label: LabelOption = "",
    checkpoints: CheckpointsOption = "log:20",
) -> None:
    """Add a model to a study file; what else is in it, comments too, stays as it is.

    phaselab add-model my_study.yaml --model pythia-160m
    """
    path = home(study)
    right = "a study file of yours: 'phaselab new' writes one, with --beside from one that comes with phaselab"
    expect(path.is_file(), "study", repr(str(study)), right, StudyError)
    before, entry = read_section(path, Study), _entry(model, name, label, checkpoints, path.parent)
    _write(path, _with(read_text(path), entry, before), entry, before)


def _slug(text: str, of: str) -> str:
    """A text as a name that may stand in a study."""
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:100]
    expect(found, of, f"{text!r}, of which no name can be made", "letters from A to Z and digits in it", StudyError)
    return found


def _entry(model: str, name: str, label: str, checkpoints: str, beside: Path) -> dict[str, str]:
    """The fields of a model in a study file in the folder `beside`; a PhaselabError for one that cannot be."""
    ((kind, value),) = origin_of(model).items()
    named = name or _slug(home(value).resolve().name if kind == "folder" else value.rpartition("/")[2], "--name")
    if kind == "folder" and not value.startswith(IN_DATA):
        choose(local_checkpoints(home(value)), checkpoints)
        value = value if os.path.isabs(home(value)) else os.path.relpath(value, beside)
    return {"name": named} | ({"label": label} if label else {}) | {kind: value, "checkpoints": checkpoints}


def _fields(entry: dict[str, str]) -> list[str]:
    """Each field as YAML, in quotes where it would be read as something else."""
    plain = {v for v in entry.values() if re.fullmatch(r"[\w./-]+", v, re.ASCII) and yaml.safe_load(v) == v}
    return [f"{k}: {v if v in plain else json.dumps(v, ensure_ascii=False)}" for k, v in entry.items()]


def _lines(entry: dict[str, str], indent: int) -> str:
    """A model as an item of a list."""
    notes = (f"  # {NOTES[name]}" if name in NOTES else "" for name in entry)
    lines = map("".join, zip(_fields(entry), notes, strict=True))
    return f"{' ' * indent}- " + f"\n{' ' * indent}  ".join(lines) + "\n"


def _with(text: str, entry: dict[str, str], of: Study) -> str:
    """The text of a study file with one more model behind those that it has."""
    taken = [model.name for model in of.models]
    free = entry["name"].lower() not in map(str.lower, taken)
    expect(free, "--name", f"{entry['name']!r}, which is taken", f"another than {', '.join(taken)}", StudyError)
    fields = yaml.compose(text, Loader).value
    node = next(value for key, value in fields if key.value == "models")
    if node.flow_style:
        at = node.value[-1].end_mark.index
        return f"{text[:at]}, {{{', '.join(_fields(entry))}}}{text[at:]}"
    lines, indent, end = text.splitlines(), node.start_mark.column, node.end_mark.line + (node.end_mark.column > 0)
    # Behind the last model are empty lines and comments; of these, those that are further in than the list are its own.
    while re.fullmatch(rf" {{0,{indent}}}(#.*)?", lines[end - 1].rstrip() or ""):
        end -= 1
    return "\n".join([*lines[:end], _lines(entry, indent) + "\n".join(lines[end:])]) + "\n"


def _write(path: Path, text: str, entry: dict[str, str], before: Study | None = None) -> None:
    """Write a study file, unless it would not be read as what it was `before` and the model; and say what to do next."""
    with write_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
        try:
            after = read_section(aside, Study)
        except StudyError as error:
            said = str(error).removeprefix(f"{aside}: ")
            raise StudyError(f"{path}: not written, for it would not be read: {said}") from error
        models = (*before.models, after.models[-1]) if before else after.models
        same = after.models[-1].name == entry["name"] and after == (before or after).model_copy(update={"models": models})
        expect(same, str(path), "'models' in a form in which none can be added", "a list of models", StudyError)
    typer.echo(f"{path}: has the model {entry['name']}")
    typer.echo(f"next: phaselab plan {shlex.quote(str(path))}")
