"""The command line."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from phaselab.results import DataMissing, Store, data_folder
from phaselab.study import StudyError, embedded, load_study

if TYPE_CHECKING:
    from phaselab.checkpoints import Family

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="How language models come to resemble the brain while they train.",
)
# Without emoji, or :a: in what is printed, as in a path, would become one.
console = Console(stderr=True, emoji=False)

StudyArgument = Annotated[str, typer.Argument(help=f"A study file, or one of: {', '.join(embedded())}.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of results.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of downloaded data; by default $PHASELAB_DATA.")
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Workers; by default all cores, or one where a model is on a hub."),
]


def told(command: Callable[..., None]) -> Callable[..., None]:
    """Errors that the user can mend are told in a sentence, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        from phaselab.behaviour.files import TaskError
        from phaselab.book.lab import ParameterError
        from phaselab.checkpoints import CheckpointError
        from phaselab.encoding.arrays import ArrayError
        from phaselab.phases import TableError

        mendable = (
            StudyError,
            DataMissing,
            ArrayError,
            CheckpointError,
            ParameterError,
            TableError,
            TaskError,
            FileNotFoundError,
        )
        try:
            command(*args, **kwargs)
        except mendable as error:
            console.print(f"[red]phaselab:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            console.print("phaselab: interrupted; whole results are kept, run the same command to go on")
            raise typer.Exit(130) from None

    return wrapped


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


tasks_app = typer.Typer(no_args_is_help=True, help="Task files of lm-evaluation-harness.")
app.add_typer(tasks_app, name="tasks")


@tasks_app.command("list")
@told
def list_tasks() -> None:
    """Name the tasks that come with phaselab, and their data."""
    import yaml

    from phaselab.behaviour.files import library

    for name, path in library().items():
        source = next(e for e in path.read_text(encoding="utf-8").splitlines() if e.startswith("dataset_path"))
        typer.echo(f"{name}: {yaml.safe_load(source)['dataset_path']}")


@tasks_app.command()
@told
def validate(
    file: Annotated[Path, typer.Argument(help="A YAML file of lm-evaluation-harness.")],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="split=FILE to read in place of a hub; may be repeated."),
    ] = None,
) -> None:
    """Check a task file and all its items, and show the first."""
    from phaselab.behaviour.files import validate as check

    given = {}
    for pair in data or []:
        split, sign, path = pair.partition("=")
        if not sign:
            raise StudyError(f"--data: found {pair!r}, expected split=FILE")
        given[split] = Path(path)
    items = check(file, given)
    typer.echo(items[0].prompt)
    typer.echo(f"  options: {', '.join(items[0].options)}; right: {items[0].options[items[0].answer]}")
    typer.echo(f"{file}: {len(items)} items, all of them can be asked")


models_app = typer.Typer(no_args_is_help=True, help="Model families on the hub and their checkpoints.")
app.add_typer(models_app, name="models")


def _tokens(count: int) -> str:
    """Tokens in words: 0, 2.1 M, 4 B, 3.9 T."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


@models_app.command("list")
@told
def list_models() -> None:
    """Name the families whose training runs are public, and which of their checkpoints are known here."""
    from rich import box
    from rich.table import Column, Table

    from phaselab.checkpoints import FAMILIES, manifest

    # Two lines a family: a repository's name is what is copied from here, and 80 columns must do.
    table = Table(
        Column("family\n  repository", no_wrap=True),
        Column("checkpoints: tokens\nlicence; languages"),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="?: 'phaselab models refresh FAMILY' lists the checkpoints.",
    )
    for family in FAMILIES.values():
        path = manifest.path_of(family)
        line = manifest.listing(family).checkpoints if path else ()
        seen = f"{len(line)}: {_tokens(line[0].tokens)} to {_tokens(line[-1].tokens)}" if line else ""
        name = f"[bold]{family.name}[/]\n  {family.repository}"
        table.add_row(name, f"{seen or '?'}\n{family.licence}; {' '.join(family.languages)}")
    Console().print(table)


@models_app.command("show")
@told
def show_model(
    family: Annotated[str, typer.Argument(help="A family of 'phaselab models list', or organisation/name.")],
    checkpoints: Annotated[str, typer.Option(help="A choice to be shown, as for 'phaselab run'.")] = "log:20",
) -> None:
    """Facts of a family, what its manifest holds, and what a choice of checkpoints would take."""
    from rich.table import Table

    from phaselab.checkpoints import manifest

    row = _family(family)
    table = Table(title=row.name, show_header=False)
    facts = {
        "repository": ", ".join(row.repositories),
        "architecture": row.architecture,
        "licence": row.licence,
        "languages": " ".join(row.languages),
        "tokens from": row.tokens_from,
        "source": row.source,
        "public": "" if row.public else "not known: 'phaselab models refresh' says",
    }
    path = manifest.path_of(row)
    if path is None:
        facts["manifest"] = f"none yet: 'phaselab models refresh {family}' asks the hub"
    else:
        known = manifest.listing(row)
        pinned = sum(bool(c.commit) for c in known.checkpoints)
        facts |= {
            "manifest": str(path),
            "checkpoints": f"{len(known.checkpoints)}, {pinned} of them with their commit",
            "branches, by name alone": ", ".join(c.revision for c in known.branches),
            "second names": ", ".join(r.revision for r in known.doubles),
            "tokens not known": ", ".join(r.revision for r in known.uncounted),
            "other names": ", ".join(r.revision for r in known.strange),
        }
        if known.checkpoints:
            taken = known.choose(checkpoints)
            facts[f"--checkpoints {checkpoints}"] = ", ".join(f"{c.revision} ({_tokens(c.tokens)})" for c in taken)
    for name, fact in facts.items():
        if fact:
            table.add_row(name, escape(fact))
    Console().print(table)


@models_app.command("refresh")
@told
def refresh_model(
    family: Annotated[str, typer.Argument(help="A family of 'phaselab models list', or organisation/name.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File; by default in $PHASELAB_MANIFESTS, else in phaselab/manifests of $HF_HOME.",
        ),
    ] = None,
) -> None:
    """Ask the hub for the checkpoints of a family and write its manifest, which is used from then on."""
    from phaselab.checkpoints import manifest

    typer.echo(
        manifest.refresh(_family(family), out, lambda line: console.print(line, highlight=False, soft_wrap=True))
    )


@models_app.command("fetch")
@told
def fetch_model(
    family: Annotated[str, typer.Argument(help="A family of 'phaselab models list', or organisation/name.")],
    checkpoints: Annotated[str, typer.Option(help="Which, as for 'phaselab run'.")],
) -> None:
    """Download checkpoints beforehand, for a machine without a network, and print their folders.

    There, HF_HUB_OFFLINE=1 says that what is in the cache is all there is.
    """
    from phaselab.checkpoints import chosen, hub

    for checkpoint in chosen(_family(family), checkpoints):
        typer.echo(hub.fetch(checkpoint, say=lambda line: console.print(line, highlight=False, soft_wrap=True)))


def _family(name: str) -> Family:
    from phaselab.checkpoints import find, of_repository

    return of_repository(name) if "/" in name else find(name)


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


if __name__ == "__main__":
    app()
