"""Commands on a study: publish, compare, run, status, plan, train, notebook, book; and doctor."""

import contextlib
import json
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import Progress
from rich.table import Column, Table

from phaselab.cli.common import DataOption, JobsOption, ResultsOption, StudyArgument, app, console, facts, out, pairs
from phaselab.errors import PhaselabError, escape, expect, number_of
from phaselab.files import home
from phaselab.results import Store, amount, folders, write_json
from phaselab.study import PUBLISHED, Study, load_study

_DEVICE = "Where checkpoints are read and ridges solved: cpu, cuda, cuda:N, or auto."
DeviceOption = Annotated[str, typer.Option(help=_DEVICE)]
RootOption = Annotated[Path, typer.Option(help="Checkout; else sources are put into phaselab-book there.")]
PublishedOption = Annotated[Path, typer.Option(help="Folder of published studies.")]
_CHOICE = "Instead of the study's: all, log:20, every:3, each also in a range (log:20@1B-1T), or revisions with commas."
_COPY = "Executed copy; by default results/notebooks/NAME.ipynb."
_KEEP = "no: remove each checkpoint of a hub from the cache when its stages are done."
_FRESH = "Make the results of this stage anew; may be repeated; or 'all'."


def _sweep(study: Study, results: Path, data: Path | None, **options: Any) -> bool:
    """Make results, say what failed, and whether all of them could be made."""
    from phaselab.sweep import pool

    outcome = pool.run(study, Store(results), data, console=console, **options)
    console.print(facts(f"study {study.name}", outcome.summary(study)))
    for unit, why in outcome.failures.items():
        console.print(f"[red]failed[/] {unit}: {escape(why)}", highlight=False, soft_wrap=True)
    return not outcome.failures


def _show(planned: dict[str, Any]) -> None:
    """Print the table of a plan and its sums."""
    from phaselab.sweep.plan import COUNTS, SUMS

    def said(name: str, of: Any) -> str:
        """NaN is what is not known."""
        if of != of or isinstance(of, str):
            return "?" if of != of else of
        return f"{amount(of, 'kMGT')}B" if "bytes" in name else amount(of)

    shown = planned["rows"][[*COUNTS, *SUMS]].apply(lambda column: [said(column.name, of) for of in column])
    typer.echo(f"{shown.to_string(index=False)}\n\n?: not known (of hours: not measured). In all, without these:")
    for name, of in planned["sums"].items():
        typer.echo(f"  {name}: {said(name, of)}")


@app.command()
def publish(
    study: StudyArgument,
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    folder: PublishedOption = PUBLISHED,
) -> None:
    """Write the small tables of a study's results that a book shows without making them again."""
    from phaselab.book.lab import Lab
    from phaselab.book.published import publish

    typer.echo(publish(Lab(load_study(study), Store(results), data), folder))


@app.command()
def compare(
    study: StudyArgument,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only this model; may be repeated.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Make this checkpoint if it is not here, and compare it alone.")] = "",
    within: Annotated[float, typer.Option(min=0, help="The largest difference that passes.")] = 0.01,
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    folder: PublishedOption = PUBLISHED,
) -> None:
    """Say how far results are from the published ones; exit code 1 where one is further than --within."""
    from phaselab.book.published import compare
    from phaselab.cli.common import say
    from phaselab.stages import Workbench

    found = compare(Workbench(load_study(study), Store(results), data, say=say), model or (), checkpoint, folder)
    table = Table(*(Column(name, overflow="fold") for name in found.columns))
    for row in found.itertuples(index=False):
        table.add_row(*(f"{value:.2g}" if isinstance(value, float) else str(value) for value in row))
    out.print(table)
    worst = float(found["largest difference"].max())
    expect(worst <= within, study, f"a largest difference of {worst:.2g}", f"at most {within:g}")


@app.command()
def run(
    study: StudyArgument,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only this model; may be repeated.")] = None,
    checkpoints: Annotated[str | None, typer.Option(help=_CHOICE)] = None,
    keep_downloads: Annotated[Literal["yes", "no"], typer.Option(help=_KEEP)] = "yes",
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    jobs: JobsOption = None,
    device: DeviceOption = "cpu",
    keep_features: Annotated[bool, typer.Option("--keep-features", help="Also write hidden states (Zarr).")] = False,
    fresh: Annotated[list[str] | None, typer.Option("--fresh", metavar="STAGE", help=_FRESH)] = None,
) -> None:
    """Make all results of a study that are missing or stale: models, stages of each checkpoint, the curves table."""
    from phaselab.stages import STAGES

    expect(checkpoints != "", "--checkpoints", "nothing", "a choice, as log:20, or revisions")
    what: dict[str, Any] = {"models": tuple(model or ()), "checkpoints": checkpoints, "jobs": jobs, "device": device}
    what |= {"keep_downloads": keep_downloads == "yes", "keep_features": keep_features}
    anew = STAGES if "all" in (fresh or ()) else fresh or ()
    if not _sweep(load_study(study), results, data, fresh=frozenset(anew), **what):
        raise typer.Exit(1)


