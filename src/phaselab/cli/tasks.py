"""``phaselab tasks``: task files of lm-evaluation-harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phaselab.cli.common import app, told
from phaselab.errors import expect

tasks_app = typer.Typer(no_args_is_help=True, help="Task files of lm-evaluation-harness.")
app.add_typer(tasks_app, name="tasks")


@tasks_app.command("list")
@told
def list_tasks() -> None:
    """Name the tasks that come with phaselab, and their data."""
    from phaselab.behaviour.files import library, read

    for name, path in library().items():
        typer.echo(f"{name}: {read(path).fields['dataset_path']}")


@tasks_app.command()
@told
def validate(
    file: Annotated[Path, typer.Argument(help="A YAML file of lm-evaluation-harness.")],
    data: Annotated[
        list[str] | None, typer.Option(help="split=FILE to read in place of a hub; may be repeated.")
    ] = None,
) -> None:
    """Check a task file and all its items, and show the first."""
    from phaselab.behaviour.files import load_items

    for pair in data or []:
        expect("=" in pair, "--data", repr(pair), "split=FILE")
    given = {split: Path(path) for split, _, path in (pair.partition("=") for pair in data or [])}
    items = load_items(file, data=given)
    typer.echo(items[0].prompt)
    typer.echo(f"  options: {', '.join(items[0].options)}; right: {items[0].options[items[0].answer]}")
    typer.echo(f"{file}: {len(items)} items, all of them can be asked")
