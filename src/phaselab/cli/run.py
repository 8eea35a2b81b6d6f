"""Commands on a study: run, train, notebook, book, doctor."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from phaselab.cli.common import DataOption, JobsOption, ResultsOption, StudyArgument, app, console, told
from phaselab.results import Store, data_folder
from phaselab.study import StudyError, load_study


def _sweep(
    study: str,
    results: Path,
    data: Path | None,
    models: list[str],
    chosen: str | None,
    jobs: int | None,
    **options: Any,
) -> None:
    from phaselab.sweep import pool as sweep

    loaded, folder = load_study(study), data_folder(data)
    outcome = sweep.run(loaded, Store(results), folder, tuple(models), chosen, jobs, console, **options)
    console.print(sweep.summary(loaded, outcome))
    for unit, why in outcome.failures.items():
        console.print(f"[red]failed[/] {unit}: {escape(why)}", highlight=False, soft_wrap=True)
    if outcome.failures:
        raise typer.Exit(1)


@app.command()
@told
def run(
    study: StudyArgument,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only this model; may be repeated.")] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            help="Other checkpoints than the study's: all, log:20, every:3, each also with a range of tokens "
            "(log:20@1B-1T), or revisions with commas."
        ),
    ] = None,
    keep_downloads: Annotated[
        Literal["yes", "no"],
        typer.Option(help="no: remove each checkpoint of a hub from the cache when its unit is done."),
    ] = "yes",
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    jobs: JobsOption = None,
    device: Annotated[str, typer.Option(help="Where checkpoints are read: cpu, cuda, cuda:N, or auto.")] = "cpu",
    keep_features: Annotated[
        bool,
        typer.Option("--keep-features", help="Write the hidden states of each checkpoint (Zarr) as well."),
    ] = False,
) -> None:
    """Make all results of a study that are missing: models, units, controls, the curves table."""
    _sweep(
        study,
        results,
        data,
        model or [],
        checkpoints,
        jobs,
        keep_downloads=keep_downloads == "yes",
        device=device,
        keep_features=keep_features,
    )


@app.command()
@told
def train(
    study: StudyArgument,
    model: Annotated[str, typer.Option("--model", "-m", help="A model of the study; empty: the first.")] = "",
    results: ResultsOption = Path("results"),
    data: DataOption = None,
) -> None:
    """Train one model of a study and print where its checkpoints lie."""
    from rich.progress import Progress

    from phaselab.sweep.unit import Workbench

    loaded = load_study(study)
    chosen = loaded.model(model)
    with Progress(console=console) as bars:
        bar = bars.add_task(f"train {chosen.name}", total=None)
        folder = Workbench(loaded, Store(results), data_folder(data)).folder(
            chosen, lambda done, total: bars.update(bar, completed=done, total=total)
        )
    typer.echo(folder)


@app.command()
@told
def notebook(
    source: Annotated[Path, typer.Argument(help="A notebook: notebooks/NN_name.md, or an .ipynb.")],
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", help="name=value; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Executed copy; by default results/notebooks/NAME.ipynb."),
    ] = None,
) -> None:
    """Run one notebook with parameters; what it needs and is not there is computed on the way."""
    from phaselab.book import lab as notebooks

    given = {}
    for pair in parameter or []:
        name, sign, value = pair.partition("=")
        if not sign:
            raise notebooks.ParameterError(f"--parameter: found {pair!r}, expected name=value")
        given[name] = value
    to = output or Path("results", "notebooks", f"{source.stem}.ipynb")
    notebooks.kernel_environment()
    notebooks.execute(source, to, given)
    typer.echo(to)


@app.command()
@told
def book(
    study: StudyArgument = "demo",
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    jobs: JobsOption = None,
    student: Annotated[bool, typer.Option("--student", help="Leave the solutions of exercises out.")] = False,
    root: Annotated[Path, typer.Option(help="Checkout that holds _toc.yml and notebooks/.")] = Path("."),
) -> None:
    """Make the results of a study, execute the notebooks and build the book."""
    from rich.progress import Progress

    from phaselab.book import pages
    from phaselab.sweep.pool import cores

    if not (root / "_toc.yml").is_file():
        raise StudyError(f"--root: found no _toc.yml in {root.resolve()}, expected a checkout of phaselab")
    _sweep(study, results, data, [], None, jobs)
    loaded, store, folder = load_study(study), Store(results), data_folder(data)
    failed = []
    with Progress(console=console) as bars:
        done = pages.execute_pages(loaded, study, root / "notebooks", store, folder, jobs or cores(), bars)
        for name, outcome in done:
            if isinstance(outcome, Exception):
                failed.append(name)
                console.print(f"[red]failed[/] {name}: {escape(str(outcome))}", highlight=False, soft_wrap=True)
            elif outcome:
                console.print(f"executed {name}")
    if failed:
        raise typer.Exit(1)
    pages.place_pages(loaded, store, root)
    home = pages.build(root.resolve(), "student" if student else "teacher")
    typer.echo(f"The book: {home.as_uri()}")


@app.command()
@told
def doctor(data: DataOption = None) -> None:
    """Say what of this machine a study would use, and which data are there."""
    import importlib.metadata as metadata
    import platform

    import torch
    from rich.table import Table

    from phaselab.sweep.pool import cores

    table = Table(title="phaselab doctor", show_header=False)
    table.add_row("python", f"{platform.python_version()} ({sys.executable})")
    table.add_row("machine", f"{platform.system()} {platform.machine()}, {cores()} cores")
    table.add_row("accelerator", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none: CPU")
    for name in ("phaselab", "torch", "transformers", "himalaya", "lm_eval", "nilearn", "jupyter-book"):
        table.add_row(name, metadata.version(name))
    folder = data_folder(data)
    table.add_row("data", str(folder or "no --data and no PHASELAB_DATA"))
    for part in ("alice2016", "books"):
        there = folder is not None and (folder / part).is_dir()
        table.add_row(f"  {part}", "there" if there else "not there (needed by alice-small alone)")
    table.add_row("HF_HOME", os.environ.get("HF_HOME", "not set"))
    Console().print(table)