@app.command()
def sweep(
    study: StudyArgument,
    more: Annotated[list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="For Snakemake.")] = None,
    profile: Annotated[str, typer.Option(help="local, slurm, or a folder with a profile of Snakemake's.")] = "local",
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Jobs at once; else one a core.")] = None,
    until: Annotated[Literal["units", "curves", "phases", "notebooks", "book"], typer.Option()] = "book",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is to do, and how.")] = False,
    keep_downloads: Annotated[Literal["yes", "no"], typer.Option(help=_KEEP)] = "yes",
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    device: DeviceOption = "cpu",
    root: RootOption = Path("."),
) -> None:
    """Make what ``run``, ``phases`` and ``book`` make, as jobs of Snakemake, here or on a cluster; say first what."""
    from phaselab.book import runner
    from phaselab.stages import Workbench, check
    from phaselab.sweep import cluster, pool
    from phaselab.sweep.plan import plan

    loaded = load_study(study)
    # Whether there is such a one is for the machines of the jobs to say.
    expect(re.fullmatch(r"auto|cpu|cuda(:\d+)?", device), "--device", repr(device), "auto, cpu, cuda or cuda:N")
    # As it was typed, where it was typed: an executed page has it in it.
    config: dict[str, Any] = {"study": study, "results": str(results), "data": str(data or ""), "root": str(root)}
    config |= {"device": device, "keep": keep_downloads, "folder": str(Path.cwd()), "python": sys.executable}
    paged = until in ("notebooks", "book")
    pages = runner.pages(loaded, runner.sources(home(root).resolve()) / "notebooks", {}) if paged else ()
    with pool.View(console) as view:
        bench = Workbench(loaded, Store(results), data, view.say)
        check(bench, loaded.models)
        _show(planned := plan(bench, study))
        models = cluster.survey(bench, planned["rows"], device)
        config |= {"models": models, "pages": [*pages], "until": until, "jobs": jobs or pool.cores()}
        cluster.run(bench, config, profile, [*(more or ()), *["--dry-run"] * dry_run], view)


@app.command()
def status(study: StudyArgument, results: ResultsOption = Path("results"), data: DataOption = None) -> None:
    """Say of each stage of a study what is current, stale and why, missing, damaged, or made by other code."""
    from phaselab.stages import Workbench, check
    from phaselab.sweep.states import STATES, status

    bench = Workbench(load_study(study), Store(results), data, say=console.print)
    found = status(bench)
    for model, own in found.groupby("model", sort=False):
        # Names and reasons must not be cut off as in columns: they stand above and below the table, without what is 0.
        names, whys = [name for name in STATES[1:-1] if own[name].any()], []
        table = Table(*names, title=escape(str(model)), title_justify="left")
        for row in own.to_dict("records"):
            table.add_row(*(str(row[name] or "") for name in names))
            whys += [escape(f"\n  {row['stage'] or 'model'}: {row['why']}")] if row["why"] else []
        out.print(table, *whys, sep="", highlight=False, soft_wrap=True)
    for unit, why in check(bench, bench.study.models).items():
        console.print(f"[red]cannot be made:[/] {unit}: {escape(why)}", highlight=False, soft_wrap=True)


@app.command()
def plan(
    study: StudyArgument,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all of it to this file.")] = None,
    results: ResultsOption = Path("results"),
    data: DataOption = None,
) -> None:
    """Say what a study fetches, keeps and takes, stage by stage, and what to type; it asks and starts nothing."""
    from phaselab.stages import Workbench
    from phaselab.sweep.plan import plan

    found = plan(Workbench(load_study(study), Store(results), data), study)
    _show(found)
    for heading in ("rates", "next"):
        typer.echo("\n  ".join([f"{heading}:", *found[heading]]))
    if not data and any("--data DATA" in line for line in found["next"]):
        typer.echo("DATA: the folder in which data sets lie, or will; neither --data nor PHASELAB_DATA names one")
    if json_file:
        tables = {"rows": found["rows"].to_json(orient="records"), "sums": found["sums"].to_json()}  # NaN as null
        write_json(found | {name: json.loads(of) for name, of in tables.items()}, json_file)
        typer.echo(json_file)


@app.command()
def train(
    study: StudyArgument,
    model: Annotated[str, typer.Option("--model", "-m", help="A model of the study; empty: the first.")] = "",
    results: ResultsOption = Path("results"),
    data: DataOption = None,
) -> None:
    """Train one model of a study and print where its checkpoints lie."""
    from phaselab.stages import Workbench

    loaded = load_study(study)
    chosen = loaded.model(model)
    with Progress(console=console) as bars:
        bar = bars.add_task(f"train {chosen.name}", total=None)
        bench = Workbench(loaded, Store(results), data)
        folder = bench.folder(chosen, lambda done, total: bars.update(bar, completed=done, total=total))
    typer.echo(folder)


