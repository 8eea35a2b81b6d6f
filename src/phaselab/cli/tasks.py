"""``phaselab tasks``: task files of lm-evaluation-harness."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from phaselab.cli.common import app, pairs
from phaselab.files import home

tasks_app = typer.Typer(no_args_is_help=True, help="Task files of lm-evaluation-harness.")
app.add_typer(tasks_app, name="tasks")


@tasks_app.command("list")
def list_tasks() -> None:
    """Name the tasks that come with phaselab, and their data."""
    from phaselab.behaviour.files import library, read

    for name, path in library().items():
        typer.echo(f"{name}: {read(path).fields['dataset_path']}")


@tasks_app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="A YAML file of lm-evaluation-harness.")],
    data: Annotated[
        list[str] | None, typer.Option(help="split=FILE to read in place of a hub; may be repeated.")
    ] = None,
    trust: Annotated[bool, typer.Option("--trust-task-code", help="Run functions that the file names.")] = False,
) -> None:
    """Check a task file and all its items, and show the first; what is doubtful is noted."""
    from phaselab.behaviour.files import load_items

    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", UserWarning)
        own = {split: home(path) for split, path in pairs("--data", data, "split=FILE").items()}
        items = load_items(file, data=own, trust=trust)
    for note in noted:
        typer.echo(f"note: {note.message}", err=True)
    first = items[0]
    typer.echo(f"{first.prompt}\n  options: {', '.join(first.options)}; right: {first.options[first.answer]}")
    alone = [item.question for item in items if item.question]
    typer.echo("".join(f"without listing options: {question}\n" for question in alone[:1]), nl=False)
    typer.echo(f"{file}: {len(items)} items, all of them can be asked, {len(alone)} without listing options (knowing)")
