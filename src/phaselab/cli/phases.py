"""``phaselab phases``: transitions of any learning curves, or the three phases of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phaselab.cli.common import DataOption, ResultsOption, app
from phaselab.errors import PhaselabError, expect
from phaselab.files import home
from phaselab.results import TABLES, Store, read_table, write_table
from phaselab.study import StudyError, load_study


@app.command()
def phases(
    source: Annotated[
        str, typer.Argument(help="A table (.csv, .tsv, .parquet) of curves with --x and --y; or a study.")
    ],
    x: Annotated[str, typer.Option(help="Table: column of training tokens or steps.")] = "",
    y: Annotated[str, typer.Option(help="Table: column of the measure.")] = "",
    by: Annotated[str, typer.Option(help="Table: columns that name a curve, with commas; none: it is one curve.")] = "",
    stderr: Annotated[str, typer.Option(help="Table: column of the measure's standard error.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Table: folder; by default NAME_phases.")] = None,
    results: ResultsOption = Path("results"),
    data: DataOption = None,
) -> None:
    """Find the transitions of any learning curves; or test the three phases of a study's models.

    From a table: transitions.csv (a row a rise or fall), curves.png and raster.png. From a study:
    phases.parquet beside its results.
    """
    if Path(source).suffix.lower() in TABLES:
        return _of_table(home(source), x, y, by, stderr, out)
    import pandas as pd

    from phaselab.book.lab import Lab

    options = {"--x": x, "--y": y, "--by": by, "--stderr": stderr, "--out": out}
    given = ", ".join(name for name, value in options.items() if value)
    expect(not given, source, given, f"them with a table ({', '.join(TABLES)}) alone", StudyError)
    study, store = load_study(source), Store(results)
    lab, tables = Lab(study, store, data), []
    for model in lab.models:
        verdict = lab.phases(model)
        tables.append(verdict.table.assign(study=study.name))
        typer.echo(verdict.statement)
    path = store.study(study.name) / "phases.parquet"
    write_table(pd.concat(tables, ignore_index=True), path)
    typer.echo(path)


def _of_table(path: Path, x: str, y: str, by: str, stderr: str, out: Path | None) -> None:
    from phaselab import figures
    from phaselab.phases import fit_table

    table = read_table(path)
    try:
        fitted = fit_table(table, x, y, [name.strip() for name in by.split(",") if name.strip()], stderr)
    except PhaselabError as error:
        raise PhaselabError(f"{path}: --{error}") from error
    folder = home(out or f"{path.stem}_phases")
    write_table(fitted.moves, folder / "transitions.csv")
    axis = f"{x} (log scale)"
    figures.fitted_curves(fitted, x=axis, y=y).savefig(folder / "curves.png")
    figures.move_raster(fitted, x=axis).savefig(folder / "raster.png")
    for key, fit in fitted.fits.items():
        notes = f" ({'; '.join(fit.notes)})" if fit.notes else ""
        typer.echo(f"{', '.join(key) or path.name}: {fit.statement}{notes}")
    for name in ("transitions.csv", "curves.png", "raster.png"):
        typer.echo(folder / name)
