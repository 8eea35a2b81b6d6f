"""``phaselab encode``: features and responses of one's own."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from phaselab.cli.common import app, console
from phaselab.encode_options import EncodeJob
from phaselab.study import read_section

_job = typer.Argument(metavar="JOB.yaml", help="YAML file of these options; what is given here counts before it.")
#: Field -> how it is written, where the type does not say it.
_WRITTEN = {"delays": "N,N,...", "log10_alphas": "LOW HIGH N"}
_WRITTEN |= dict.fromkeys(("features", "responses", "ceiling"), "[NAME=]PATH[:ARRAY]")


def encode(job: Annotated[Path | None, _job] = None, **options: Any) -> None:
    """Score how well features of yours predict responses of yours, voxel by voxel, in held-out time.

    Ridge regression with one alpha per voxel, chosen inside the training set; Pearson r over the held-out
    TRs, mean over folds weighted by length; block permutation and Benjamini-Hochberg. The table has one row
    per subject, layer and voxel. Arrays are .npy, .npz, .zarr or .h5, tables .csv or .tsv. --independent: rows
    are items without an order in time (sentences); folds are shuffled, or whole groups of items as runs.

    phaselab encode --features X.npy --responses Y.npy --runs runs.csv --out scores.parquet
    """
    from rich.progress import MofNCompleteColumn, Progress

    from phaselab.encoding.job import run
    from phaselab.stages import choose_device, one_thread

    def say(line: str) -> None:
        console.print(escape(line), highlight=False, soft_wrap=True)

    asked = read_section(job, EncodeJob, **{name: value for name, value in options.items() if value is not None})
    bars = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True)
    with bars, one_thread(choose_device(asked.device), asked.threads):
        bar = bars.add_task("layers", total=None)
        written = run(asked, say, lambda done, of: bars.update(bar, completed=done, total=of))
    for path in written:
        typer.echo(path)


def _option(name: str) -> inspect.Parameter:
    """A field of ``EncodeJob`` as an option, whose default is told but not given: a job file may say it."""
    field = EncodeJob.model_fields[name]
    kind: Any = {"delays": str, "log10_alphas": tuple[float, float, int]}.get(name, field.annotation)
    default = "" if field.is_required() or field.default in ((), None) else str(field.default).strip("()")
    names = ["--" + name.removeprefix("log10_").replace("_", "-"), *["-o"] * (name == "out")]
    option = typer.Option(*names, metavar=_WRITTEN.get(name), help=field.description, show_default=default or False)
    annotation: Any = Annotated[list[str] if kind == tuple[str, ...] else kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


# What must be given comes first.
_names = sorted(EncodeJob.model_fields, key=lambda name: not EncodeJob.model_fields[name].is_required())
_parameters = [inspect.signature(encode, eval_str=True).parameters["job"], *map(_option, _names)]
encode.__signature__ = inspect.Signature(_parameters)  # type: ignore[attr-defined]
app.command()(encode)
