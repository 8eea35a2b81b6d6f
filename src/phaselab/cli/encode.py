"""``phaselab encode``: features and responses of one's own."""

from __future__ import annotations

import inspect
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from rich.markup import escape
from typer.core import TyperCommand

from phaselab.cli.common import app, console

#: How a value is written, by its type.
METAVARS = {int: "N", float: "X", Path: "PATH"}


class Late(TyperCommand):
    """A command whose options are the fields of ``EncodeJob``: made when asked for, for its module imports torch."""

    @cached_property
    def made(self) -> Any:
        """The same command with its options."""
        from phaselab.encoding.job import ARRAY, EncodeJob

        told_of_job = "YAML file with these options as its fields; what is given here counts before it."
        asked: dict[str, Any] = {"job": Annotated[Path | None, typer.Argument(metavar="JOB.yaml", help=told_of_job)]}
        # What must be given comes first; values are texts here, and EncodeJob's to understand.
        for name, field in sorted(EncodeJob.model_fields.items(), key=lambda item: not item[1].is_required()):
            title, default = field.title or "", "" if field.is_required() or field.default is None else field.default
            kind: Any = tuple[str, str, str] if name == "log10_alphas" else list[str] if ARRAY in title else str
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
            names = [EncodeJob.option(name), *["-o"] * (name == "out")]
            types = {field.annotation, *get_args(field.annotation)}
            metavar = title or "|".join(choices) or next((told for t, told in METAVARS.items() if t in types), "TEXT")
            option = typer.Option(*names, metavar=metavar, help=field.description, show_default=shown or False)
            asked[name] = Annotated[kind | None, option]
        only = inspect.Parameter.KEYWORD_ONLY
        signature = inspect.Signature(
            [inspect.Parameter(n, only, default=None, annotation=a) for n, a in asked.items()]
        )
        _run.__signature__, _run.__annotations__ = signature, asked  # type: ignore[attr-defined]
        alone = typer.Typer(add_completion=False)
        alone.command()(_run)
        return typer.main.get_command(alone)

    def get_params(self, ctx: Any) -> Any:
        """Options and argument, for the parser and the help."""
        return self.made.get_params(ctx)

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        return self.made.invoke(ctx)


@app.command(cls=Late)
def encode() -> None:
    """Score how well features of yours predict responses of yours, voxel by voxel, in held-out time.

    Ridge regression with one alpha per voxel, chosen inside the training set; Pearson r over the held-out
    TRs, mean over folds; block permutation and Benjamini-Hochberg. The table has one row per subject, layer
    and voxel. Arrays are .npy, .npz, .zarr or .h5, tables .csv or .tsv. Of items that have no order in time a
    run is a group of items: --folds groups --block 1.

    phaselab encode --features X.npy --responses Y.npy --runs runs.csv --out scores.parquet
    """


def _run(job: Path | None, **options: Any) -> None:
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    from phaselab.encoding import job as scores

    given = {name: value for name, value in options.items() if value is not None}

    def say(line: str, style: str = "") -> None:
        console.print(f"{style}{escape(line)}", highlight=False, soft_wrap=True)

    columns = SpinnerColumn(), *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn()
    try:
        found = scores.plan(scores.EncodeJob.read(job, given), say)
        known = len(found.warnings)
        for warning in found.warnings:
            say(warning, "[yellow]note:[/] ")
        with Progress(*columns, console=console) as bars:
            bar = bars.add_task("layers", total=len(found.labels))
            table = scores.score(found, lambda done, _: bars.update(bar, completed=done))
    except KeyboardInterrupt:
        console.print("phaselab: interrupted; nothing was written")
        raise typer.Exit(130) from None
    written = scores.write(found, table)
    for warning in found.warnings[known:]:
        say(warning, "[yellow]note:[/] ")
    for part in scores.summary(table, found.job.fdr):
        say(part)
    for path in written:
        typer.echo(path)