@app.command()
def notebook(
    source: Annotated[Path, typer.Argument(help="A notebook: notebooks/NN_name.md, or an .ipynb.")],
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="name=value; repeatable.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help=_COPY)] = None,
    device: Annotated[str, typer.Option(help="The notebook's parameter 'device': cpu, cuda, cuda:N, or auto.")] = "",
) -> None:
    """Run one notebook with parameters; what it needs and is not there is computed on the way."""
    from papermill import PapermillExecutionError

    from phaselab.book import runner

    given = pairs("--parameter", parameter, "name=value") | ({"device": device} if device else {})
    to = output or Path("results", "notebooks", f"{source.stem}.ipynb")
    try:
        runner.execute(source, to, given)
    except PapermillExecutionError as error:
        said = runner.of_cell(error)
        raise PhaselabError(f"{source}: {said}; {to.with_suffix('.failed.ipynb')} is the copy up to there") from error
    typer.echo(to)


@app.command()
def book(
    study: StudyArgument = "demo",
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    jobs: JobsOption = None,
    student: Annotated[bool, typer.Option("--student", help="Leave the solutions of exercises out.")] = False,
    root: RootOption = Path("."),
    device: DeviceOption = "cpu",
    page: Annotated[list[str] | None, typer.Option(help="Only execute this page, NAME.ipynb; repeatable.")] = None,
) -> None:
    """Make the results of a study, execute the notebooks and build the book.

    What cannot be made does not stop the rest: its page says why, and the exit code is 1.
    """
    from phaselab.book import runner
    from phaselab.checkpoints.manifest import without_absent
    from phaselab.sweep.pool import cores

    loaded = without_absent(load_study(study), console.print, ask=True)
    root = runner.sources(home(root).resolve())
    # As seen from the root, where pages find their tables.
    paths = {"study": study if home(study).is_file() else "", "results": str(results), "data": str(data or "")}
    given = {k: os.path.relpath(p, root) if p and not home(p).is_absolute() else p for k, p in paths.items()}
    given |= {"study": given["study"] or study, "device": device}
    store = Store(Path(given["results"]))
    whole = bool(page) or _sweep(loaded, results, data, jobs=jobs, device=device)
    some = whole or folders(store.study(loaded.name))
    expect(some, f"{loaded.where}: models", "no result of any of them", "some for a book: above is what failed")
    with contextlib.chdir(root):
        failed = runner.execute_pages(loaded, root / "notebooks", store, given, jobs or cores(), console, page or ())
        if page:
            raise typer.Exit(int(bool(failed)))
        runner.place_pages(loaded, store, root, given, failed)
    typer.echo(f"The book: {runner.build(root, student, strict=not failed).as_uri()}")
    said = [f"{name}: the page says why, and how to run it alone" for name in failed]
    said += ["some results, as told above; phaselab status tells it again"] * (not whole)
    for line in said:
        console.print(f"[red]failed[/] {line}", highlight=False, soft_wrap=True)
    raise typer.Exit(int(bool(said)))


@app.command()
def doctor(
    study: Annotated[str, typer.Argument(help="A study whose results are looked through; empty: the machine.")] = "",
    results: ResultsOption = Path("results"),
    data: DataOption = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is damaged or stale, and just that.")] = False,
) -> None:
    """Say what of this machine a study would use, and which data are there; of a study what is damaged or stale."""
    if study:
        from phaselab.stages import Workbench
        from phaselab.sweep import states

        bench, left = Workbench(load_study(study), Store(results), data), 0
        for path, state in (states.repair if repair else states.faults)(bench):
            left += (there := path.exists())
            said = f"{state.kind if there else 'removed'}: {path}\n  {state.why}"
            out.print(escape(said), highlight=False, soft_wrap=True)
        right = f"to make what is missing: phaselab run {study}, and for pages phaselab book {study}"
        said = f"{study}: {number_of(left, 'result is', 'results are')} damaged or stale; {right}"
        out.print(said, markup=False, soft_wrap=True)
        raise typer.Exit(int(left > 0))
    import torch

    from phaselab.data import SETS
    from phaselab.sweep.pool import cores

    rows = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "machine": f"{platform.system()} {platform.machine()}, {number_of(cores(), 'core')}",
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none: CPU",
    }
    for name in ("phaselab", "torch", "transformers", "himalaya", "lm_eval", "nilearn", "jupyter-book"):
        try:
            rows[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            rows[name] = "not installed"
    data = home(data) if data else None
    rows["data"] = str(data or "no --data and no PHASELAB_DATA")
    rows |= {f"  {name}": "there" if data and (data / name).is_dir() else "not there" for name in SETS}
    rows["HF_HOME"] = os.environ.get("HF_HOME", "not set")
    out.print(facts("phaselab doctor", rows))
