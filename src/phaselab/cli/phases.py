"""``phaselab phases``: transitions of any learning curves, or the three phases of a study."""

import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from phaselab.cli.common import DataOption, ResultsOption, app
from phaselab.errors import PhaselabError, expect
from phaselab.files import home
from phaselab.results import TABLES, Store, read_table, write_json, write_table
from phaselab.study import OF_TABLES, StudyError, load_study


@app.command()
def phases(
    source: Annotated[
        str, typer.Argument(help="A table (.csv, .tsv, .parquet) of curves, a row per checkpoint; or a study.")
    ],
    x: Annotated[
        str, typer.Option("--axis", "--x", help="Table: column of training tokens or steps; by default tokens.")
    ] = "",
    y: Annotated[str, typer.Option(help="Table: column of the measure; by default value.")] = "",
    by: Annotated[str, typer.Option(help="Table: columns that name a curve, with commas; none: it is one curve.")] = "",
    stderr: Annotated[str, typer.Option(help="Table: column of the measure's standard error.")] = "",
    replicates: Annotated[str, typer.Option(help="Table: column of the seeds or subjects of one curve.")] = "",
    min_effect: Annotated[float, typer.Option(min=0, help="Table: the smallest rise or fall that counts.")] = 0.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write what was found to this file.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Table: folder; by default NAME_phases.")] = None,
    results: ResultsOption = Path("results"),
    data: DataOption = None,
) -> None:
    """Find the transitions of any learning curves; or test the three phases of a study's models.

    From a table: transitions.csv (a row a rise or fall), curves.png and raster.png. From a study:
    phases.parquet beside its results.
    """
    columns = {"--axis": x, "--y": y, "--by": by, "--stderr": stderr, "--replicates": replicates}
    if Path(source).suffix.lower() in TABLES:
        found = _of_table(home(source), columns, min_effect, out)
    else:
        from phaselab.book.lab import Lab
        from phaselab.book.published import PublishedLab

        given = ", ".join(name for name, of in {**columns, "--min-effect": min_effect, "--out": out}.items() if of)
        expect(not given, source, given, f"them with a table ({', '.join(TABLES)}) alone", StudyError)
        study, store = load_study(source), Store(results)
        lab, tables = (PublishedLab if source.startswith(OF_TABLES) else Lab)(study, store, data), []
        for name in (*lab.models, *lab.seeds):
            verdict = lab.phases(name)
            tables.append(verdict.table.assign(study=study.name))
            typer.echo(verdict.statement + (f" ({'; '.join(verdict.notes)})" if verdict.notes else ""))
        table, path = pd.concat(tables, ignore_index=True), store.study(study.name) / "phases.parquet"
        write_table(table, path)
        typer.echo(path)
        found = {"study": study.name, "rule": study.phases.model_dump(mode="json"), "phases": table}
    if json_file:  # tables as lists of rows, NaN as null
        frames = {name: of for name, of in found.items() if isinstance(of, pd.DataFrame)}
        write_json(found | {name: json.loads(of.to_json(orient="records")) for name, of in frames.items()}, json_file)
        typer.echo(json_file)


def _of_table(path: Path, columns: dict[str, str], min_effect: float, out: Path | None) -> dict[str, Any]:
    from phaselab import figures
    from phaselab.phases import fit_table

    table, x, y = read_table(path), columns["--axis"] or "tokens", columns["--y"] or "value"
    by = [name.strip() for name in columns["--by"].split(",") if name.strip()]
    try:
        fitted = fit_table(table, x, y, by, columns["--stderr"], columns["--replicates"], min_effect)
    except PhaselabError as error:
        raise PhaselabError(f"{path}: --{str(error).replace('x: ', 'axis: ', 1)}") from error
    folder = home(out or f"{path.stem}_phases")
    write_table(fitted.moves, folder / "transitions.csv")
    made, axis = ["transitions.csv"], f"{x.replace('_', ' ')} (log scale)"
    seen: dict[str, Any] = {"x": axis, "y": y.replace("_", " "), "over": columns["--replicates"]}
    for number, part in enumerate(fitted.parts(), start=1):
        page = f"-{number}" if len(fitted.fits) > len(part.fits) else ""
        drawn = {"curves": figures.fitted_curves(part, **seen), "raster": figures.move_raster(part, x=axis)}
        for name, figure in drawn.items():
            figure.savefig(folder / f"{name}{page}.png")
            made.append(f"{name}{page}.png")
    statements = {", ".join(key) or path.name: fitted.said(key) for key in fitted.fits}
    for line in (*map(": ".join, statements.items()), *(folder / name for name in made)):
        typer.echo(line)
    return {"table": path.name, "statements": statements, "moves": fitted.moves}
