"""``phaselab phases``: transitions of any learning curves, or the three phases of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phaselab.cli.common import DataOption, ResultsOption, app, told
from phaselab.results import Store, data_folder
from phaselab.study import StudyError, load_study


@app.command()
@told
def phases(
    source: Annotated[
        str,
        typer.Argument(help="A table of learning curves (.csv, .tsv, .parquet) with --x and --y; or a study."),
    ],
    x: Annotated[str, typer.Option(help="Table: column of training tokens or steps.")] = "",
    y: Annotated[str, typer.Option(help="Table: column of the measure.")] = "",
    by: Annotated[str, typer.Option(help="Table: columns that name a curve, with commas; none: it is one curve.")] = "",
    stderr: Annotated[str, typer.Option(help="Table: column of the measure's standard error.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Table: folder to write to; by default NAME_phases.")
    ] = None,
    results: ResultsOption = Path("results"),
    data: DataOption = None,
) -> None:
    """Find the transitions of any learning curves; or test the three phases of a study's models.

    From a table: transitions.csv (a row a rise or fall), curves.png and raster.png. From a study:
    phases.parquet beside its results.
    """
    if Path(source).suffix.lower() in TABLES:
        _phases_of_table(Path(source), x, y, by, stderr, out)
        return
    options = {"--x": x, "--y": y, "--by": by, "--stderr": stderr, "--out": out}
    given = [name for name, value in options.items() if value]
    if given:
        raise StudyError(f"{source}: found {', '.join(given)}, expected them with a table ({', '.join(TABLES)}) alone")
    _phases_of_study(source, results, data)


#: What `phases` reads as a table of curves, by the file's ending; anything else is a study.
TABLES = (".csv", ".tsv", ".parquet")


def _phases_of_table(path: Path, x: str, y: str, by: str, stderr: str, out: Path | None) -> None:
    import pandas as pd

    from phaselab import figures
    from phaselab.phases import TableError, fit_table

    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there, expected a table of learning curves")
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, sep="," if path.suffix.lower() == ".csv" else "\t")
    except (ValueError, OSError) as error:
        raise TableError(f"{path}: found no table that can be read ({error})") from error
    columns = ", ".join(map(str, table.columns))
    for option, column in (("--x", x), ("--y", y)):
        if not column:
            raise TableError(f"{option}: found nothing, expected a column of {path}: {columns}")
    keys = [name.strip() for name in by.split(",") if name.strip()]
    try:
        fitted = fit_table(table, x, y, keys, stderr)
    except TableError as error:
        raise TableError(f"{path}: --{error}") from error
    folder = out or Path(f"{path.stem}_phases")
    folder.mkdir(parents=True, exist_ok=True)
    fitted.moves.to_csv(folder / "transitions.csv", index=False)
    axis = f"{x} (log scale)"
    figures.fitted_curves(fitted, x=axis, y=y).savefig(folder / "curves.png")
    figures.move_raster(fitted, x=axis).savefig(folder / "raster.png")
    for key, fit in fitted.fits.items():
        notes = f" ({'; '.join(fit.notes)})" if fit.notes else ""
        typer.echo(f"{', '.join(key) or path.name}: {fit.statement}{notes}")
    for name in ("transitions.csv", "curves.png", "raster.png"):
        typer.echo(folder / name)


def _phases_of_study(study: str, results: Path, data: Path | None) -> None:
    import pandas as pd

    from phaselab.book.lab import Lab
    from phaselab.results import write_table

    loaded = load_study(study)
    lab = Lab(loaded, Store(results), data_folder(data))
    tables = []
    for name in lab.models:
        verdict = lab.phases(name)
        tables.append(verdict.table.assign(study=loaded.name, model=name))
        typer.echo(f"{name}: {verdict.statement}")
    path = lab.store.study(loaded.name) / "phases.parquet"
    write_table(pd.concat(tables, ignore_index=True), path)
    typer.echo(path)
