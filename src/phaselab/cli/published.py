"""``phaselab publish`` and ``compare``: the small tables of runs that are too long for a build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from phaselab.cli.common import DataOption, ResultsOption, StudyArgument, app, out
from phaselab.errors import expect
from phaselab.results import Store
from phaselab.study import PUBLISHED, load_study


@app.command()
def publish(
    study: StudyArgument,
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    folder: Annotated[Path, typer.Option(help="Folder of published studies.")] = PUBLISHED,
) -> None:
    """Write the small tables of a study's results that a book shows without making them again."""
    from phaselab.book.lab import Lab
    from phaselab.book.published import publish

    typer.echo(publish(Lab(load_study(study), Store(results), data), folder))


@app.command()
def compare(
    study: StudyArgument,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only this model; may be repeated.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Make this checkpoint if it is not here, and compare it alone.")] = "",
    within: Annotated[float, typer.Option(min=0, help="The largest difference that passes.")] = 0.01,
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    folder: Annotated[Path, typer.Option(help="Folder of published studies.")] = PUBLISHED,
) -> None:
    """Say how far results are from the published ones; exit code 1 where one is further than --within."""
    from phaselab.book.published import compare
    from phaselab.cli.common import say
    from phaselab.stages import Workbench

    found = compare(Workbench(load_study(study), Store(results), data, say=say), model or (), checkpoint, folder)
    table = Table(*found.columns)
    for row in found.itertuples(index=False):
        table.add_row(*(f"{value:.2g}" if isinstance(value, float) else str(value) for value in row))
    out.print(table)
    worst = float(found["largest difference"].max())
    expect(worst <= within, study, f"a largest difference of {worst:.2g}", f"at most {within:g}")
