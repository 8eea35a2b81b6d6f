"""``phaselab encode``: features and responses of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from phaselab.cli.common import app, console, told


@app.command()
@told
def encode(
    features: Annotated[
        list[str],
        typer.Option(
            metavar="[LABEL=]PATH[:ARRAY]",
            help=".npy, .npz, .zarr or .h5: (TRs, features) for one layer, or (layers, TRs, features). "
            "Repeat it for more layers.",
        ),
    ],
    responses: Annotated[
        list[str],
        typer.Option(
            metavar="[SUBJECT=]PATH[:ARRAY]",
            help="(TRs, voxels). Repeat it for more subjects of the same stimulus.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="PATH", help="Table of scores, .parquet or .csv; a .json comes beside it."),
    ],
    runs: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help=".csv or .tsv with one row a TR (run), or one row a run (run,n_trs). Without it: one run.",
        ),
    ] = None,
    folds: Annotated[
        Literal["runs", "contiguous"] | None,
        typer.Option(
            metavar="runs|contiguous",
            help="Leave out a run, or a contiguous stretch; by default runs where --runs is given.",
        ),
    ] = None,
    n_folds: Annotated[int, typer.Option(metavar="N", min=2, help="Contiguous folds.")] = 4,
    gap: Annotated[int, typer.Option(metavar="N", min=0, help="TRs left out beside a contiguous fold.")] = 10,
    alphas: Annotated[
        tuple[float, float, int],
        typer.Option(metavar="LOW HIGH N", help="Ridge penalties: log10 of the lowest, the highest; number."),
    ] = (-12, 12, 25),
    hemodynamics: Annotated[
        Literal["none", "average", "stack"],
        typer.Option(
            metavar="none|average|stack",
            help="Features as they are, or the average or a stack of them over --delays, in each run.",
        ),
    ] = "none",
    delays: Annotated[
        str, typer.Option(metavar="N,N,...", help="TRs from stimulus to response, with commas: 2,3,4.")
    ] = "",
    trim: Annotated[int, typer.Option(metavar="N", min=0, help="TRs dropped at the start of each run.")] = 0,
    permutations: Annotated[
        int, typer.Option(metavar="N", min=0, help="Of the test of each voxel; 0: no test.")
    ] = 1000,
    block: Annotated[int, typer.Option(metavar="N", min=1, help="TRs in a permuted block.")] = 10,
    fdr: Annotated[
        float, typer.Option(metavar="SHARE", min=1e-6, max=0.999, help="False discovery rate in a layer.")
    ] = 0.05,
    rois: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help=".csv or .tsv: voxel (from 0), roi, and subject where there are several."),
    ] = None,
    ceiling: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SUBJECT=]PATH[:ARRAY]",
            help="(voxels,) noise ceiling, as a correlation; may be repeated.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the permutations.")] = 0,
    device: Annotated[str, typer.Option(help="Of the ridge regressions: cpu, cuda, cuda:N, or auto.")] = "cpu",
) -> None:
    """Score how well features of yours predict responses of yours, voxel by voxel, in held-out time.

    Ridge regression with one alpha a voxel, chosen inside the training set; Pearson r over the held-out
    TRs, mean over folds; block permutation and Benjamini-Hochberg. The table has one row a subject, layer
    and voxel.

    phaselab encode --features X.npy --responses Y.npy --runs runs.csv --out scores.parquet
    """
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

    from phaselab.encoding import job as scores
    from phaselab.encoding.arrays import ArrayError

    if not re.fullmatch("([0-9]+(,[0-9]+)*)?", delays):
        raise ArrayError(f"--delays: found {delays!r}, expected numbers of TRs with commas, as in 2,3,4")

    def say(line: str) -> None:
        console.print(escape(line), highlight=False, soft_wrap=True)

    options = scores.Options(
        features=tuple(features),
        responses=tuple(responses),
        out=out,
        runs=runs,
        rois=rois,
        ceiling=tuple(ceiling or ()),
        folds=folds,
        n_folds=n_folds,
        gap=gap,
        log10_alphas=alphas,
        permutations=permutations,
        block=block,
        fdr=fdr,
        hemodynamics=hemodynamics,
        delays=tuple(map(int, delays.split(","))) if delays else (),
        trim=trim,
        seed=seed,
        device=device,
    )

    def warn(warnings: list[str]) -> None:
        for warning in warnings:
            console.print(f"[yellow]note:[/] {escape(warning)}", highlight=False, soft_wrap=True)

    columns = (
        SpinnerColumn(),
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    try:
        job = scores.plan(options, say)
        known = len(job.warnings)
        warn(job.warnings)
        with Progress(*columns, console=console) as bars:
            bar = bars.add_task("layers", total=len(job.labels))
            table = scores.score(job, lambda done, _: bars.update(bar, completed=done))
    except KeyboardInterrupt:
        console.print("phaselab: interrupted; nothing was written")
        raise typer.Exit(130) from None
    written = scores.write(job, table)
    warn(job.warnings[known:])
    for part in scores.summary(table, fdr):
        console.print(part)
    for path in written:
        typer.echo(path)
