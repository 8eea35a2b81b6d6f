"""``phaselab encode``: features and responses of one's own."""

from __future__ import annotations

import inspect
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from rich.markup import escape
from typer.core import TyperCommand

from phaselab.cli.common import app, console, told

#: How a value is written on the command line, by the type of its field.
METAVARS = {int: "N", float: "X", Path: "PATH"}


class Late(TyperCommand):
    """A command whose options are the fields of ``EncodeJob``: made when asked for, for its module imports torch."""

    @cached_property
    def made(self) -> Any:
        from phaselab.encoding.job import EncodeJob

        help_of_job = "YAML file with these options as its fields; what is given here goes before it."
        annotations: dict[str, Any] = {
            "job": Annotated[Path | None, typer.Argument(metavar="[JOB.yaml]", help=help_of_job)]
        }
        for name, field in EncodeJob.model_fields.items():
            kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
            many = get_origin(field.annotation) is tuple and field.title is not None
            kind: Any = tuple[str, str, str] if len(kinds) == 3 and many else list[str] if kinds[0:1] == [str] else str
            written = field.title or METAVARS.get(kinds[0] if kinds else field.annotation) or "|".join(map(str, kinds))  # type: ignore[arg-type]
            default = " ".join(map(str, d)) if isinstance(d := field.default, tuple) else str(d)
            option = typer.Option(
                EncodeJob.option(name),
                *(["-o"] if name == "out" else []),
                metavar=written or "TEXT",
                help=field.description,
                show_default=default if default and d is not None and not field.is_required() else False,
            )
            annotations[name] = Annotated[kind | None, option]
        run = told(lambda job, **options: _run(job, {k: v for k, v in options.items() if v is not None}))
        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in annotations.items()
        ]
        run.__signature__, run.__annotations__ = inspect.Signature(parameters), annotations  # type: ignore[attr-defined]
        alone = typer.Typer(add_completion=False)
        alone.command()(run)
        return typer.main.get_command(alone)

    def get_params(self, ctx: Any) -> Any:
        return self.made.get_params(ctx)

    def invoke(self, ctx: Any) -> Any:
        return self.made.invoke(ctx)


@app.command(cls=Late)
def encode() -> None:
    """Score how well features of yours predict responses of yours, voxel by voxel, in held-out time.

    Ridge regression with one alpha a voxel, chosen inside the training set; Pearson r over the held-out
    TRs, mean over folds; block permutation and Benjamini-Hochberg. The table has one row a subject, layer
    and voxel.

    phaselab encode --features X.npy --responses Y.npy --runs runs.csv --out scores.parquet
    """


def _run(path: Path | None, options: dict[str, Any]) -> None:
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    from phaselab.encoding import job as scores

    def say(line: str, style: str = "") -> None:
        console.print(f"{style}{escape(line)}", highlight=False, soft_wrap=True)

    columns = SpinnerColumn(), *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn()
    try:
        found = scores.plan(scores.EncodeJob.read(path, options), say)
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
        console.print(part)
    for path in written:
        typer.echo(path)
