"""``phaselab new`` and ``add-model``: study files with models of one's own, in which each part is explained."""

import inspect
import os
import re
import shlex
import textwrap
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
import yaml

from phaselab.checkpoints import local_checkpoints
from phaselab.cli.common import app
from phaselab.cli.models import origin_of
from phaselab.errors import expect
from phaselab.files import Loader, home, read_text
from phaselab.results import write_file
from phaselab.study import IN_DATA, Study, StudyError, embedded, read_section

ModelOption = Annotated[str, typer.Option(help="Folder of checkpoints, a family (models list), or organisation/name.")]
NameOption = Annotated[str, typer.Option(help="Of the model; by default that of the folder, family or repository.")]
LikeOption = Annotated[str, typer.Option(help="A study that comes with phaselab: all but models is as there.")]
BesideOption = Annotated[bool, typer.Option("--beside", help="Keep the models of that study too.")]
HEAD = """\
# A study of phaselab. Above each part stands what its fields are; types and defaults: help(phaselab.study.Model) etc.
name: {0}  # results lie in results/{0}
title: {0}
description: Models of mine in the experiment of the study {1}.  # stands on the first page
"""
_yaml: Any = partial(yaml.safe_dump, sort_keys=False, allow_unicode=True, width=10**6)


@app.command()
def new(
    study: Annotated[Path, typer.Argument(help="The study file to be written: my_study.yaml.")],
    model: ModelOption,
    name: NameOption = "",
    like: LikeOption = "demo",
    beside: BesideOption = False,
) -> None:
    """Write a study file with a model of yours, in which each part is explained; nothing is computed.

    phaselab new my_study.yaml --model runs/my-model
    """
    path = home(study if study.suffix in (".yaml", ".yml") else f"{study}.yaml")
    expect(not path.exists(), str(path), "it there already", "a new file; 'phaselab add-model' adds to one", StudyError)
    right = "another name: results of both would lie in one folder"
    expect(path.stem not in embedded(), "study", f"{path.stem!r}, which comes with phaselab", right, StudyError)
    expect(like in embedded(), "--like", repr(like), f"one of {', '.join(embedded())}", StudyError)
    entry, text = _entry(model, name, path.parent), HEAD.format(path.stem, like)
    parts = {part.partition(":")[0]: part for part in re.split(r"^(?=\w+:)", read_text(embedded()[like]), flags=re.M)}
    if not beside:  # neither tasks in the language that only models of the demo learn
        parts |= {"models": f"models:\n{textwrap.indent(_yaml([entry]), '  ')}"}
        parts["tasks"] = re.sub(r"^.*-vo\b.*\n", "", parts.get("tasks", "# tasks: []\n"), flags=re.M)
    for part in ("brain", "models", "features", "encoding", "tasks", "internals", "phases"):
        kind = Study.model_fields[part].annotation
        section: Any = next(iter(get_args(kind)), kind)
        about = str(inspect.getdoc(section)).replace("``", "`").replace("\n\n", "\n")
        text += textwrap.indent(f"\n{about}\n(phaselab.study.{section.__name__})\n", "# ")
        text += parts.get(part, f"# {part}: {{}}\n")
    _write(path, _with(text, entry) if beside else text, entry)


@app.command("add-model")
def add_model(
    study: Annotated[Path, typer.Argument(help="A study file of yours.")], model: ModelOption, name: NameOption = ""
) -> None:
    """Add a model to a study file; what else is in it, comments too, stays as it is.

    phaselab add-model my_study.yaml --model pythia-160m
    """
    path = home(study)
    right = "a study file of yours: 'phaselab new' writes one, with --beside it has the models of the demo too"
    expect(path.is_file(), "study", repr(str(study)), right, StudyError)
    before, entry = read_section(path, Study), _entry(model, name, path.parent)
    _write(path, _with(read_text(path), entry), entry, before)


def _entry(model: str, name: str, beside: Path) -> dict[str, str]:
    """The fields of a model in a study file in the folder `beside`; a PhaselabError for one that cannot be."""
    ((kind, value),) = origin_of(model).items()
    own = re.split("[/:]", str(home(value).resolve()))[-1]
    if kind == "folder" and not value.startswith(IN_DATA):
        local_checkpoints(home(value))
        value = value if home(value).is_absolute() else os.path.relpath(value, beside)
    return {"name": name or own, kind: value, "checkpoints": "log:20"}


def _with(text: str, entry: dict[str, str]) -> str:
    """The text of a study file with one more model behind those that it has."""
    whole: Any = yaml.compose(text, Loader)
    node = next(value for key, value in whole.value if key.value == "models")
    if node.flow_style:
        at = node.value[-1].end_mark.index
        return f"{text[:at]}, {_yaml(entry, default_flow_style=True).strip()}{text[at:]}"
    lines, indent, end = text.splitlines(), node.start_mark.column, node.end_mark.line + (node.end_mark.column > 0)
    # Behind the last model are empty lines and comments; of these, those that are further in than the list are its own.
    while re.fullmatch(rf" {{0,{indent}}}(#.*)?", lines[end - 1].rstrip()):
        end -= 1
    return "\n".join([*lines[:end], textwrap.indent(_yaml([entry]), " " * indent) + "\n".join(lines[end:])]) + "\n"


def _write(path: Path, text: str, entry: dict[str, str], before: Study | None = None) -> None:
    """Write a study file, unless it would not be read as what it was `before` and the model; say what to do next."""
    with write_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
        try:
            after = read_section(aside, Study)
        except StudyError as error:
            said = str(error).removeprefix(f"{aside}: ")
            raise StudyError(f"{path}: not written, for it would be wrong (--name names the model): {said}") from error
        models = (*(before or after).models[: len(after.models) - 1], after.models[-1])
        same = after == (before or after).model_copy(update={"models": models}) and models[-1].name == entry["name"]
        expect(same, str(path), "'models' in a form in which none can be added", "a list of models", StudyError)
    typer.echo(f"{path}: has the model {entry['name']}\nnext: phaselab plan {shlex.quote(str(path))}")
