"""``phaselab encode``: features and responses of one's own."""

from __future__ import annotations

from typing import Any

import typer

from phaselab.cli.common import JobArgument, console, options_of, say
from phaselab.encode_options import EncodeJob
from phaselab.study import read_section

_WRITTEN = {"delays": "N,N,...", "log10_alphas": "LOW HIGH N"}
_WRITTEN |= dict.fromkeys(("features", "responses", "ceiling"), "[NAME=]PATH[:ARRAY]")


@options_of(EncodeJob, _WRITTEN, {"delays": str, "log10_alphas": tuple[float, float, int]})
def encode(job: JobArgument = None, **options: Any) -> None:
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

    asked = read_section(job, EncodeJob, **{name: value for name, value in options.items() if value is not None})
    bars = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True)
    with bars, one_thread(choose_device(asked.device), asked.threads):
        bar = bars.add_task("layers", total=None)
        written = run(asked, say, lambda done, of: bars.update(bar, completed=done, total=of))
    for path in written:
        typer.echo(path)
