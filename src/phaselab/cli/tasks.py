"""``phaselab tasks``: task files of lm-evaluation-harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phaselab.cli.common import app, told
from phaselab.study import StudyError

tasks_app = typer.Typer(no_args_is_help=True, help="Task files of lm-evaluation-harness.")
app.add_typer(tasks_app, name="tasks")


@tasks_app.command("list")
@told
def list_tasks() -> None:
    """Name the tasks that come with phaselab, and their data."""
    import yaml

    from phaselab.behaviour.files import library

    for name, path in library().items():
        source = next(e for e in path.read_text(encoding="utf-8").splitlines() if e.startswith("dataset_path"))
        typer.echo(f"{name}: {yaml.safe_load(source)['dataset_path']}")


@tasks_app.command()
@told
def validate(
    file: Annotated[Path, typer.Argument(help="A YAML file of lm-evaluation-harness.")],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="split=FILE to read in place of a hub; may be repeated."),
    ] = None,
) -> None:
    """Check a task file and all its items, and show the first."""
    from phaselab.behaviour.files import validate as check

    given = {}
    for pair in data or []:
        split, sign, path = pair.partition("=")
        if not sign:
            raise StudyError(f"--data: found {pair!r}, expected split=FILE")
        given[split] = Path(path)
    items = check(file, given)
    typer.echo(items[0].prompt)
    typer.echo(f"  options: {', '.join(items[0].options)}; right: {items[0].options[items[0].answer]}")
    typer.echo(f"{file}: {len(items)} items, all of them can be asked")
